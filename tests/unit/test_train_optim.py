from __future__ import annotations

import copy
import math
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5Model

from cotrain.sections import Optimizer, Scheduler, TrainSection
from cotrain.train.muon import hidden_matrices, orthogonalize
from cotrain.train.optim import build_inner_optimizer, learning_rate, set_learning_rate

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


@given(SECTIONS, PROGRESS, TOTALS)
def test_the_rate_stays_between_zero_and_the_peak(section: TrainSection, progress: float, total: float):
    rate = learning_rate(section, progress=progress, total_steps=total)
    assert 0.0 <= rate <= section.learning_rate * (1 + 1e-9)


@given(SECTIONS, PROGRESS, PROGRESS, TOTALS)
def test_the_rate_rises_in_the_warm_up_and_never_after(section: TrainSection, one: float, other: float, total: float):
    earlier, later = sorted((one, other))
    before, after = (learning_rate(section, progress=p, total_steps=total) for p in (earlier, later))
    slack = section.learning_rate * 1e-9
    if later < warmup_share(section, total):
        assert before <= after + slack
    elif earlier >= warmup_share(section, total):
        assert before >= after - slack


@given(SECTIONS, PROGRESS, TOTALS)
def test_the_rate_is_continuous(section: TrainSection, progress: float, total: float):
    """No jump is larger than the steepest stretch allows: that of the warm-up, pi/2 over what remains, wsd's root."""
    gap = 1e-9
    warmup = warmup_share(section, total)
    slope = max(1 / warmup if warmup else 0.0, 2.0)
    root = math.sqrt(gap / (0.2 * 0.9)) if section.lr_scheduler == "wsd" else 0.0
    here, there = (learning_rate(section, progress=p, total_steps=total) for p in (progress, progress + gap))
    assert abs(here - there) <= section.learning_rate * ((slope * gap + root) * 1.01 + 1e-9)


@given(SECTIONS, TOTALS)
def test_the_schedule_ends_where_the_config_says(section: TrainSection, total: float):
    share = 1.0 if section.lr_scheduler == "constant" else section.min_learning_rate_ratio
    end = learning_rate(section, progress=1.0, total_steps=total)
    assert end == pytest.approx(section.learning_rate * share, abs=1e-12)


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


def test_wsd_stays_at_the_peak_and_falls_with_a_root_over_the_last_fifth():
    section = TrainSection(learning_rate=1.0, warmup_steps=0, lr_scheduler="wsd", min_learning_rate_ratio=0.0)
    rates = [learning_rate(section, progress=p, total_steps=100) for p in (0.0, 0.5, 0.8, 0.85, 0.95, 1.0)]
    assert rates == pytest.approx([1.0, 1.0, 1.0, 0.5, 1 - math.sqrt(0.75), 0.0], abs=1e-7)


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


@pytest.mark.parametrize("name", ["adam", "adamw", "muon"])
def test_beta2_is_the_configs(name: Optimizer):
    optimizer = build_inner_optimizer(small_llama(), TrainSection(optimizer=name, beta2=0.99))
    betas = [group["betas"] for group in optimizer.param_groups if "betas" in group]
    assert len(betas) == 2
    assert set(betas) == {(0.9, 0.99)}


# ------------------------------------------------------------------------------------------------- updates
def one_step(name: Optimizer, gradient: torch.Tensor, weight_decay: float) -> torch.Tensor:
    """A matrix of ones in a transformer layer after one step at learning rate 0.1."""
    model = small_llama()
    parameter = model.model.layers[0].self_attn.q_proj.weight
    optimizer = build_inner_optimizer(model, TrainSection(optimizer=name, learning_rate=0.1, weight_decay=weight_decay))
    with torch.no_grad():
        parameter.fill_(1.0)
    parameter.grad = gradient.clone()
    optimizer.step()
    return parameter.detach()


def small_llama() -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=11, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2,
                    num_key_value_heads=1, tie_word_embeddings=False)
    )  # fmt: skip


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_decoupled_decay_shrinks_weights_whatever_the_gradient(name: Optimizer):
    gradient = torch.from_numpy(np.random.default_rng(0).standard_normal((8, 8))).float()
    with_decay, without = (one_step(name, gradient, decay) for decay in (0.5, 0.0))
    torch.testing.assert_close(without - with_decay, torch.full((8, 8), 0.1 * 0.5))


