"""The outer step: its formula, its determinism, its digest."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from cotrain.config import RunConfig
from cotrain.sections import DilocoSection, DistributedSection, TrainSection
from cotrain.train.diloco import OuterOptimizer, OuterState, RoundTotals, progress_fraction

TOTALS = RoundTotals(samples=40, positions=44)


def _state(n: int = 1000) -> OuterState:
    generator = torch.Generator().manual_seed(3)
    return OuterState(
        torch.randn(n, generator=generator),
        torch.randn(n, generator=generator),
        round=4,
        samples=100,
        cursor=110,
    )


def test_step_is_nesterov_sgd_on_the_pseudo_gradient() -> None:
    state = _state()
    average = torch.randn(1000, generator=torch.Generator().manual_seed(5))
    parameter = torch.nn.Parameter(state.parameters.clone())
    reference = torch.optim.SGD([parameter], lr=0.7, momentum=0.8, nesterov=True)
    reference.state[parameter]["momentum_buffer"] = state.momentum.clone()
    parameter.grad = average.clone()
    reference.step()

    after = OuterOptimizer(0.7, 0.8, ramp_samples=0).step(state, average, TOTALS)

    torch.testing.assert_close(after.parameters, parameter.detach())
    assert (after.round, after.samples, after.cursor) == (5, 140, 154)


def test_step_leaves_the_old_state_alone_and_fills_given_buffers() -> None:
    state = _state()
    before = state.digest()
    buffers = (torch.empty(1000), torch.empty(1000))
    after = OuterOptimizer(0.7, 0.8, 0).step(state, torch.ones(1000), TOTALS, out=buffers)
    assert state.digest() == before
    assert after.parameters.data_ptr() == buffers[0].data_ptr()
    assert after.digest() == OuterOptimizer(0.7, 0.8, 0).step(state, torch.ones(1000), TOTALS).digest()


@pytest.mark.parametrize("changed", ["parameters", "momentum", "round", "samples", "cursor"])
def test_digest_covers_everything(changed: str) -> None:
    state = _state()
    values = {name: getattr(state, name) for name in ("parameters", "momentum", "round", "samples", "cursor")}
    value = values[changed]
    values[changed] = value + 1 if isinstance(value, int) else value.clone().index_fill_(0, torch.tensor([7]), 9.0)
    assert OuterState(**values).digest() != state.digest()


def test_momentum_is_ramped_from_zero() -> None:
    config = RunConfig(train=TrainSection(max_steps=100, batch_size=2, gradient_accumulation_steps=1))
    optimizer = OuterOptimizer.from_config(config, samples_wanted=200)
    assert optimizer.momentum_at(0) == 0.0
    assert optimizer.momentum_at(50) == pytest.approx(0.4)
    assert optimizer.momentum_at(100) == optimizer.momentum_at(10**9) == 0.8


def test_progress_counts_the_others_and_stops_at_the_round() -> None:
    config = RunConfig(
        train=TrainSection(batch_size=4, gradient_accumulation_steps=1, max_steps=100),
        distributed=DistributedSection(nodes=2),
        diloco=DilocoSection(inner_steps=10),
    )
    wanted = config.samples_wanted(10**6)
    assert wanted == 800
    assert progress_fraction(0, 0, 2, config, wanted) == 0.0
    assert progress_fraction(80, 20, 2, config, wanted) == pytest.approx(120 / 800)
    assert progress_fraction(80, 4000, 2, config, wanted) == pytest.approx(160 / 800)
    assert progress_fraction(800, 40, 2, config, wanted) == 1.0


_DIGEST_AFTER_ROUNDS = """
import torch
from cotrain.train.codec import make_codec
from cotrain.train.diloco import OuterOptimizer, OuterState, RoundTotals
codec, generator = make_codec("int4"), torch.Generator().manual_seed(0)
# not torch.randn: its own bits depend on the instruction set
state = OuterState.initial(torch.randint(-10**6, 10**6, (100_003,), generator=generator) / 1e6)
for _ in range(5):
    payload = bytes(torch.randint(0, 256, (codec.encoded_bytes(100_003),), generator=generator).tolist())
    scales = b"\\x80\\x3c" * (-(-100_003 // 256))
    average = codec.decode(scales + payload[len(scales):], 100_003)
    state = OuterOptimizer(0.7, 0.8, 400.0).step(state, average, RoundTotals(80, 80))
print(state.digest())
"""


def test_outer_steps_agree_between_instruction_sets() -> None:
    """Peers with and without vector instructions must end with the same bits (DESIGN, arithmetic that must agree)."""
    digests = {
        subprocess.run(
            [sys.executable, "-c", _DIGEST_AFTER_ROUNDS], check=True, capture_output=True, text=True,
            env={**os.environ, "ATEN_CPU_CAPABILITY": capability, "OMP_NUM_THREADS": threads},
        ).stdout.strip()
        for capability, threads in (("default", "1"), ("avx2", "1"), ("avx2", "2"))
    }  # fmt: skip
    assert len(digests) == 1
    assert len(digests.pop()) == 64
