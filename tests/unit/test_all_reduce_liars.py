"""The all-reduce among members of which one lies: as a sender, as a reducer, and as one of two."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, cast, get_args

import numpy as np
import pytest
import torch
from hivemind.proto.averaging_pb2 import AveragingData
from torch import Tensor

from cotrain.sections import Aggregation
from cotrain.swarm.all_reduce import Exchange, Replies, Timeouts
from cotrain.swarm.parts import PartLedger, partition
from cotrain.train.codec import BLOCK, Codec, make_codec

NUMEL = 8 * BLOCK
PART_VALUES = BLOCK
PATIENT = Timeouts(sender_s=60.0, reducer_s=60.0, vote_s=60.0)
LIAR = "liar"
RULES: tuple[Aggregation, ...] = get_args(Aggregation)


class LyingReducer(Exchange):
    """Contributes honestly, and sends a million times the average that it made."""

    def _average(self, index: int, received: dict[str, bytes]) -> bytes:
        numel = self.parts[index].numel
        return self.codec.encode(self.codec.decode(super()._average(index, received), numel) * 1e6)


class Poisoner(Exchange):
    """Sends bytes that decode to values that are not finite."""

    def _encode_contribution(self, index: int) -> bytes:
        return bytes(np.full(self.parts[index].numel, np.nan, "<f4").tobytes())


class Counter(Exchange):
    """Notes how many of its parts are averaged at a time."""

    busy = most = 0
    lock = threading.Lock()

    def _average(self, index: int, received: dict[str, bytes]) -> bytes:
        with self.lock:
            self.busy += 1
            self.most = max(self.most, self.busy)
        try:
            return super()._average(index, received)
        finally:
            with self.lock:
                self.busy -= 1


def truth_of(count: int) -> list[Tensor]:
    """Pseudo-gradients that agree to a good part, as those of peers with the same state and alike data do."""
    generator = np.random.default_rng(0)
    common = generator.standard_normal(NUMEL, dtype=np.float32)
    return [torch.from_numpy(common + generator.standard_normal(NUMEL, dtype=np.float32)) * 1e-3 for _ in range(count)]


def exchange(vectors: dict[str, Tensor], kinds: dict[str, type[Exchange]] | None = None, **settings: Any) -> Any:
    """Let members with these vectors reduce them among themselves; their exchanges when all is over."""
    members = sorted(vectors)
    parts = partition(NUMEL, members, [1] * len(members), BLOCK, PART_VALUES)
    codec: Codec = settings.pop("codec", make_codec("fp32"))
    weights = settings.pop("weights", [1.0] * len(members))
    exchanges: dict[str, Exchange] = {}

    async def open_stream(sender: str, reducer: str, requests: AsyncIterator[AveragingData]) -> Replies:
        served = cast("AsyncGenerator[AveragingData, None]", exchanges[reducer].serve(sender, requests))
        async with aclosing(served) as replies:
            async for message in replies:
                yield message

    for member in members:
        exchanges[member] = (kinds or {}).get(member, Exchange)(
            me=member, members=members, weights=weights, parts=parts, ledger=PartLedger(parts), vector=vectors[member],
            codec=codec, group_id=b"group", timeouts=PATIENT,
            open_stream=partial(open_stream, member), **settings,
        )  # fmt: skip

    async def run_all() -> None:
        await asyncio.gather(*(one.run() for one in exchanges.values()))

    asyncio.run(run_all())
    return exchanges


def average_of(one: Exchange) -> Tensor:
    """What a member holds; zero where it holds nothing."""
    values = torch.zeros(NUMEL)
    for index, part in enumerate(one.parts):
        if (encoded := one.ledger.encoded(index)) is not None:
            values[part.start : part.stop] = one.codec.decode(encoded, part.numel)
    return values


def distance(average: Tensor, honest: Sequence[Tensor]) -> float:
    """Of an average from the honest mean, over the norm of that mean."""
    mean = torch.stack(list(honest)).mean(0)
    return float((average - mean).norm() / mean.norm())


# ---------------------------------------------------------------------------------------------- a lying sender
@pytest.mark.parametrize("codec", ["int4", "fp32"])
@pytest.mark.parametrize(
    ("rule", "farthest"), [("filter", 0.2), ("centered-clip", 0.5), ("median", 0.5), ("mean", None)]
)
@pytest.mark.parametrize("factor", [-10.0, 1e6])
def test_one_liar_of_four_is_held_by_every_rule_but_the_mean(
    rule: Aggregation, farthest: float | None, factor: float, codec: str
) -> None:
    honest = truth_of(3)
    vectors = {f"peer{i}": vector for i, vector in enumerate(honest)} | {LIAR: honest[0] * factor}
    ended = exchange(vectors, aggregation=rule, codec=make_codec(codec))
    assert len({one.ledger.manifest for one in ended.values()}) == 1
    assert None not in ended[LIAR].ledger.manifest
    off = distance(average_of(ended["peer1"]), honest)
    assert off > 2.0 if farthest is None else off < farthest
    for one in ended.values():
        reduced = [index for index, part in enumerate(one.parts) if part.reducer == one.me]
        expected = {LIAR: "too long"} if rule == "filter" else {}
        assert one.dropped == dict.fromkeys(reduced, expected)
        assert not one.suspects  # who is left out of an average still takes part in the agreement


def test_the_filter_leaves_the_honest_average_as_it_would_be_without_the_liar() -> None:
    honest = truth_of(3)
    vectors = {f"peer{i}": vector for i, vector in enumerate(honest)}
    weights = [5.0, 1.0, 2.0, 3.0]  # the liar's name comes first
    ended = exchange({**vectors, LIAR: -5.0 * honest[0]}, weights=weights)
    without = exchange(vectors, weights=weights[1:])
    assert torch.equal(average_of(ended["peer0"]), average_of(without["peer0"]))


@pytest.mark.parametrize("rule", RULES)
def test_values_that_are_not_finite_are_named_and_left_out(rule: Aggregation) -> None:
    honest = truth_of(3)
    vectors = {f"peer{i}": vector for i, vector in enumerate(honest)} | {LIAR: torch.zeros(NUMEL)}
    ended = exchange(vectors, {LIAR: Poisoner}, aggregation=rule)
    ours = [index for index, part in enumerate(ended["peer0"].parts) if part.reducer == "peer0"]
    assert ended["peer0"].dropped == {index: {LIAR: "not finite"} for index in ours}
    assert ended["peer0"].suspects == {LIAR}
    assert bool(torch.isfinite(average_of(ended["peer1"])).all())


def test_a_fast_peer_is_left_out_only_if_it_announced_no_more_steps() -> None:
    vectors = {f"peer{i}": vector for i, vector in enumerate(truth_of(4))}
    vectors["peer0"] = vectors["peer0"] * 4.7
    announced = exchange(vectors, steps=[320, 20, 20, 20], weights=[4.0, 1.0, 1.0, 1.0])
    assert not any(any(one.dropped.values()) for one in announced.values())
    silent = exchange(vectors, weights=[4.0, 1.0, 1.0, 1.0])
    assert all(reasons == {"peer0": "too long"} for one in silent.values() for reasons in one.dropped.values())


# ---------------------------------------------------------------------------------------------- a lying reducer
def test_an_average_that_is_too_long_is_not_held_and_its_reducer_is_suspected() -> None:
    vectors = {f"peer{i}": vector for i, vector in enumerate(truth_of(3))} | {LIAR: truth_of(4)[3]}
    ended = exchange(vectors, {LIAR: LyingReducer})
    for name in ("peer0", "peer1", "peer2"):
        one = ended[name]
        held = {part.reducer for part, digest in zip(one.parts, one.ledger.manifest, strict=True) if digest}
        assert held == {"peer0", "peer1", "peer2"}
        assert one.suspects == {LIAR}
        its_part = next(index for index, part in enumerate(one.parts) if part.reducer == LIAR)
        assert not one.credible(its_part, ended[LIAR].ledger.encoded(its_part))  # nor if it comes another way
        assert one.credible(0, ended["peer0"].codec.encode(one.vector[: one.parts[0].numel]))


def test_the_plain_mean_believes_any_length_and_so_does_a_cold_joiner() -> None:
    vectors = {f"peer{i}": vector for i, vector in enumerate(truth_of(3))} | {LIAR: truth_of(4)[3]}
    believed = exchange(vectors, {LIAR: LyingReducer}, aggregation="mean")
    assert None not in believed["peer0"].ledger.manifest
    joined = exchange(vectors, {LIAR: LyingReducer}, weights=[1.0, 0.0, 1.0, 1.0])
    assert None not in joined["peer0"].ledger.manifest
    assert None in joined["peer1"].ledger.manifest


def test_a_member_whose_part_is_empty_believes_the_others() -> None:
    vectors = {f"peer{i}": vector for i, vector in enumerate(truth_of(4))}
    vectors["peer3"][: 2 * BLOCK] = 0.0
    ended = exchange(vectors)
    assert None not in ended["peer3"].ledger.manifest
    assert not any(one.suspects for one in ended.values())


# ---------------------------------------------------------------------------------------------- two members
def test_of_two_nobody_is_left_out_but_neither_follows_the_other_anywhere() -> None:
    truth = truth_of(1)[0]
    agreeing = exchange({"peer0": truth, LIAR: truth * -10.0})
    assert distance(average_of(agreeing["peer0"]), [truth * -4.5]) < 1e-6
    followed = average_of(exchange({"peer0": truth, LIAR: truth * 1e9})["peer0"])
    # a part counts as zero; or is its reducer's own, if the other has hung up at the first one that was refused
    assert float(followed.abs().max()) <= 1.1 * float(truth.abs().max())


# ---------------------------------------------------------------------------------------------- memory
def test_a_reducer_takes_one_part_after_the_other() -> None:
    vectors = {f"peer{i}": vector for i, vector in enumerate(truth_of(2))}
    ended = exchange(vectors, dict.fromkeys(vectors, Counter))
    assert [len(one.dropped) for one in ended.values()] == [4, 4]
    assert [one.most for one in ended.values()] == [1, 1]
