"""Every architecture and size, with the head of its task: counts, initial weights, gradients, flat parameters."""

from __future__ import annotations

import hashlib
import math
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from cotrain.dimensions import PRESETS, PUBLISHED
from cotrain.errors import ConfigError
from cotrain.sections import (
    PRETRAINING_TASK,
    SIZES,
    UNDERSTANDING_TASKS,
    ModelSection,
    ModelSize,
    ModelType,
    TaskName,
    TrainSection,
)
from cotrain.train.model import (
    build_model,
    count_parameters,
    empty_model,
    flatten_parameters,
    inference_mode,
    load_flat_parameters,
    parameter_layout,
)
from cotrain.train.optim import build_inner_optimizer
from cotrain.train.presets import supported_pairs
from cotrain.train.spec import DataSpec
from cotrain.train.tasks.base import Task
from cotrain.train.tasks.metrics import IGNORE, Batch
from tests.unit.task_fixtures import (
    BYTES,
    SEQ_LENGTH,
    batch_of,
    nano,
    nano_for,
    random_tokens,
    spec_of,
    task_of,
)

ABOUT = {"nano": (0.9e6, 1.2e6), "tiny": (9e6, 11e6), "small": (90e6, 110e6)}
PUBLISHED_COUNTS = {
    ("llama2", "7B"): 6_738_415_616,
    ("llama2", "13B"): 13_015_864_320,
    ("llama2", "70B"): 68_976_648_192,
    ("llama3", "8B"): 8_030_261_248,
    ("llama3", "70B"): 70_553_706_496,
}
each_pair = pytest.mark.parametrize(("kind", "name"), supported_pairs())
each_type = pytest.mark.parametrize("kind", get_args(ModelType))


