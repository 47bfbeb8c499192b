"""The trainer beside a bare PyTorch loop and beside `transformers.Trainer`: same model, data, optimizer and threads.

    python -m benchmarks.inner_loop [--steps 20] [--repeats 15] [--type llama3] [--size nano] [--precision fp32]
                                    [--compile] [--batch-size 16] [--seq-length 128]

The three run in turns, each of them as often first; each turn prints tokens per second and the trainer's ratio to the
other two. Status, metrics and control are part of the trainer's side, and a round is closed every ten steps by the
trainer alone. On a GPU it also prints model FLOPs utilization (PaLM's count, arXiv:2204.02311: 6 FLOPs per parameter
and token, attention left out, against `--peak-tflops`).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset
from transformers import PreTrainedModel, TrainingArguments
from transformers import Trainer as HuggingFaceTrainer

from cotrain.config import RunConfig
from cotrain.sections import DataSection, DilocoSection, ModelSection, TrainSection
from cotrain.train.data.prepare import PreparedDataset, prepare_dataset
from cotrain.train.data.samples import TaskDataset
from cotrain.train.diloco import RoundLengths
from cotrain.train.inner import DTYPES, InnerLoop
from cotrain.train.model import build_model, count_parameters
from cotrain.train.optim import build_inner_optimizer
from cotrain.train.parallel import ParallelGroup
from cotrain.train.reporter import ControlFile, StatusReporter
from cotrain.train.synchronizer import LocalSynchronizer
from cotrain.train.tasks.registry import make_task
from cotrain.train.trainer import Trainer

SEED = 0
ROUND = 10


class Bench:
    """What the three sides share."""

    def __init__(self, config: RunConfig, prepared: PreparedDataset):
        self.config, self.spec = config, prepared.spec
        self.group = ParallelGroup.from_environment()
        task = make_task(self.spec.task, self.spec, seed=SEED, fields=config.data.fields)
        self.dataset = TaskDataset(prepared.train, task)

    def model(self) -> PreTrainedModel:
        """Fresh weights, the same for every side."""
        return build_model(self.config.model, self.spec, seed=SEED).to(self.group.device)

    def tokens_per_second(self, steps: int, seconds: float) -> float:
        return steps * self.config.train.samples_per_step * self.config.data.seq_length / seconds

    def synchronize(self) -> None:
        if self.group.device.type == "cuda":
            torch.cuda.synchronize()


class Windows(Dataset[dict[str, torch.Tensor]]):
    """The same windows of tokens, as `transformers.Trainer` wants them; it shifts the labels itself."""

    def __init__(self, bench: Bench, samples: int):
        keys = np.arange(samples, dtype=np.int64) % len(bench.dataset)
        self._inputs = bench.dataset.batch(keys, keys)["input_ids"]

    def __len__(self) -> int:
        return len(self._inputs)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self._inputs[index], "labels": self._inputs[index]}


def bare_loop(bench: Bench, steps: int) -> float:
    """Tokens per second of the least that trains this model."""
    config, model, device = bench.config, bench.model(), bench.group.device
    optimizer = build_inner_optimizer(model, config.train)
    module = torch.compile(model) if config.model.compile else model
    precision = config.model.precision or "fp32"
    size = config.train.batch_size
    model.train()

    def step(number: int) -> None:
        indices = np.arange(number * size, (number + 1) * size) % len(bench.dataset)
        batch = {name: tensor.to(device) for name, tensor in bench.dataset.batch(indices, indices).items()}
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "fp32"):
            logits = module(input_ids=batch["input_ids"], use_cache=False).logits
        F.cross_entropy(logits.float().flatten(0, 1), batch["labels"].flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.train.max_grad_norm)
        optimizer.step()

    if config.model.compile:
        step(0)
    bench.synchronize()
    started = time.perf_counter()
    for number in range(steps):
        step(number)
    bench.synchronize()
    return bench.tokens_per_second(steps, time.perf_counter() - started)


def trainer_loop(bench: Bench, steps: int, folder: Path) -> float:
    """Tokens per second of the trainer, everything included."""
    reporter = StatusReporter(folder, session="benchmark", peer="local")
    reporter.start()
    inner = InnerLoop(bench.config, bench.model(), bench.dataset, bench.group)
    if bench.config.model.compile:
        inner.step(np.arange(bench.config.train.batch_size), 0.0)
    trainer = Trainer(bench.config, inner, LocalSynchronizer(RoundLengths(ROUND)), reporter, ControlFile(folder))
    bench.synchronize()
    started = time.perf_counter()
    trainer.run()
    bench.synchronize()
    seconds = time.perf_counter() - started
    reporter.stop()
    return bench.tokens_per_second(steps, seconds)


def hugging_face_loop(bench: Bench, steps: int, folder: Path) -> float:
    """Tokens per second of `transformers.Trainer`."""
    train = bench.config.train
    arguments = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=train.batch_size, max_steps=steps,
        learning_rate=train.learning_rate, lr_scheduler_type="cosine", optim="adamw_torch_fused",
        max_grad_norm=train.max_grad_norm, logging_steps=ROUND, save_strategy="no", report_to="none", seed=SEED,
        disable_tqdm=True, use_cpu=bench.group.device.type == "cpu", bf16=bench.config.model.precision == "bf16",
        torch_compile=bench.config.model.compile, logging_strategy="steps",
    )  # fmt: skip
    trainer = HuggingFaceTrainer(
        model=bench.model(), args=arguments, train_dataset=Windows(bench, steps * train.batch_size)
    )
    trainer.pop_callback(next(type(c) for c in trainer.callback_handler.callbacks if "Printer" in type(c).__name__))
    started = time.perf_counter()
    trainer.train()
    bench.synchronize()
    return bench.tokens_per_second(steps, time.perf_counter() - started)


def one_turn(bench: Bench, steps: int, folder: Path, *, first: int) -> tuple[float, float, float]:
    """Tokens per second of the trainer, the bare loop and `transformers.Trainer`; `first` says which one begins."""
    sides = (
        lambda: trainer_loop(bench, steps, folder / "ours"),
        lambda: bare_loop(bench, steps),
        lambda: hugging_face_loop(bench, steps, folder / "hugging-face"),
    )
    speeds = {(first + place) % 3: sides[(first + place) % 3]() for place in range(3)}
    return speeds[0], speeds[1], speeds[2]


def input_seconds(bench: Bench, batches: int = 200) -> float:
    """Seconds that one batch takes to be read and collated."""
    size = bench.config.train.batch_size
    generator = np.random.default_rng(SEED)
    started = time.perf_counter()
    for _ in range(batches):
        indices = generator.integers(0, len(bench.dataset), size)
        bench.dataset.batch(indices, indices)
    return (time.perf_counter() - started) / batches


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help=f"inner steps in one run, a multiple of {ROUND}")
    parser.add_argument("--repeats", type=int, default=15, help="runs of each, in turns, after one to warm up")
    parser.add_argument("--type", default="llama3")
    parser.add_argument("--size", default="nano")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--seq-length", type=int, default=128)
    parser.add_argument("--peak-tflops", type=float, default=0.0, help="the GPU's peak in this precision, for MFU")
    return parser.parse_args()


def configuration(given: argparse.Namespace) -> RunConfig:
    """By default the demo's model and batch."""
    return RunConfig(
        model=ModelSection(type=given.type, size=given.size, precision=given.precision, compile=given.compile),
        train=TrainSection(
            batch_size=given.batch_size, gradient_accumulation_steps=1, learning_rate=2e-3, max_steps=given.steps
        ),
        diloco=DilocoSection(inner_steps=ROUND, codec="fp32"),
        data=DataSection(seq_length=given.seq_length, validation_split=0.1),
    )


