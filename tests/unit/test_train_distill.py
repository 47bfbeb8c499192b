from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, PreTrainedModel

from cotrain.errors import ConfigError
from cotrain.sections import DistillationSection, FieldsSection, ModelSection
from cotrain.train.distill import DistillationLoss, load_teacher
from cotrain.train.model import build_model
from cotrain.train.spec import DataSpec
from cotrain.train.tasks.base import Task
from cotrain.train.tasks.metrics import IGNORE, Batch
from cotrain.train.tasks.registry import make_task
from cotrain.train.tokenizer import byte_tokenizer, describe_tokenizer

LENGTH = 16
CPU = torch.device("cpu")


def spec_of(task: str = "causal-lm", labels: tuple[str, ...] = ()) -> DataSpec:
    tokenizer = byte_tokenizer(special=task != "causal-lm")
    return describe_tokenizer(tokenizer, task=task, seq_length=LENGTH, labels=labels)  # type: ignore[arg-type]


def language_model(seed: int = 0) -> PreTrainedModel:
    return build_model(ModelSection(type="llama3", size="nano", dropout=0.1), spec_of(), seed=seed)


def task_and_batch() -> tuple[Task, Batch]:
    task = make_task("causal-lm", spec_of(), seed=0, fields=FieldsSection())
    windows = np.random.default_rng(0).integers(0, 256, (2, task.window))
    return task, task.collate([{"tokens": window} for window in windows], np.arange(2))


@pytest.fixture(scope="module")
def models() -> tuple[PreTrainedModel, PreTrainedModel]:
    """A student and a teacher."""
    return language_model(0).eval(), language_model(1)


@settings(max_examples=15)
@given(st.floats(0.0, 1.0), st.floats(0.5, 10.0))
def test_the_loss_is_the_sum_of_hintons_formula_over_the_targets(
    models: tuple[PreTrainedModel, PreTrainedModel], alpha: float, temperature: float
):
    student, teacher = models
    task, batch = task_and_batch()
    batch["labels"] = batch["labels"].clone()  # it shares its memory with the inputs
    batch["labels"][:, ::3] = IGNORE
    loss = DistillationLoss(teacher, temperature=temperature, alpha=alpha)
    predictions = task.predictions(student, batch)

    (logits, targets), (taught, _) = predictions[0], task.predictions(teacher, batch)[0]
    wanted = targets != IGNORE
    p, q = (F.softmax(part[wanted].double() / temperature, dim=-1) for part in (taught, logits))
    divergence = (p * (p.log() - q.log())).sum()
    from_data = F.cross_entropy(logits[wanted].double(), targets[wanted], reduction="sum")
    expected = (1 - alpha) * from_data + alpha * temperature**2 * divergence
    assert float(loss.loss_sum(task, batch, predictions).detach()) == pytest.approx(float(expected.detach()), rel=1e-4)


def test_a_student_that_is_its_teacher_has_nothing_to_learn_from_it():
    teacher = language_model()
    task, batch = task_and_batch()
    loss = DistillationLoss(teacher, temperature=2.0, alpha=1.0)
    assert float(loss.loss_sum(task, batch, task.predictions(teacher, batch))) == pytest.approx(0.0, abs=1e-4)


def test_the_teacher_is_frozen_and_drops_nothing_out(models: tuple[PreTrainedModel, PreTrainedModel]):
    student, teacher = models
    task, batch = task_and_batch()
    loss = DistillationLoss(teacher.train(), temperature=2.0, alpha=0.5)
    values = [loss.loss_sum(task, batch, task.predictions(student, batch)) for _ in range(2)]
    assert torch.equal(*values)
    values[0].backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(parameter.grad is not None for parameter in student.parameters())


def test_a_student_comes_nearer_to_its_teacher():
    student, teacher = language_model(0).eval(), language_model(1)
    task, batch = task_and_batch()
    loss = DistillationLoss(teacher, temperature=2.0, alpha=1.0)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    values = []
    for _ in range(10):
        value = loss.loss_sum(task, batch, task.predictions(student, batch))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert values[-1] < 0.5 * values[0]


