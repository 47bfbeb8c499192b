"""Two processes that train: in a swarm of ours, without any swarm, and with hivemind's own averager between rounds."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import hivemind
import torch
from torch import Tensor

from benchmarks.swarm_figures import Figure
from benchmarks.swarm_wire import stock_averager
from cotrain.config import RunConfig
from cotrain.membership.document import HeldMembership
from cotrain.membership.issuer import Issuer
from cotrain.peer_key import load_or_create_peer_key
from cotrain.sections import (
    DataSection,
    DilocoSection,
    DistributedSection,
    ModelSection,
    SessionSection,
    SwarmSection,
    TrainSection,
)
from cotrain.swarm.daemon import start_dht
from cotrain.swarm.dht import DhtThread
from cotrain.swarm.loop import LoopThread
from cotrain.swarm.observer import SessionObserver
from cotrain.swarm.peer import SwarmPeer
from cotrain.train.data.prepare import PreparedDataset, prepare_dataset
from cotrain.train.data.samples import TaskDataset
from cotrain.train.diloco import OuterState, RoundLengths, RoundTotals
from cotrain.train.inner import InnerLoop
from cotrain.train.model import build_model, count_parameters, flatten_parameters
from cotrain.train.parallel import ParallelGroup
from cotrain.train.reporter import ControlFile, StatusReporter
from cotrain.train.synchronizer import ClosedRound, LocalSynchronizer, LocalWork, Synchronizer
from cotrain.train.tasks.registry import make_task
from cotrain.train.trainer import Trainer
from tests.integration.swarm_fixtures import ChildHandle, _Child
from tests.membership_fixtures import membership_of
from tests.netns import Host, network

INNER_STEPS = 50
TIMEOUT_S = 1800.0
STOCK_TIMEOUT_S = 20.0
"""For hivemind's own matchmaking."""
FOLLOW_S = 0.5
"""How long the observer waits for news before it looks by itself."""
Way = Literal["swarm", "alone", "stock"]


@dataclass(frozen=True)
class Case:
    """What is trained where; `mbit_per_s` None: on the loopback of this machine."""

    size: str
    peers: int
    rounds: int
    batch: int
    seq_length: int
    mbit_per_s: int | None = None

    def config(self, way: Way) -> RunConfig:
        """Int4 and the default overlap; hivemind's own averager has nothing to overlap with."""
        return RunConfig(
            session=SessionSection(id="benchmark"),
            model=ModelSection(type="llama3", size=self.size),
            train=TrainSection(
                batch_size=self.batch, gradient_accumulation_steps=1, learning_rate=2e-3,
                max_steps=self.rounds * INNER_STEPS,
            ),
            distributed=DistributedSection(nodes=1 if way == "alone" else self.peers),
            diloco=DilocoSection(inner_steps=INNER_STEPS, overlap_steps=0 if way == "stock" else None),
            swarm=SwarmSection(matchmaking_s=5.0),
            data=DataSection(seq_length=self.seq_length, validation_split=0.1),
        )  # fmt: skip


class StockSynchronizer(LocalSynchronizer):
    """OpenDiLoCo's way on hivemind's own averager: after its inner steps each peer stops and averages."""

    def __init__(self, averager: hivemind.DecentralizedAverager, vector: Tensor, peers: int):
        super().__init__(RoundLengths(INNER_STEPS))
        self._averager, self._vector, self.peers = averager, vector, peers
        self._step: Any = None
        self.failed_rounds = 0

    def begin_round(self, state: OuterState, local_parameters: Tensor, work: LocalWork) -> None:
        self._totals = RoundTotals(self.peers * work.samples, self.peers * work.samples)
        with self._averager.get_tensors():
            torch.sub(state.parameters, local_parameters, out=self._vector)
        self._step = self._averager.step(wait=False, timeout=STOCK_TIMEOUT_S, gather=work.samples)

    def poll_round(self, wait_s: float) -> ClosedRound | None:
        try:
            self._step.result(wait_s)
        except Exception:
            if not self._step.done():
                return None
            self.failed_rounds += 1  # it goes on with its own values, as OpenDiLoCo does
        return ClosedRound(self._totals)

    def average(self) -> Tensor:
        return self._vector.clone()


