"""Every supported architecture and task: it learns more than a trivial predictor knows, and its export loads again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from cotrain.sections import PRETRAINING_TASK, ModelType, TaskName, refusal
from cotrain.train.model import inference_mode, model_class_for
from tests.train_fixtures import config_for, run_locally, write_rows

DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"
PAIRS = [(model, task) for model in get_args(ModelType) for task in get_args(TaskName) if not refusal(model, task)]
STEPS: dict[str, int] = {"masked-lm": 40, "seq2seq-lm": 80, "token-classification": 30, "question-answering": 80}
RATES: dict[str, float] = {"gpt2": 1e-3, "bert": 1e-3, "roberta": 1e-3, "albert": 1e-3}
SLOW: dict[tuple[str, str], dict[str, dict[str, Any]]] = {
    ("albert", "masked-lm"): {"train": {"max_steps": 80, "learning_rate": 2e-3}, "data": {"seq_length": 24}}
}
"""Layers that share their weights need more steps for this."""


@pytest.mark.parametrize(("model", "task"), PAIRS)
def test_it_learns_more_than_frequencies_and_its_export_loads_again(
    model: ModelType, task: TaskName, tmp_path: Path
) -> None:
    train = {"max_steps": STEPS.get(task, 60), "learning_rate": RATES.get(model, 3e-3)}
    sections = SLOW.get((model, task), {"train": train})
    config = config_for(task, write_rows(tmp_path / "rows.jsonl", task), model={"type": model}, **sections)
    outcome = run_locally(config, tmp_path / "shared")
    assert outcome.final is not None
    assert outcome.status.validation_loss is not None
    assert outcome.status.validation_loss < outcome.status.baselines["unigrams"] - 0.1
    trained = outcome.run._inner.model
    loaded = model_class_for(task).from_pretrained(outcome.final, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(outcome.final, local_files_only=True)
    assert tokenizer.decode(tokenizer("Roya saw Yazd.", add_special_tokens=False).input_ids) == "Roya saw Yazd."
    batch = outcome.run._validation.batch(np.arange(3), np.arange(3))
    with inference_mode(trained), inference_mode(loaded):
        for (ours, _), (theirs, _) in zip(
            *(outcome.run._validation.task.predictions(each, batch) for each in (trained, loaded)), strict=True
        ):
            assert torch.equal(ours, theirs)


def test_the_table_in_the_documents_is_what_is_supported() -> None:
    lines = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines][:9]
    said = {(row[0], task): cell == "yes" for row in rows for task, cell in zip(header[1:], row[1:], strict=True)}
    assert said == {
        (model, task): not refusal(model, task) for model in get_args(ModelType) for task in get_args(TaskName)
    }


@pytest.mark.parametrize("model", get_args(ModelType))
def test_what_is_not_supported_is_refused_with_a_reason(model: ModelType) -> None:
    refused = [reason for task in get_args(TaskName) if (reason := refusal(model, task))]
    assert len(refused) == 2
    assert all(re.search(r"[a-z]{3,}.*:? ", reason) and model in reason for reason in refused if model != "t5")
    assert not refusal(model, PRETRAINING_TASK[model])
