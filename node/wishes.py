"""Two people may have wishes for one run: the volunteer, whose machine it is, and the operator."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from cotrain.paths import CONTROL_FILE
from cotrain.status import Control, read_control, write_control

LOCAL_WISH_FILE = "wish.json"
"""In the run's folder: the volunteer's own wish, written by the commands and read by the agent."""

_STRENGTH = {"run": 0, "pause": 1, "stop": 2, "cancel": 3}


def stronger(local: Control, remote: Control) -> Control:
    """The wish that holds: cancel before stop before pause before run; of two alike, the volunteer's.

    So an operator who resumes a session does not resume a machine that its owner has paused.
    """
    return remote if _STRENGTH[remote.wish] > _STRENGTH[local.wish] else local


class Wishes:
    """Keeps a run's `control.json` in step with both wishes.

    Args:
        run_dir: the run's folder; wishes of an earlier run in it are withdrawn.
        on_change: told of the wish that holds from now on.
    """

    def __init__(self, run_dir: Path, *, on_change: Callable[[Control], None]):
        self._run_dir = run_dir
        self._on_change = on_change
        self._local = Control()
        self._remote = Control()
        self._present = Control()
        with contextlib.suppress(FileNotFoundError):
            (run_dir / LOCAL_WISH_FILE).unlink()
        write_control(run_dir / CONTROL_FILE, self._present)

    def set_local(self, control: Control) -> None:
        """The volunteer's wish."""
        self._local = control
        self._apply()

    def set_remote(self, control: Control) -> None:
        """The operator's wish."""
        self._remote = control
        self._apply()

    def read_local(self) -> None:
        """Take over the wish that a command has left in the run's folder."""
        self.set_local(read_control(self._run_dir / LOCAL_WISH_FILE))

    def _apply(self) -> None:
        wish = stronger(self._local, self._remote)
        if wish == self._present:
            return
        self._present = wish
        write_control(self._run_dir / CONTROL_FILE, wish)
        self._on_change(wish)
