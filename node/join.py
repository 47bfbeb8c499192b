"""The agent behind `cotrain node join`: gets into a session, trains, streams, leaves."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cotrain.display import Display, summary_line
from cotrain.errors import CotrainError, InvalidRequestError
from cotrain.membership.document import MembershipDocument
from cotrain.paths import MEMBERSHIP_FILE, STATUS_FILE
from cotrain.peer_key import load_or_create_peer_key
from cotrain.protocol import RegisterAnswer
from cotrain.status import Control, Status, WishName, read_status
from cotrain.watch import StatusWatcher, accept
from node.activity import Activity
from node.admission import PEER_KEY, Admission, Place
from node.beside import run_beside
from node.browser import statement_end
from node.choice import TurnedAwayError, take_part_in_best
from node.client import CoordinatorClient, invitation_token, parse_join_url
from node.gpu_memory import require_gpus
from node.hardware import cuda_gpus, physical_cores
from node.job import JOB_FILE
from node.limits import limits_of, processors_line
from node.lock import agent_lock
from node.membership import MembershipKeeper
from node.options import JoinOptions
from node.preflight import torch_build
from node.spool_file import SpoolFile
from node.statement import warn_before_end
from node.supervisor import Supervisor, worker_command
from node.timetable import follow_schedule, follow_use
from node.uplink import Uplink
from node.wishes import Wishes

_DRAIN_S = 15.0
_LEAVE_DRAIN_S = 5.0
_LEAVE_LIMIT_S = 60.0


async def join(
    options: JoinOptions,
    place: Place,
    display: Display,
    *,
    command: Callable[[Path], list[str]] = worker_command,
) -> int:
    """Take part in a session until it ends or the volunteer leaves; returns the exit code of the process.

    With a coordinator's address it is the best one that is open for this machine.
    0: the run completed, was stopped by the coordinator, or SIGTERM came; 130: Ctrl-C, or the command to leave.
    Args:
        command: job file -> command line of the training process.
    Raises CotrainError for whatever ends the run otherwise.
    """
    base_url, session = parse_join_url(options.url)

    def take_part(found: str) -> Coroutine[Any, Any, int]:
        return _in_session(base_url, found, options, place, display, command)

    if session is None:
        if invitation_token(options.invitation, options.url) is not None:
            raise InvalidRequestError(
                "an invitation is for one session, and the address names none", field="--invitation",
                hint=f"give the session's address: {base_url}/s/<session>",
            )  # fmt: skip
        return await take_part_in_best(base_url, take_part, display.notice, options.max_gpu_memory)
    try:
        return await take_part(session)
    except TurnedAwayError as error:
        raise error.reason from error.reason.__cause__


async def _in_session(
    base_url: str, session: str, options: JoinOptions, place: Place, display: Display,
    command: Callable[[Path], list[str]],
) -> int:  # fmt: skip
    """In this session. Raises TurnedAwayError if it does not take this node."""
    peer_id = load_or_create_peer_key(place.home / PEER_KEY)
    place.shared.create()
    run_dir = place.shared.run_dir(session, peer_id)
    run_dir.mkdir(parents=True, exist_ok=True)
    async with CoordinatorClient(base_url, on_wait=display.notice) as client:
        agent = Agent(options, place, display, client, session, peer_id, run_dir, command)
        # Signals first: from the moment the lock names this process, the commands may send it one.
        asks_browser = place.wallet is None
        with agent.signals(), agent_lock(place.home, session=session, run_dir=run_dir, asks_browser=asks_browser):
            return await agent.run()


class Agent:
    """One volunteer's part in one session."""

    def __init__(
        self,
        options: JoinOptions,
        place: Place,
        display: Display,
        client: CoordinatorClient,
        session: str,
        peer_id: str,
        run_dir: Path,
        command: Callable[[Path], list[str]],
    ):
        self._options = options
        self._place = place
        self._display = display
        self._client = client
        self._session = session
        self._peer_id = peer_id
        self._limits = limits_of(options, os.sched_getaffinity(0))
        self._run_dir = run_dir
        self._command = command
        self._status: Status | None = None
        self._left_by: signal.Signals | None = None
        self._work: asyncio.Future[None] | None = None
        self._wishes: Wishes | None = None
        self._supervisor: Supervisor | None = None
        self._uplink: Uplink | None = None
        self._spool: SpoolFile | None = None
        self._admission = Admission(
            options, place, client, session, run_dir, limits=self._limits, notice=display.notice,
            took=lambda document: self._keeper.took(document),
        )  # fmt: skip
        self._keeper = MembershipKeeper(
            run_dir / MEMBERSHIP_FILE, renew=self._renew, register=self._admission.register,
            heard_at=lambda: self._uplink.heard_at if self._uplink else 0.0,
        )  # fmt: skip

    async def run(self) -> int:
        """See `join`. It must run within `signals`."""
        self._work = asyncio.ensure_future(self._take_part())
        try:
            await self._work
        except asyncio.CancelledError:
            if self._left_by is None:
                raise
        self._display.notice(summary_line(self._status))
        return 130 if self._left_by is signal.SIGINT else 0

    # -------------------------------------------------------------------------------------------- stages
    async def _take_part(self) -> None:
        owner = "a wallet in a browser" if self._place.wallet is None else self._place.wallet.account
        self._display.notice(f"joining session {self._session} as peer {self._peer_id} of {owner}")
        gpus = await asyncio.to_thread(cuda_gpus)
        if (bound := self._limits.gpu_memory) is not None:
            require_gpus(bound, gpus, torch_build()[1])
        processes = self._options.processes or len(gpus) or 1
        supervisor = Supervisor(
            self._command(self._run_dir / JOB_FILE), self._run_dir,
            threads=self._threads(), gpus=len(gpus), on_exit=self._take_final_snapshot,
        )  # fmt: skip
        try:
            if processes == 1:  # else it only starts others, which load for themselves
                await supervisor.prepare(self._limits)
            await self._train(await self._admission.enter(self._peer_id, processes), supervisor)
        finally:
            await supervisor.dismiss()

    async def _renew(self) -> MembershipDocument:
        assert self._uplink is not None
        return await self._client.renew(self._session, *self._uplink.credentials)

    async def _train(self, answer: RegisterAnswer, supervisor: Supervisor) -> None:
        self._spool = spool = SpoolFile(self._place.home / "spool" / f"{self._session}.jsonl")
        self._adopt_last_snapshot(spool)
        self._supervisor = supervisor
        self._wishes = Wishes(self._run_dir, on_change=self._on_change)
        self._uplink = uplink = Uplink(
            self._client, self._session, (answer.participant, answer.token), spool,
            on_wish=self._on_remote_wish, reauthorize=self._reauthorize, on_issuer=self._keeper.heard_issuer,
        )  # fmt: skip
        try:
            await run_beside(
                self._train_and_deliver(supervisor, spool),
                [spool.flush_forever(), uplink.run(), self._follow(spool), self._keeper.run(), *self._by_the_clock()],
            )
        finally:
            spool.close()
        if self._left_by is not None:
            await self._admission.say_leave(*uplink.credentials)

    def _threads(self) -> int:
        """Arithmetic threads of the training process: no more than processors, unless the volunteer says so."""
        if (processors := self._limits.processors) is None or self._options.max_cpu is None:
            return self._options.threads or physical_cores()
        self._display.notice(processors_line(self._options.max_cpu, processors, os.sched_getaffinity(0)))
        return self._options.threads or min(physical_cores(), len(processors))

    def _by_the_clock(self) -> list[Coroutine[Any, Any, None]]:
        """What lets the machine rest at its times, and while it is in use; what warns before a statement ends."""
        assert self._wishes is not None
        schedule, minutes, wishes = self._options.schedule, self._options.when_idle, self._wishes
        following: list[Coroutine[Any, Any, None]] = []
        if schedule is not None:
            following.append(follow_schedule(schedule, lambda wish: wishes.set("schedule", wish)))
        if minutes is not None:
            tell, notice = (lambda wish: wishes.set("use", wish)), self._display.notice
            following.append(follow_use(60.0 * minutes, Activity().look, tell, notice))
        if self._place.wallet is None:
            home, session = self._place.home, self._session
            following.append(warn_before_end(lambda: statement_end(home, session), self._display.notice))
        return following

    def _adopt_last_snapshot(self, spool: SpoolFile) -> None:
        """Queue what a killed agent may not have got to queue, and clear the folder for the new run."""
        path = self._run_dir / STATUS_FILE
        try:
            spool.add_status(read_status(path))
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            self._display.notice(f"the last run's snapshot is left out: {error}")
        path.unlink()

    async def _train_and_deliver(self, supervisor: Supervisor, spool: SpoolFile) -> None:
        failure: CotrainError | None = None
        try:
            await supervisor.run()
        except CotrainError as error:
            failure = error
        run = self._status.run if self._status else f"agent-{uuid.uuid4().hex[:16]}"
        spool.add_goodbye(run, failure.message if failure else "left" if self._left_by else "finished")
        try:
            await asyncio.wait_for(spool.wait_empty(), _LEAVE_DRAIN_S if self._left_by else _DRAIN_S)
        except TimeoutError:
            self._display.notice(f"{len(spool)} events are not delivered yet; the next join of this session sends them")
        if failure is not None:
            raise failure

    async def _follow(self, spool: SpoolFile) -> None:
        async for change in StatusWatcher(self._run_dir).changes():
            if not change.stale:
                self._take(change.status, spool)

    def _take(self, status: Status, spool: SpoolFile) -> None:
        if accept(self._status, status):
            self._status = status
            spool.add_status(status)
            self._display.show(status)

    def _take_final_snapshot(self) -> None:
        """The watcher is a few milliseconds behind: what the process wrote last is read here."""
        assert self._spool is not None
        try:
            self._take(read_status(self._run_dir / STATUS_FILE), self._spool)
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            self._display.notice(f"the last snapshot cannot be read: {error}")

    # -------------------------------------------------------------------------------------------- wishes
    async def _reauthorize(self) -> tuple[str, str]:
        answer = await self._admission.register()
        return answer.participant, answer.token

    def _on_remote_wish(self, wish: WishName, reason: str) -> None:
        assert self._wishes is not None
        self._wishes.set("coordinator", Control(wish=wish, reason=reason))

    def _on_change(self, control: Control) -> None:
        assert self._supervisor is not None
        self._supervisor.wish_stop(control.wish in ("stop", "cancel"))
        reason = f": {control.reason}" if control.reason else ""
        self._display.notice(f"wish: {control.wish}{reason}")

    def _on_local_wish(self) -> None:
        if self._wishes is not None:
            self._wishes.read_local()

    def _on_leave(self, number: signal.Signals) -> None:
        """First: finish the step, say goodbye. Second, or with no training to finish: end at once."""
        assert self._work is not None
        asked_before = self._left_by is not None
        self._left_by = self._left_by or number
        if self._wishes is None or self._supervisor is None or asked_before:
            if self._supervisor is not None:
                self._supervisor.end_grace_s = 0.0
            self._work.cancel()
            return
        self._display.notice("leaving after the present step; once more ends at once")
        self._wishes.set("volunteer", Control(wish="stop", reason="the volunteer leaves"))
        asyncio.get_running_loop().call_later(_LEAVE_LIMIT_S, self._work.cancel)

    @contextmanager
    def signals(self) -> Iterator[None]:
        """While entered: SIGINT and SIGTERM leave, SIGUSR1 reads the volunteer's wish."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_leave, number)
        loop.add_signal_handler(signal.SIGUSR1, self._on_local_wish)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
                loop.remove_signal_handler(number)
