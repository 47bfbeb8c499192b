"""What a minority of liars can do to an average, and what honest members need not fear."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from cotrain.config import RunConfig, parse_config
from cotrain.errors import ConfigError, SwarmError
from cotrain.request import SessionRequest
from cotrain.sections import Aggregation
from cotrain.swarm.aggregate import (
    LONGEST_TO_MEDIAN,
    MOST_WEIGHT,
    Contribution,
    Reason,
    aggregate,
    counted_steps,
    length_limits,
    longest_average,
    weighted_mean,
)
from cotrain.swarm.fixed_order import dot, norm

RULES: tuple[Aggregation, ...] = get_args(Aggregation)
ROBUST: tuple[Aggregation, ...] = ("filter", "centered-clip", "median")
NUMEL = 2000

seeds = st.integers(0, 2**32 - 1)


def contributions_of(
    vectors: Sequence[Tensor], weights: Sequence[float] | None = None, steps: Sequence[int] | None = None
) -> list[Contribution]:
    count = len(vectors)
    rows = zip(vectors, weights or [1.0] * count, steps or [1] * count, strict=True)
    return [Contribution(f"peer{i}", values, weight, did) for i, (values, weight, did) in enumerate(rows)]


def honest_vectors(count: int, seed: int, numel: int = NUMEL) -> list[Tensor]:
    """What honest peers bring: a direction in common, and as much noise of their own."""
    generator = np.random.default_rng(seed)
    common = generator.standard_normal(numel, dtype=np.float32)
    own = [generator.standard_normal(numel, dtype=np.float32) for _ in range(count)]
    return [torch.from_numpy(common + noise) * 1e-3 for noise in own]


def outliers(contributions: Sequence[Contribution]) -> dict[str, Reason]:
    """Whom the filter leaves out."""
    return dict(aggregate("filter", contributions, contributions[0].values.numel()).dropped)


# what liars may send, whatever the honest ones do: of any length and direction, and in no direction at all
lies = st.one_of(
    st.sampled_from([-10.0, -3.0, -1.0, -0.1, 0.0, 1e3, -1e30]).map(
        lambda factor: lambda honest, generator: torch.stack(honest).mean(0) * factor
    ),
    st.sampled_from([1e-6, 1.0, 100.0, 1e30]).map(
        lambda size: (
            lambda honest, generator: torch.from_numpy(
                generator.standard_normal(honest[0].numel()).astype(np.float32) * np.float32(size)
            )
        )
    ),
    st.just(lambda honest, generator: torch.stack(honest).mean(0) - 1.5 * torch.stack(honest).std(0)),
)
Lie = Callable[[list[Tensor], np.random.Generator], Tensor]


@st.composite
def groups(draw: st.DrawFn) -> tuple[list[Contribution], set[str]]:
    """Contributions with a minority of liars among them, and the names of these."""
    count = draw(st.integers(3, 9))
    liars = draw(st.integers(0, (count - 1) // 2))
    honest = honest_vectors(count - liars, draw(seeds), numel=draw(st.sampled_from([40, NUMEL])))
    generator = np.random.default_rng(draw(seeds))
    told = [draw(lies)(honest, generator) for _ in range(liars)]
    places = draw(st.permutations(range(count)))
    vectors = [(honest + told)[place] for place in places]
    weights = draw(st.lists(st.floats(1.0, 4.0), min_size=count, max_size=count))
    steps = draw(st.lists(st.integers(0, 2**40), min_size=count, max_size=count))
    return contributions_of(vectors, weights, steps), {f"peer{i}" for i in range(count) if places[i] >= len(honest)}


# ---------------------------------------------------------------------------------------------- whatever liars send
@settings(max_examples=150)
@given(groups(), st.sampled_from(ROBUST))
def test_a_minority_cannot_make_the_average_longer_than_honest_contributions_could(
    group: tuple[list[Contribution], set[str]], rule: Aggregation
) -> None:
    contributions, liars = group
    longest = max(norm(c.values) for c in contributions if c.member not in liars)
    average = aggregate(rule, contributions, contributions[0].values.numel()).average
    # clipping goes three times the radius from the median
    bound = {
        "filter": LONGEST_TO_MEDIAN * longest,
        "centered-clip": 7 * math.sqrt(len(contributions)) * longest,
        "median": math.sqrt(len(contributions)) * longest,
    }[rule]
    assert norm(average) <= 1.001 * bound


@settings(max_examples=150)
@given(groups())
def test_the_median_stays_among_the_honest_in_every_coordinate(group: tuple[list[Contribution], set[str]]) -> None:
    contributions, liars = group
    honest = torch.stack([c.values for c in contributions if c.member not in liars])
    median = aggregate("median", contributions, honest.shape[1]).average
    slack = 1e-6 * honest.abs().amax(0)
    assert bool((median <= honest.amax(0) + slack).all())
    assert bool((median >= honest.amin(0) - slack).all())


@settings(max_examples=150)
@given(groups(), st.data())
def test_who_is_left_out_does_not_depend_on_the_order_and_is_never_a_majority(
    group: tuple[list[Contribution], set[str]], data: st.DataObject
) -> None:
    contributions, _ = group
    found = outliers(contributions)
    assert outliers(data.draw(st.permutations(contributions))) == found
    assert 2 * len(found) < len(contributions)


@settings(max_examples=60)
@given(st.integers(4, 9), seeds, st.floats(9.5, 1e6), st.sampled_from([1.0, -1.0]))
@example(7, 29033, 10.0, -1.0)  # three that shout the opposite of one member's contribution turn the median from it
def test_the_filter_gives_the_mean_of_the_honest_bit_for_bit_when_a_minority_shouts(
    count: int, seed: int, factor: float, sign: float
) -> None:
    liars = (count - 1) // 2
    honest = honest_vectors(count - liars, seed)
    shouted = [honest[0] * (sign * factor * (1 + i)) for i in range(liars)]
    contributions = contributions_of(shouted + honest, weights=[float(1 + i % 4) for i in range(count)])
    found = aggregate("filter", contributions, NUMEL)
    assert found.dropped == {f"peer{i}": "too long" for i in range(liars)}
    assert torch.equal(found.average, weighted_mean(honest, [c.weight for c in contributions[liars:]]))


def test_one_that_points_away_is_left_out_however_short_it_is() -> None:
    honest = honest_vectors(3, 0)
    found = aggregate("filter", contributions_of([*honest, -0.5 * torch.stack(honest).mean(0)]), NUMEL)
    assert found.dropped == {"peer3": "points away"}
    assert torch.equal(found.average, weighted_mean(honest, [1.0] * 3))


def test_no_more_than_a_minority_is_left_out_the_longest_first() -> None:
    honest = honest_vectors(2, 0)
    found = aggregate("filter", contributions_of([honest[0] * 50, honest[1] * 60, *honest]), NUMEL)
    assert found.dropped == {"peer1": "too long"}
    ten = [torch.full((8,), size) for size in (1.0, 1.0, 1.0, 9.0, 9.0)]
    ten[0] = -ten[0]
    assert outliers(contributions_of(ten)) == {"peer3": "too long", "peer4": "too long"}


# ---------------------------------------------------------------------------------------------- what honest ones fear
@settings(max_examples=100)
@given(
    st.lists(st.tuples(st.integers(0, 2**40), st.floats(0.5, 1e6)), min_size=1, max_size=9), seeds,
    st.sampled_from([0.0, 1e-30, 1.0, 1e30]),
)  # fmt: skip
def test_identical_contributions_are_never_left_out_whatever_their_steps(
    claims: list[tuple[int, float]], seed: int, size: float
) -> None:
    vector = honest_vectors(1, seed)[0] * size
    steps, weights = [s for s, _ in claims], [w for _, w in claims]
    contributions = contributions_of([vector.clone() for _ in claims], weights, steps)
    assert outliers(contributions) == {}
    for rule in RULES:
        average = aggregate(rule, contributions, NUMEL).average
        torch.testing.assert_close(average, vector, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("slow", [3, 4, 7])
def test_a_fast_peer_with_sixteen_times_the_steps_is_believed(slow: int) -> None:
    vectors = honest_vectors(slow + 1, 1)
    vectors[0] = vectors[0] * 4.7  # measured: 16 times the steps give 4.7 times the norm
    steps = [16 * 20] + [20] * slow
    found = aggregate("filter", contributions_of(vectors, steps=steps), NUMEL)
    assert not found.dropped
    shorter = [vectors[0] * (3.0 * sorted(norm(v) for v in vectors)[slow // 2] / norm(vectors[0])), *vectors[1:]]
    torch.testing.assert_close(found.average, weighted_mean(shorter, [1.0] * (slow + 1)))
    assert outliers(contributions_of(vectors)) == {"peer0": "too long"}  # with as many steps as the others


def test_a_peer_with_four_times_the_steps_counts_in_full() -> None:
    vectors = honest_vectors(4, 1)
    vectors[0] = vectors[0] * 2.2
    found = aggregate("filter", contributions_of(vectors, [4.0, 1.0, 1.0, 1.0], [80, 20, 20, 20]), NUMEL)
    assert torch.equal(found.average, weighted_mean(vectors, [4.0, 1.0, 1.0, 1.0]))


def test_a_slow_peer_is_believed_too_and_many_fast_ones_do_not_hide_a_liar() -> None:
    vectors = honest_vectors(4, 2)
    fast = [vector * 4.7 for vector in vectors[:3]]
    assert outliers(contributions_of([*fast, vectors[3]], steps=[320, 320, 320, 20])) == {}
    assert outliers(contributions_of([*fast, vectors[3] * 100], steps=[320, 320, 320, 20])) == {"peer3": "too long"}


@settings(max_examples=60)
@given(st.integers(1, 32), seeds)
def test_honest_contributions_that_have_nothing_in_common_are_all_believed(count: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    vectors = [torch.from_numpy(generator.standard_normal(20_000, dtype=np.float32)) for _ in range(count)]
    assert outliers(contributions_of(vectors)) == {}


def test_when_all_are_honest_the_filter_gives_the_bits_of_the_mean() -> None:
    contributions = contributions_of(honest_vectors(8, 3), [float(i + 1) for i in range(8)])
    assert torch.equal(
        aggregate("filter", contributions, NUMEL).average, aggregate("mean", contributions, NUMEL).average
    )


def sideways(honest: Sequence[Tensor], length: float) -> Tensor:
    """At a right angle to what the honest have in common, so long."""
    noise = torch.from_numpy(np.random.default_rng(99).standard_normal(honest[0].numel(), dtype=np.float32))
    mean = torch.stack(list(honest)).mean(0)
    noise = noise - mean * (dot(noise, mean) / dot(mean, mean))
    return noise * (length / norm(noise))


@pytest.mark.parametrize("weight", [1.0, 4.0])
def test_who_hardly_agrees_counts_as_an_ordinary_member_whatever_it_claims(weight: float) -> None:
    honest = honest_vectors(3, 4)
    ordinary = sorted(norm(vector) for vector in honest)[1]
    lie = sideways(honest, 2.5 * ordinary)
    found = aggregate("filter", contributions_of([*honest, lie], [1.0, 1.0, 1.0, weight], [20, 20, 20, 2**40]), NUMEL)
    assert not found.dropped
    without = weighted_mean(honest, [1.0] * 3)
    assert norm(found.average - without) <= 1.5 / 4 * ordinary


def test_a_heavy_and_long_contribution_that_agrees_counts_in_full() -> None:
    honest = honest_vectors(4, 4)
    vectors = [honest[0] * 2.9, *honest[1:]]
    found = aggregate("filter", contributions_of(vectors, [4.0, 1.0, 1.0, 1.0]), NUMEL)
    assert torch.equal(found.average, weighted_mean(vectors, [4.0, 1.0, 1.0, 1.0]))


# ---------------------------------------------------------------------------------------------- few, or nothing
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("factor", [-10.0, 0.0, 1e6])
def test_of_two_that_disagree_nobody_is_left_out(rule: Aggregation, factor: float) -> None:
    honest = honest_vectors(1, 0)[0]
    found = aggregate(rule, contributions_of([honest, honest * factor]), NUMEL)
    assert not found.dropped
    torch.testing.assert_close(found.average, honest * (1 + factor) / 2)


def test_of_three_the_one_that_is_too_long_or_opposed_is_left_out() -> None:
    honest = honest_vectors(2, 0)
    assert outliers(contributions_of([*honest, honest[0] * 30])) == {"peer2": "too long"}
    assert outliers(contributions_of([honest[0], honest[0].clone(), -honest[0]])) == {"peer2": "points away"}


@pytest.mark.parametrize("rule", RULES)
def test_zero_vectors_are_averaged_like_others(rule: Aggregation) -> None:
    zeros = [torch.zeros(8) for _ in range(4)]
    found = aggregate(rule, contributions_of(zeros), 8)
    assert not found.dropped
    assert not found.average.any()
    assert not torch.signbit(found.average).any()


def test_a_liar_that_sends_zeros_drags_nobody_out() -> None:
    honest = honest_vectors(3, 5)
    assert outliers(contributions_of([torch.zeros(NUMEL), *honest])) == {}
    assert outliers(contributions_of([torch.zeros(NUMEL), torch.zeros(NUMEL), *honest])) == {}


def test_where_the_majority_brings_nothing_a_lone_voice_is_left_out() -> None:
    vectors = [torch.zeros(8), torch.zeros(8), torch.zeros(8), torch.ones(8)]
    assert outliers(contributions_of(vectors)) == {"peer3": "too long"}


@pytest.mark.parametrize("rule", RULES)
def test_members_without_weight_have_neither_part_nor_vote(rule: Aggregation) -> None:
    honest = honest_vectors(4, 6)
    cold = [torch.full((NUMEL,), 1e3), torch.full((NUMEL,), -1e3)]
    with_them = aggregate(rule, contributions_of([*honest, *cold], [1.0, 1.0, 1.0, 1.0, 0.0, 0.0]), NUMEL)
    assert torch.equal(with_them.average, aggregate(rule, contributions_of(honest), NUMEL).average)
    nobody = aggregate(rule, contributions_of(cold, [0.0, 0.0]), NUMEL)
    assert not nobody.average.any()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (Contribution("liar", torch.ones(9), 1.0), "wrong size"),
        (Contribution("liar", torch.ones(1, 8), 1.0), "wrong size"),
        (Contribution("liar", torch.tensor([float("nan")] + [0.0] * 7), 1.0), "not finite"),
        (Contribution("liar", torch.tensor([float("inf")] + [0.0] * 7), 1.0), "not finite"),
        (Contribution("liar", torch.ones(8), float("nan")), "weight out of bounds"),
        (Contribution("liar", torch.ones(8), float("inf")), "weight out of bounds"),
        (Contribution("liar", torch.ones(8), -1.0), "weight out of bounds"),
        (Contribution("liar", torch.ones(8), 2 * MOST_WEIGHT), "weight out of bounds"),
    ],
)
def test_what_cannot_be_used_is_refused_by_every_rule(rule: Aggregation, wrong: Contribution, reason: str) -> None:
    honest = contributions_of([torch.full((8,), 2.0), torch.full((8,), 4.0)])
    found = aggregate(rule, [wrong, *honest], 8)
    assert found.dropped == {"liar": reason}
    assert found.average.tolist() == [3.0] * 8
    with pytest.raises(SwarmError, match="no contribution"):
        aggregate(rule, [wrong], 8)


# ---------------------------------------------------------------------------------------------- the other rules
def test_the_clipped_mean_of_agreeing_members_is_their_weighted_mean() -> None:
    vectors = [torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]), torch.tensor([0.0, -1.0]), torch.tensor([-1.0, 0.0])]
    average = aggregate("centered-clip", contributions_of(vectors, [3.0, 1.0, 1.0, 1.0]), 2).average
    assert float(average[1]) == pytest.approx(2 / 6, abs=0.15)
    assert float(average[0]) == pytest.approx(0.0, abs=1e-6)


def test_a_liar_moves_the_clipped_centre_by_its_share_of_the_radius_at_most() -> None:
    honest = honest_vectors(7, 8)
    alone = aggregate("centered-clip", contributions_of(honest), NUMEL).average
    lied_to = aggregate("centered-clip", contributions_of([*honest, honest[0] * -1e6]), NUMEL).average
    spread = norm(honest[0] - torch.stack(honest).mean(0))
    assert norm(lied_to - alone) < spread


# ---------------------------------------------------------------------------------------------- steps and lengths
@given(st.lists(st.integers(-5, 2**40), min_size=1, max_size=12))
def test_steps_count_between_one_and_sixteen_times_the_lower_median(steps: list[int]) -> None:
    counted = counted_steps(steps)
    median = sorted(max(1, s) for s in steps)[(len(steps) - 1) // 2]
    assert all(1 <= count <= 16 * median for count in counted)
    assert all(count == did for count, did in zip(counted, steps, strict=True) if 1 <= did <= 16 * median)


def test_a_liar_that_claims_endless_steps_is_excused_by_sixteen_times_the_median_only() -> None:
    assert length_limits([1.0, 1.0, 1.0, 99.0], [20, 20, 20, 2**40])[3] == pytest.approx(3.0 * 4.0)


# ---------------------------------------------------------------------------------------------- what is returned
@settings(max_examples=100)
@given(groups(), st.integers(0, 8), st.sampled_from(ROBUST))
def test_no_honest_member_refuses_the_average_of_an_honest_reducer(
    group: tuple[list[Contribution], set[str]], place: int, rule: Aggregation
) -> None:
    contributions, liars = group
    numel = contributions[0].values.numel()
    honest = [i for i, c in enumerate(contributions) if c.member not in liars]
    me = honest[place % len(honest)]
    # honest steps and honest lengths go together; liars claim what they like
    steps = [20 if i in honest else c.steps for i, c in enumerate(contributions)]
    brought = [
        Contribution(c.member, c.values, c.weight, did) for c, did in zip(contributions, steps, strict=True)
    ]  # fmt: skip
    own = norm(contributions[me].values)
    longest = longest_average(rule, part_norm=own, vector_norm=2 * own, share=0.25, me=me, steps=steps)
    assert norm(aggregate(rule, brought, numel).average) < longest


def test_an_average_is_refused_from_thirty_times_the_own_length_on() -> None:
    known = {"part_norm": 2.0, "vector_norm": 4.0, "share": 0.25, "me": 0}
    assert longest_average("filter", steps=[20, 20, 20], **known) == pytest.approx(60.0)
    assert longest_average("filter", steps=[20, 20, 80], **known) == pytest.approx(120.0)
    assert longest_average("filter", steps=[80, 20, 20], **known) == pytest.approx(60.0)
    assert longest_average("filter", steps=[20, 20, 2**40], **known) == pytest.approx(240.0)
    empty = {**known, "part_norm": 0.0}  # its data says nothing about this part: the rest of the vector does
    assert longest_average("filter", steps=[20, 20, 20], **empty) == pytest.approx(60.0)


@pytest.mark.parametrize("length", [0.0, math.nan, math.inf])
def test_who_has_nothing_to_compare_with_refuses_nothing(length: float) -> None:
    judged = longest_average("filter", part_norm=length, vector_norm=length, share=0.5, me=0, steps=[1, 1])
    assert judged == math.inf
    assert longest_average("mean", part_norm=1.0, vector_norm=1.0, share=0.5, me=0, steps=[1, 1]) == math.inf


# ---------------------------------------------------------------------------------------------- the rule is chosen
def test_a_session_may_be_asked_for_with_another_rule() -> None:
    assert RunConfig().swarm.aggregation == "filter"
    asked = SessionRequest.model_validate({"name": "x", "distributed": {"aggregation": "median"}})
    assert asked.to_config("s").swarm.aggregation == "median"
    with pytest.raises(ConfigError) as caught:
        parse_config('schema_version = 1\n[swarm]\naggregation = "krum"\n')
    assert "swarm.aggregation" in str(caught.value)
    assert "centered-clip" in str(caught.value) + caught.value.hint
