"""What a person sees of a run: a live view in a terminal, plain lines elsewhere, or one JSON line per snapshot."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TextIO

from cotrain.figures import Figures, RunFigures
from cotrain.status import LOCAL_PEER, Status

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_BARS = "▁▂▃▄▅▆▇█"
PLAIN_INTERVAL_S = 5.0
LOSS_HISTORY = 240
SPARK_WIDTH = 48


def sparkline(values: Sequence[float]) -> str:
    """One bar for each value, scaled from the least to the greatest; all low where the values are equal."""
    if not values:
        return ""
    low, high = min(values), max(values)
    if high <= low:
        return _BARS[0] * len(values)
    top = len(_BARS) - 1
    return "".join(_BARS[round((value - low) / (high - low) * top)] for value in values)


def format_bytes(size: int) -> str:
    """A size in decimal units: 999 B, 1.2 kB, 3.4 MB."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def format_seconds(seconds: float) -> str:
    """A duration in its two greatest units: 42 s, 3 min 05 s, 2 h 07 min."""
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60:02d} s"
    return f"{total // 3600} h {total % 3600 // 60:02d} min"


def plain_line(status: Status, figures: Figures) -> str:
    """A snapshot in one line of text."""
    parts = [f"{status.status}/{status.phase}", f"round {status.round}", f"{status.process_rate:.1f} %"]
    if status.loss is not None:
        parts.append(f"loss {status.loss:.4f}")
    if status.validation_loss is not None:
        parts.append(f"validation {status.validation_loss:.4f}")
    if status.tokens_per_second is not None:
        parts.append(f"{status.tokens_per_second:.0f} tokens/s")
    if status.peer != LOCAL_PEER:
        parts.append(f"{status.peers} peers")
        parts.append(f"sent {format_bytes(status.bytes_sent)}, received {format_bytes(status.bytes_received)}")
    parts += [f"{name} {value}" for name, value in figure_rows(status, figures)]
    if figures.remaining_seconds is not None:
        parts.append(f"about {format_seconds(figures.remaining_seconds)} left")
    if waiting := waiting_line(status):
        parts.append(f"waiting for {waiting}")
    if status.error_msg:
        parts.append(f"error: {status.error_msg}")
    return "  ".join(parts)


def figure_rows(status: Status, figures: Figures) -> list[tuple[str, str]]:
    """Names and values of what the last rounds tell; none before the first, and none without others."""
    rows: list[tuple[str, str]] = []
    if status.peer == LOCAL_PEER:
        return rows
    if figures.work_share is not None:
        rows.append(("my share", f"{100 * figures.work_share:.1f} % of {_last_rounds(figures.rounds)}"))
    if figures.last_sync_at is not None:
        rows.append(("last sync", f"{format_seconds(max(0.0, status.updated_at - figures.last_sync_at))} ago"))
    if figures.round_bytes_sent is not None and figures.round_bytes_received is not None:
        sent, received = format_bytes(figures.round_bytes_sent), format_bytes(figures.round_bytes_received)
        rows.append(("a round", f"{sent} up, {received} down"))
    return rows


def _last_rounds(count: int) -> str:
    return "the last round's work" if count == 1 else f"the last {count} rounds' work"


def waiting_line(status: Status) -> str:
    """What a run waits for, and how long it had when it said so; empty if for nothing."""
    if not status.waiting_for or status.waiting_since is None:
        return ""
    return f"{status.waiting_for}, {format_seconds(max(0.0, status.updated_at - status.waiting_since))}"


class Display(Protocol):
    """Where snapshots and notices go."""

    def open(self) -> None: ...

    def show(self, status: Status) -> None: ...

    def notice(self, line: str) -> None: ...

    def close(self) -> None: ...


class JsonDisplay:
    """One JSON line per snapshot on `out`, with what the snapshots so far tell as `figures`; notices go to `err`."""

    def __init__(self, out: TextIO, err: TextIO):
        self._out = out
        self._err = err
        self._figures = RunFigures()

    def open(self) -> None:
        """Nothing to prepare."""

    def show(self, status: Status) -> None:
        figures = self._figures.take(status)
        facts = status.model_dump(mode="json", by_alias=True)
        print(json.dumps({**facts, "figures": figures.model_dump(by_alias=True)}), file=self._out, flush=True)

    def notice(self, line: str) -> None:
        print(line, file=self._err, flush=True)

    def close(self) -> None:
        """Nothing to end."""


