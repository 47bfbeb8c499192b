"""Peers' records in the DHT: who is in the swarm, how far it is, which outer state it holds.

One thread of this process talks to the DHT (more than one wedges hivemind's pipe), each call with a timeout. Everybody
else reads the newest view without waiting.
"""

from __future__ import annotations

import asyncio
import functools
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from hivemind.dht import DHT
from hivemind.dht.node import DHTNode
from hivemind.p2p import PeerID
from hivemind.utils import get_dht_time, get_logger
from hivemind.utils.multiaddr import Multiaddr
from hivemind.utils.timed_storage import ValueWithExpiration
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cotrain.reachability import Connection
from cotrain.swarm.gate import Gate
from cotrain.swarm.mailbox import read_dictionary
from cotrain.swarm.pace import Pace
from cotrain.swarm.records import MAX_EXPIRY_S, MAX_RECORD_BYTES, PAGE_MARK
from cotrain.swarm.rounds import PeerProgress, seconds_to_close
from cotrain.swarm.silence import Silence

logger = get_logger(__name__)

PROTOCOL = 1
CALL_TIMEOUT_S = 10.0
OBSERVER_MISSED_S = 10.0
"""Seconds without an observer in view after which it is called again."""
REDIAL_S = 2.0
DAEMON_ASKED_EVERY_S = 5.0
DAEMON_TIMEOUT_S = 5.0
REVOCATIONS_EVERY_S = 5.0
"""How often lists of revoked certificates are stored by an observer, and read by everybody else."""

Role = Literal["train", "observe"]
UNMET = "has not been asked for its certificate yet"
REFUSED = "has shown no certificate that holds"

Digest = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]


