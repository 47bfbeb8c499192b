"""Averagers without training, ours and hivemind's own, each in a process of its own, if wished on a host of its own."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import hivemind
import torch
from hivemind.averaging.control import AveragingStage, StepControl
from hivemind.averaging.partition import AllreduceException
from hivemind.compression import Float16Compression
from hivemind.p2p import P2P

from cotrain.membership.document import HeldMembership
from cotrain.membership.issuer import Issuer
from cotrain.peer_key import PeerSigner, load_or_create_peer_key
from cotrain.swarm.averager import RoundAverager
from cotrain.swarm.daemon import start_dht
from cotrain.swarm.draw import AUDITS_PER_ROUND
from cotrain.swarm.gate import Gate
from cotrain.swarm.rounds import Announcement
from cotrain.swarm.state import SharedState
from cotrain.swarm.terms import CodecName
from cotrain.swarm.thread_pool import renew_thread_pool
from tests.integration.swarm_fixtures import ChildHandle, _Child
from tests.membership_fixtures import membership_of
from tests.netns import Host

SESSION = "benchmark"
STOCK = "fp16"
"""hivemind's own averager with its Float16Compression; every other kind is a codec of ours.

Its Uniform8BitQuantization fails with numpy 2 on every part (and the step says that it succeeded): it is not measured.
"""
MATCHMAKING_S = 6.0
ROUND_TIMEOUT_S = 280.0
STOCK_TIMEOUT_S = 90.0
"""For hivemind's own matchmaking: all have given up before anybody waits for their answers in vain."""
POLL_S = 0.002


class StockAverager(hivemind.DecentralizedAverager):
    """hivemind's own, kept from a fault of torch after a fork (see `renew_thread_pool`) that is not to be measured."""

    _rpc_handlers = None
    _stub_type = None

    async def add_p2p_handlers(self, p2p: P2P, *args: Any, **kwargs: Any) -> None:
        renew_thread_pool()
        await super().add_p2p_handlers(p2p, *args, **kwargs)


def stock_averager(
    vector: torch.Tensor, dht: hivemind.DHT, *, peers: int, matchmaking_s: float
) -> hivemind.DecentralizedAverager:
    """With its Float16Compression, and a group that begins as soon as all are there."""
    return StockAverager(
        [vector], dht, prefix="stock", start=True, target_group_size=peers, min_matchmaking_time=matchmaking_s,
        request_timeout=0.5 * matchmaking_s, compression=Float16Compression(), next_chunk_timeout=10.0,
    )  # fmt: skip