def mean_loss(task: Task, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    sums = [
        F.cross_entropy(logits, targets, reduction="sum", ignore_index=IGNORE)
        for logits, targets in task.predictions(model, batch)
    ]
    return torch.stack(sums).sum() / task.count_targets(batch)


# --------------------------------------------------------------------------------------- presets
@pytest.mark.parametrize(
    ("kind", "size"), [(kind, size) for kind, sizes in SIZES.items() for size in sizes if size in ABOUT]
)
def test_a_preset_has_about_the_parameters_its_size_promises(kind: ModelType, size: ModelSize):
    spec = BYTES if PRETRAINING_TASK[kind] == "causal-lm" else spec_of(PRETRAINING_TASK[kind])
    least, most = ABOUT[size]
    assert least <= count_parameters(empty_model(ModelSection(type=kind, size=size), spec)) <= most


@pytest.mark.parametrize(("kind", "size"), PUBLISHED_COUNTS)
def test_a_published_size_has_the_published_number_of_parameters(kind: ModelType, size: ModelSize):
    spec = DataSpec(task="causal-lm", vocab_size=PUBLISHED[kind].vocab_size, seq_length=SEQ_LENGTH)
    model = empty_model(ModelSection(type=kind, size=size), spec)
    assert count_parameters(model) == PUBLISHED_COUNTS[kind, size]
    assert model.config.max_position_embeddings == PUBLISHED[kind].positions
    assert model.config.rms_norm_eps == 1e-5
    assert not model.config.tie_word_embeddings


def test_the_vocabulary_is_that_of_the_data_in_a_published_size_too():
    model = empty_model(ModelSection(type="llama2", size="7B"), BYTES)
    assert model.get_input_embeddings().weight.shape == (256, 4096)


def test_every_type_learns_what_it_was_made_for_and_the_three_tasks_of_understanding():
    for kind in get_args(ModelType):
        tasks = {task for model, task in supported_pairs() if model == kind}
        assert tasks == {PRETRAINING_TASK[kind], *UNDERSTANDING_TASKS}


def test_every_size_and_type_of_the_config_has_a_preset_with_dimensions_that_divide():
    assert {kind: tuple(sizes) for kind, sizes in PRESETS.items()} == SIZES
    for preset in (preset for sizes in PRESETS.values() for preset in sizes.values()):
        assert preset.hidden_size % preset.heads == 0
        assert preset.heads % preset.key_value_heads == 0


def test_llamas_differ_in_rope_and_in_the_grouping_of_heads():
    llama2, llama3 = nano("llama2"), nano("llama3")
    head_dim = 128 // 4
    for model, theta in ((llama2, 10_000.0), (llama3, 500_000.0)):
        expected = theta ** (-torch.arange(0, head_dim, 2) / head_dim)
        torch.testing.assert_close(model.model.rotary_emb.inv_freq, expected)
    assert llama2.config.num_key_value_heads == 4
    assert llama3.config.num_key_value_heads == 2


@each_type
def test_embeddings_are_tied_weights_fp32_and_attention_is_as_asked(kind: ModelType):
    model = nano(kind)
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.config._attn_implementation == "sdpa"
    assert nano(kind, attention="eager").config._attn_implementation == "eager"


def test_roberta_reads_a_whole_sample_though_its_positions_begin_after_the_padding_token():
    model, spec = nano("roberta"), spec_of("masked-lm")
    assert model.config.max_position_embeddings == SEQ_LENGTH + spec.pad_id + 1
    assert model(input_ids=random_tokens()).logits.shape == (2, SEQ_LENGTH, spec.vocab_size)


# --------------------------------------------------------------------------------------- weights
@each_pair
def test_a_seed_gives_the_same_weights_and_another_seed_others(kind: ModelType, name: TaskName):
    torch.manual_seed(1)
    first = flatten_parameters(nano_for(kind, name))
    torch.manual_seed(2)
    section = ModelSection(type=kind, size="nano")
    again, other = (flatten_parameters(build_model(section, spec_of(name), seed=seed)) for seed in (0, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_initial_weights_are_pinned_on_every_machine():
    """Holds under any ATEN_CPU_CAPABILITY. Another number means that every session starts elsewhere."""
    flat = flatten_parameters(nano(seed=0)).double()
    assert flat.sum().item() == pytest.approx(1430.0171388011834, abs=1e-9)


@pytest.mark.parametrize(
    ("kind", "size", "digest"),
    [
        ("llama2", "nano", "f06caf6391a3f7ce0d644f52d7a1d52ddc3f2fa4fc3a3543d2ce573ece06e34a"),
        ("llama3", "tiny", "2919d2898049732ff327f01378586aceaa7bf6eda0d160258bcb5337297d3f0a"),
    ],
)
def test_the_bits_of_llamas_weights_are_pinned(kind: ModelType, size: ModelSize, digest: str):
    flat = flatten_parameters(build_model(ModelSection(type=kind, size=size), BYTES, seed=7))
    assert hashlib.sha256(flat.numpy().tobytes()).hexdigest() == digest


@each_type
def test_norms_are_one_and_biases_zero(kind: ModelType):
    for name, parameter in nano(kind).named_parameters():
        if parameter.ndim == 1:
            expected = 0.0 if name.endswith("bias") else 1.0
            assert bool((parameter == expected).all()), name


def test_matrices_have_the_spread_their_architecture_is_defined_with():
    t5, gpt2 = dict(nano("t5").named_parameters()), dict(nano("gpt2").named_parameters())
    block = "encoder.block.0.layer"
    expected = [
        (t5["shared.weight"][:256], 1.0),
        (t5[f"{block}.0.SelfAttention.q.weight"], (128 * 32) ** -0.5),
        (t5[f"{block}.0.SelfAttention.k.weight"], 128**-0.5),
        (t5[f"{block}.1.DenseReluDense.wo.weight"], 512**-0.5),
        (gpt2["transformer.h.0.attn.c_attn.weight"], 0.02),
        (gpt2["transformer.h.0.attn.c_proj.weight"], 0.02 / math.sqrt(10)),
    ]
    for matrix, std in expected:
        assert matrix.std().item() == pytest.approx(std, rel=0.02)


@each_type
def test_building_a_model_leaves_the_global_random_state_alone(kind: ModelType):
    before = torch.random.get_rng_state()
    nano(kind)
    assert torch.equal(torch.random.get_rng_state(), before)


# --------------------------------------------------------------------------------------- training
@each_pair
def test_every_parameter_gets_a_finite_gradient(kind: ModelType, name: TaskName):
    task, model = task_of(name), nano_for(kind, name)
    loss = mean_loss(task, model, batch_of(task))
    loss.backward()
    assert math.isfinite(loss.item())
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in model.parameters())


@each_pair
def test_a_few_steps_of_training_lower_the_loss_on_their_own_batch(kind: ModelType, name: TaskName):
    task, model = task_of(name), nano_for(kind, name)
    batch = batch_of(task)
    optimizer = build_inner_optimizer(model, TrainSection(learning_rate=1e-3))
    losses = []
    for _ in range(10):
        loss = mean_loss(task, model, batch)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.9 * losses[0]


@each_type
def test_an_untrained_model_is_about_as_good_as_guessing(kind: ModelType):
    task = task_of(PRETRAINING_TASK[kind])
    model = nano_for(kind, task.name)
    assert mean_loss(task, model, batch_of(task)).item() == pytest.approx(math.log(task.spec.vocab_size), abs=0.8)


@pytest.mark.parametrize("kind", ["llama2", "llama3", "gpt2"])
def test_a_model_does_not_see_the_token_it_predicts(kind: ModelType):
    model, tokens = nano(kind), random_tokens(batch=1)
    changed = tokens.clone()
    changed[0, -1] = (changed[0, -1] + 1) % 256
    with inference_mode(model):
        before = model(input_ids=tokens).logits[:, :-1]
        after = model(input_ids=changed).logits[:, :-1]
    torch.testing.assert_close(before, after)


@each_pair
def test_presets_drop_nothing_unless_asked(kind: ModelType, name: TaskName):
    task = task_of(name)
    batch = batch_of(task)
    plain, dropping = nano_for(kind, name), nano_for(kind, name, dropout=0.5)
    twice = [task.predictions(plain, batch)[0][0] for _ in range(2)]
    assert torch.equal(*twice)
    twice = [task.predictions(dropping, batch)[0][0] for _ in range(2)]
    assert not torch.equal(*twice)


@pytest.mark.parametrize("kind", [kind for kind in get_args(ModelType) if kind != "albert"])
def test_checkpointing_activations_changes_no_gradient(kind: ModelType):
    task = task_of(PRETRAINING_TASK[kind])
    batch = batch_of(task)
    gradients = []
    for checkpointing in (False, True):
        model = nano_for(kind, task.name, activation_checkpointing=checkpointing)
        assert model.is_activation_checkpointing is checkpointing
        mean_loss(task, model, batch).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(*gradients)


def test_albert_says_that_its_activations_cannot_be_checkpointed():
    with pytest.raises(ConfigError, match="albert cannot be checkpointed") as raised:
        nano("albert", activation_checkpointing=True)
    assert raised.value.field == "model.activation_checkpointing"


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


@pytest.mark.parametrize("name", ["text-classification", "token-classification"])
def test_a_task_of_classes_needs_classes(name: TaskName):
    spec = spec_of(name).model_copy(update={"labels": ()})
    with pytest.raises(ConfigError, match="has 0 classes") as raised:
        build_model(ModelSection(type="bert", size="nano"), spec, seed=0)
    assert raised.value.field.startswith("data.fields.")


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