def test_the_decay_of_adam_and_sgd_is_a_part_of_the_gradient():
    gradient = torch.full((8, 8), 2.0)
    assert torch.equal(one_step("sgd", gradient, 0.5), one_step("sgd", gradient + 0.5, 0.0))
    torch.testing.assert_close(one_step("adam", gradient, 0.5), one_step("adam", gradient + 0.5, 0.0))
    torch.testing.assert_close(one_step("adam", gradient, 0.5), one_step("adam", gradient, 0.0))  # its size is lost


def test_muon_takes_the_matrices_of_the_layers_and_adamw_the_rest():
    model = small_llama()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    optimizer = build_inner_optimizer(model, TrainSection(optimizer="muon"))
    taken, *others = [{names[id(p)] for p in group["params"]} for group in optimizer.param_groups]
    assert taken == {name for name in names.values() if "_proj." in name}
    assert others == [
        {"model.embed_tokens.weight", "lm_head.weight"}, {name for name in names.values() if "norm" in name}
    ]  # fmt: skip


def test_muon_leaves_embeddings_inside_the_layers_to_adamw():
    model = T5Model(T5Config(vocab_size=11, d_model=8, d_kv=4, d_ff=12, num_layers=2, num_heads=2))
    matrices = {id(parameter) for parameter in hidden_matrices(model)}
    left = {name for name, p in model.named_parameters() if p.ndim == 2 and id(p) not in matrices}
    assert len(matrices) == 2 * 6 + 2 * 10
    assert {name.rsplit(".", 2)[-2] for name in left} == {"shared", "relative_attention_bias"}


@given(st.integers(1, 24), st.integers(1, 24), st.floats(1e-6, 1e6), st.integers(0, 2**31))
def test_orthogonalizing_keeps_the_directions_and_evens_out_their_sizes(
    rows: int, columns: int, scale: float, seed: int
):
    """Singular values that are not tiny beside the largest end near 1; the singular vectors stay."""
    matrix = torch.from_numpy(np.random.default_rng(seed).standard_normal((rows, columns)) * scale).float()
    result = orthogonalize(matrix)
    sizes = torch.linalg.svdvals(result)
    strong = torch.linalg.svdvals(matrix) > 0.05 * matrix.norm()
    assert sizes.max() < 1.25
    assert sizes[strong].min() > 0.6
    product = matrix.double().T @ result.double()  # symmetric and positive, as V S V^T is
    torch.testing.assert_close(product, product.T, rtol=1e-3, atol=1e-3 * float(product.abs().max()))


def test_muon_agrees_with_torchs_own_up_to_its_rounding():
    generator = np.random.default_rng(1)
    start = torch.from_numpy(generator.standard_normal((8, 8))).float()
    ours, theirs = small_llama(), nn.Parameter(start.clone())
    parameter = ours.model.layers[0].self_attn.q_proj.weight
    with torch.no_grad():
        parameter.copy_(start)
    optimizer = build_inner_optimizer(ours, TrainSection(optimizer="muon", learning_rate=0.01, weight_decay=0.1))
    reference = torch.optim.Muon([theirs], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        parameter.grad = torch.from_numpy(generator.standard_normal((8, 8))).float()
        theirs.grad = parameter.grad.clone()
        optimizer.step()
        reference.step()
    torch.testing.assert_close(parameter, theirs, rtol=0, atol=2e-4)
    assert (parameter - start).abs().max() > 0.01


def test_the_state_dict_of_muon_restores_both_halves():
    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        model(input_ids=torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
        optimizer.step()

    section = TrainSection(optimizer="muon", learning_rate=0.01)
    first, second = small_llama(), small_llama()
    optimizers = [build_inner_optimizer(model, section) for model in (first, second)]
    for _ in range(2):
        step(first, optimizers[0])
    second.load_state_dict(first.state_dict())
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    for model, optimizer in zip((first, second), optimizers, strict=True):
        set_learning_rate(optimizer, 0.005)
        step(model, optimizer)
    assert all(torch.equal(one, other) for one, other in zip(first.parameters(), second.parameters(), strict=True))


def test_a_model_of_vectors_only_is_optimized_too():
    optimizer = build_inner_optimizer(nn.LayerNorm(4), TrainSection())
    assert [len(group["params"]) for group in optimizer.param_groups] == [2]


def test_setting_the_learning_rate_reaches_every_group():
    optimizer = build_inner_optimizer(nn.Linear(2, 2), TrainSection())
    set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]
