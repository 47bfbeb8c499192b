"""Serving files, the decisions: which bytes are asked for, and how fast they may go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.asset_rate import AssetRates, Bucket, spend
from coordinator.byte_ranges import ByteRange, RangeNotSatisfiableError, requested_range

TAG = '"abc"'
RATE = 1000


class Clock:
    """Seconds that rise when the test says so."""

    def __init__(self) -> None:
        self.time_s = 100.0

    def __call__(self) -> float:
        return self.time_s


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (None, None),
        ("bytes=0-", ByteRange(0, 99)),
        ("bytes=10-19", ByteRange(10, 19)),
        ("Bytes=99-", ByteRange(99, 99)),
        ("bytes=90-1000", ByteRange(90, 99)),
        ("bytes=-10", ByteRange(90, 99)),
        ("bytes=-1000", ByteRange(0, 99)),
        ("bytes=20-10", None),
        ("bytes=-", None),
        ("bytes=0-1,5-6", None),
        ("lines=1-2", None),
        ("bytes=a-b", None),
        ("bytes=٣-", None),
        ("bytes=" + "9" * 30 + "-", None),
    ],
)
def test_which_bytes_are_asked_for(wanted: str | None, found: ByteRange | None) -> None:
    assert requested_range(wanted, None, etag=TAG, size_bytes=100) == found


@pytest.mark.parametrize(("wanted", "size_bytes"), [("bytes=100-", 100), ("bytes=-0", 100), ("bytes=0-", 0)])
def test_bytes_that_are_not_there_are_refused(wanted: str, size_bytes: int) -> None:
    with pytest.raises(RangeNotSatisfiableError, match=f"{size_bytes} bytes"):
        requested_range(wanted, None, etag=TAG, size_bytes=size_bytes)


@pytest.mark.parametrize("other", ['"other"', 'W/"abc"', "Wed, 21 Oct 2015 07:28:00 GMT", ""])
def test_a_range_of_another_file_is_answered_with_all_of_this_one(other: str) -> None:
    assert requested_range("bytes=500-", other, etag=TAG, size_bytes=100) is None
    assert requested_range("bytes=5-", TAG, etag=TAG, size_bytes=100) == ByteRange(5, 99)


@given(st.integers(0, 300), st.integers(0, 300) | st.none(), st.integers(1, 200))
def test_a_range_lies_within_the_file(first: int, last: int | None, size_bytes: int) -> None:
    wanted = f"bytes={first}-{'' if last is None else last}"
    try:
        found = requested_range(wanted, None, etag=TAG, size_bytes=size_bytes)
    except RangeNotSatisfiableError:
        assert first >= size_bytes
        return
    content = bytes(size_bytes)
    if found is None:
        assert last is not None
        assert last < first
    else:
        end = size_bytes if last is None else last + 1
        assert found.size_bytes == len(content[first:end]) > 0


@given(st.lists(st.tuples(st.integers(1, 500), st.floats(0, 2)), min_size=1, max_size=50))
def test_no_second_carries_more_than_the_rate_and_what_was_saved_up(sends: list[tuple[int, float]]) -> None:
    bucket, clock = Bucket(RATE, 0.0), 0.0
    sent: list[tuple[float, int]] = []
    for size_bytes, pause_s in sends:
        clock += pause_s
        bucket, wait_s = spend(bucket, size_bytes, bytes_per_s=RATE, clock=clock)
        sent.append((clock + wait_s, size_bytes))
    assert sent == sorted(sent, key=lambda entry: entry[0])
    for begin, (start_s, _) in enumerate(sent):
        total = 0
        for at_s, size_bytes in sent[begin:]:
            total += size_bytes
            assert total <= RATE * (1 + at_s - start_s) + 500 + 1e-6


def test_downloads_of_one_receiver_share_its_rate_and_others_do_not_wait() -> None:
    rates = AssetRates(RATE, enforced=True, clock=Clock())
    assert [rates.take("p-1", 500) for _ in range(4)] == [0.0, 0.0, 0.5, 1.0]
    assert rates.take("p-2", 500) == 0.0
    assert rates.piece_bytes == RATE // 10


def test_what_was_not_used_is_saved_for_a_second_and_no_longer() -> None:
    clock = Clock()
    rates = AssetRates(RATE, enforced=True, clock=clock)
    assert rates.take("p", 2 * RATE) == 1.0
    clock.time_s += 2.0
    assert rates.take("p", RATE) == 0.0
    clock.time_s += 3600.0
    assert rates.take("p", RATE) == 0.0
    assert rates.take("p", RATE) == 1.0


def test_where_limits_do_not_hold_nobody_waits() -> None:
    rates = AssetRates(1, enforced=False, clock=Clock())
    assert [rates.take("p", 10**9) for _ in range(3)] == [0.0] * 3
    assert rates.piece_bytes == 256 * 1024


def test_the_receiver_that_was_silent_for_longest_is_forgotten_first() -> None:
    rates = AssetRates(RATE, enforced=True, most_receivers=2, clock=Clock())
    for receiver in ("a", "b", "a", "c"):
        rates.take(receiver, RATE)
    assert rates.take("a", 1) == pytest.approx(1.001)
    assert rates.take("b", 1) == 0.0
