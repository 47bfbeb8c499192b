"""Parts of the vector, what is held of them, and their weighted mean."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cotrain.swarm.aggregate import weighted_mean
from cotrain.swarm.parts import Part, PartLedger, digest_of, partition

BLOCK = 8


@given(st.integers(1, 5000), st.lists(st.integers(0, 7), min_size=1, max_size=6).filter(any), st.integers(1, 20))
def test_parts_cover_the_vector_once_and_lie_on_blocks(numel: int, shares: list[int], blocks: int) -> None:
    members = [f"peer{i}" for i in range(len(shares))]
    parts = partition(numel, members, shares, BLOCK, part_values=blocks * BLOCK)
    assert (parts[0].start, parts[-1].stop) == (0, numel)
    assert all(before.stop == after.start for before, after in pairwise(parts))
    assert all(0 < part.numel <= blocks * BLOCK and part.start % BLOCK == 0 for part in parts)
    owned = {m: sum(part.numel for part in parts if part.reducer == m) for m in members}
    for member, share in zip(members, shares, strict=True):
        assert abs(owned[member] - numel * share / sum(shares)) <= BLOCK
        assert share > 0 or owned[member] == 0


def test_a_vector_smaller_than_the_group_leaves_some_without_parts() -> None:
    assert partition(5, ["p", "q", "r"], [1, 1, 1], BLOCK) == [Part(0, 5, "r")]


def test_ledger_keeps_the_first_bytes_until_the_group_decides_on_others() -> None:
    ledger = PartLedger(partition(3 * BLOCK, ["p"], [1], BLOCK, part_values=BLOCK))
    assert not any(ledger.manifest)
    ledger.put(1, b"first")
    ledger.put(1, b"second")
    assert ledger.encoded(1) == b"first"
    assert ledger.manifest == (None, digest_of(b"first"), None)
    decided = (digest_of(b"zero"), digest_of(b"second"), None)
    assert ledger.missing(decided) == [0, 1]
    ledger.replace(1, b"second")
    assert ledger.missing(decided) == [0]
    assert ledger.encoded(1) == b"second"
    assert ledger.encoded(2) is None


def test_a_digest_is_blake3() -> None:
    """The value is that of the test vectors in the authors' specification, for an input of one zero byte."""
    assert digest_of(b"\0") == "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213"


# ---------------------------------------------------------------------------------------------- the mean
weights_and_values = st.lists(
    st.tuples(st.integers(0, 2**40).map(float), st.lists(st.floats(-100, 100, width=32), min_size=4, max_size=4)),
    min_size=1,
    max_size=6,
)


@given(weights_and_values)
def test_weighted_mean_is_the_mean_in_double_precision(rows: list[tuple[float, list[float]]]) -> None:
    weights = [weight for weight, _ in rows]
    contributions = [torch.tensor(values) for _, values in rows]
    mean = weighted_mean(contributions, weights)
    if sum(weights) == 0:
        assert not mean.any()
    else:
        expected = np.average([values for _, values in rows], axis=0, weights=weights)
        np.testing.assert_allclose(mean.numpy(), expected, atol=1e-4)


def test_weighted_mean_leaves_the_contributions_alone_and_wants_a_weight_for_each() -> None:
    first, second = torch.ones(4), torch.zeros(4)
    assert weighted_mean([first, second], [3.0, 1.0]).tolist() == [0.75] * 4
    assert first.tolist() == [1.0] * 4
    with pytest.raises(ValueError, match=r"shorter|longer"):
        weighted_mean([first, second], [1.0])
