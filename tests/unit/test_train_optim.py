from __future__ import annotations

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cotrain.config import Optimizer, Scheduler, TrainSection
from cotrain.train.optim import build_inner_optimizer, learning_rate, set_learning_rate

UNHURRIED = settings(deadline=None)  # other processes may hold the processor for a while

SECTIONS = st.builds(
    TrainSection,
    learning_rate=st.floats(1e-6, 10.0),
    lr_scheduler=st.sampled_from(get_args(Scheduler)),
    warmup_steps=st.integers(0, 10_000),
    min_learning_rate_ratio=st.floats(0.0, 1.0),
)
TOTALS = st.floats(1.0, 1e9)
PROGRESS = st.floats(0.0, 1.0)


def warmup_share(section: TrainSection, total_steps: float) -> float:
    return min(section.warmup_steps / total_steps, 0.1)


@UNHURRIED
@given(SECTIONS, PROGRESS, TOTALS)
def test_the_rate_stays_between_zero_and_the_peak(section: TrainSection, progress: float, total: float):
    rate = learning_rate(section, progress=progress, total_steps=total)
    assert 0.0 <= rate <= section.learning_rate * (1 + 1e-9)


@UNHURRIED
@given(SECTIONS, PROGRESS, PROGRESS, TOTALS)
def test_the_rate_rises_in_the_warm_up_and_never_after(section: TrainSection, one: float, other: float, total: float):
    earlier, later = sorted((one, other))
    before, after = (learning_rate(section, progress=p, total_steps=total) for p in (earlier, later))
    slack = section.learning_rate * 1e-9
    if later < warmup_share(section, total):
        assert before <= after + slack
    elif earlier >= warmup_share(section, total):
        assert before >= after - slack


@UNHURRIED
@given(SECTIONS, PROGRESS, TOTALS)
def test_the_rate_is_continuous(section: TrainSection, progress: float, total: float):
    """No jump is larger than the steepest slope allows: that of the warm-up, or pi/2 over what remains."""
    gap = 1e-9
    warmup = warmup_share(section, total)
    slope = max(1 / warmup if warmup else 0.0, 2.0)
    here, there = (learning_rate(section, progress=p, total_steps=total) for p in (progress, progress + gap))
    assert abs(here - there) <= section.learning_rate * (slope * gap * 1.01 + 1e-9)


@UNHURRIED
@given(SECTIONS, TOTALS)
def test_the_schedule_ends_where_the_config_says(section: TrainSection, total: float):
    share = 1.0 if section.lr_scheduler == "constant" else section.min_learning_rate_ratio
    end = learning_rate(section, progress=1.0, total_steps=total)
    assert end == pytest.approx(section.learning_rate * share, abs=1e-12)


@UNHURRIED
@given(SECTIONS, TOTALS, st.floats(0.0, 1e6))
def test_progress_outside_the_run_is_clamped(section: TrainSection, total: float, excess: float):
    def rate(progress: float) -> float:
        return learning_rate(section, progress=progress, total_steps=total)

    assert rate(-excess) == rate(0.0)
    assert rate(1.0 + excess) == rate(1.0)


def test_the_warm_up_is_linear_from_the_first_step_and_at_most_a_tenth_of_the_run():
    section = TrainSection(learning_rate=1.0, warmup_steps=9, lr_scheduler="constant")
    rates = [learning_rate(section, progress=step / 1000, total_steps=1000) for step in range(11)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0])
    assert learning_rate(section, progress=0.1, total_steps=10) == 1.0


def test_cosine_and_linear_meet_half_way():
    for scheduler in ("cosine", "linear"):
        section = TrainSection(learning_rate=1.0, warmup_steps=0, lr_scheduler=scheduler)
        assert learning_rate(section, progress=0.5, total_steps=100) == pytest.approx(0.55)


@pytest.mark.parametrize("total", [0.0, -1.0, float("nan")])
def test_a_run_without_steps_is_refused(total: float):
    with pytest.raises(ValueError, match="total_steps"):
        learning_rate(TrainSection(), progress=0.0, total_steps=total)


@pytest.mark.parametrize("name", get_args(Optimizer))
def test_each_optimizer_spares_norms_and_biases_and_makes_a_step(name: Optimizer):
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    optimizer = build_inner_optimizer(model, TrainSection(optimizer=name, learning_rate=0.1, weight_decay=0.3))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay == {id(p): 0.3 if p.ndim == 2 else 0.0 for p in model.parameters()}

    before = model[0].weight.detach().clone()
    model(torch.ones(2, 4)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(model[0].weight, before)


def test_a_model_of_vectors_only_is_optimized_too():
    optimizer = build_inner_optimizer(nn.LayerNorm(4), TrainSection())
    assert [len(group["params"]) for group in optimizer.param_groups] == [2]


def test_setting_the_learning_rate_reaches_every_group():
    optimizer = build_inner_optimizer(nn.Linear(2, 2), TrainSection())
    set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]
