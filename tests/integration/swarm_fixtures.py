"""A swarm of real processes over libp2p on 127.0.0.1, driven through pipes.

Each process is forked from the one that has imported torch and hivemind already, so that eight peers start in seconds.
"""

from __future__ import annotations

import contextlib
import multiprocessing as mp
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import torch
from hivemind.utils import MPFuture

from cotrain.config import RunConfig
from cotrain.membership.certificate import Role
from cotrain.membership.document import HeldMembership, MembershipSource
from cotrain.membership.issuer import Issuer
from cotrain.peer_key import load_or_create_peer_key
from cotrain.process import bind_future_children
from cotrain.sections import DilocoSection, DistributedSection, SessionSection, SwarmSection, TrainSection
from cotrain.swarm.daemon import start_dht
from cotrain.swarm.dht import UNMET, DhtThread
from cotrain.swarm.hardening import limit_message_nesting
from cotrain.swarm.loop import LoopThread
from cotrain.swarm.observer import SessionObserver
from cotrain.swarm.peer import SwarmPeer
from cotrain.swarm.state import download_state
from cotrain.train.diloco import OuterOptimizer, OuterState
from cotrain.train.fragments import Fragments, divide
from cotrain.train.synchronizer import LocalWork, RoundNotClosed, StateOutdated
from tests.membership_fixtures import membership_of
from tests.waiting import wait_until

NUMEL = 30_011
WANTED = 10_000
MET_WITHIN_S = 60.0
_fork = mp.get_context("fork")

# peers and all they start die with the process that runs the tests, however it ends
bind_future_children()


def swarm_config(nodes: int, **diloco: Any) -> RunConfig:
    """A session for tests: short matchmaking, records that expire soon."""
    return RunConfig(
        session=SessionSection(id="test"),
        train=TrainSection(batch_size=2, gradient_accumulation_steps=1, max_steps=WANTED),
        distributed=DistributedSection(nodes=nodes),
        diloco=DilocoSection(inner_steps=4, **diloco),
        swarm=SwarmSection(matchmaking_s=3.0, record_ttl_s=4.0, gather_s=0.0),
    )


