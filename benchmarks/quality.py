"""Simulated DiLoCo beside data-parallel training on as many tokens, over several seeds.

    python -m benchmarks.quality [--seeds 2] [--steps 400] [--only NAME ...] [--json FILE]

Four peers with a batch of four train a Llama of 218 thousand parameters on the source text of Python's standard
library, byte by byte. Prints validation losses and their ratio to data-parallel training with AdamW, at the settings
that are best for it, of the same seed. `--json` appends a line for each run as it ends, and leaves out the runs that
are there already. A run takes about half a minute on a core of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils.logging import disable_progress_bar

from cotrain.config import RunConfig
from cotrain.paths import SharedPaths
from cotrain.sections import (
    DataSection,
    DilocoSection,
    DistributedSection,
    ModelSection,
    MonitoringSection,
    Optimizer,
    SessionSection,
    TrainSection,
)
from cotrain.swarm.scenario import make_scenario
from cotrain.swarm.simulate import SimulatedSwarm, train_data_parallel
from cotrain.swarm.simulated_training import load_material
from cotrain.train.diloco import OuterState
from cotrain.train.initialization import draw_weights
from cotrain.train.parallel import ParallelGroup

PEERS = 4
SEQ_LENGTH = 64


@dataclass(frozen=True)
class Case:
    """One way to train; without `diloco` it is data-parallel.

    Attributes:
        optimizer: the inner one.
        learning_rate: its peak.
        beta2: of its AdamW.
    """

    diloco: DilocoSection | None = None
    optimizer: Optimizer = "adamw"
    learning_rate: float = 4e-3
    beta2: float = 0.95


def _rounds(inner_steps: int, warmup_share: float = 0.0) -> DilocoSection:
    return DilocoSection(inner_steps=inner_steps, warmup_share=warmup_share, overlap_steps=0)


BASELINES = {
    "data-parallel": Case(),
    "data-parallel-3e-3": Case(learning_rate=3e-3),
    "data-parallel-6e-3": Case(learning_rate=6e-3),
    "data-parallel-beta2-0.99": Case(beta2=0.99),
}
"""Data-parallel with AdamW, among which the best one counts."""
CASES = {
    **BASELINES,
    "data-parallel-muon": Case(optimizer="muon", learning_rate=1.6e-2),
    "diloco-20": Case(_rounds(20)),
    "diloco-10": Case(_rounds(10)),
    "diloco-20-warm-0.2": Case(_rounds(20, warmup_share=0.2)),
    "diloco-10-warm-0.2": Case(_rounds(10, warmup_share=0.2)),
    "diloco-20-warm-0.3": Case(_rounds(20, warmup_share=0.3)),
    "diloco-10-warm-0.3": Case(_rounds(10, warmup_share=0.3)),
    "diloco-20-muon": Case(_rounds(20), "muon", 1.6e-2),
    "diloco-10-muon": Case(_rounds(10), "muon", 1.6e-2),
}
"""By name. `warm`: this share of the run in rounds of one inner step."""
USUAL = (
    "data-parallel", "data-parallel-6e-3", "diloco-20", "diloco-10", "diloco-20-warm-0.3", "diloco-10-warm-0.3",
    "diloco-20-muon", "diloco-10-muon",
)  # fmt: skip


def configuration(steps: int, seed: int, model: Path, case: Case | None = None) -> RunConfig:
    """Four nominal nodes; data-parallel training's own settings, unless there is a case."""
    case = case or Case()
    return RunConfig(
        session=SessionSection(seed=seed),
        model=ModelSection(source=str(model)),
        train=TrainSection(
            task="causal-lm", batch_size=4, gradient_accumulation_steps=1, optimizer=case.optimizer,
            learning_rate=case.learning_rate, max_steps=steps, warmup_steps=40, weight_decay=0.1,
            beta2=case.beta2,
        ),
        distributed=DistributedSection(nodes=PEERS),
        diloco=case.diloco or DilocoSection(),
        data=DataSection(tokenizer="bytes", seq_length=SEQ_LENGTH, validation_split=0.05),
        monitoring=MonitoringSection(evaluation_batches=256, evaluation_rounds=1000),
    )  # fmt: skip