class BareObserver(_Child):
    """A session's observer that follows the rounds, as a checkpointer's does; it neither evaluates nor saves."""

    def __init__(self, case: Case, prepared: PreparedDataset, folder: Path, address: str):
        config = case.config("swarm")
        key = folder / "observer.key"
        peer_id = load_or_create_peer_key(key)
        model = build_model(config.model, prepared.spec, seed=0)
        self._dht = start_dht(host=address, port=0, initial_peers=[], identity_path=key)
        self._thread, self._loop = DhtThread(), LoopThread("libp2p")
        document = membership_of(folder / "keys", config.session.id, peer_id, role="observe")
        self._observer = SessionObserver(
            config, OuterState.initial(flatten_parameters(model)), dht=self._dht, dht_thread=self._thread,
            samples_wanted=config.samples_wanted(0), loop=self._loop,
            membership=HeldMembership(document),
        )  # fmt: skip
        self._stopping = threading.Event()
        self._follower = threading.Thread(target=self._follow)
        self._follower.start()

    def _follow(self) -> None:
        while not self._stopping.is_set():
            self._observer.wait_for_news(FOLLOW_S)
            self._observer.follow()

    def addresses(self) -> list[str]:
        return [str(address) for address in self._dht.get_visible_maddrs()]

    def quit(self) -> None:
        self._stopping.set()
        self._follower.join()
        self._observer.close()
        self._thread.stop()
        self._loop.stop()
        self._dht.shutdown()


class TrainingChild(_Child):
    """A process that trains, as a node's does."""

    def __init__(
        self, way: Way, case: Case, prepared: PreparedDataset, folder: Path, number: int, address: str,
        initial_peers: list[str],
    ):  # fmt: skip
        spec, config = prepared.spec, case.config(way)
        self._task = make_task(spec.task, spec, seed=0, fields=config.data.fields)
        self._dataset = TaskDataset(prepared.train, self._task)
        self._model = build_model(config.model, spec, seed=0)
        self._config, self._folder = config, folder / f"run{number}"
        self._numel = count_parameters(self._model)
        self._case, self._key, self._address = case, folder / f"peer{number}.key", address
        self._peer_id = load_or_create_peer_key(self._key)
        self._closers: list[Any] = []
        # it forks: before any thread
        joins: dict[Way, Callable[[Path, list[str]], Synchronizer]] = {
            "swarm": self._join_swarm, "alone": self._stay_alone, "stock": self._join_stock,
        }  # fmt: skip
        self._sync = joins[way](folder, initial_peers)

    def _join_swarm(self, folder: Path, initial_peers: list[str]) -> SwarmPeer:
        return SwarmPeer(
            self._config, numel=self._numel, samples_wanted=self._config.samples_wanted(0),
            identity_path=self._key, host=self._address, port=0, initial_peers=initial_peers,
            membership=HeldMembership(membership_of(folder / "keys", self._config.session.id, self._peer_id)),
            on_wait=lambda what: None, on_download=lambda share: None,
        )  # fmt: skip

    def _stay_alone(self, folder: Path, initial_peers: list[str]) -> LocalSynchronizer:
        return LocalSynchronizer(RoundLengths(INNER_STEPS))

    def _join_stock(self, folder: Path, initial_peers: list[str]) -> StockSynchronizer:
        self._dht = dht = start_dht(host=self._address, port=0, initial_peers=initial_peers, identity_path=self._key)
        vector = torch.zeros(self._numel).share_memory_()
        averager = stock_averager(vector, dht, peers=self._case.peers, matchmaking_s=5.0)
        self._closers = [averager.shutdown, dht.shutdown]
        return StockSynchronizer(averager, vector, self._case.peers)

    def addresses(self) -> list[str]:
        return [str(address) for address in self._dht.get_visible_maddrs()]

    def parameters(self) -> int:
        return self._numel

    def train(self) -> dict[str, Any]:
        """To the end of the run; seconds, tokens and samples."""
        reporter = StatusReporter(self._folder, session="benchmark", peer=self._peer_id)
        reporter.start()
        inner = InnerLoop(self._config, self._model, self._dataset, ParallelGroup.from_environment())
        trainer = Trainer(self._config, inner, self._sync, reporter, ControlFile(self._folder))
        state = trainer.run()
        status = reporter.status
        reporter.stop()
        return {
            "wall_s": status.wall_seconds, "compute_s": status.compute_seconds, "tokens": status.tokens,
            "rounds": state.round, "committed": state.samples, "digest": state.digest(),
            "failed": getattr(self._sync, "failed_rounds", 0),
        }  # fmt: skip

    def quit(self) -> None:
        if isinstance(self._sync, SwarmPeer):
            self._sync.leave(None)
        for close in self._closers:
            close()


