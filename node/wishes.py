"""Several sources may have a wish for one run: it trains only if none of them wants it to rest or to end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, get_args

from pydantic import ValidationError

from cotrain.paths import CONTROL_FILE
from cotrain.request import CamelModel
from cotrain.status import Control, WishName, read_control, read_json_object, replace_file, write_control

LOCAL_WISH_FILE = "wish.json"
"""In the run's folder: the volunteer's own wish, written by the commands and read by the agent."""
STANDING_WISHES_FILE = "wishes.json"
"""In the run's folder: who wants something else than to train, written by the agent for `status`."""

Source = Literal["volunteer", "coordinator", "schedule", "use"]
"""Who has a wish: the volunteer by a command or a signal, the session's owner by its coordinator, the timetable, the
use of the machine."""
SOURCES: tuple[Source, ...] = get_args(Source)

_NAMES: dict[Source, str] = {
    "volunteer": "the volunteer", "coordinator": "the session's owner", "schedule": "the schedule",
    "use": "use of this machine",
}  # fmt: skip
_STRENGTH = {"run": 0, "pause": 1, "stop": 2, "cancel": 3}


class StandingWish(CamelModel):
    """What one source wants, and why."""

    source: Source
    wish: WishName
    reason: str = ""

    def __str__(self) -> str:
        reason = f" ({self.reason})" if self.reason else ""
        return f"{self.wish} by {_NAMES[self.source]}{reason}"


class StandingWishes(CamelModel):
    """The content of `wishes.json`."""

    wishes: list[StandingWish]


def standing(wishes: Mapping[Source, Control]) -> list[StandingWish]:
    """Every wish but to run, the strongest first; of two alike, in the order of SOURCES."""
    found = [
        StandingWish(source=source, wish=wishes[source].wish, reason=wishes[source].reason)
        for source in SOURCES
        if source in wishes and wishes[source].wish != "run"
    ]
    return sorted(found, key=lambda one: -_STRENGTH[one.wish])


def combined(wishes: Mapping[Source, Control]) -> Control:
    """The wish that holds: cancel before stop before pause before run, with the reason of its first source.

    So neither the session's owner who resumes it nor a window of the schedule that begins resumes a machine that its
    volunteer has paused.
    """
    found = standing(wishes)
    return Control(wish=found[0].wish, reason=found[0].reason) if found else Control()


def read_standing(run_dir: Path) -> list[StandingWish]:
    """Who wants something else than to train, as the agent last said; nobody where that cannot be read."""
    try:
        return StandingWishes.model_validate(read_json_object(run_dir / STANDING_WISHES_FILE)).wishes
    except (OSError, ValueError, ValidationError):
        return []


class Wishes:
    """Keeps a run's `control.json` in step with the wishes of all sources.

    Args:
        run_dir: the run's folder; wishes of an earlier run in it are withdrawn.
        on_change: told of the wish that holds from now on.
    """

    def __init__(self, run_dir: Path, *, on_change: Callable[[Control], None]):
        self._run_dir = run_dir
        self._on_change = on_change
        self._wishes: dict[Source, Control] = {}
        self._present = Control()
        with contextlib.suppress(FileNotFoundError):
            (run_dir / LOCAL_WISH_FILE).unlink()
        self._write()

    def set(self, source: Source, control: Control) -> None:
        """What this source wants from now on."""
        if self._wishes.get(source) == control:
            return
        self._wishes[source] = control
        before, self._present = self._present, combined(self._wishes)
        self._write()
        if self._present != before:
            self._on_change(self._present)

    def read_local(self) -> None:
        """Take over the wish that a command has left in the run's folder."""
        self.set("volunteer", read_control(self._run_dir / LOCAL_WISH_FILE))

    def _write(self) -> None:
        found = StandingWishes(wishes=standing(self._wishes))
        replace_file(self._run_dir / STANDING_WISHES_FILE, found.model_dump_json(by_alias=True).encode())
        write_control(self._run_dir / CONTROL_FILE, self._present)