class PeerRecord(BaseModel):
    """What a peer says of itself; at most 4 kB, valid for a few seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    protocol: int = PROTOCOL
    role: Role = "train"
    """observe: the checkpointer, which trains nothing."""
    connection: Connection = "direct"
    """How others connect to it."""
    round: Annotated[int, Field(ge=-1, le=2**40)] = -1
    """Round of the outer state that it holds and serves; -1: none yet."""
    digest: Digest = ""
    committed: Annotated[int, Field(ge=0, le=2**60)] = 0
    """Samples committed in that state."""
    steps: Annotated[int, Field(ge=0, le=2**40)] = 0
    """Inner steps since its round began."""
    steps_per_s: Annotated[float, Field(ge=0.0, le=1e6)] = 0.0
    closing: bool = False
    """It proposes to close the round."""
    sent_at: Annotated[float, Field(ge=0.0)] = 0.0
    """DHT time, seconds."""


@dataclass(frozen=True)
class SwarmView:
    """The swarm as it was last seen, this peer left out.

    Attributes:
        peers: valid records by peer id.
        refused: why records of other peers were not taken, by peer id.
        seen_at: `time.monotonic()` of the view.
        after_stall: the first after the DHT has answered nothing for long. Records of peers that live may be missing:
            whatever kept this peer from reading kept them from writing.
    """

    peers: dict[str, PeerRecord] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    seen_at: float = 0.0
    after_stall: bool = False

    def following(self, earlier: SwarmView, record_ttl_s: float) -> SwarmView:
        """This view as the next one after `earlier`. Of two in a row that are late, only the first is after a stall."""
        stalled = self.seen_at - earlier.seen_at > record_ttl_s / 3
        return replace(self, after_stall=stalled and not earlier.after_stall)

    @property
    def unmet(self) -> list[str]:
        """Peers whose certificate is not known yet."""
        return [peer for peer, reason in self.refused.items() if reason == UNMET]

    def trainers(self) -> dict[str, PeerRecord]:
        """Peers that train and hold a state."""
        return {peer: record for peer, record in self.peers.items() if record.role == "train" and record.round >= 0}

    def progress(self) -> list[PeerProgress]:
        """How far the other trainers are."""
        return [PeerProgress(r.round, r.steps, r.steps_per_s, r.sent_at, r.closing) for r in self.trainers().values()]

    def donors(self, at_least: int = 0) -> list[tuple[str, int, str]]:
        """(peer, round, digest) of those that serve a state of round `at_least` or later, best first.

        The newest round first; within it the digest that most hold, then trainers before the checkpointer.
        """
        held = [(p, r) for p, r in self.peers.items() if r.round >= max(0, at_least) and r.digest]
        votes: dict[tuple[int, str], int] = {}
        for _, record in held:
            votes[(record.round, record.digest)] = votes.get((record.round, record.digest), 0) + 1

        def rank(item: tuple[str, PeerRecord]) -> tuple[int, int, int, str, bool]:
            record = item[1]
            return (
                record.round, votes[(record.round, record.digest)], record.committed, record.digest,
                record.role == "train",
            )  # fmt: skip

        return [(peer, record.round, record.digest) for peer, record in sorted(held, key=rank, reverse=True)]


def parse_records(stored: Any, me: str, now: float, role_of: Callable[[str], Role]) -> SwarmView:
    """Read what the DHT returned for the session's key; what is not a valid record is refused with its reason.

    `role_of`: what a peer's certificate lets it be; raises ValueError (UNMET, REFUSED) for one that is no known member.
    """
    peers: dict[str, PeerRecord] = {}
    refused: dict[str, str] = {}
    for subkey, entry in (stored if isinstance(stored, dict) else {}).items():
        peer = str(subkey)[:128]
        if peer == me:
            continue
        try:
            record = _parse_record(entry, now)
            if record.role != (role := role_of(peer)):
                raise ValueError(f"says that it is here to {record.role}, its certificate is one to {role}")
            peers[peer] = record
        except (ValueError, ValidationError) as error:
            refused[peer] = str(error).splitlines()[0]
    return SwarmView(peers, refused, time.monotonic())


def _parse_record(entry: Any, now: float) -> PeerRecord:
    if not isinstance(entry, ValueWithExpiration) or not isinstance(entry.value, str):
        raise ValueError("is not a record")
    if not math.isfinite(entry.expiration_time) or entry.expiration_time > now + MAX_EXPIRY_S:
        raise ValueError("expires too far ahead")
    if len(entry.value) > MAX_RECORD_BYTES:
        raise ValueError("is too large")
    record = PeerRecord.model_validate_json(entry.value)
    if record.protocol != PROTOCOL:
        raise ValueError(f"speaks protocol {record.protocol}, this peer {PROTOCOL}: the older side must upgrade")
    return record


class Directory:
    """This peer's record in one session, and its view of the others'. A DhtThread keeps both up to date."""

    def __init__(
        self, dht: DHT, session: str, *, record_ttl_s: float, gate: Gate, introduce: Callable[[str], None],
        role: Role = "train", bootstrap: Sequence[str] = (),
        on_revocations: Callable[[list[str]], None] = lambda sealed: None,
    ):  # fmt: skip
        """`gate` knows the members; `introduce` is called, in the DHT's thread, for each peer in view that it does not
        know, again and again until it does; it must not wait. `on_revocations` hears of signed lists that are new.

        `bootstrap`: libp2p addresses of observers, called again when none has been in view for a while.
        """
        self._dht, self._key = dht, f"{session}.peers"
        self._me = dht.peer_id.to_base58()
        self._ttl_s, self._gate, self._introduce = record_ttl_s, gate, introduce
        self._bootstrap, self._on_revocations = list(bootstrap), on_revocations
        self._revocations_key, self._revocations_at = f"{session}.revocations", 0.0
        self._revocations: set[str] = set()
        self._seen_once: set[str] = set()
        self._daemon_asked_at = -math.inf
        self._observer_seen_at = time.monotonic()
        self._record = PeerRecord(role=role)
        self._view = SwarmView()
        self._refreshed = threading.Condition()
        self._pace = Pace(record_ttl_s)
        self._expiration = 0.0
        self.urgent = threading.Event()
        """Set when the record must be stored at once; replaced by the thread that serves this directory."""

    @property
    def view(self) -> SwarmView:
        """The swarm as last seen; never waits."""
        return self._view

    def announce(self, *, urgent: bool = False, **changes: Any) -> None:
        """Change this peer's record. It is stored within a second or so, at once if `urgent`."""
        self._record = self._record.model_copy(update=changes)
        if urgent:
            self._pace.stored_at = -math.inf
            self.urgent.set()

    def rest_in_round(self, round_: int, inner_steps: int, my_left_s: float = math.inf) -> None:
        """Read and write less often until shortly before somebody may propose to close this round: it costs computing.

        Where nobody else is in it, newcomers are waited for. `my_left_s`: until this peer has done its inner steps.
        """
        others = self._view.progress()
        if not any(other.round == round_ for other in others):
            return self._pace.wake()
        left_s = seconds_to_close(round_, my_left_s, others, inner_steps, get_dht_time())
        return self._pace.rest(time.monotonic(), left_s)

    def rest_while_averaging(self) -> None:
        """Read and write less often until `wake`: what the group does is not read in the DHT."""
        self._pace.rest(time.monotonic(), math.inf)

    def wake(self) -> None:
        """Read as often as can be: the others are waited for."""
        self._pace.wake()

    def wait_for(self, condition: Callable[[SwarmView], bool], timeout_s: float) -> bool:
        """Wait until a refreshed view fulfils the condition; False when the time is over."""
        with self._refreshed:
            return self._refreshed.wait_for(lambda: condition(self._view), timeout_s)

    # ------------------------------------------------------------------------------------------ by the DhtThread
    @property
    def is_due(self) -> bool:
        """Whether it is time to refresh."""
        return self._pace.is_look_due(time.monotonic())

    def refresh(self) -> None:
        """Store the record if it is due, and read the others'. Waits for the DHT."""
        now = self._pace.looked_at = time.monotonic()
        self._ask_daemon(now)
        if self._pace.is_store_due(now):
            self._pace.stored_at = now
            self._store(self._record)
        found = read_dictionary(self._dht, self._key, CALL_TIMEOUT_S)
        view = parse_records(found, self._me, get_dht_time(), self._role_of)
        for peer, reason in view.refused.items():
            if reason not in (UNMET, self._view.refused.get(peer)):
                logger.warning(f"record of {peer} refused: {reason}")
        self._look_for_observers(view)
        with self._refreshed:
            self._view = view.following(self._view, self._ttl_s)
            self._refreshed.notify_all()
        self._meet([peer for peer, reason in view.refused.items() if reason in (UNMET, REFUSED)])
        self._exchange_revocations()

    def _ask_daemon(self, now: float) -> None:
        """Without its daemon a DHT goes on answering, from its own memory."""
        if now - self._daemon_asked_at >= DAEMON_ASKED_EVERY_S:
            self._dht.run_coroutine(_ask_daemon, return_future=True).result(CALL_TIMEOUT_S)
            self._daemon_asked_at = now

    def _role_of(self, peer: str) -> Role:
        certificate = self._gate.member(peer)
        if certificate is None:
            raise ValueError(REFUSED if self._gate.has_refused(peer) else UNMET)
        return "observe" if certificate.role == "observe" else "train"

    def _meet(self, unknown: list[str]) -> None:
        """Have unknown peers introduced. Of two, the one with the larger id waits, so that there is one connection."""
        for peer in unknown:
            if self._me < peer or peer in self._seen_once:
                self._introduce(peer)
        self._seen_once = set(unknown)

    def _exchange_revocations(self) -> None:
        """The observer stores the coordinator's lists, everybody else reads them."""
        storing = self._record.role == "observe"
        if time.monotonic() - self._revocations_at < REVOCATIONS_EVERY_S:
            return
        self._revocations_at = time.monotonic()
        if storing:
            self._store_revocations()
            return
        heard = {entry.value for entry in read_dictionary(self._dht, self._revocations_key, CALL_TIMEOUT_S).values()}
        news = [text for text in heard - self._revocations if self._gate.learn_revocations(text) is not None]
        self._revocations = heard
        if news:
            self._on_revocations(news)

    def _store_revocations(self) -> None:
        for page, sealed in enumerate(self._gate.revocations):
            revocations = self._gate.learn_revocations(sealed)
            if revocations is not None and (revocations.serials or page):
                self._dht.store(
                    self._revocations_key, subkey=f"{self._me}{PAGE_MARK}{page}", value=sealed,
                    expiration_time=min(float(revocations.expires_at), get_dht_time() + MAX_EXPIRY_S - 1.0),
                    return_future=True,
                ).result(CALL_TIMEOUT_S)  # fmt: skip

    def _look_for_observers(self, view: SwarmView) -> None:
        """An observer that was restarted knows nobody: call it at its lasting address, to have it in the DHT again."""
        if any(record.role == "observe" for record in view.peers.values()):
            self._observer_seen_at = time.monotonic()
        elif self._bootstrap and time.monotonic() - self._observer_seen_at > OBSERVER_MISSED_S:
            self._observer_seen_at = time.monotonic()
            call = functools.partial(_call_peers, addresses=self._bootstrap)
            self._dht.run_coroutine(call, return_future=True).result(CALL_TIMEOUT_S)

    def withdraw(self) -> None:
        """Replace the record by one that holds no state: it counts neither as a trainer nor as a donor."""
        self._store(PeerRecord(role=self._record.role))

    def _store(self, record: PeerRecord) -> None:
        # the DHT keeps the record that expires last: a new one must expire later than the old one
        self._expiration = max(get_dht_time() + self._ttl_s, self._expiration + 1e-3)
        future = self._dht.store(
            self._key, subkey=self._me,
            value=record.model_copy(update={"sent_at": get_dht_time()}).model_dump_json(),
            expiration_time=self._expiration, return_future=True,
        )  # fmt: skip
        future.result(CALL_TIMEOUT_S)


