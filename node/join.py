"""The agent behind `cotrain node join`: registers, fetches what the run needs, trains, streams, leaves."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cotrain.display import Display, summary_line
from cotrain.errors import CotrainError, InvalidRequestError
from cotrain.identity.challenge import Signer
from cotrain.membership.document import MembershipDocument
from cotrain.paths import MEMBERSHIP_FILE, STATUS_FILE, SharedPaths
from cotrain.peer_key import PeerSigner, load_or_create_peer_key
from cotrain.protocol import RegisterAnswer
from cotrain.reachability import Attachment, role_for
from cotrain.status import Control, Status, WishName, read_status
from cotrain.watch import StatusWatcher, accept
from node.activity import Activity
from node.addresses import listen_host
from node.beside import run_beside
from node.browser import BrowserWallet
from node.checks import line_of
from node.choice import REFUSALS, TurnedAwayError, take_part_in_best
from node.client import CoordinatorClient, invitation_token, parse_join_url
from node.hardware import cuda_gpus, physical_cores
from node.job import Job, write_job
from node.limits import limits_of, processors_line
from node.lock import agent_lock
from node.membership import MembershipKeeper
from node.network import Question, find_attachment
from node.options import JoinOptions
from node.preflight import SKIP, Subject, preflight, refusal
from node.prepare import TRAIN_ASSET, assemble_model, fetch_assets, write_config
from node.registration import Applicant, register
from node.spool_file import SpoolFile
from node.supervisor import Supervisor, worker_command
from node.timetable import follow_schedule, follow_use
from node.uplink import Uplink
from node.wishes import Wishes

PEER_KEY = "peer.key"
JOB_FILE = "job.json"
_DRAIN_S = 15.0
_LEAVE_DRAIN_S = 5.0
_LEAVE_CALL_S = 5.0
_LEAVE_LIMIT_S = 60.0


@dataclass(frozen=True)
class Place:
    """Where an agent keeps its things, and the wallet that it signs with; None: one in a browser elsewhere."""

    home: Path
    shared: SharedPaths
    wallet: Signer | None


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
        return await take_part_in_best(base_url, take_part, display.notice)
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
        with agent.signals(), agent_lock(place.home, session=session, run_dir=run_dir):
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
        self._invitation = invitation_token(options.invitation, options.url)
        self._place = place
        self._display = display
        self._client = client
        self._session = session
        self._peer_id = peer_id
        self._browser = BrowserWallet(client, session, place.home, notice=display.notice)
        self._role = role_for("direct")
        self._limits = limits_of(options.nice, options.max_cpu, options.max_upload, os.sched_getaffinity(0))
        self._run_dir = run_dir
        self._command = command
        self._status: Status | None = None
        self._left_by: signal.Signals | None = None
        self._work: asyncio.Future[None] | None = None
        self._wishes: Wishes | None = None
        self._supervisor: Supervisor | None = None
        self._uplink: Uplink | None = None
        self._keeper = MembershipKeeper(
            run_dir / MEMBERSHIP_FILE, renew=self._renew, register=self._register,
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
        if self._options.host is not None:  # what is no address is refused before anybody is asked
            listen_host(self._options.host, self._client.base_url)
        try:
            answer = await self._register()
        except REFUSALS as error:
            raise TurnedAwayError(error) from error
        # only now: a coordinator's name that is not known yet is asked for again like one that does not answer
        host = await asyncio.to_thread(listen_host, self._options.host, self._client.base_url)
        await self._preflight(answer, host)
        answer, attachment = await self._attach(answer, host)
        gpus = len(await asyncio.to_thread(cuda_gpus))
        assets = await fetch_assets(answer, self._place.shared, self._client, self._display.notice)
        job = Job(
            session=self._session,
            peer_id=self._peer_id,
            name=self._options.name,
            identity_path=self._place.home / PEER_KEY,
            config_path=write_config(answer, self._place.shared),
            shared=self._place.shared.root,
            membership_path=self._run_dir / MEMBERSHIP_FILE,
            run_dir=self._run_dir,
            initial_peers=answer.initial_peers,
            dataset_path=assets[TRAIN_ASSET],
            source_path=assemble_model(assets, "source", self._run_dir),
            teacher_path=assemble_model(assets, "teacher", self._run_dir),
            host=host,
            port=attachment.port,
            connection=attachment.connection,
            processes=self._options.processes or gpus or 1,
            limits=self._limits,
        )
        write_job(self._run_dir / JOB_FILE, job)
        await self._train(answer, gpus)

    async def _preflight(self, answer: RegisterAnswer, host: str) -> None:
        """Raises what keeps this machine from training here, unless told to skip it; what may become one is told."""
        found = await preflight(
            Subject(self._place.home, self._place.shared, host, self._options.port, self._client.base_url, answer)
        )
        for check in found:
            if check.state != "ok":
                self._display.notice(line_of(check))
        if (trouble := refusal(found)) is not None:
            if self._options.skip_preflight:
                self._display.notice(f"training all the same: {SKIP}")
                return
            await self._say_leave(answer.participant, answer.token)
            raise trouble

    async def _attach(self, answer: RegisterAnswer, host: str) -> tuple[RegisterAnswer, Attachment]:
        """Find out how others can connect to this machine, and register again if that asks for another role."""
        attachment = await find_attachment(
            Question(
                session=self._session,
                host=host,
                port=self._options.port,
                initial_peers=answer.initial_peers,
                identity_path=self._place.home / PEER_KEY,
                membership_path=self._run_dir / MEMBERSHIP_FILE,
            )
        )
        if attachment.notice:
            self._display.notice(attachment.notice)
        if (role := role_for(attachment.connection)) != self._role:
            self._role = role
            answer = await self._register()
        return answer, attachment

    async def _register(self) -> RegisterAnswer:
        """Be let into the session by the wallet: the sign-in ends with it, a person is asked only if there is need."""
        applicant = Applicant(
            PeerSigner(self._place.home / PEER_KEY), role=self._role, name=self._options.name,
            invitation=self._invitation,
        )  # fmt: skip
        if (wallet := self._place.wallet) is None:
            answer = await self._browser.register(applicant)
        else:
            answer = await register(self._client, self._session, applicant, wallet, notice=self._display.notice)
        self._keeper.took(answer.membership)
        return answer

    async def _renew(self) -> MembershipDocument:
        assert self._uplink is not None
        return await self._client.renew(self._session, *self._uplink.credentials)

    async def _train(self, answer: RegisterAnswer, gpus: int) -> None:
        spool = SpoolFile(self._place.home / "spool" / f"{self._session}.jsonl")
        self._adopt_last_snapshot(spool)
        supervisor = Supervisor(
            self._command(self._run_dir / JOB_FILE), self._run_dir,
            threads=self._threads(), gpus=gpus, on_exit=lambda: self._take_final_snapshot(spool),
        )  # fmt: skip
        self._supervisor = supervisor
        self._wishes = Wishes(self._run_dir, on_change=self._on_change)
        self._uplink = uplink = Uplink(
            self._client, self._session, (answer.participant, answer.token), spool,
            on_wish=self._on_remote_wish, reauthorize=self._reauthorize, on_issuer=self._keeper.heard_issuer,
        )  # fmt: skip
        try:
            await run_beside(
                self._train_and_deliver(supervisor, spool),
                [spool.flush_forever(), uplink.run(), self._follow(spool), self._keeper.run(), *self._timetable()],
            )
        finally:
            spool.close()
        if self._left_by is not None:
            await self._say_leave(*uplink.credentials)

    def _threads(self) -> int:
        """Arithmetic threads of the training process: no more than processors, unless the volunteer says so."""
        if (processors := self._limits.processors) is None or self._options.max_cpu is None:
            return self._options.threads or physical_cores()
        self._display.notice(processors_line(self._options.max_cpu, processors, os.sched_getaffinity(0)))
        return self._options.threads or min(physical_cores(), len(processors))

    def _timetable(self) -> list[Coroutine[Any, Any, None]]:
        """What lets the machine rest at its times, and while it is in use."""
        assert self._wishes is not None
        schedule, minutes, wishes = self._options.schedule, self._options.when_idle, self._wishes
        following: list[Coroutine[Any, Any, None]] = []
        if schedule is not None:
            following.append(follow_schedule(schedule, lambda wish: wishes.set("schedule", wish)))
        if minutes is not None:
            tell, notice = (lambda wish: wishes.set("use", wish)), self._display.notice
            following.append(follow_use(60.0 * minutes, Activity().look, tell, notice))
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

    def _take_final_snapshot(self, spool: SpoolFile) -> None:
        """The watcher is a few milliseconds behind: what the process wrote last is read here."""
        try:
            self._take(read_status(self._run_dir / STATUS_FILE), spool)
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            self._display.notice(f"the last snapshot cannot be read: {error}")

    async def _say_leave(self, participant: str, token: str) -> None:
        """End the participant's token; not where a person would have to be asked for the next one."""
        if self._place.wallet is None:
            return
        try:
            await asyncio.wait_for(self._client.leave(self._session, participant, token), _LEAVE_CALL_S)
        except (CotrainError, TimeoutError) as error:
            self._display.notice(f"the coordinator could not be told that this node left: {error}")

    # -------------------------------------------------------------------------------------------- wishes
    async def _reauthorize(self) -> tuple[str, str]:
        answer = await self._register()
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
