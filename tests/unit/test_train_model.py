from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cotrain.config import ModelSection, ModelSize, ModelType, TrainSection
from cotrain.train.model import (
    ARCHITECTURES,
    PRESETS,
    build_model,
    count_parameters,
    flatten_parameters,
    inference_mode,
    language_model_loss,
    load_flat_parameters,
    parameter_layout,
)
from cotrain.train.optim import build_inner_optimizer

SEQ_LENGTH = 32


def nano(kind: ModelType = "llama3", *, seed: int = 0):
    return build_model(ModelSection(type=kind, size="nano"), vocab_size=256, seq_length=SEQ_LENGTH, seed=seed)


def random_tokens(batch: int = 2, length: int = SEQ_LENGTH + 1) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (batch, length)))


@pytest.mark.parametrize("kind", get_args(ModelType))
def test_nano_has_about_a_million_parameters(kind: ModelType):
    assert 0.9e6 <= count_parameters(nano(kind)) <= 1.2e6


def test_tiny_has_about_ten_million_parameters():
    model = build_model(ModelSection(size="tiny"), vocab_size=256, seq_length=SEQ_LENGTH, seed=0)
    assert 9e6 <= count_parameters(model) <= 11e6


def test_every_size_and_type_of_the_config_has_a_preset_with_dimensions_that_divide():
    assert set(PRESETS) == set(get_args(ModelSize))
    assert set(ARCHITECTURES) == set(get_args(ModelType))
    for preset in PRESETS.values():
        assert preset.hidden_size % preset.heads == 0
        assert preset.heads % preset.key_value_heads == 0


def test_types_differ_in_rope_and_in_the_grouping_of_heads():
    llama2, llama3 = nano("llama2"), nano("llama3")
    head_dim = 128 // 4
    for model, theta in ((llama2, 10_000.0), (llama3, 500_000.0)):
        expected = theta ** (-torch.arange(0, head_dim, 2) / head_dim)
        torch.testing.assert_close(model.model.rotary_emb.inv_freq, expected)
    assert llama2.config.num_key_value_heads == 4
    assert llama3.config.num_key_value_heads == 2


def test_weights_are_tied_fp32_and_attention_is_sdpa():
    model = nano()
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.config._attn_implementation == "sdpa"


def test_a_seed_gives_the_same_weights_and_another_seed_others():
    first, again, other = (flatten_parameters(nano(seed=seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_initial_weights_are_pinned_on_every_machine():
    """Holds under any ATEN_CPU_CAPABILITY. Another number means that every session starts elsewhere."""
    flat = flatten_parameters(nano(seed=0)).double()
    assert flat.sum().item() == pytest.approx(1430.0171388011834, abs=1e-9)


def test_building_a_model_leaves_the_global_random_state_alone():
    before = torch.random.get_rng_state()
    nano()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_untrained_model_is_about_as_good_as_guessing():
    loss = language_model_loss(nano(), random_tokens(), precision="fp32")
    assert loss.item() == pytest.approx(math.log(256), abs=0.3)


def test_the_loss_is_the_cross_entropy_of_the_next_token():
    model, tokens = nano(), random_tokens()
    with torch.no_grad():
        logits = model(input_ids=tokens[:, :-1]).logits
        expected = F.cross_entropy(logits.reshape(-1, 256), tokens[:, 1:].reshape(-1))
        loss = language_model_loss(model, tokens, precision="fp32")
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)


def test_bf16_computes_with_less_precision_and_returns_an_fp32_loss():
    model, tokens = nano(), random_tokens()
    exact = language_model_loss(model, tokens, precision="fp32")
    rounded = language_model_loss(model, tokens, precision="bf16")
    assert rounded.dtype == torch.float32
    assert rounded.item() != exact.item()
    assert rounded.item() == pytest.approx(exact.item(), abs=0.05)


def test_a_model_does_not_see_the_token_it_predicts():
    model, tokens = nano(), random_tokens(batch=1)
    changed = tokens.clone()
    changed[0, -1] = (changed[0, -1] + 1) % 256
    with inference_mode(model):
        before = model(input_ids=tokens).logits[:, :-1]
        after = model(input_ids=changed).logits[:, :-1]
    torch.testing.assert_close(before, after)


def test_inference_mode_gives_the_mode_back_even_after_an_error():
    model = nano().train()
    inside: list[bool] = []

    def fail_inside() -> None:
        with inference_mode(model):
            inside.extend([model.training, torch.is_grad_enabled()])
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail_inside()
    assert inside == [False, False]
    assert [model.training, torch.is_grad_enabled()] == [True, True]


def test_a_step_of_training_lowers_the_loss_on_its_own_batch():
    model, tokens = nano(), random_tokens()
    optimizer = build_inner_optimizer(model, TrainSection(learning_rate=1e-2))
    loss = language_model_loss(model, tokens, precision="fp32")
    loss.backward()
    optimizer.step()
    assert language_model_loss(model, tokens, precision="fp32").item() < loss.item()


# ------------------------------------------------------------------------------------- flat parameters
def test_flat_parameters_make_the_round_trip_exactly():
    source, target = nano(seed=1), nano(seed=2)
    flat = flatten_parameters(source)
    load_flat_parameters(target, flat)
    assert flat.shape == (count_parameters(source),)
    assert torch.equal(flatten_parameters(target), flat)
    for one, other in zip(source.parameters(), target.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_layout_says_where_each_parameter_is():
    model = nano()
    flat = flatten_parameters(model)
    layout = parameter_layout(model)
    named = dict(model.named_parameters())
    assert [name for name, _, _ in layout] == list(named)
    for name, shape, offset in layout:
        part = flat[offset : offset + math.prod(shape)]
        assert torch.equal(part.view(shape), named[name])
    assert layout[-1][2] + math.prod(layout[-1][1]) == len(flat)


def test_flatten_writes_into_a_vector_that_is_given():
    model = nano()
    out = torch.full((count_parameters(model),), torch.nan)
    assert flatten_parameters(model, out) is out
    assert torch.equal(out, flatten_parameters(model))


def test_a_flat_vector_is_a_copy_and_loading_needs_no_gradient():
    model = nano()
    flat = flatten_parameters(model)
    assert not flat.requires_grad
    kept = flat.clone()
    load_flat_parameters(model, torch.zeros_like(flat))
    assert torch.equal(flat, kept)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("change", [-1, 1])
def test_a_vector_of_a_wrong_size_is_refused_and_changes_nothing(change: int):
    model = nano()
    before = flatten_parameters(model)
    wrong = torch.zeros(len(before) + change)
    with pytest.raises(ValueError, match="flat vector of shape"):
        load_flat_parameters(model, wrong)
    with pytest.raises(ValueError, match="flat vector of shape"):
        flatten_parameters(model, wrong)
    assert torch.equal(flatten_parameters(model), before)


def test_a_matrix_or_another_type_is_refused():
    model = nano()
    size = count_parameters(model)
    with pytest.raises(ValueError, match="flat vector of shape"):
        load_flat_parameters(model, torch.zeros(1, size))
    with pytest.raises(ValueError, match="float64"):
        flatten_parameters(model, torch.zeros(size, dtype=torch.float64))
