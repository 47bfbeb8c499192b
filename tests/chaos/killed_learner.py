"""`cotrain learn ...`, killed as if by kill -9 at a named point of its cycle: `killed_learner.py POINT ARGUMENTS`."""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from coordinator.chat_log import ChatLog
from coordinator.learning import learner
from coordinator.learning.api import OwnApi
from coordinator.learning.cycles import Cycles
from cotrain.cli import main
from cotrain.learn.versions import DatasetVersions


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _after(owner: Any, name: str, is_meant: Callable[..., bool] = lambda *_, **__: True) -> None:
    method = getattr(owner, name)
    if name in _SYNCHRONOUS:

        @functools.wraps(method)
        def struck(*arguments: Any, **options: Any) -> Any:
            result = method(*arguments, **options)
            if is_meant(*arguments, **options):
                die()
            return result
    else:

        @functools.wraps(method)
        async def struck(*arguments: Any, **options: Any) -> Any:
            result = await method(*arguments, **options)
            if is_meant(*arguments, **options):
                die()
            return result

    setattr(owner, name, struck)


def _advancing(stage: str) -> Callable[..., bool]:
    return lambda *_, **changes: changes.get("stage") == stage


def _asking(part: str) -> Callable[..., bool]:
    return lambda _api, path, *_, **__: part in path


_SYNCHRONOUS = frozenset({"_fill", "write", "switch", "append_once"})

POINTS: dict[str, Callable[[], None]] = {
    "begun": lambda: _after(Cycles, "begin"),
    "half written": lambda: _after(DatasetVersions, "_fill"),
    "written": lambda: _after(DatasetVersions, "write"),
    "noted": lambda: _after(Cycles, "advance", _advancing("switching")),
    "switched": lambda: _after(DatasetVersions, "switch"),
    "chats cleared, not committed": lambda: _after(ChatLog, "clear"),
    "session opened": lambda: _after(OwnApi, "post", lambda _api, path, *_, **__: path == "sessions"),
    "session started": lambda: _after(OwnApi, "post", _asking("/start")),
    "session ended": lambda: _after(OwnApi, "session_end"),
    "evaluation asked for": lambda: _after(OwnApi, "post", _asking("/evaluate")),
    "one version evaluated": lambda: _after(Cycles, "advance", lambda *_, **changes: "old_loss" in changes),
    "promoted": lambda: _after(OwnApi, "post", _asking("/promote")),
    "verdict noted": lambda: _after(Cycles, "advance", _advancing("reporting")),
    "reported": lambda: _after(learner, "append_once"),
}
"""In the order in which a cycle comes by them. Two lie within a transaction, or within a file's making."""


if __name__ == "__main__":
    POINTS[sys.argv[1]]()
    sys.argv = ["cotrain", *sys.argv[2:]]
    main()
