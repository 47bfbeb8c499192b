"""The coordinator's own peer: `python -m coordinator.checkpointer`. The only process here that loads torch.

It trains nothing. For each session it prepares the data and the initial state, bootstraps the swarm, follows every
round, evaluates the outer parameters, keeps checkpoints, serves the state to joiners, and saves the final model.
Commands arrive as JSON lines on stdin, reports leave on stdout; progress goes to `status.json` like any peer's.
"""

from __future__ import annotations

import argparse
import logging
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

from coordinator.checkpointer_messages import (
    COMMAND,
    Failed,
    Finish,
    Follow,
    Ready,
    Release,
    Save,
    SaveFailed,
)
from cotrain.config import RunConfig, load_config
from cotrain.errors import CotrainError
from cotrain.logs import configure_logging
from cotrain.paths import CHECKPOINTER_KEY, SharedPaths
from cotrain.peer_key import load_or_create_peer_key
from cotrain.process import bind_future_children, bind_to_parent

if TYPE_CHECKING:
    from coordinator.followed_session import FollowedSession

logger = logging.getLogger("coordinator.checkpointer")

TICK_S = 0.1
_REPORTING = threading.Lock()


def main() -> int:
    """Serve until stdin is closed or SIGTERM arrives; returns the exit code."""
    bind_to_parent()
    parser = argparse.ArgumentParser(prog="python -m coordinator.checkpointer", description=__doc__)
    parser.add_argument("--shared", type=Path, required=True, help="the data folder")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on for peers")
    parser.add_argument("--port", type=int, default=0, help="port to listen on for peers; 0: any")
    arguments = parser.parse_args()
    bind_future_children()
    try:
        configure_logging()
        checkpointer = Checkpointer(SharedPaths(arguments.shared.resolve()).create(), arguments.host, arguments.port)
        checkpointer.serve()
    except CotrainError as error:
        logger.error("%s", error)
        return error.exit_code
    return 0


class Checkpointer:
    """The process: one DHT node, any number of sessions, all on the main thread."""

    def __init__(self, shared: SharedPaths, host: str, port: int):
        from cotrain.swarm.daemon import start_dht
        from cotrain.swarm.dht import DhtThread
        from cotrain.swarm.hardening import limit_message_nesting
        from cotrain.swarm.loop import LoopThread

        self._shared = shared
        limit_message_nesting()
        identity = shared.root / CHECKPOINTER_KEY
        load_or_create_peer_key(identity)
        self._dht = start_dht(host=host, port=port, initial_peers=[], identity_path=identity, is_relay=True)
        # no fork after this line
        self._dht_thread, self._loop = DhtThread(), LoopThread("libp2p")
        self._sessions: dict[str, FollowedSession] = {}
        self._saves: set[str] = set()
        """Jobs that are done."""
        self._lines: queue.Queue[str | None] = queue.Queue()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._lines.put(None))

    def serve(self) -> None:
        """Carry out commands and follow the sessions until there is nobody to serve.

        Raises SwarmError if this process has lost its daemon: it must be started again.
        """
        from cotrain.swarm.silence import require_running

        threading.Thread(target=self._read_commands, name="commands", daemon=True).start()
        addresses = [str(address) for address in self._dht.get_visible_maddrs()]
        _report(Ready(peer_id=self._dht.peer_id.to_base58(), addresses=addresses))
        while True:
            try:
                line = self._lines.get(timeout=TICK_S)
            except queue.Empty:
                self._follow_all()
                require_running(self._dht)
                self._dht_thread.require_answers()
                continue
            if line is None:
                break
            self._obey(line)
        for session in self._sessions.values():
            session.close()
        self._dht_thread.stop()
        self._loop.stop()
        self._dht.shutdown()

    def _read_commands(self) -> None:
        for line in sys.stdin:
            self._lines.put(line)
        self._lines.put(None)

    def _obey(self, line: str) -> None:
        try:
            command = COMMAND.validate_json(line)
        except ValidationError as error:
            logger.error("not a command: %s", error)
            return
        with _failures_of(self, command.session):
            match command:
                case Follow() if command.session not in self._sessions:
                    config = load_config(Path(command.config_path))
                    session = self._open(config)
                    self._sessions[command.session] = session
                    _report(session.following())
                case Follow():
                    _report(self._sessions[command.session].following())
                case Save():
                    self._save(command)
                case Finish():
                    self._finish(command.session)
                case Release():
                    self.let_go(command.session)

    def _open(self, config: RunConfig) -> FollowedSession:
        from coordinator.followed_session import FollowedSession  # loads torch

        return FollowedSession(config, self._shared, self._dht, self._dht_thread, self._loop, _report)

    def _follow_all(self) -> None:
        for name, session in list(self._sessions.items()):
            with _failures_of(self, name):
                if session.follow():
                    self._finish(name)

    def _finish(self, name: str) -> None:
        session = self._sessions.get(name)
        if session is not None:
            saved = session.save_final_model()
            self.let_go(name)
            _report(saved)

    def _save(self, command: Save) -> None:
        """A session that is not followed says why by itself: it has ended, or failed."""
        session = self._sessions.get(command.session)
        if session is None or command.job in self._saves:
            return
        self._saves.add(command.job)
        session.follow()
        try:
            _report(session.save_model(command.job))
        except Exception as error:  # what cannot be saved now can be trained on all the same
            logger.error("session %s could not be saved", command.session, exc_info=error)
            message, hint = _explained(error)
            _report(SaveFailed(session=command.session, job=command.job, message=message, hint=hint))

    def let_go(self, name: str) -> None:
        """Stop following a session; one that is not followed is let go already."""
        session = self._sessions.pop(name, None)
        if session is not None:
            session.close()


class _failures_of:
    """A failure of one session is reported, and the other sessions go on."""

    def __init__(self, checkpointer: Checkpointer, session: str):
        self._checkpointer, self._session = checkpointer, session

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, Exception):
            return False
        logger.error("session %s failed", self._session, exc_info=error)
        self._checkpointer.let_go(self._session)
        message, hint = _explained(error)
        _report(Failed(session=self._session, message=message, hint=hint))
        return True


def _explained(error: Exception) -> tuple[str, str]:
    """What happened, and what to do."""
    if not isinstance(error, CotrainError):
        return repr(error), "see the checkpointer's log in the data folder"
    return f"{error.field}: {error.message}" if error.field else error.message, error.hint


def _report(report: BaseModel) -> None:
    line = report.model_dump_json(by_alias=True)
    with _REPORTING:  # evidence is reported by the thread that has checked it
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
