"""Small data for every task, and runs on this machine alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cotrain.config import RunConfig
from cotrain.paths import SharedPaths
from cotrain.sections import TaskName
from cotrain.status import Record, Status
from cotrain.train.local_run import LocalRun, LocalWishes, alone
from cotrain.train.parallel import ParallelGroup
from cotrain.train.reporter import StatusReporter

NAMES, CITIES = ("Roya", "Dara", "Shirin", "Omid"), ("Shiraz", "Tabriz", "Rasht", "Yazd")
GOOD, BAD = ("lovely", "bright", "kind"), ("dreary", "rude", "stale")
VERBS = ("saw", "left", "found")
ROWS = 400


def _text_row(random: np.random.Generator) -> dict[str, Any]:
    return {"text": f"{random.choice(NAMES)} {random.choice(VERBS)} {random.choice(CITIES)}."}


def _run_of_letters(random: np.random.Generator) -> dict[str, Any]:
    """What is masked can be told from any other letter nearby: filling gaps in real text takes a model far longer."""
    return {"text": str(random.choice(list("abcdefghij"))) * int(random.integers(60, 100))}


def _pair_row(random: np.random.Generator) -> dict[str, Any]:
    name, city = random.choice(NAMES), random.choice(CITIES)
    return {"source": f"{name} to {city}", "target": f"{city}!"}


def _sentiment_row(random: np.random.Generator) -> dict[str, Any]:
    good = bool(random.integers(2))
    return {
        "text": f"{random.choice(NAMES)} {random.choice(VERBS)} {random.choice(GOOD if good else BAD)} "
        f"{random.choice(CITIES)}",
        "label": "good" if good else "bad",
    }


def _tagged_row(random: np.random.Generator) -> dict[str, Any]:
    return {
        "tokens": [random.choice(NAMES), random.choice(VERBS), random.choice(CITIES)],
        "tags": ["B-PER", "O", "B-LOC"],
    }


def _question_row(random: np.random.Generator) -> dict[str, Any]:
    name = str(random.choice(NAMES))
    before = "." * int(random.integers(0, 12))
    return {
        "question": "who?",
        "context": f"{before}<{name}> {random.choice(VERBS)}",
        "answers": {"text": [name], "answer_start": [len(before) + 1]},
    }


_MAKERS = {
    "causal-lm": _text_row, "masked-lm": _run_of_letters, "seq2seq-lm": _pair_row,
    "text-classification": _sentiment_row, "token-classification": _tagged_row, "question-answering": _question_row,
}  # fmt: skip


def write_rows(path: Path, task: TaskName, *, rows: int = ROWS, seed: int = 0) -> Path:
    """A JSONL file that a small model learns in seconds."""
    random = np.random.default_rng(seed)
    lines = [json.dumps(_MAKERS[task](random)) + "\n" for _ in range(rows)]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def config_for(task: TaskName, data_path: Path, **sections: dict[str, Any]) -> RunConfig:
    """A small run on such a file; `sections` change what stands in it."""
    fields = {"target": "target"} if task == "seq2seq-lm" else {}
    base: dict[str, dict[str, Any]] = {
        "model": {"type": "llama3"},
        "train": {
            "task": task, "batch_size": 16, "gradient_accumulation_steps": 1, "max_steps": 60, "learning_rate": 3e-3,
            "warmup_steps": 5, "early_stopping": False,
        },
        "distributed": {"strategy": "ddp"},
        "diloco": {"inner_steps": 10},
        "data": {"data_path": str(data_path), "seq_length": 40, "fields": fields},
        "checkpoint": {"interval": 1000},
        "monitoring": {"evaluation_rounds": 1000, "evaluation_batches": 4},
    }  # fmt: skip
    for name, changes in sections.items():
        base[name] = base.get(name, {}) | changes
    return alone(RunConfig.model_validate({"schema_version": 1, **base}))


@dataclass
class Outcome:
    """What a run in this process came to."""

    final: Path | None
    status: Status
    losses: list[float]
    """Of the inner steps of this process."""
    run: LocalRun

    @property
    def records(self) -> list[Record]:
        return self.status.records

    def messages(self, kind: str) -> list[str]:
        return [record.message for record in self.records if record.kind == kind]


def run_locally(
    config: RunConfig, folder: Path, *, fresh: bool = False, most_steps: int | None = None,
    on_step: Callable[[LocalRun], None] = lambda run: None,
) -> Outcome:  # fmt: skip
    """Train in this process, with everything in `folder`; `on_step` is called after each inner step."""
    shared = SharedPaths(folder).create()
    group = ParallelGroup(0, 1, torch.device("cpu"))
    reporter = StatusReporter(folder / "run", session=config.session.id, peer="local")
    try:
        wishes = LocalWishes(folder / "run", group)
        run = LocalRun(config, shared, group, reporter, wishes, fresh=fresh, most_steps=most_steps)
        losses: list[float] = []
        note = run._trainer._note

        def listen(result: Any) -> None:
            losses.append(result.loss)
            note(result)
            on_step(run)

        run._trainer._note = listen  # type: ignore[method-assign]
        return Outcome(run.train(), reporter.status, losses, run)
    finally:
        reporter.stop()