def main() -> None:
    """Measure and print."""
    given = arguments()
    config, steps = configuration(given), given.steps
    to_bare, to_hugging_face, speeds = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench = Bench(config, prepare_dataset(config, folder=folder))
        bare_loop(bench, ROUND)
        for turn in range(given.repeats):
            ours, bare, hugging_face = one_turn(bench, steps, folder / f"run-{turn}", first=turn % 3)
            to_bare.append(ours / bare)
            to_hugging_face.append(ours / hugging_face)
            speeds.append(ours)
            print(
                f"trainer {ours:11,.0f} tokens/s   bare loop {bare:11,.0f} (ratio {ours / bare:.3f})   "
                f"transformers.Trainer {hugging_face:11,.0f} (ratio {ours / hugging_face:.3f})"
            )
        step_s = config.train.samples_per_step * config.data.seq_length / statistics.median(speeds)
        share = input_seconds(bench) / step_s
    print(f"median ratio to the bare loop {statistics.median(to_bare):.3f}, to transformers.Trainer "
          f"{statistics.median(to_hugging_face):.3f}; input pipeline {100 * share:.2f} % of a step")  # fmt: skip
    if given.peak_tflops:
        flops = 6 * count_parameters(bench.model()) * statistics.median(speeds)
        print(f"model FLOPs utilization {flops / (given.peak_tflops * 1e12):.3f} of {given.peak_tflops} TFLOP/s")


if __name__ == "__main__":
    main()