class PlainDisplay:
    """Lines of text: at every change of state, phase or run, else at most every 5 s."""

    def __init__(self, out: TextIO):
        self._out = out
        self._shown: tuple[str, str, str] | None = None
        self._shown_at = 0.0
        self._figures = RunFigures()

    def open(self) -> None:
        """Nothing to prepare."""

    def show(self, status: Status) -> None:
        figures = self._figures.take(status)
        key = (status.run, status.status, status.phase)
        if key == self._shown and time.monotonic() - self._shown_at < PLAIN_INTERVAL_S:
            return
        self._shown, self._shown_at = key, time.monotonic()
        self.notice(plain_line(status, figures))

    def notice(self, line: str) -> None:
        self._out.write(f"{line}\n")  # in one piece: snapshots come from another thread
        self._out.flush()

    def close(self) -> None:
        """Nothing to end."""


class LiveDisplay:
    """A view in a terminal that is drawn anew in place."""

    def __init__(self, console: Console):
        from rich.live import Live

        self._live = Live(console=console, refresh_per_second=4, transient=False)
        self._losses: deque[float] = deque(maxlen=LOSS_HISTORY)
        self._figures = RunFigures()

    def open(self) -> None:
        self._live.start()

    def show(self, status: Status) -> None:
        if status.loss is not None:
            self._losses.append(status.loss)
        self._live.update(self._view(status))

    def notice(self, line: str) -> None:
        self._live.console.print(line, markup=False, highlight=False)

    def close(self) -> None:
        self._live.stop()

    def _view(self, status: Status) -> Table:
        rows = live_rows(status, list(self._losses)[-SPARK_WIDTH:], self._figures.take(status))
        return bar_and_rows(status.process_rate, rows)


def bar_and_rows(percent: float, rows: Sequence[tuple[str, str]]) -> Table:
    """What a live view draws: a bar of the progress (0 to 100), below it names and values."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    facts = Table.grid(padding=(0, 2))
    for name, value in rows:
        facts.add_row(Text(name, style="dim"), Text(value))
    view = Table.grid()  # a bar alone does not end its line
    view.add_row(ProgressBar(total=100.0, completed=percent, width=SPARK_WIDTH))
    view.add_row(facts)
    return view


def live_rows(status: Status, losses: Sequence[float], figures: Figures) -> list[tuple[str, str]]:
    """Names and values of the live view, from top to bottom."""
    left_s = figures.remaining_seconds
    eta = "" if left_s is None else f", about {format_seconds(left_s)} left"
    speed = "-" if status.tokens_per_second is None else f"{status.tokens_per_second:.0f} tokens/s"
    loss = "-" if status.loss is None else f"{status.loss:.4f}  {sparkline(losses)}"
    rows = [
        ("session", f"{status.session}  {status.status}, {status.phase}"),
        ("progress", f"{status.process_rate:.1f} %, round {status.round}{eta}"),
        ("loss", loss),
        ("speed", speed),
    ]
    if status.peer != LOCAL_PEER:
        traffic = f"sent {format_bytes(status.bytes_sent)}, received {format_bytes(status.bytes_received)}"
        rows += [("peers", str(status.peers)), ("traffic", traffic), *figure_rows(status, figures)]
    if status.validation_loss is not None:
        rows.insert(3, ("validation", f"{status.validation_loss:.4f} (round {status.validation_round})"))
    if waiting := waiting_line(status):
        rows.append(("waiting for", waiting))
    if status.error_msg:
        rows.append(("error", status.error_msg))
    return rows


def make_display(*, as_json: bool) -> Display:
    """The display that fits where the output goes."""
    if as_json:
        return JsonDisplay(sys.stdout, sys.stderr)
    if sys.stdout.isatty():
        from rich.console import Console

        return LiveDisplay(Console())
    return PlainDisplay(sys.stdout)


class NoticeHandler(logging.Handler):
    """Puts log lines where the display puts its notices, so that they do not tear a live view apart."""

    def __init__(self, notice: Callable[[str], None]):
        super().__init__()
        self._notice = notice

    def emit(self, record: logging.LogRecord) -> None:
        self._notice(self.format(record))


def summary_line(status: Status | None) -> str:
    """The last line of a run."""
    if status is None:
        return "left before training began"
    return (
        f"{status.status} after {status.round} rounds and {status.step} inner steps, "
        f"{status.tokens} tokens in {format_seconds(status.wall_seconds)}"
    )
