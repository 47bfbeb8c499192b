"""The demo's progress: a live panel in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

PLAIN_EVERY_S = 5.0


class DemoDisplay:
    """Shows the session's progress and its participants, as the REST API gives them."""

    def __init__(self) -> None:
        self._console = Console()
        self._live = Live(console=self._console, refresh_per_second=4) if self._console.is_terminal else None
        self._printed_at, self._state, self._started = 0.0, "", time.monotonic()

    def __enter__(self) -> DemoDisplay:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, progress: dict[str, Any], participants: list[dict[str, Any]]) -> None:
        """Show what is newest; in a log only now and then."""
        if self._live is not None:
            self._live.update(_panel(progress, participants))
            return
        now = time.monotonic()
        if progress["status"] != self._state or now - self._printed_at >= PLAIN_EVERY_S:
            self._printed_at, self._state = now, progress["status"]
            print(f"{now - self._started:5.0f} s  {progress_line(progress)}")
            sys.stdout.flush()

    def show_away(self) -> None:
        """Say that the coordinator does not answer."""
        if self._state != "away":
            self._state = "away"
            self._console.print("the coordinator does not answer; the nodes train on")


def progress_line(progress: dict[str, Any]) -> str:
    """One line of progress; figures that are not there yet are dashes."""
    return (
        f"{progress['status']:<9} {progress['processRate']:5.1f} %  round {progress['round']:>3}  "
        f"loss {_figure(progress['loss'])}  validation {_figure(progress['validationLoss'])}  "
        f"{_figure(progress['tokensPerSecond'], ',.0f')} tokens/s  {progress['peers']} peers"
    )


def _panel(progress: dict[str, Any], participants: list[dict[str, Any]]) -> Group:
    table = Table(box=None, padding=(0, 2))
    for title in ("node", "state", "round", "step", "loss", "tokens/s", "outer state"):
        table.add_column(title, justify="left" if title in ("node", "state", "outer state") else "right")
    for peer in participants:
        table.add_row(
            peer["name"], peer["state"], str(peer["round"]), str(peer["step"]), _figure(peer["loss"]),
            _figure(peer["tokensPerSecond"], ",.0f"), peer["digest"][:12],
        )  # fmt: skip
    bar = ProgressBar(total=100.0, completed=progress["processRate"], width=60)
    return Group(Text(progress_line(progress)), bar, table)


def _figure(value: float | None, form: str = ".3f") -> str:
    return "-" if value is None else format(value, form)
