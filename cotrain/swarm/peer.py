"""This machine's peer in a session's swarm: DHT, directory, averager and outer state behind the trainer's interface."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from hivemind.utils import MPFuture, get_dht_time, get_logger
from torch import Tensor

from cotrain.config import RunConfig
from cotrain.errors import SwarmError
from cotrain.membership.document import MembershipSource
from cotrain.peer_key import PeerSigner
from cotrain.reachability import Connection, is_loopback
from cotrain.status import TrainingStopped
from cotrain.swarm.averager import RoundAverager
from cotrain.swarm.daemon import addresses_of, has_relay, start_dht
from cotrain.swarm.dht import DhtThread, Directory, PeerRecord, SwarmView
from cotrain.swarm.evidence_courier import EvidenceCourier
from cotrain.swarm.follow import StateFollower
from cotrain.swarm.gate import Gate
from cotrain.swarm.introductions import Introductions
from cotrain.swarm.line_speed import announced_uplink, measure_uplink
from cotrain.swarm.loop import LoopThread
from cotrain.swarm.outcome import MinorityError, OutdatedStateError, RoundOutcome
from cotrain.swarm.relay_watch import RelayWatch
from cotrain.swarm.rounds import Announcement, RoundLimits, should_close
from cotrain.swarm.shared_memory import require_shared_memory
from cotrain.swarm.silence import require_running
from cotrain.swarm.state import SharedState
from cotrain.train.codec import make_codec
from cotrain.train.diloco import OuterOptimizer, OuterState, RoundLengths
from cotrain.train.fragments import Fragments, positions
from cotrain.train.synchronizer import ClosedRound, LocalWork, RoundNotClosed, StateOutdated

logger = get_logger(__name__)

JOIN_TIMEOUT_S = 120.0
MEET_TIMEOUT_S = 3.0
WISH_INTERVAL_S = 0.5
FAREWELL_TIMEOUT_S = 30.0
HANDOVER_TIMEOUT_S = 600.0
"""How long the last peers of a session keep its final state for a checkpointer that is away."""
MINORITY_RETRY_S = 0.5
"""After a group of too few: long enough for the others to catch up and to write it."""
ROUND_LIMIT_S = 300.0
"""Longer than every wait of a round together: whoever takes longer hangs."""
RETRY_AFTER_S = 3.0
"""After a round that was not closed: long enough that every peer that lives has written a newer record."""


class SwarmPeer:
    """A training peer. Build it on the main thread, before any other thread and before a GPU is touched: it forks."""

    def __init__(
        self, config: RunConfig, *, numel: int, samples_wanted: int, identity_path: Path,
        membership: MembershipSource, initial_peers: Sequence[str], host: str, port: int,
        connection: Connection = "direct", on_wait: Callable[[str], None], on_download: Callable[[float], None],
        on_notice: Callable[[str], None] = lambda what: None, obey: Callable[[], None] = lambda: None,
        fragments: Fragments | None = None, most_bytes_per_s: int | None = None,
    ):  # fmt: skip
        """`on_wait` is told what is waited for, again and again, and nothing (empty) once it is over; `on_download` the
        share of the state that has arrived; `on_notice` what the volunteer should know. `fragments`: what rounds
        average; absent: all `numel` parameters in each. `most_bytes_per_s`: bounds what is sent; absent: the line does.

        `obey` is called while this peer waits; what it raises (TrainingStopped) ends the wait.
        """
        require_shared_memory(numel)
        self._config, self._on_wait, self._obey = config, on_wait, obey
        self._lengths = RoundLengths.from_config(config, samples_wanted)
        self._fragments = fragments or Fragments.whole(numel)
        self._vector = torch.zeros(max(self._fragments.sizes())).share_memory_()
        self._shared = SharedState(numel)
        gate = Gate(config.session.id, membership)
        self._dht = start_dht(
            host=host, port=port, initial_peers=initial_peers, identity_path=identity_path, connection=connection
        )
        # the averager's process has a copy of the gate, which learns for itself
        self._averager = RoundAverager(
            self._vector, self._dht, session=config.session.id, codec=config.diloco.codec, state=self._shared,
            gate=gate, membership=membership, signer=PeerSigner(identity_path),
            matchmaking_s=config.swarm.matchmaking_s, min_peers=config.swarm.min_peers,
            aggregation=config.swarm.aggregation, fragment_sizes=self._fragments.sizes(),
            most_bytes_per_s=most_bytes_per_s,
        )  # fmt: skip
        # no fork after this line
        self._start_threads(gate, initial_peers, connection, on_notice)
        self._follower = StateFollower(
            session=config.session.id, shared=self._shared, codec=make_codec(config.diloco.codec),
            optimizer=OuterOptimizer.from_config(config, samples_wanted, self._fragments),
            view=lambda: self._directory.view, progress=on_download,
        )  # fmt: skip
        self._state: OuterState | None = None
        self._digest = ""
        self._active = True
        self._most_bytes_per_s, self._due = most_bytes_per_s, self._vector
        self._uplink = announced_uplink(most_bytes_per_s or 0)
        self._round_future: MPFuture | None = None
        self._expected: dict[str, float] = {}
        self._absent: dict[str, float] = {}
        self._retry_at = self._begun_at = self._state_noted_at = 0.0

    def _start_threads(
        self, gate: Gate, initial_peers: Sequence[str], connection: Connection, on_notice: Callable[[str], None]
    ) -> None:
        """What speaks to others beside the rounds: records in the DHT, evidence, and the watch over the relay."""
        placed = connection == "relayed" and has_relay(self._dht)
        if connection == "relayed" and not placed:
            on_notice("the coordinator's machine relays nothing for this node now: join again if rounds fail")
        self._loop = LoopThread("libp2p")
        session = self._config.session.id
        self._directory = Directory(
            self._dht, session, record_ttl_s=self._config.swarm.record_ttl_s, gate=gate,
            introduce=Introductions(self._dht, self._loop, gate), bootstrap=initial_peers,
            on_revocations=self._averager.learn_revocations,
        )  # fmt: skip
        self._directory.announce(connection=connection)
        self._dht_thread = DhtThread()
        self._dht_thread.add(self._directory)
        self._courier = EvidenceCourier(
            self._dht, self._loop, session, view=lambda: self._directory.view, tell=on_notice
        )
        self._relay_watch = RelayWatch(self._dht, lambda: _observers(self._directory.view) > 0)
        if placed:
            self._loop.start(self._relay_watch.run())

    def _wait_for(self, what: str, condition: Callable[[SwarmView], bool], timeout_s: float) -> bool:
        """Wait for a view of the swarm, obeying wishes meanwhile; False when the time is over."""
        self._on_wait(what)
        self._directory.wake()
        deadline = time.monotonic() + timeout_s
        try:
            while not self._directory.wait_for(condition, WISH_INTERVAL_S):
                self._obey()
                self._require_daemon()
                if time.monotonic() > deadline:
                    return False
            return True
        finally:
            self._on_wait("")

    def _require_daemon(self) -> None:
        require_running(self._dht)
        self._dht_thread.require_answers()

    # ------------------------------------------------------------------------------------------ who is there
    @property
    def peer_id(self) -> str:
        return str(self._dht.peer_id.to_base58())

    @property
    def addresses(self) -> list[str]:
        """libp2p addresses under which this peer can be reached."""
        return addresses_of(self._dht)

    @property
    def peers(self) -> int:
        return len(self._directory.view.trainers()) + 1

    def share(self) -> tuple[int, int]:
        everybody = sorted([self.peer_id, *self._directory.view.trainers()])
        return everybody.index(self.peer_id), len(everybody)

    # ------------------------------------------------------------------------------------------ the outer state
    def join(self, initial: OuterState) -> OuterState:
        """The state that the swarm serves; the checkpointer has one from the session's beginning on."""
        if not self._wait_for("a peer that serves the outer state", lambda view: bool(view.donors()), JOIN_TIMEOUT_S):
            raise SwarmError(
                f"nobody in the swarm served the outer state within {JOIN_TIMEOUT_S:.0f} s",
                hint="is the session still open? its page shows whether the checkpointer is online",
            )
        # one that is further may still be about to show its certificate
        self._directory.wait_for(lambda view: not view.unmet, MEET_TIMEOUT_S)
        self._loop.start(self._measure_uplink())
        return self._catch_up(None, "the outer state")

    async def _measure_uplink(self) -> None:
        """Beside everything else: until it is known, this peer counts as an ordinary one."""
        observers = [peer for peer, record in self._directory.view.peers.items() if record.role == "observe"]
        if not observers or all(is_loopback(address) for address in self.addresses):
            return
        try:
            p2p = await self._dht.replicate_p2p()
            session, most = self._config.session.id, self._most_bytes_per_s
            self._uplink = announced_uplink(await measure_uplink(p2p, observers[0], session, most_bytes_per_s=most))
        except SwarmError as error:
            logger.info(f"{error}")

    def resync(self, state: OuterState) -> OuterState:
        # what is held is known to be wrong or old: only a full download can be checked
        newer = any(round_ > state.round for _, round_, _ in self._directory.view.donors())
        return self._catch_up(state if newer else None, "the outer state of the majority")

    def _catch_up(self, held: OuterState | None, what: str) -> OuterState:
        self._on_wait(what)
        try:
            state, digest = self._loop.run(
                self._follow(held), 2 * JOIN_TIMEOUT_S, meanwhile=lambda: require_running(self._dht)
            )  # fmt: skip
        finally:
            self._on_wait("")
        self._averager.forget_residuals()
        self._note_state(state, digest)
        return state

    async def _follow(self, held: OuterState | None) -> tuple[OuterState, str]:
        return await self._follower.catch_up(await self._dht.replicate_p2p(), held, timeout_s=JOIN_TIMEOUT_S)

    def next_buffers(self) -> tuple[Tensor, Tensor]:
        return self._shared.next_buffers()

    def publish(self, state: OuterState) -> tuple[OuterState, str]:
        digest = state.digest()
        stored = self._shared.publish(state, digest)
        self._note_state(stored, digest)
        return stored, digest

    def _note_state(self, state: OuterState, digest: str) -> None:
        self._state, self._digest, self._state_noted_at = state, digest, time.monotonic()
        if self._active:
            self._announce_state()

    def _announce_state(self) -> None:
        assert self._state is not None
        self._directory.announce(
            urgent=True, round=self._state.round, digest=self._digest, committed=self._state.samples, steps=0,
            closing=False,
        )  # fmt: skip

    def set_active(self, active: bool) -> None:
        self._active = active
        if active:
            self._announce_state()
        else:
            self._directory.announce(urgent=True, round=-1, digest="", steps=0, closing=False)

    # ------------------------------------------------------------------------------------------ rounds
    def report(self, work: LocalWork, steps_per_s: float) -> None:
        self._directory.announce(steps=work.steps, steps_per_s=round(steps_per_s, 4))

    def gather(self) -> None:
        """Wait for the session's nominal number of nodes before the first round, at most `gather_s` seconds."""
        wanted = self._config.distributed.nodes
        if self._state is None or self._state.round > 0 or self.peers >= wanted:
            return
        self._wait_for(
            f"{wanted} nodes, {self.peers} are here",
            lambda view: len(view.trainers()) + 1 >= wanted or any(r.round > 0 for r in view.peers.values()),
            self._config.swarm.gather_s,
        )

    def should_close(self, work: LocalWork, wait_s: float = 0.0) -> bool:
        assert self._state is not None
        self._require_daemon()
        if self._relay_watch.is_lost:
            raise SwarmError("the relay has lost this node", hint="the agent starts the run again, to be found anew")
        if wait_s > 0:
            self._directory.wake()
            seen = self._directory.view
            self._directory.wait_for(lambda view: view is not seen, wait_s)
        if time.monotonic() < self._retry_at:
            return False
        view, round_ = self._directory.view, self._state.round
        if view.seen_at < self._state_noted_at or view.after_stall:
            return False  # it tells where the others were before this state, or misses some: they may be further
        self._check_not_behind(view, round_)
        here = len([r for r in view.trainers().values() if r.round == round_]) + 1
        if here < self._config.swarm.min_peers:
            self._on_wait(f"{self._config.swarm.min_peers} peers, {here} are here")
            return False
        inner_steps = self._lengths.inner_steps_at(self._state.samples)
        lasted_s = time.monotonic() - self._state_noted_at
        left_s = lasted_s * max(0, inner_steps - work.steps) / work.steps if work.steps else math.inf
        self._directory.rest_in_round(round_, inner_steps, left_s)
        return should_close(
            round_, work.steps, view.progress(), inner_steps, get_dht_time(), lasted_s=lasted_s,
            limits=RoundLimits(self._config.swarm.max_round_s, self._config.swarm.grace),
        )  # fmt: skip

    @staticmethod
    def _check_not_behind(view: SwarmView, round_: int) -> None:
        """Between rounds nobody can be ahead, unless a round was closed without this peer."""
        ahead = [record.round for record in view.trainers().values() if record.round > round_]
        if ahead:
            raise StateOutdated(f"the swarm is at round {max(ahead)}, this peer at round {round_}")

    def begin_round(self, state: OuterState, local_parameters: Tensor, work: LocalWork) -> None:
        self._due = self._vector[: self._fragments.size_due(state.round)]
        with self._averager.get_tensors():
            for here, there in positions(self._fragments.due(state.round)):
                torch.sub(state.parameters[here], local_parameters[here], out=self._due[there])
        self._directory.rest_while_averaging()
        self._directory.announce(urgent=True, steps=work.steps, closing=True)
        # whatever round their last record names: a peer that is here comes, and a stale record must not make two
        # peers close the same round apart from each other
        self._expected = {
            peer: record.sent_at
            for peer, record in self._directory.view.trainers().items()
            if not self._is_absent(peer, record)
        }
        announcement = Announcement(
            round=state.round, digest=self._digest, committed=state.samples, steps=work.steps, samples=work.samples,
            ranks=work.ranks, warm=work.warm, alive=len(self._expected) + 1, uplink=self._uplink,
        )  # fmt: skip
        self._begun_at = time.monotonic()
        self._round_future = self._averager.close_round(announcement, list(self._expected))

    def _is_absent(self, peer: str, record: PeerRecord) -> bool:
        """A peer that did not come to a group counts as gone until it writes a newer record.

        Only after RETRY_AFTER_S, or two that missed each other would close the same round apart from each other.
        """
        return record.sent_at <= self._absent.get(peer, -1.0)

    def poll_round(self, wait_s: float) -> ClosedRound | None:
        future = self._round_future
        assert future is not None, "no round was begun"
        try:
            outcome: RoundOutcome = future.result(wait_s)
        except TimeoutError:
            self._check_averager()
            return None
        except OutdatedStateError as error:
            self._end_round()
            raise StateOutdated(str(error)) from error
        except MinorityError as error:
            self._retry_at = time.monotonic() + MINORITY_RETRY_S
            self._end_round()
            raise RoundNotClosed(str(error)) from error
        except SwarmError as error:
            self._absent, self._retry_at = dict(self._expected), time.monotonic() + RETRY_AFTER_S
            self._end_round()
            raise RoundNotClosed(str(error)) from error
        self._end_round()
        self._absent = {}
        self._courier.take(outcome.evidence)
        return ClosedRound(outcome.totals, outcome.bytes_sent, outcome.bytes_received, outcome.record())

    def _check_averager(self) -> None:
        require_running(self._dht)
        if not self._averager.is_alive():
            raise SwarmError("the averaging process has died", hint="the agent starts the run again")
        if time.monotonic() - self._begun_at > ROUND_LIMIT_S:
            raise SwarmError(
                f"the averaging process has said nothing for {ROUND_LIMIT_S:.0f} s",
                hint="the agent starts the run again",
            )

    def _end_round(self) -> None:
        self._round_future = None
        self._directory.wake()
        self._directory.announce(closing=False)

    def average(self) -> Tensor:
        return self._due

    # ------------------------------------------------------------------------------------------ the end
    def leave(self, final: OuterState | None) -> None:
        try:
            if final is not None:
                self._hand_over(final.round)
        except TrainingStopped as stopped:
            logger.info(f"leaving without waiting any longer: {stopped.wish}")
        finally:
            if self._dht.is_alive():
                self._dht_thread.stop()
                self._loop.stop()
                self._averager.shutdown()
                self._dht.shutdown()
            else:  # nobody can be told good-bye, and each of these would wait until its time is over
                self._averager.kill()

    def _hand_over(self, round_: int) -> None:
        """Stay until the others have the final state: the trainers for a while, the checkpointer for long."""
        self._wait_for("the others to have the final state", lambda view: _all_at(view, round_), FAREWELL_TIMEOUT_S)
        self._wait_for("the checkpointer to have the final state", lambda v: _kept(v, round_), HANDOVER_TIMEOUT_S)


def _all_at(view: SwarmView, round_: int) -> bool:
    """Whether every peer that holds a state, the checkpointer among them, has this round."""
    holders = [record for record in view.peers.values() if record.round >= 0]
    return all(record.round >= round_ for record in holders)


def _observers(view: SwarmView) -> int:
    return sum(record.role == "observe" for record in view.peers.values())


def _kept(view: SwarmView, round_: int) -> bool:
    """Whether a peer that outlives the trainers has this round."""
    return any(record.role == "observe" and record.round >= round_ for record in view.peers.values())