# ---------------------------------------------------------------------------------------------- in the launcher
@contextlib.contextmanager
def _places(case: Case) -> Iterator[list[Host | None]]:
    """One for the observer, and one for each peer."""
    if case.mbit_per_s is None:
        yield [None] * (1 + case.peers)
        return
    with network(1 + case.peers, mbit_per_s=case.mbit_per_s) as net:
        yield list(net.hosts)


def _start(host: Host | None, build: Any) -> ChildHandle:
    with contextlib.nullcontext() if host is None else host.inside():
        return ChildHandle(build).ready()


def run_once(way: Way, case: Case, prepared: PreparedDataset, folder: Path) -> list[dict[str, Any]]:
    """Train in all processes at the same time; what each of them says."""
    folder.mkdir()
    Issuer(folder / "keys", now=time.time())
    handles: list[ChildHandle] = []
    initial: list[str] = []

    def start(number: int, host: Host | None) -> ChildHandle:
        known, address = list(initial), "127.0.0.1" if host is None else host.address
        if number == 0:
            return _start(host, lambda: BareObserver(case, prepared, folder, address))
        return _start(host, lambda: TrainingChild(way, case, prepared, folder, number, address, known))

    with _places(case) as places:
        try:
            for number in range(0 if way == "swarm" else 1, 1 + case.peers):
                handles.append(start(number, places[number]))
                if not initial and way != "alone":
                    initial = handles[0].call("addresses")
            trainers = handles[-case.peers :]
            for handle in trainers:
                handle.send("train")
            return [handle.result(TIMEOUT_S) for handle in trainers]
        finally:
            for handle in handles:
                handle.end()


def computing_share(answers: Sequence[dict[str, Any]]) -> float:
    """Time in inner steps over wall time, from the first inner step to the last round's end."""
    return sum(one["compute_s"] for one in answers) / sum(one["wall_s"] for one in answers)


def committed_tokens_per_s(answers: Sequence[dict[str, Any]], seq_length: int) -> float:
    """Of all peers together; all of them report the same committed samples."""
    return answers[0]["committed"] * seq_length / max(one["wall_s"] for one in answers)


def measure(case: Case) -> list[Figure]:
    """Alone, in our swarm, on hivemind's averager, and alone again: a machine is not equally fast all the time."""
    with tempfile.TemporaryDirectory() as name:
        prepared = prepare_dataset(case.config("swarm"), folder=Path(name))
        turns: list[tuple[str, Way]] = [
            ("alone", "alone"), ("swarm", "swarm"), ("stock", "stock"), ("alone again", "alone"),
        ]  # fmt: skip
        took = {turn: run_once(way, case, prepared, Path(name) / turn) for turn, way in turns}
    alone = [sum(one["tokens"] / one["wall_s"] for one in took[turn]) for turn in ("alone", "alone again")]
    goodput = {way: committed_tokens_per_s(took[way], case.seq_length) for way in ("swarm", "stock")}
    rounds, digests = took["swarm"][0]["rounds"], len({one["digest"] for one in took["swarm"]})
    where = "loopback" if case.mbit_per_s is None else f"{case.mbit_per_s} Mbit/s"
    about = f"{case.peers} peers, {case.size}, inner_steps = {INNER_STEPS}, {where}"
    return [
        Figure(
            f"share of wall time computing, {about}", computing_share(took["swarm"]), 0.99, "at least",
            stock=computing_share(took["stock"]), details={"rounds": rounds, "distinct final states": digests,
                     "rounds that stock did not close": sum(one["failed"] for one in took["stock"])},
        ),
        Figure(
            f"goodput over what the same processes reach without a swarm, {about}",
            goodput["swarm"] / statistics.mean(alone), 0.97, "at least",
            stock=goodput["stock"] / statistics.mean(alone),
            details={"tokens/s": round(goodput["swarm"]), "without a swarm, before, after": [round(a) for a in alone]},
        ),
    ]  # fmt: skip
