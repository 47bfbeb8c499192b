"""How a node gets into a session: registers, looks at its machine, fetches what is needed, writes the job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cotrain.errors import CotrainError
from cotrain.identity.challenge import Signer
from cotrain.membership.document import MembershipDocument
from cotrain.paths import MEMBERSHIP_FILE, SharedPaths
from cotrain.peer_key import PeerSigner
from cotrain.protocol import RegisterAnswer
from cotrain.reachability import Attachment, role_for
from node.addresses import listen_host
from node.browser import BrowserWallet
from node.checks import line_of
from node.choice import REFUSALS, TurnedAwayError
from node.client import CoordinatorClient, invitation_token
from node.job import JOB_FILE, Job, write_job
from node.limits import Limits
from node.network import Question, find_attachment
from node.options import JoinOptions
from node.preflight import SKIP, Subject, look_at_clock, preflight, refusal, within
from node.prepare import TRAIN_ASSET, assemble_model, fetch_assets, write_config
from node.registration import Applicant, register

PEER_KEY = "peer.key"
_LEAVE_CALL_S = 5.0


@dataclass(frozen=True)
class Place:
    """Where an agent keeps its things, and the wallet that it signs with; None: one in a browser elsewhere."""

    home: Path
    shared: SharedPaths
    wallet: Signer | None


class Admission:
    """One node's way into one session, and out of it.

    Args:
        run_dir: where the job and the peer's certificate are written.
        limits: what the training process may use of the machine.
        notice: told in one line what a person should know.
        took: given each new membership document of the peer.
    """

    def __init__(
        self, options: JoinOptions, place: Place, client: CoordinatorClient, session: str, run_dir: Path, *,
        limits: Limits, notice: Callable[[str], None], took: Callable[[MembershipDocument], None],
    ):  # fmt: skip
        self._options, self._place, self._client, self._session = options, place, client, session
        self._run_dir, self._limits, self._notice, self._took = run_dir, limits, notice, took
        self._invitation = invitation_token(options.invitation, options.url)
        self._browser = BrowserWallet(client, session, place.home, notice=notice)
        self._role = role_for("direct")

    async def enter(self, peer_id: str, processes: int) -> RegisterAnswer:
        """Be let in, and write the job of a training process, or of so many.

        Raises TurnedAwayError if the session does not take this node, and CotrainError for whatever else is in the way.
        """
        if self._options.host is not None:  # what is no address is refused before anybody is asked
            listen_host(self._options.host, self._client.base_url)
        await self._require_clock()
        try:
            answer = await self.register()
        except REFUSALS as error:
            raise TurnedAwayError(error) from error
        # only now: a coordinator's name that is not known yet is asked for again like one that does not answer
        host = await asyncio.to_thread(listen_host, self._options.host, self._client.base_url)
        await self._preflight(answer, host)
        answer, attachment = await self._attach(answer, host)
        await self._write_job(answer, attachment, peer_id=peer_id, host=host, processes=processes)
        return answer

    async def register(self) -> RegisterAnswer:
        """Be let into the session by the wallet: the sign-in ends with it, a person is asked only if there is need."""
        applicant = Applicant(
            PeerSigner(self._place.home / PEER_KEY), role=self._role, name=self._options.name,
            invitation=self._invitation, gpu_memory=self._limits.gpu_memory,
        )  # fmt: skip
        if (wallet := self._place.wallet) is None:
            answer = await self._browser.register(applicant)
        else:
            answer = await register(self._client, self._session, applicant, wallet, notice=self._notice)
        self._took(answer.membership)
        return answer

    async def say_leave(self, participant: str, token: str) -> None:
        """End the participant's token; not where a person would have to be asked for the next one."""
        if self._place.wallet is None:
            return
        try:
            await asyncio.wait_for(self._client.leave(self._session, participant, token), _LEAVE_CALL_S)
        except (CotrainError, TimeoutError) as error:
            self._notice(f"the coordinator could not be told that this node left: {error}")

    async def _require_clock(self) -> None:
        """Raises MachineError where the clock is wrong: what is signed then is refused, for reasons that mislead."""
        found = await within("clock", look_at_clock(self._client.base_url))
        if (trouble := refusal([found])) is not None and not self._options.skip_preflight:
            raise trouble

    async def _preflight(self, answer: RegisterAnswer, host: str) -> None:
        """Raises what keeps this machine from training here, unless told to skip it; what may become one is told."""
        subject = Subject(
            self._place.home, self._place.shared, host, self._options.port, self._client.base_url, answer,
            self._limits.gpu_memory,
        )  # fmt: skip
        found = await preflight(subject)
        for check in found:
            if check.state != "ok":
                self._notice(line_of(check))
        if (trouble := refusal(found)) is not None:
            if self._options.skip_preflight:
                self._notice(f"training all the same: {SKIP}")
                return
            await self.say_leave(answer.participant, answer.token)
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
            self._notice(attachment.notice)
        if (role := role_for(attachment.connection)) != self._role:
            self._role = role
            answer = await self.register()
        return answer, attachment

    async def _write_job(
        self, answer: RegisterAnswer, attachment: Attachment, *, peer_id: str, host: str, processes: int
    ) -> None:
        """Fetch what it names first."""
        assets = await fetch_assets(answer, self._place.shared, self._client, self._notice)
        job = Job(
            session=self._session,
            peer_id=peer_id,
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
            processes=processes,
            limits=self._limits,
        )
        write_job(self._run_dir / JOB_FILE, job)
