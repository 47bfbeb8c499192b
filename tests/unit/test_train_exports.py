"""What a model becomes: an export for transformers, and the source of another model; broken sources are refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, PreTrainedModel, pipeline

from cotrain.errors import ConfigError, IntegrityError
from cotrain.sections import PRETRAINING_TASK, ModelSection, ModelType, TaskName
from cotrain.train.model import build_model, count_parameters, flatten_parameters, inference_mode, model_class_for
from cotrain.train.presets import supported_pairs
from cotrain.train.tokenizer import load_tokenizer
from tests.unit.task_fixtures import (
    BYTES,
    LABELS,
    SEQ_LENGTH,
    batch_of,
    nano,
    nano_for,
    random_tokens,
    spec_of,
    task_of,
)

each_pair = pytest.mark.parametrize(("kind", "name"), supported_pairs())
each_type = pytest.mark.parametrize("kind", get_args(ModelType))


# --------------------------------------------------------------------------------------- exports
def export(model: PreTrainedModel, task: TaskName, folder: Path) -> Path:
    model.save_pretrained(folder)
    load_tokenizer("bytes", task).save_pretrained(folder)
    return folder


@each_pair
def test_an_export_reloads_by_its_auto_class_with_identical_logits(kind: ModelType, name: TaskName, tmp_path: Path):
    task, model = task_of(name), nano_for(kind, name)
    export(model, name, tmp_path)
    batch = batch_of(task)
    loaded = model_class_for(name).from_pretrained(tmp_path, local_files_only=True, use_safetensors=True)
    with inference_mode(model), inference_mode(loaded):
        for (logits, _), (again, _) in zip(
            task.predictions(model, batch), task.predictions(loaded, batch), strict=True
        ):
            assert torch.equal(logits, again)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert tokenizer("سلام").input_ids == load_tokenizer("bytes", name)("سلام").input_ids


@each_pair
def test_an_export_goes_on_as_a_source(kind: ModelType, name: TaskName, tmp_path: Path):
    model = nano_for(kind, name)
    model.save_pretrained(tmp_path)
    again = build_model(ModelSection(source=str(tmp_path)), spec_of(name), seed=9)
    assert torch.equal(flatten_parameters(model), flatten_parameters(again))
    assert again.training


@each_type
def test_a_pipeline_names_the_classes_of_the_data(kind: ModelType, tmp_path: Path):
    folder = export(nano_for(kind, "text-classification"), "text-classification", tmp_path / "texts")
    answers = pipeline("text-classification", model=str(folder))(["good", "a longer one"])
    assert {answer["label"] for answer in answers} <= set(LABELS["text-classification"])
    folder = export(nano_for(kind, "token-classification"), "token-classification", tmp_path / "words")
    for found in pipeline("token-classification", model=str(folder))("Ada in Rome"):
        assert found["entity"] in LABELS["token-classification"]


@pytest.mark.parametrize("kind", ["bert", "roberta", "albert"])
def test_a_pipeline_fills_the_mask(kind: ModelType, tmp_path: Path):
    folder = export(nano(kind), "masked-lm", tmp_path)
    assert len(pipeline("fill-mask", model=str(folder))("Hello <mask>", top_k=3)) == 3


@pytest.mark.parametrize("kind", ["llama2", "llama3", "gpt2"])
def test_a_pipeline_goes_on_with_a_text(kind: ModelType, tmp_path: Path):
    folder = export(nano(kind), "causal-lm", tmp_path)
    (written,) = pipeline("text-generation", model=str(folder))("Hello", max_new_tokens=5, do_sample=False)
    assert written["generated_text"].startswith("Hello")


def test_an_exported_t5_generates_from_its_own_start_token(tmp_path: Path):
    folder = export(nano("t5"), "seq2seq-lm", tmp_path)
    model = model_class_for("seq2seq-lm").from_pretrained(folder)
    assert model.generate(random_tokens(batch=1), max_new_tokens=4)[0, 0] == spec_of("seq2seq-lm").pad_id


# --------------------------------------------------------------------------------------- sources
def source_section(folder: Path, **section: Any) -> ModelSection:
    return ModelSection(source=str(folder), **section)


def bare_name(parameter: str) -> str:
    """Without the name that some heads give the trunk, and others do not."""
    return parameter.removeprefix("transformer.").removeprefix("model.")


@each_type
@pytest.mark.parametrize("name", ["text-classification", "token-classification", "question-answering"])
def test_a_new_head_is_drawn_from_the_seed_and_the_trunk_is_kept(kind: ModelType, name: TaskName, tmp_path: Path):
    spec = spec_of(PRETRAINING_TASK[kind]).model_copy(update={"vocab_size": spec_of(name).vocab_size})
    pretrained = build_model(ModelSection(type=kind, size="nano"), spec, seed=0)
    pretrained.save_pretrained(tmp_path)
    trunk = dict(pretrained.named_parameters())
    built = []
    for torch_seed, seed in ((1, 0), (2, 0), (2, 5)):
        torch.manual_seed(torch_seed)
        built.append(build_model(source_section(tmp_path), spec_of(name), seed=seed))
    first, again, other = (dict(model.named_parameters()) for model in built)
    assert all(torch.equal(first[key], again[key]) for key in first)
    fresh = {key for key in first if not torch.equal(first[key], other[key])}
    assert fresh, "the head has no weights of its own"
    kept, old = ({bare_name(key): value for key, value in named.items()} for named in (first, trunk))
    common = kept.keys() & old.keys()
    assert sum(kept[key].numel() for key in common) > 0.4 * count_parameters(pretrained)
    assert all(torch.equal(kept[key], old[key]) for key in common)


def test_a_head_for_other_classes_is_replaced(tmp_path: Path):
    spec = spec_of("text-classification")
    build_model(ModelSection(type="bert", size="nano"), spec, seed=0).save_pretrained(tmp_path)
    wider = spec.model_copy(update={"labels": ("a", "b", "c")})
    model = build_model(source_section(tmp_path), wider, seed=0)
    assert model.classifier.weight.shape == (3, 128)
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}


def test_a_source_keeps_its_dropout_unless_one_is_given(tmp_path: Path):
    nano("bert", dropout=0.3).save_pretrained(tmp_path)
    spec = spec_of("masked-lm")
    assert build_model(source_section(tmp_path), spec, seed=0).config.hidden_dropout_prob == 0.3
    assert build_model(source_section(tmp_path, dropout=0.0), spec, seed=0).config.hidden_dropout_prob == 0.0


def test_attention_and_checkpointing_hold_for_a_source_too(tmp_path: Path):
    nano("bert").save_pretrained(tmp_path)
    section = source_section(tmp_path, attention="eager", activation_checkpointing=True)
    model = build_model(section, spec_of("masked-lm"), seed=0)
    assert model.config._attn_implementation == "eager"
    assert model.is_activation_checkpointing


@pytest.mark.parametrize(
    ("kind", "task", "reason"),
    [
        ("bert", "causal-lm", "reads in both directions"),
        ("gpt2", "masked-lm", "reads from the left only"),
        ("t5", "causal-lm", "writes its answer from an encoder"),
        ("llama3", "seq2seq-lm", "no encoder and decoder"),
    ],
)
def test_a_source_that_cannot_learn_the_task_is_refused(kind: ModelType, task: TaskName, reason: str, tmp_path: Path):
    nano(kind).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=reason) as raised:
        build_model(source_section(tmp_path), spec_of(task), seed=0)
    assert raised.value.field == "model.source"
    assert raised.value.hint


@pytest.mark.parametrize(
    ("kind", "change", "field"),
    [
        ("bert", {"vocab_size": 300}, "data.tokenizer"),
        ("bert", {"seq_length": SEQ_LENGTH + 1}, "data.seq_length"),
        ("roberta", {"seq_length": SEQ_LENGTH + 1}, "data.seq_length"),
    ],
)
def test_data_beyond_what_the_source_was_built_for_is_refused(
    kind: ModelType, change: dict[str, int], field: str, tmp_path: Path
):
    nano(kind).save_pretrained(tmp_path)
    with pytest.raises(ConfigError) as raised:
        build_model(source_section(tmp_path), spec_of("masked-lm").model_copy(update=change), seed=0)
    assert raised.value.field == field
    assert raised.value.hint


def break_config(folder: Path) -> None:
    (folder / "config.json").write_text("{", encoding="utf-8")


def remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def cut_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def leave_pickled_weights_only(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    remove_weights(folder)


def ask_for_remote_code(folder: Path) -> None:
    config = {"model_type": "unheard-of", "auto_map": {"AutoConfig": "code.Config"}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "code.py").write_text("raise SystemExit('this must never run')", encoding="utf-8")


def widen_embeddings(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.embed_tokens.weight"] = torch.zeros(300, 128)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def rename_weights(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {f"other.{name}": tensor for name, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"}
    )


@pytest.mark.parametrize(
    "spoil",
    [
        break_config,
        remove_weights,
        cut_weights,
        leave_pickled_weights_only,
        ask_for_remote_code,
        widen_embeddings,
        rename_weights,
    ],
)
def test_a_broken_source_is_refused(spoil: Any, tmp_path: Path):
    nano("llama3").save_pretrained(tmp_path)
    spoil(tmp_path)
    with pytest.raises(ConfigError) as raised:
        build_model(source_section(tmp_path), BYTES, seed=0)
    assert raised.value.field == "model.source"
    assert raised.value.hint


def test_weights_that_are_not_finite_are_refused(tmp_path: Path):
    nano("llama3").save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.norm.weight"][0] = math.nan
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(IntegrityError, match="not finite"):
        build_model(source_section(tmp_path), BYTES, seed=0)
