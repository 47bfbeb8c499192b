from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotrain.train.data.order import first_unused, samples_at, share_positions

SIZES = st.integers(1, 3000)
SEEDS = st.integers(0, 2**31 - 1)


def share(*, seed: int, size: int, cursor: int, rank: int, ranks: int, start: int, count: int) -> list[int]:
    positions = share_positions(cursor=cursor, rank=rank, ranks=ranks, start=start, count=count)
    return samples_at(positions, num_samples=size, seed=seed).tolist()


@given(size=SIZES, seed=SEEDS, epoch=st.integers(0, 1000))
def test_each_epoch_is_a_permutation_of_all_samples(size: int, seed: int, epoch: int):
    taken = share(seed=seed, size=size, cursor=epoch * size, rank=0, ranks=1, start=0, count=size)
    assert sorted(taken) == list(range(size))


@given(size=SIZES, seed=SEEDS, cursor=st.integers(0, 10**6), ranks=st.integers(1, 9), count=st.integers(0, 40))
def test_the_shares_of_all_peers_are_the_round_and_no_sample_is_taken_twice(
    size: int, seed: int, cursor: int, ranks: int, count: int
):
    shares = [
        share(seed=seed, size=size, cursor=cursor, rank=rank, ranks=ranks, start=0, count=count)
        for rank in range(ranks)
    ]
    alone = share(seed=seed, size=size, cursor=cursor, rank=0, ranks=1, start=0, count=ranks * count)
    assert [index for step in zip(*shares, strict=True) for index in step] == alone


@given(size=SIZES, seed=SEEDS, cursor=st.integers(0, 10**6), steps=st.lists(st.integers(0, 30), max_size=6))
def test_taking_it_in_pieces_or_resuming_repeats_and_skips_nothing(size: int, seed: int, cursor: int, steps: list[int]):
    whole = share(seed=seed, size=size, cursor=cursor, rank=1, ranks=3, start=0, count=sum(steps))
    pieces: list[int] = []
    for step in steps:
        pieces += share(seed=seed, size=size, cursor=cursor, rank=1, ranks=3, start=len(pieces), count=step)
    assert pieces == whole


@given(
    size=st.integers(1, 300),
    seed=SEEDS,
    rounds=st.lists(st.tuples(st.integers(1, 5), st.integers(0, 20)), max_size=6),
)
def test_rounds_of_changing_numbers_of_peers_visit_every_sample_once_an_epoch(
    size: int, seed: int, rounds: list[tuple[int, int]]
):
    """Each round begins where the one before ended, whoever took part in it."""
    taken: list[int] = []
    for ranks, count in rounds:
        shares = [
            share(seed=seed, size=size, cursor=len(taken), rank=rank, ranks=ranks, start=0, count=count)
            for rank in range(ranks)
        ]
        taken += [index for step in zip(*shares, strict=True) for index in step]
    for start in range(0, len(taken), size):
        epoch = taken[start : start + size]
        assert len(set(epoch)) == len(epoch)


def test_epochs_and_seeds_have_their_own_order():
    def order(*, seed: int, epoch: int) -> list[int]:
        return share(seed=seed, size=500, cursor=500 * epoch, rank=0, ranks=1, start=0, count=500)

    orders = [order(seed=0, epoch=0), order(seed=0, epoch=1), order(seed=1, epoch=0), order(seed=1, epoch=1)]
    for number, one in enumerate(orders):
        for other in orders[number + 1 :]:
            assert sum(a == b for a, b in zip(one, other, strict=True)) < 15


def test_the_order_looks_random():
    """Neighbours in the order are as far apart as chance has it: a third of the range on average."""
    taken = np.array(share(seed=0, size=10_000, cursor=0, rank=0, ranks=1, start=0, count=10_000))
    assert np.abs(np.diff(taken)).mean() == pytest.approx(10_000 / 3, rel=0.05)
    assert abs(np.corrcoef(taken, np.arange(10_000))[0, 1]) < 0.05


def test_an_epoch_is_left_in_the_middle_of_a_share():
    taken = share(seed=0, size=7, cursor=4, rank=0, ranks=1, start=0, count=10)
    before = share(seed=0, size=7, cursor=0, rank=0, ranks=1, start=0, count=4)
    assert sorted(before + taken[:3]) == list(range(7))
    assert sorted(taken[3:]) == list(range(7))


def test_a_hundred_million_samples_need_no_table():
    taken = share(seed=0, size=10**8, cursor=10**12, rank=3, ranks=64, start=10**6, count=1000)
    assert len(set(taken)) == 1000
    assert 0 <= min(taken) < max(taken) < 10**8


@given(cursor=st.integers(0, 10**6), ranks=st.integers(1, 9), used=st.integers(0, 2 * 10**6), data=st.data())
def test_the_first_unused_sample_of_a_share_is_the_first_that_was_not_dealt_out(
    cursor: int, ranks: int, used: int, data: st.DataObject
):
    rank = data.draw(st.integers(0, ranks - 1))
    start = first_unused(cursor=cursor, rank=rank, ranks=ranks, used=used)
    (position,) = share_positions(cursor=cursor, rank=rank, ranks=ranks, start=start, count=1)
    assert position >= used
    assert start == 0 or position - ranks < used


@pytest.mark.parametrize(
    "wrong",
    [
        {"rank": 2},
        {"rank": -1},
        {"ranks": 0},
        {"cursor": -1},
        {"start": -1},
        {"count": -1},
    ],
)
def test_arguments_out_of_range_are_refused(wrong: dict[str, int]):
    right = {"cursor": 0, "rank": 1, "ranks": 2, "start": 0, "count": 1}
    with pytest.raises(ValueError, match="out of range"):
        share_positions(**(right | wrong))


def test_no_sample_can_be_taken_from_an_empty_dataset():
    with pytest.raises(ValueError, match="num_samples=0"):
        samples_at(np.arange(3), num_samples=0, seed=0)
