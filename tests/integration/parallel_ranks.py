"""What the ranks of test_parallel.py do: `python -m tests.integration.parallel_ranks MODE ...`."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AlbertConfig, AlbertForMaskedLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from cotrain.errors import ConfigError
from cotrain.sections import TrainSection
from cotrain.train.launch import launch, leave, run_rank
from cotrain.train.optim import build_inner_optimizer
from cotrain.train.parallel import ParallelGroup

VOCABULARY, LENGTH, MICRO_BATCH, ACCUMULATION = 61, 16, 4, 2
MAX_NORM = 0.25


def small_model(kind: str = "llama") -> PreTrainedModel:
    """Odd sizes, so that shards are uneven; embeddings tied."""
    shape = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 43, "num_attention_heads": 4}
    model: PreTrainedModel
    if kind == "albert":  # one layer that all depths share
        model = AlbertForMaskedLM(
            AlbertConfig(**shape, embedding_size=16, num_hidden_layers=3, hidden_dropout_prob=0.0,
                         attention_probs_dropout_prob=0.0, classifier_dropout_prob=0.0)
        )  # fmt: skip
    else:
        model = LlamaForCausalLM(
            LlamaConfig(**shape, num_hidden_layers=2, num_key_value_heads=2, tie_word_embeddings=True)
        )
    generator = np.random.default_rng(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.copy_(torch.from_numpy(generator.standard_normal(parameter.shape) * 0.1))
    if kind == "llama-checkpointed":
        model.activation_checkpointing_enable()
    return model.train()


def batch_of(step: int, micro: int) -> torch.Tensor:
    """Tokens of a micro-batch, [MICRO_BATCH, LENGTH + 1]; some targets are later left out, more in some rows."""
    return torch.from_numpy(
        np.random.default_rng(step * 100 + micro).integers(0, VOCABULARY, (MICRO_BATCH, LENGTH + 1))
    )


class Loop:
    """A training loop as the trainer's, on random tokens."""

    def __init__(self, group: ParallelGroup, strategy: str, optimizer: str, kind: str = "llama"):
        self.group = group
        self.model = small_model(kind)
        self.module: nn.Module = group.wrap(self.model, strategy)  # type: ignore[arg-type]
        self.optimizer = build_inner_optimizer(
            self.model,
            TrainSection(optimizer=optimizer, learning_rate=1e-2, weight_decay=0.1),  # type: ignore[arg-type]
        )
        self.norms: list[float] = []

    def step(self, number: int) -> float:
        rows = self.group.rows(MICRO_BATCH)
        batches = [batch_of(number, micro)[rows] for micro in range(ACCUMULATION)]
        targets = [batch[:, 1:].masked_fill(batch[:, 1:] < 7, -100) for batch in batches]
        count = float(self.group.sum(torch.tensor(float(sum((part != -100).sum() for part in targets)))))
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros(())
        for micro, (batch, target) in enumerate(zip(batches, targets, strict=True), start=1):
            with self.group.accumulate(self.module, last=micro == ACCUMULATION):
                logits = self.module(input_ids=batch[:, :-1]).logits
                loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="sum")
                (loss * self.group.size / count).backward()
            total += loss.detach()
        self.norms.append(float(self.group.clip_grad_norm(self.model, MAX_NORM)))
        self.optimizer.step()
        return float(self.group.sum(total)) / count


class Job(NamedTuple):
    """Steps `first` to `last` of one way to train, from the beginning or from the state that another job has saved."""

    name: str
    strategy: str = "ddp"
    optimizer: str = "adamw"
    kind: str = "llama"
    first: int = 0
    last: int = 10
    source: str = ""


def do_jobs(group: ParallelGroup, jobs: list[Job], folder: Path) -> None:
    """Run them one after the other; the result of each is saved under its name."""
    for job in jobs:
        loop = Loop(group, job.strategy, job.optimizer, job.kind)
        if job.source:
            weights, tensors, facts = load(folder / job.source)
            group.load_flat(loop.model, weights)
            group.load_optimizer_tensors(loop.model, loop.optimizer, tensors, facts["optimizer"])
        losses = [loop.step(number) for number in range(job.first, job.last)]
        loop.module.eval()
        with torch.no_grad():
            loop.module(input_ids=batch_of(0, 0))  # an evaluation may leave whole parameters behind
        weights = group.gather_flat(loop.model)
        tensors, rest = group.optimizer_tensors(loop.model, loop.optimizer)
        if group.is_main:
            save(folder / job.name, weights, tensors, {"losses": losses, "norms": loop.norms, "optimizer": rest})
        group.broadcast_object(None)  # the others go on when it is saved


def train(folder: Path) -> int:
    group = ParallelGroup.from_environment()
    do_jobs(group, [Job(*fields) for fields in json.loads((folder / "jobs.json").read_text())], folder)
    talk(group, folder)
    group.close()
    return 0


def save(path: Path, weights: torch.Tensor, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
    save_file({"weights": weights, **tensors}, path.with_name(f"{path.name}.safetensors"))
    path.with_name(f"{path.name}.json").write_text(json.dumps(facts))


def load(path: Path) -> tuple[torch.Tensor, dict[str, torch.Tensor], dict[str, Any]]:
    tensors = load_file(path.with_name(f"{path.name}.safetensors"))
    return tensors["weights"], tensors, json.loads(path.with_name(f"{path.name}.json").read_text())


def talk(group: ParallelGroup, folder: Path) -> None:
    """Facts from rank 0, sums, parts of a batch."""
    mine = {"rank": group.rank, "text": "سلام", "list": [1, 2.5, None, 2**60]}
    facts = {
        "object": group.broadcast_object(mine),
        "nothing": group.broadcast_object(None if group.is_main else 3),
        "tensor": group.broadcast_tensor(torch.full((3,), float(group.rank + 5))).tolist(),
        "sum": group.sum(torch.tensor([group.rank + 1, 10])).tolist(),
        "rows": [group.rows(6).start, group.rows(6).stop],
    }
    try:
        group.rows(7)
    except ConfigError as error:
        facts["uneven"] = str(error)
    (folder / f"rank{group.rank}.json").write_text(json.dumps(facts))


def trouble(kind: str, folder: Path) -> int:
    """Rank 1 gets into trouble while rank 0 waits for it."""
    group = ParallelGroup.from_environment()
    if kind == "wait":
        return wait(group, folder)
    if group.rank == 1:
        if kind == "config":
            raise ConfigError("seven is not even", field="train.batch_size", hint="make it eight")
        os.kill(os.getpid(), signal.SIGKILL)
    group.sum(torch.ones(1))
    return 0


def wait(group: ParallelGroup, folder: Path) -> int:
    """As a run does: rank 0 hears of a signal, and all end together."""
    received: list[int] = []
    if group.is_main:
        signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    (folder / f"rank{group.rank}.pid").write_text(str(os.getpid()))
    while not group.broadcast_object(bool(received)):
        time.sleep(0.01)
    if group.is_main:
        (folder / "checkpoint").write_text("saved")
    group.close()
    return 143 if group.is_main else 0


def main() -> int:
    mode, *rest = sys.argv[1:]
    if mode == "launch":
        return launch("tests.integration.parallel_ranks", rest, processes=2)
    if mode == "train":
        return run_rank(lambda: train(Path(rest[0])))
    return run_rank(lambda: trouble(mode, Path(rest[0])))


if __name__ == "__main__":
    leave(main())