def fragments_of(config: RunConfig) -> Fragments:
    """The vector in as many stretches as the config has fragments."""
    names = [(f"layers.{number}.weight", NUMEL // 8) for number in range(8)]
    return Fragments(divide([*names, ("norm.weight", NUMEL % 8)], config.diloco.fragments))


def initial_state() -> OuterState:
    return OuterState.initial(torch.randint(-1000, 1000, (NUMEL,), generator=torch.Generator().manual_seed(0)) / 1e3)


class _Child:
    """Runs in the forked process: answers (method, arguments) from the pipe."""

    def answer(self, pipe: Connection) -> None:
        while True:
            try:
                method, arguments = pipe.recv()
            except EOFError:
                os._exit(0)
            if method == "quit":
                self.quit()
                pipe.send(("ok", None))
                os._exit(0)
            try:
                pipe.send(("ok", getattr(self, method)(*arguments)))
            except Exception as error:
                pipe.send(("error", f"{type(error).__name__}: {error}"))

    def quit(self) -> None:
        raise NotImplementedError


class ObserverChild(_Child):
    def __init__(self, config: RunConfig, folder: Path, **options: Any):
        """`options`: further arguments of its SessionObserver."""
        load_or_create_peer_key(folder / "observer.key")
        self.dht = start_dht(host="127.0.0.1", port=0, initial_peers=[], identity_path=folder / "observer.key")
        self.thread, self.loop = DhtThread(0.1), LoopThread("libp2p")
        peer_id = self.dht.peer_id.to_base58()
        self.folder, self.config = folder, config
        self.held = HeldMembership(membership_of(folder / "keys", config.session.id, peer_id, role="observe"))
        self.observer = SessionObserver(
            config,
            initial_state(),
            samples_wanted=WANTED,
            dht=self.dht,
            dht_thread=self.thread,
            loop=self.loop,
            membership=self.held,
            fragments=fragments_of(config),
            **options,
        )

    def identity(self) -> str:
        return str(self.dht.peer_id.to_base58())

    def revoke(self, serials: list[str]) -> None:
        """The coordinator has revoked these certificates."""
        issuer, document = Issuer(self.folder / "keys", now=time.time()), self.held.current()
        lists = [issuer.revoke(self.config.session.id, serials, now=time.time())]
        self.held.replace(document.model_copy(update={"revocations": lists}))

    def ping(self) -> bool:
        """Whether the DHT's process lives and answers."""
        return self.dht.is_alive() and self.dht.get("nothing", latest=True, return_future=True).result(10.0) is None

    def addresses(self) -> list[str]:
        return [str(address) for address in self.dht.get_visible_maddrs()]

    def follow(self, round_: int) -> tuple[int, str]:
        deadline = time.monotonic() + 20
        while self.observer.state.round < round_ and time.monotonic() < deadline:
            self.observer.wait_for_news(1.0)
            self.observer.follow()
        return self.observer.state.round, self.observer.digest

    def credits(self) -> dict[str, int] | None:
        """What the newest round owes, as the observer tells."""
        return None if self.observer.credits is None else dict(self.observer.credits)

    def received(self) -> int:
        return self.observer.bytes_received

    def quit(self) -> None:
        self.observer.close()
        self.thread.stop()
        self.loop.stop()
        self.dht.shutdown()


class PeerChild(_Child):
    role: Role = "reduce"
    most_bytes_per_s: int | None = None

    def __init__(self, config: RunConfig, folder: Path, initial_peers: list[str], number: int):
        key = folder / f"peer{number}.key"
        peer_id = load_or_create_peer_key(key)
        self.number = number
        self.notices: list[str] = []
        self.optimizer = OuterOptimizer.from_config(config, WANTED, fragments_of(config))
        self.peer = SwarmPeer(
            config, numel=NUMEL, samples_wanted=WANTED, identity_path=key, initial_peers=initial_peers,
            membership=self.membership(folder, config, peer_id),
            host="127.0.0.1", port=0, on_wait=lambda what: None, on_download=lambda share: None,
            on_notice=self.notices.append, fragments=fragments_of(config), most_bytes_per_s=self.most_bytes_per_s,
        )  # fmt: skip
        self.state = OuterState.initial(torch.zeros(NUMEL))
        self.pseudo_gradient = torch.zeros(NUMEL)

    def membership(self, folder: Path, config: RunConfig, peer_id: str) -> MembershipSource:
        return HeldMembership(membership_of(folder / "keys", config.session.id, peer_id, role=self.role))

    def identity(self) -> str:
        return self.peer.peer_id

    def addresses(self) -> list[str]:
        return self.peer.addresses

    def seen_at_most(self, peers: int) -> int:
        """Wait until no more than this many peers are in view."""
        self.peer._directory.wait_for(lambda view: self.peer.peers <= peers, 20)
        return self.peer.peers

    def why_refused(self, other: str) -> str:
        """Wait until this peer has read the other's record and refused it; the reason."""
        found = self.peer._directory.wait_for(lambda view: view.refused.get(other, UNMET) != UNMET, 20)
        return self.peer._directory.view.refused[other] if found else "was not refused"

    def serial_of(self, other: str) -> str:
        certificate = self.peer._directory._gate.member(other)
        assert certificate is not None
        return certificate.serial

    def pretend(self, round_: int, digest: str) -> None:
        """Announce a state that this peer does not hold."""
        zeros = torch.zeros(NUMEL)
        self.state = OuterState(zeros, zeros.clone(), round_, 8, 0)
        self.peer._note_state(self.state, digest)

    def join(self) -> tuple[int, str]:
        self.state = self.peer.join(self.state)
        return self.state.round, self.state.digest()

    def peers_in_view(self) -> int:
        """How many peers there are as this one sees it, itself included."""
        return self.peer.peers

    def sees_round(self, round_: int) -> bool:
        """Wait until somebody serves the state of this round or a later one."""
        return self.peer._directory.wait_for(lambda view: bool(view.donors(round_)), 20)

    def average(self, seed: int, samples: int = 8) -> dict[str, Any]:
        """Announce, average a random pseudo-gradient, take the outer step; what happened and the digest after it."""
        generator = torch.Generator().manual_seed(1000 * seed + self.number)
        local = self.state.parameters + 0.01 * torch.randn(NUMEL, generator=generator)
        self.pseudo_gradient = self.state.parameters - local
        self.peer.begin_round(self.state, local, LocalWork(steps=4, samples=samples, ranks=2))
        try:
            closed = self.peer.poll_round(60.0)
        except (RoundNotClosed, StateOutdated) as error:
            return {
                "closed": False,
                "reason": str(error),
                "digest": self.state.digest(),
                "round": self.state.round,
            }
        assert closed is not None
        newer = self.optimizer.step(self.state, self.peer.average(), closed.totals, out=self.peer.next_buffers())
        self.state, _ = self.peer.publish(newer)
        return {
            "closed": True, "digest": self.state.digest(), "round": self.state.round, "sent": closed.bytes_sent,
            "committed": self.state.samples, **closed.summary,
        }  # fmt: skip

    def brought_and_averaged(self) -> tuple[list[float], list[float]]:
        """This peer's pseudo-gradient of the last round, and the round's average as it got it."""
        return self.pseudo_gradient.tolist(), self.peer.average().tolist()

    def hold_futures(self) -> None:
        """Hold the lock that this peer's processes pass each other results under."""
        MPFuture._update_lock.acquire()

    def corrupt(self) -> str:
        self.state.parameters[7] += 1.0
        self.state, _ = self.peer.publish(self.state)
        return self.state.digest()

    def serve_with_wrong_digest(self) -> tuple[int, str]:
        """Serve a state that has not the digest it is announced with."""
        digest = OuterState.initial(torch.ones(NUMEL)).digest()
        self.state = self.peer._shared.publish(self.state, digest)
        self.peer._note_state(self.state, digest)
        return self.state.round, digest

    def download(self, donors: list[tuple[str, int, str]], timeout_s: float) -> str:
        """Download the state from these donors, as a joiner does; its digest."""

        async def fetch() -> OuterState:
            p2p = await self.peer._dht.replicate_p2p()
            return await download_state(
                p2p, lambda: donors, self.peer._config.session.id, NUMEL, timeout_s=timeout_s
            )  # fmt: skip

        return self.peer._loop.run(fetch(), 2 * timeout_s).digest()

    def resync(self) -> tuple[int, str]:
        self.state = self.peer.resync(self.state)
        return self.state.round, self.state.digest()

    def quit(self) -> None:
        self.peer.leave(None)


class ChildHandle:
    """A forked process and the pipe to it."""

    def __init__(self, build: Callable[[], _Child]):
        self.pipe, theirs = _fork.Pipe()
        self.process = _fork.Process(target=_serve, args=(build, theirs))
        self.process.start()
        theirs.close()

    def ready(self) -> ChildHandle:
        """Wait until the process answers."""
        self.result()
        return self

    def send(self, method: str, *arguments: Any) -> None:
        self.pipe.send((method, arguments))

    def result(self, timeout_s: float = 90.0) -> Any:
        if not self.pipe.poll(timeout_s):
            raise TimeoutError(f"no answer from process {self.process.pid}")
        state, value = self.pipe.recv()
        if state == "error":
            raise RuntimeError(value)
        return value

    def call(self, method: str, *arguments: Any) -> Any:
        self.send(method, *arguments)
        return self.result()

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def kill(self) -> None:
        """kill -9 of this process only: what it started must die by itself."""
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()

    def end(self) -> None:
        if self.process.is_alive():
            with contextlib.suppress(ConnectionError, EOFError, TimeoutError):
                self.send("quit")
                self.result(20.0)
            self.process.join(5.0)
        if self.process.is_alive():
            self.kill()


def _serve(build: Callable[[], _Child], pipe: Connection) -> None:
    os.setsid()
    MPFuture.reset_backend()  # as nodes have: its locks are inherited, and a peer may be killed while it holds one
    try:
        limit_message_nesting()
        torch.set_num_threads(1)
        child = build()
        pipe.send(("ok", None))
    except Exception as error:
        pipe.send(("error", repr(error)))
        os._exit(1)
    child.answer(pipe)


class TestSwarm:
    """An observer and the peers added to it."""

    __test__ = False

    def __init__(self, folder: Path, config: RunConfig, observer: type[ObserverChild] = ObserverChild):
        self.folder, self.config = folder, config
        Issuer(folder / "keys", now=time.time())  # one key, before there are several processes
        self.observer = ChildHandle(lambda: observer(config, folder)).ready()
        self.addresses: list[str] = self.observer.call("addresses")
        self.peers: list[ChildHandle] = []

    def add_peers(self, count: int) -> list[ChildHandle]:
        """Start peers and let them join."""
        return self.start_peers(range(len(self.peers), len(self.peers) + count))

    def start_peers(self, numbers: Iterable[int]) -> list[ChildHandle]:
        """Start the peers with these numbers, which stand for their identities, and let them join."""
        added = [
            ChildHandle(lambda n=number: PeerChild(self.config, self.folder, self.addresses, n)) for number in numbers
        ]
        self.peers += added
        for handle in added:
            handle.ready()
        self.all(added, "join")
        return added

    @staticmethod
    def all(handles: list[ChildHandle], method: str, *arguments: Any) -> list[Any]:
        """The same call at several peers, at the same time."""
        for handle in handles:
            handle.send(method, *arguments)
        return [handle.result() for handle in handles]

    def meet(self, peers: Sequence[ChildHandle]) -> None:
        """Wait until all of these peers have each other in view, and nobody else, at the same time.

        One that has seen the others may see them no more by the time that the last one does: records expire.
        """
        everybody = [len(peers)] * len(peers)
        wait_until(lambda: self.all(list(peers), "peers_in_view") == everybody, limit_s=MET_WITHIN_S, what="peers meet")

    def end(self) -> None:
        for handle in [*self.peers, self.observer]:
            handle.end()


@contextlib.contextmanager
def running_swarm(
    folder: Path, config: RunConfig, observer: type[ObserverChild] = ObserverChild
) -> Iterator[TestSwarm]:
    swarm = TestSwarm(folder, config, observer)
    try:
        yield swarm
    finally:
        swarm.end()
