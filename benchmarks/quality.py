"""Simulated DiLoCo beside data-parallel training on as many tokens, over several seeds.

    python -m benchmarks.quality [--seeds 2] [--steps 400]

Four peers with a batch of four train a Llama of 218 thousand parameters on the source text of Python's standard
library, byte by byte. Prints the validation losses and their ratio to data-parallel training of the same seed;
a seed takes about a minute and a half on one core.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

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
    SessionSection,
    TrainSection,
)
from cotrain.swarm.scenario import make_scenario
from cotrain.swarm.simulate import simulate, train_data_parallel
from cotrain.swarm.simulated_training import load_material
from cotrain.train.initialization import draw_weights
from cotrain.train.parallel import ParallelGroup

PEERS = 4
SEQ_LENGTH = 64


@dataclass(frozen=True)
class Variant:
    """What is compared with data-parallel training."""

    name: str
    diloco: DilocoSection


VARIANTS = (
    Variant("DiLoCo, 20 inner steps", DilocoSection(inner_steps=20, overlap_steps=0)),
    Variant("DiLoCo, 10 inner steps", DilocoSection(inner_steps=10, overlap_steps=0)),
)


def configuration(steps: int, seed: int, model: Path) -> RunConfig:
    """Four nominal nodes; the variant's `[diloco]` takes the place of the default one."""
    return RunConfig(
        session=SessionSection(seed=seed),
        model=ModelSection(source=str(model)),
        train=TrainSection(
            task="causal-lm", batch_size=4, gradient_accumulation_steps=1, learning_rate=4e-3, max_steps=steps,
            warmup_steps=40, weight_decay=0.1,
        ),
        distributed=DistributedSection(nodes=PEERS),
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


def compare(steps: int, seed: int, folder: Path) -> list[tuple[str, float]]:
    """(name, validation loss) of data-parallel training and of each variant, from the same weights."""
    config = configuration(steps, seed, write_model(folder / f"model-{seed}", seed))
    scenario = make_scenario(PEERS, speeds="1", drop=0.0, byzantine="", averaging_s=0.0)
    shared = SharedPaths(folder / "shared").create()
    material = load_material(config, scenario, shared, ParallelGroup.from_environment())
    initial, wanted = material.parameters(), config.samples_wanted(len(material.train))
    baseline = train_data_parallel(config, material, initial, samples=wanted, wanted=wanted)
    losses = [("data-parallel", baseline[-1].validation_loss or float("nan"))]
    for variant in VARIANTS:
        material.judge.load_weights(initial)
        changed = config.model_copy(update={"diloco": variant.diloco})
        report = simulate(changed, scenario, material, baseline=baseline)
        losses.append((variant.name, report.validation_loss or float("nan")))
    return losses


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2, help="runs of each kind, with seeds from 0 on")
    parser.add_argument("--steps", type=int, default=400, help="inner steps of each peer, a multiple of twenty")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    disable_progress_bar()
    results: dict[str, list[tuple[float, float]]] = {}
    print(f"{'':24} {'seed':>4}  validation loss  ratio", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(arguments.seeds):
            started = time.monotonic()
            losses = compare(arguments.steps, seed, Path(folder))
            for name, loss in losses:
                ratio = loss / losses[0][1]
                results.setdefault(name, []).append((loss, ratio))
                print(f"{name:24} {seed:4}  {loss:15.4f}  {ratio:5.3f}", flush=True)
            print(f"{'':24} {'':4}  {time.monotonic() - started:13.0f} s", flush=True)
    for name, pairs in results.items():
        loss, ratio = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
        print(f"{name:24} mean  {loss:15.4f}  {ratio:5.3f}", flush=True)


if __name__ == "__main__":
    main()