def write_model(folder: Path, seed: int) -> Path:
    """Save a freshly drawn Llama that is smaller than the smallest preset."""
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=256, hidden_size=64, intermediate_size=176, num_hidden_layers=4, num_attention_heads=4,
            max_position_embeddings=SEQ_LENGTH, tie_word_embeddings=True, bos_token_id=None, eos_token_id=None,
        )
    )  # fmt: skip
    draw_weights(model, seed=seed)
    model.save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
        validation_loss: nats per byte; NaN if it diverged.
        rounds: at whose ends the peers met; of data-parallel training, its steps.
        seconds: wall time.
    """

    case: str
    seed: int
    steps: int
    validation_loss: float
    rounds: int
    seconds: float


class Seed:
    """What all cases of one seed have in common: weights to begin with, and data."""

    def __init__(self, seed: int, steps: int, folder: Path):
        self._seed, self._steps, self._model = seed, steps, write_model(folder / f"model-{seed}", seed)
        self._scenario = make_scenario(PEERS, speeds="1", drop=0.0, byzantine="", averaging_s=0.0)
        config, shared = self._configuration(Case()), SharedPaths(folder / "shared").create()
        self._material = load_material(config, self._scenario, shared, ParallelGroup.from_environment())
        self._initial = self._material.parameters()

    def _configuration(self, case: Case) -> RunConfig:
        return configuration(self._steps, self._seed, self._model, case)

    def train(self, name: str) -> Result:
        """Train the case of this name from the first weights on."""
        started, config = time.monotonic(), self._configuration(CASES[name])
        self._material.judge.load_weights(self._initial)
        loss, rounds = self._data_parallel(config) if CASES[name].diloco is None else self._swarm(config)
        loss = math.nan if loss is None else loss
        return Result(name, self._seed, self._steps, loss, rounds, round(time.monotonic() - started, 1))

    def _data_parallel(self, config: RunConfig) -> tuple[float | None, int]:
        wanted = config.samples_wanted(len(self._material.train))
        last = train_data_parallel(config, self._material, self._initial, samples=wanted, wanted=wanted)[-1]
        return last.validation_loss, last.step

    def _swarm(self, config: RunConfig) -> tuple[float | None, int]:
        with asyncio.Runner() as runner:
            state = OuterState.initial(self._initial.clone())
            swarm = SimulatedSwarm(config, self._scenario, self._material, state, runner)
            swarm.run(lambda row: None)
        return swarm.rows[-1].validation_loss, swarm.state.round


def kept(file: Path | None) -> list[Result]:
    """The runs that an earlier call wrote."""
    if file is None or not file.exists():
        return []
    return [Result(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]


def run_all(names: Sequence[str], seeds: int, steps: int, file: Path | None) -> list[Result]:
    """Train every case with every seed; those in `file` are taken from there, new ones are added to it."""
    results = {(result.seed, result.case): result for result in kept(file) if result.steps == steps}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            missing = [name for name in names if (seed, name) not in results]
            material = Seed(seed, steps, Path(folder)) if missing else None
            for name in missing:
                assert material is not None
                result = results[seed, name] = material.train(name)
                print(json.dumps(asdict(result)), file=sys.stderr, flush=True)
                if file is not None:
                    with file.open("a", encoding="utf-8") as lines:
                        lines.write(json.dumps(asdict(result)) + "\n")
    return [results[seed, name] for name in names for seed in range(seeds)]


def best_baseline(results: Sequence[Result]) -> dict[int, float]:
    """Seed -> loss of the baseline that has the lowest mean loss over all seeds; empty if none was trained."""
    by_name = {
        name: {result.seed: result.validation_loss for result in results if result.case == name} for name in BASELINES
    }
    trained = [losses for losses in by_name.values() if losses]
    return min(trained, key=lambda losses: fmean(losses.values()), default={})


def summarize(results: Sequence[Result]) -> list[str]:
    """A line for each case: loss of each seed, their mean, and the mean ratio to the best baseline of the same seed."""
    baseline = best_baseline(results)
    lines = [f"{'':24} rounds   mean  ratio  losses"]
    for case in dict.fromkeys(result.case for result in results):
        of_case = [result for result in results if result.case == case]
        losses = [result.validation_loss for result in of_case]
        ratios = [result.validation_loss / baseline.get(result.seed, math.nan) for result in of_case]
        lines.append(
            f"{case:24} {of_case[0].rounds:6} {fmean(losses):6.4f}  {fmean(ratios):5.3f}  "
            + " ".join(f"{loss:.4f}" for loss in losses)
        )
    return lines


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2, help="runs of each case, with seeds from 0 on")
    parser.add_argument("--steps", type=int, default=400, help="inner steps of each peer, a multiple of one hundred")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(USUAL), help="the cases to train")
    parser.add_argument("--json", type=Path, help="file of the runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    disable_progress_bar()
    print("\n".join(summarize(run_all(arguments.only, arguments.seeds, arguments.steps, arguments.json))))


if __name__ == "__main__":
    main()