# ----------------------------------------------------------------------------------------- which teacher
def saved(model: PreTrainedModel, folder: Path) -> str:
    model.save_pretrained(folder)
    return str(folder)


def section(teacher: str, **keys: object) -> DistillationSection:
    return DistillationSection(enabled=True, teacher=teacher, **keys)  # type: ignore[arg-type]


def test_a_teacher_is_loaded_from_a_folder(tmp_path: Path):
    model = language_model(3)
    source = saved(model, tmp_path / "teacher")
    byte_tokenizer().save_pretrained(source)
    loss = load_teacher(section(source, alpha=1.0), spec_of(), CPU, tokenizer=byte_tokenizer())
    assert loss is not None
    task, batch = task_and_batch()
    with torch.no_grad():
        assert float(loss.loss_sum(task, batch, task.predictions(model.eval(), batch))) == pytest.approx(0.0, abs=1e-4)


def test_without_distillation_there_is_no_teacher():
    assert load_teacher(DistillationSection(enabled=False, teacher="no/such"), spec_of(), CPU) is None


def test_a_teacher_that_cannot_be_loaded_is_named_where_the_config_names_it(tmp_path: Path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be loaded") as raised:
        load_teacher(section(str(tmp_path)), spec_of(), CPU)
    assert raised.value.field == "distillation.teacher"


def test_a_vocabulary_of_another_size_is_refused(tmp_path: Path):
    teacher = build_model(ModelSection(), spec_of().model_copy(update={"vocab_size": 300}), seed=0)
    with pytest.raises(ConfigError, match="knows 300 tokens, the student 256"):
        load_teacher(section(saved(teacher, tmp_path)), spec_of(), CPU)


def test_the_first_token_that_differs_is_named(tmp_path: Path):
    source = saved(language_model(), tmp_path)
    byte_tokenizer().save_pretrained(source)
    file = tmp_path / "tokenizer.json"
    content = file.read_text(encoding="utf-8")
    assert '"a": 97' in content
    file.write_text(content.replace('"a": 97', '"a": 98').replace('"b": 98', '"b": 97'), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"token 97 is 'b' to the teacher and 'a' to the student \(2 tokens differ\)"):
        load_teacher(section(source), spec_of(), CPU, tokenizer=byte_tokenizer())


def test_room_for_more_tokens_than_there_are_does_no_harm(tmp_path: Path):
    teacher = build_model(ModelSection(), spec_of().model_copy(update={"vocab_size": 264}), seed=0)
    source = saved(teacher, tmp_path)
    byte_tokenizer().save_pretrained(source)
    loss = load_teacher(section(source), spec_of(), CPU, tokenizer=byte_tokenizer())
    task, batch = task_and_batch()
    assert loss is not None
    with torch.no_grad():
        assert torch.isfinite(loss.loss_sum(task, batch, task.predictions(language_model().eval(), batch)))


def small_bert(kind: type[PreTrainedModel], spec: DataSpec, **keys: object) -> PreTrainedModel:
    config = BertConfig(
        vocab_size=spec.vocab_size, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=LENGTH, pad_token_id=spec.pad_id, **keys,
    )  # fmt: skip
    return kind(config)


def test_other_classes_are_refused(tmp_path: Path):
    spec = spec_of("text-classification", ("bad", "good"))
    names = {0: "good", 1: "bad"}
    teacher = small_bert(BertForSequenceClassification, spec, id2label=names, label2id={n: i for i, n in names.items()})
    with pytest.raises(ConfigError, match="tells good, bad apart, the data has bad, good"):
        load_teacher(section(saved(teacher, tmp_path)), spec, CPU)


def test_a_teacher_that_was_trained_for_something_else_is_refused(tmp_path: Path):
    """Its head would be made up: it would teach noise."""
    spec = spec_of("question-answering")
    source = saved(small_bert(BertForMaskedLM, spec), tmp_path)
    with pytest.raises(ConfigError, match="is a BertForMaskedLM, which was never trained for question-answering"):
        load_teacher(section(source), spec, CPU)
    shutil.rmtree(tmp_path)