async def _ask_daemon(_dht: DHT, node: DHTNode) -> None:
    """In the DHT's process. Raises if the daemon is gone or does not answer."""
    await asyncio.wait_for(node.p2p._client.identify(), DAEMON_TIMEOUT_S)


async def _call_peers(_dht: DHT, node: DHTNode, addresses: Sequence[str]) -> None:
    """In the DHT's process: connect to peers and ping them, which puts either side into the other's routing table."""
    for address in addresses:
        maddr = Multiaddr(address)
        peer = PeerID.from_base58(maddr["p2p"])
        try:
            await asyncio.wait_for(node.p2p._client.connect(peer, [maddr.decapsulate(f"/p2p/{peer}")]), REDIAL_S)
            await node.protocol.call_ping(peer)
        except Exception as error:
            logger.info(f"{address} does not answer: {error!r}")


class DhtThread:
    """The one thread of a process that talks to the DHT; serves any number of directories."""

    def __init__(self, refresh_s: float = 0.25):
        self._refresh_s = refresh_s
        self._directories: list[Directory] = []
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._leaving: list[Directory] = []
        self._silence = Silence()
        self._thread = threading.Thread(target=self._run, name="dht", daemon=True)
        self._thread.start()

    def add(self, directory: Directory) -> None:
        """Serve this directory from now on."""
        directory.urgent = self._wake
        with self._lock:
            self._directories.append(directory)
        self._wake.set()

    def remove(self, directory: Directory) -> None:
        """Serve it no longer; its record is withdrawn."""
        with self._lock:
            self._directories.remove(directory)
            self._leaving.append(directory)
        self._wake.set()

    def require_answers(self) -> None:
        """Raises SwarmError if this machine's own daemon is silent."""
        self._silence.require_none(time.monotonic())

    def stop(self) -> None:
        """Withdraw all records and end the thread; waits for that, bounded."""
        self._stopping = True
        self._wake.set()
        self._thread.join(CALL_TIMEOUT_S)

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(self._refresh_s)
            self._wake.clear()
            with self._lock:
                directories, leaving, self._leaving = list(self._directories), self._leaving, []
            for directory in directories:
                if directory.is_due:
                    self._attempt(directory.refresh)
            for directory in leaving:
                self._attempt(directory.withdraw)
        for directory in [*self._directories, *self._leaving]:
            self._attempt(directory.withdraw)

    def _attempt(self, call: Callable[[], None]) -> None:
        try:
            call()
            self._silence.end()
        except Exception as error:
            self._silence.note(time.monotonic())
            logger.warning(f"the DHT did not answer: {error!r}")