class WirePeer(_Child):
    """One averager with a vector of random values."""

    def __init__(
        self, kind: str, numel: int, *, peers: int, number: int, folder: Path, initial_peers: Sequence[str],
        address: str, matchmaking_s: float, audits_per_round: float,
    ):  # fmt: skip
        key = folder / f"peer{number}.key"
        self._peer_id = load_or_create_peer_key(key)
        self._kind, self._peers, self._number, self._round = kind, peers, number, 0
        self._matchmaking_s, self._audits_per_round = matchmaking_s, audits_per_round
        self._vector = torch.zeros(numel).share_memory_()
        self._dht = start_dht(host=address, port=0, initial_peers=initial_peers, identity_path=key)
        self._averager: Any = (
            self._ours(folder, key)
            if kind != STOCK
            else stock_averager(self._vector, self._dht, peers=peers, matchmaking_s=matchmaking_s)
        )

    def _ours(self, folder: Path, key: Path) -> RoundAverager:
        membership = HeldMembership(membership_of(folder / "keys", SESSION, self._peer_id))
        gate = Gate(SESSION, membership)
        return RoundAverager(
            self._vector, self._dht, session=SESSION, codec=cast(CodecName, self._kind), state=SharedState(1),
            gate=gate, membership=membership, signer=PeerSigner(key), matchmaking_s=self._matchmaking_s,
            audits_per_round=self._audits_per_round,
        )  # fmt: skip

    def addresses(self) -> list[str]:
        return [str(address) for address in self._dht.get_visible_maddrs()]

    def fill(self, seed: int) -> None:
        """New values; before the clock runs."""
        generator = torch.Generator().manual_seed(1000 * seed + self._number)
        with self._averager.get_tensors():
            self._vector.normal_(generator=generator)

    def average(self) -> dict[str, Any]:
        """One round with everybody: seconds matchmaking and reducing, members, digest of the average."""
        took = self._average_stock() if self._kind == STOCK else self._average_ours()
        return {**took, "digest": hashlib.sha256(self._vector.numpy().data).hexdigest()}

    def _average_ours(self) -> dict[str, Any]:
        announcement = Announcement(
            round=self._round, digest="0" * 64, committed=0, steps=4, samples=8, alive=self._peers
        )
        self._round += 1
        outcome = self._averager.close_round(announcement).result(ROUND_TIMEOUT_S)
        return {
            "matchmaking_s": outcome.matchmaking_s, "reducing_s": outcome.reducing_s, "members": len(outcome.members),
            "suspects": len(outcome.suspects),
        }  # fmt: skip

    def _average_stock(self) -> dict[str, Any]:
        started = time.monotonic()
        step = self._averager.step(wait=False, timeout=STOCK_TIMEOUT_S, allow_retries=False)
        formed = _await_group(step)
        try:
            group = step.result(ROUND_TIMEOUT_S)
        except AllreduceException:  # hivemind's own matchmaking finds no group now and then
            group = {}
        return {
            "matchmaking_s": formed - started, "reducing_s": time.monotonic() - formed, "members": len(group),
            "suspects": 0,
        }  # fmt: skip

    def quit(self) -> None:
        self._averager.shutdown()
        self._dht.shutdown()


def _await_group(step: StepControl) -> float:
    """When the all-reduce began; hivemind tells it only by a shared byte."""
    while step.stage.value < AveragingStage.RUNNING_ALLREDUCE.value and not step.done():
        time.sleep(POLL_S)
    return time.monotonic()


@contextlib.contextmanager
def wire_peers(
    kind: str, numel: int, folder: Path, *, peers: int = 0, hosts: Sequence[Host] = (),
    matchmaking_s: float = MATCHMAKING_S, audits_per_round: float = AUDITS_PER_ROUND,
) -> Iterator[list[ChildHandle]]:  # fmt: skip
    """Peers that know each other: one on each host, or `peers` of them on the loopback."""
    folder.mkdir(parents=True)
    Issuer(folder / "keys", now=time.time())  # one key, before there are several processes
    places: Sequence[Host | None] = hosts or [None] * peers
    handles: list[ChildHandle] = []
    initial: list[str] = []

    def start(number: int, host: Host | None) -> ChildHandle:
        known, address = list(initial), "127.0.0.1" if host is None else host.address
        with contextlib.nullcontext() if host is None else host.inside():
            handle = ChildHandle(
                lambda: WirePeer(
                    kind, numel, peers=len(places), number=number, folder=folder, initial_peers=known,
                    address=address, matchmaking_s=matchmaking_s, audits_per_round=audits_per_round,
                )
            )  # fmt: skip
        return handle.ready()

    try:
        for number, host in enumerate(places):
            handles.append(start(number, host))
            initial = initial or handles[0].call("addresses")
        yield handles
    finally:
        for handle in handles:
            handle.end()


def average_together(handles: Sequence[ChildHandle], seed: int) -> list[dict[str, Any]]:
    """One round with all of them, on values that the seed gives; what each says of it."""
    for method, arguments in (("fill", (seed,)), ("average", ())):
        for handle in handles:
            handle.send(method, *arguments)
        answers = [handle.result(ROUND_TIMEOUT_S) for handle in handles]
    return answers


def is_complete(answers: Sequence[dict[str, Any]]) -> bool:
    """Whether everybody was in the group, and nobody failed."""
    return all(peer["members"] == len(answers) and not peer["suspects"] for peer in answers)
