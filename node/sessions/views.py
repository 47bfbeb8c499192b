"""Where a watched session is shown: drawn in place in a terminal, in plain lines, or as the stream's JSON."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Protocol, Self, TextIO

from cotrain.display import PLAIN_INTERVAL_S, bar_and_rows
from cotrain.sse import ServerEvent
from node.sessions.watched import Watched

if TYPE_CHECKING:
    from rich.console import Console


class SessionView(Protocol):
    """Where events and notices go. Used as a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def show(self, event: ServerEvent, line: str, watched: Watched) -> None:
        """An event, the line that people should see of it, and what is known after it."""

    def notice(self, line: str) -> None: ...


class _Lines:
    """What needs no preparation."""

    def __init__(self, out: TextIO, err: TextIO):
        self._out = out
        self._err = err

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to end."""

    def notice(self, line: str) -> None:
        print(line, file=self._err, flush=True)


class JsonView(_Lines):
    """One JSON line for each event, as the coordinator sent it."""

    def show(self, event: ServerEvent, line: str, watched: Watched) -> None:
        print(json.dumps(event.message), file=self._out, flush=True)


class PlainView(_Lines):
    """Lines of text: whatever happens at once, progress each 5 s at most."""

    _progress_at = 0.0

    def show(self, event: ServerEvent, line: str, watched: Watched) -> None:
        if line:
            print(line, file=self._out, flush=True)
        time = float(event.message["time"])
        if event.kind == "snapshot" or (
            event.kind == "training.progress" and time - self._progress_at >= PLAIN_INTERVAL_S
        ):
            self._progress_at = time
            print(watched.line(), file=self._out, flush=True)


class LiveView:
    """Drawn anew in place; what happens is printed above it."""

    def __init__(self, console: Console):
        from rich.live import Live

        self._live = Live(console=console, refresh_per_second=4, transient=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def show(self, event: ServerEvent, line: str, watched: Watched) -> None:
        if line:
            self.notice(line)
        self._live.update(bar_and_rows(watched.progress["progress"], watched.rows()))

    def notice(self, line: str) -> None:
        self._live.console.print(line, markup=False, highlight=False)


def make_view(*, as_json: bool) -> SessionView:
    """The view that fits where the output goes."""
    if as_json:
        return JsonView(sys.stdout, sys.stderr)
    if sys.stdout.isatty():
        from rich.console import Console

        return LiveView(Console())
    return PlainView(sys.stdout, sys.stderr)
