"""The trainer's inner loop beside a bare PyTorch loop: same model, data, optimizer and threads, in turns.

    python -m benchmarks.inner_loop [--steps 60] [--pairs 5]

Prints tokens per second of both and their ratio, pair by pair. Status, metrics and control are part of the trainer's
side; a round is closed every ten steps by the trainer alone.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from cotrain.config import DataSection, DilocoSection, ModelSection, RunConfig, TrainSection
from cotrain.train.data import TokenDataset, prepare_dataset, sample_indices
from cotrain.train.model import build_model, language_model_loss
from cotrain.train.optim import build_inner_optimizer
from cotrain.train.reporter import ControlFile, StatusReporter
from cotrain.train.synchronizer import LocalSynchronizer
from cotrain.train.tokenizer import VOCAB_SIZE
from cotrain.train.trainer import Trainer

SEED = 0


def configuration(steps: int) -> RunConfig:
    """The demo's model and batch."""
    return RunConfig(
        model=ModelSection(type="llama3", size="nano"),
        train=TrainSection(batch_size=16, gradient_accumulation_steps=1, learning_rate=2e-3, max_steps=steps),
        diloco=DilocoSection(inner_steps=10, codec="fp32"),
        data=DataSection(seq_length=128, validation_split=0.1),
    )


def bare_loop(config: RunConfig, dataset: TokenDataset, steps: int) -> float:
    """Tokens per second of the least that trains this model."""
    model = build_model(config.model, vocab_size=VOCAB_SIZE, seq_length=config.data.seq_length, seed=SEED)
    optimizer = build_inner_optimizer(model, config.train)
    batch_size = config.train.batch_size
    started = time.perf_counter()
    for step in range(steps):
        indices = sample_indices(
            seed=SEED, num_samples=len(dataset), cursor=0, rank=0, ranks=1, start=step * batch_size, count=batch_size
        )
        optimizer.zero_grad(set_to_none=True)
        language_model_loss(model, dataset.batch(indices), precision=config.model.precision).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.train.max_grad_norm)
        optimizer.step()
    return steps * batch_size * config.data.seq_length / (time.perf_counter() - started)


def trainer_loop(config: RunConfig, dataset: TokenDataset, steps: int, folder: Path) -> float:
    """Tokens per second of the trainer, everything included."""
    model = build_model(config.model, vocab_size=VOCAB_SIZE, seq_length=config.data.seq_length, seed=SEED)
    reporter = StatusReporter(folder, session="benchmark", peer="local")
    reporter.start()
    trainer = Trainer(
        config, model, dataset, LocalSynchronizer(config.diloco.inner_steps), reporter, ControlFile(folder)
    )
    started = time.perf_counter()
    trainer.run()
    seconds = time.perf_counter() - started
    reporter.stop()
    return steps * config.train.batch_size * config.data.seq_length / seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60, help="inner steps in one run, a multiple of ten")
    parser.add_argument("--pairs", type=int, default=5, help="runs of each, in turns, after one to warm up")
    arguments = parser.parse_args()
    config = configuration(arguments.steps)
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare_dataset(config.data, seed=SEED, folder=Path(folder))
        dataset = TokenDataset(prepared.train, config.data.seq_length)
        bare_loop(config, dataset, 10)
        for number in range(arguments.pairs):
            ours = trainer_loop(config, dataset, arguments.steps, Path(folder) / f"run-{number}")
            bare = bare_loop(config, dataset, arguments.steps)
            ratios.append(ours / bare)
            print(f"trainer {ours:9,.0f} tokens/s   bare loop {bare:9,.0f} tokens/s   ratio {ours / bare:.3f}")
    print(f"median ratio {statistics.median(ratios):.3f} (from {min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
