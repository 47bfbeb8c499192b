"""The outer step: its formula, its determinism, its digest."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from cotrain.config import RunConfig
from cotrain.sections import DilocoSection, DistributedSection, TrainSection
from cotrain.train.diloco import OuterOptimizer, OuterState, RoundLengths, RoundTotals, progress_fraction

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


# ---------------------------------------------------------------------------------------------- warm-up, averaging
WARMING = RunConfig(
    train=TrainSection(batch_size=4, gradient_accumulation_steps=1, max_steps=100),
    distributed=DistributedSection(nodes=2),
    diloco=DilocoSection(inner_steps=20, warmup_share=0.25, warmup_inner_steps=2, momentum_ramp=0.5),
)
"""800 samples, of which 200 are the warm-up's."""


def test_rounds_are_short_until_the_warm_up_is_over() -> None:
    lengths = RoundLengths.from_config(WARMING, 800)
    assert [lengths.inner_steps_at(committed) for committed in (0, 199, 200, 800)] == [2, 2, 20, 20]
    assert [lengths.overlap_at(committed) for committed in (0, 199, 200)] == [0, 0, 5]
    longer = WARMING.diloco.model_copy(update={"warmup_inner_steps": 10, "overlap_steps": 4})
    lengths = RoundLengths.from_config(WARMING.model_copy(update={"diloco": longer}), 800)
    assert [lengths.overlap_at(committed) for committed in (0, 200)] == [2, 4]


def test_without_a_warm_up_every_round_has_the_same_length() -> None:
    lengths = RoundLengths.from_config(RunConfig(diloco=DilocoSection(inner_steps=20)), 800)
    assert {lengths.inner_steps_at(committed) for committed in range(0, 801, 50)} == {20}
    assert not lengths.is_warming_up(0)


def test_states_of_the_warm_up_are_not_evaluated() -> None:
    lengths, vector = RoundLengths.from_config(WARMING, 800), torch.zeros(1)
    states = [OuterState(vector, vector, round_, samples) for round_, samples in ((12, 192), (13, 208), (14, 368))]
    assert [lengths.is_evaluated(state, every=1) for state in states] == [False, True, True]
    assert [lengths.is_evaluated(state, every=2) for state in states] == [False, False, True]


def test_progress_in_a_short_round_stops_at_its_own_end() -> None:
    assert progress_fraction(16, 4000, 2, WARMING, 800) == pytest.approx((16 + 2 * 4 * 2) / 800)
    assert progress_fraction(200, 4000, 2, WARMING, 800) == pytest.approx((200 + 20 * 4 * 2) / 800)


def _average_of_two() -> tuple[OuterState, torch.Tensor, torch.Tensor]:
    """A state, the pseudo-gradient of two peers, and the average of their parameters."""
    state, generator = _state(), torch.Generator().manual_seed(5)
    first, second = torch.randn(1000, generator=generator), torch.randn(1000, generator=generator)
    return state, ((state.parameters - first) + (state.parameters - second)) / 2, (first + second) / 2


def test_plain_averaging_ends_with_the_average_of_the_parameters() -> None:
    config = RunConfig(diloco=DilocoSection(outer_optimizer="average", outer_learning_rate=0.3, outer_momentum=0.9))
    state, pseudo_gradient, average = _average_of_two()
    after = OuterOptimizer.from_config(config, 800).step(state, pseudo_gradient, TOTALS)
    torch.testing.assert_close(after.parameters, average, rtol=0, atol=1e-6)


def test_the_warm_up_averages_plainly_and_its_momentum_is_forgotten() -> None:
    optimizer = OuterOptimizer.from_config(WARMING, 800)
    assert [optimizer.learning_rate_at(samples) for samples in (0, 199, 200)] == [1.0, 1.0, 0.7]
    assert [optimizer.momentum_at(samples) for samples in (0, 199, 200, 400)] == pytest.approx([0, 0, 0.4, 0.8])
    state, pseudo_gradient, average = _average_of_two()  # 100 samples: in the warm-up
    after = optimizer.step(state, pseudo_gradient, TOTALS)
    torch.testing.assert_close(after.parameters, average, rtol=0, atol=1e-6)
    assert torch.equal(after.momentum, pseudo_gradient)


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
