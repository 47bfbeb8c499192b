"""The reading rule of the StatusWatcher."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from cotrain.status import Status
from cotrain.watch import accept


def snapshot(run: str, sequence: int) -> Status:
    return Status(
        session="s", peer="p", run=run, sequence=sequence, updated_at=0.0, status="training", phase="training"
    )


snapshots = st.builds(snapshot, st.sampled_from(["a", "b"]), st.integers(0, 20))


def test_first_snapshot_is_news() -> None:
    assert accept(None, snapshot("a", 0))


@given(snapshots, snapshots)
def test_accepts_another_run_or_a_later_sequence_and_nothing_else(previous: Status, new: Status) -> None:
    assert accept(previous, new) == (new.run != previous.run or new.sequence > previous.sequence)


@given(st.lists(snapshots))
def test_sequence_never_goes_back_within_a_stretch_of_one_run(arriving: list[Status]) -> None:
    kept: list[Status] = []
    for new in arriving:
        if accept(kept[-1] if kept else None, new):
            kept.append(new)
    for earlier, later in pairwise(kept):
        assert later.run != earlier.run or later.sequence > earlier.sequence
