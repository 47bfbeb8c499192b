"""The same bits on every machine: norms, products, medians, and a whole reduction."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cotrain.swarm.fixed_order import FOLD_VALUES, agreement, coordinate_median, dot, norm

seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=60)
@given(st.integers(1, 20), st.integers(1, 300), seeds)
def test_the_median_is_numpys(count: int, numel: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    rows = generator.integers(-5, 5, (count, numel)).astype(np.float32)
    median = coordinate_median([torch.from_numpy(row) for row in rows])
    np.testing.assert_array_equal(median.numpy(), np.median(rows, axis=0))
    assert not bool((torch.signbit(median) & (median == 0)).any())


def test_vectors_of_different_lengths_have_no_median() -> None:
    for vectors in ([], [torch.zeros(3), torch.zeros(4)]):
        with pytest.raises(ValueError, match="differ in length"):
            coordinate_median(vectors)


@given(st.lists(st.floats(-(2.0**60), 2.0**60, width=32), min_size=1, max_size=200))
def test_dot_is_the_sum_of_products_in_double_precision(values: list[float]) -> None:
    one, other = torch.tensor(values), torch.tensor(values[::-1])
    expected = math.fsum(float(a) * float(b) for a, b in zip(one, other, strict=True))
    largest = math.fsum(abs(float(a) * float(b)) for a, b in zip(one, other, strict=True))
    assert dot(one, other) == pytest.approx(expected, abs=1e-13 * largest)


def test_a_norm_beyond_float32_is_finite() -> None:
    assert norm(torch.full((100_000,), 3e38)) == pytest.approx(3e38 * math.sqrt(100_000))


_REDUCE = """
import hashlib, sys
import numpy as np, torch
from cotrain.swarm.aggregate import Contribution, reduce_part
from cotrain.swarm.fixed_order import dot
from cotrain.train.codec import make_codec
n, generator = 300_007, np.random.default_rng(0)
common = generator.integers(-10**6, 10**6, n)
rows = [torch.from_numpy(((common + generator.integers(-10**6, 10**6, n)) / 1e6).astype(np.float32)) for _ in range(5)]
rows[4] = torch.neg(rows[4])
lost = torch.from_numpy((generator.integers(-10**6, 10**6, n) / 1e8).astype(np.float32))
hasher = hashlib.sha256(dot(rows[0], rows[1]).hex().encode())
contributions = [Contribution(f"peer{i}", row, float(3 + i), 10 + i) for i, row in enumerate(rows)]
for rule in ("filter", "centered-clip", "median", "mean"):
    for codec in ("int4", "int8", "fp32"):
        reduced = reduce_part(rule, contributions, n, lost, make_codec(codec))
        hasher.update(reduced.encoded + repr(dict(reduced.dropped)).encode())
        hasher.update(b"" if reduced.lost is None else reduced.lost.numpy().tobytes())
dropped = reduce_part("filter", contributions, n, lost, make_codec("int4")).dropped
print(hasher.hexdigest(), torch.backends.cpu.get_cpu_capability(), sorted(dropped))
"""


def test_a_reduction_repeated_elsewhere_gives_the_same_bytes() -> None:
    """A witness may run on another instruction set, and with more threads."""
    answers = [
        subprocess.run(
            [sys.executable, "-c", _REDUCE], check=True, capture_output=True, text=True, timeout=120,
            env={**os.environ, "ATEN_CPU_CAPABILITY": capability, "OMP_NUM_THREADS": threads},
        ).stdout.split(maxsplit=2)
        for capability, threads in (("default", "1"), ("avx2", "1"), ("avx2", "2"))
    ]  # fmt: skip
    assert len({digest for digest, _, _ in answers}) == 1
    assert len({capability for _, capability, _ in answers}) == 2  # they did run on two
    assert {dropped.strip() for _, _, dropped in answers} == {"['peer4']"}


@settings(max_examples=30)
@given(count=st.integers(1, 6), numel=st.integers(1, 3 * FOLD_VALUES), seed=seeds)
def test_one_pass_gives_the_bits_of_one_at_a_time(count: int, numel: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    vectors = [torch.randn(numel, generator=generator) for _ in range(count)]
    found, median = agreement(vectors), coordinate_median(vectors)
    assert found.norms == [norm(vector) for vector in vectors]
    assert found.dots == [dot(vector, median) for vector in vectors]
    assert found.median_norm == norm(median)


def test_a_vector_of_zeros_agrees_with_nothing() -> None:
    assert agreement([torch.zeros(3), torch.ones(3), torch.ones(3)]).cosines == [
        0.0,
        pytest.approx(1),
        pytest.approx(1),
    ]
    assert agreement([torch.zeros(3), torch.zeros(3), torch.ones(3)]).cosines == [0.0, 0.0, 0.0]
