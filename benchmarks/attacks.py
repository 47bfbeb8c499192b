"""What one liar of four costs under each rule of averaging, simulated.

    python -m benchmarks.attacks [--steps 200] [--seed 0] [--attacks sign-flip ...] [--rules filter ...] [--json FILE]

Four peers of equal speed train the small Llama of `benchmarks/quality.py` in rounds of ten inner steps; the last one
lies. Prints the final validation loss of each pair of attack and rule, and its ratio to the plain mean without a liar.
The whole table takes less than ten minutes on one core that is free.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers.utils.logging import disable_progress_bar

from benchmarks.quality import PEERS, configuration, write_model
from cotrain.config import RunConfig
from cotrain.paths import SharedPaths
from cotrain.sections import Aggregation, DilocoSection, MonitoringSection
from cotrain.swarm.scenario import AGGREGATIONS, LIES, make_scenario
from cotrain.swarm.simulate import simulate
from cotrain.swarm.simulated_training import Material, load_material
from cotrain.swarm.simulation_report import BaselinePoint
from cotrain.train.parallel import ParallelGroup

NO_ATTACK = "none"
ATTACKS = (NO_ATTACK, *LIES)
PLAIN: Aggregation = "mean"
_NOT_WANTED = [BaselinePoint(step=0, samples=0, tokens=0)]
"""In place of a data-parallel run: the plain mean without a liar is what all is compared with."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        validation_loss: nats per target of the last outer parameters; None if it diverged.
        ratio: to the plain mean without a liar.
        rounds, liar_dropped, honest_dropped: rounds in all, and those in which the liar, or an honest peer, was left
            out of some part's average.
    """

    attack: str
    rule: Aggregation
    validation_loss: float | None
    ratio: float | None
    rounds: int
    liar_dropped: int
    honest_dropped: int
    seconds: float


def attacks_config(steps: int, seed: int, model: Path) -> RunConfig:
    """As in the benchmark of quality, evaluated at both ends only."""
    return configuration(steps, seed, model).model_copy(
        update={
            "diloco": DilocoSection(inner_steps=10, overlap_steps=0),
            "monitoring": MonitoringSection(evaluation_batches=128, evaluation_rounds=10**6),
        }
    )


def run_attack(
    config: RunConfig, material: Material, attack: str, rule: Aggregation, compared_with: float | None
) -> Outcome:
    """Train with one liar, or none, under a rule."""
    started = time.monotonic()
    byzantine = "" if attack == NO_ATTACK else f"1:{attack}"
    scenario = make_scenario(PEERS, speeds="1", drop=0.0, byzantine=byzantine, averaging_s=0.0)
    changed = config.model_copy(update={"swarm": config.swarm.model_copy(update={"aggregation": rule})})
    report = simulate(changed, scenario, material, baseline=_NOT_WANTED)
    liar = f"peer{PEERS - 1:04d}" if byzantine else ""
    loss = None if report.diverged else report.validation_loss
    return Outcome(
        attack=attack, rule=rule, validation_loss=loss,
        ratio=None if loss is None or compared_with is None else loss / compared_with,
        rounds=report.rounds[-1].round, liar_dropped=sum(liar in row.dropped for row in report.rounds),
        honest_dropped=sum(bool(row.dropped.keys() - {liar}) for row in report.rounds),
        seconds=time.monotonic() - started,
    )  # fmt: skip


def run_all(
    steps: int, seed: int, folder: Path, attacks: Sequence[str], rules: Sequence[Aggregation]
) -> list[Outcome]:  # fmt: skip
    """Each attack under each rule, from the same weights; the plain mean without a liar comes first in any case."""
    config = attacks_config(steps, seed, write_model(folder / "model", seed))
    scenario = make_scenario(PEERS, speeds="1", drop=0.0, byzantine="", averaging_s=0.0)
    shared = SharedPaths(folder / "shared").create()
    material = load_material(config, scenario, shared, ParallelGroup.from_environment())
    initial, outcomes, compared_with = material.parameters(), list[Outcome](), None
    pairs = [(NO_ATTACK, PLAIN), *((attack, rule) for attack in attacks for rule in rules)]
    for attack, rule in dict.fromkeys(pairs):
        material.judge.load_weights(initial)
        outcome = run_attack(config, material, attack, rule, compared_with)
        if compared_with is None:
            compared_with = outcome.validation_loss
            outcome = Outcome(**{**asdict(outcome), "ratio": 1.0})
        outcomes.append(outcome)
        print(_row(outcome), flush=True)
    return outcomes


def _row(outcome: Outcome) -> str:
    loss = "diverged" if outcome.validation_loss is None else f"{outcome.validation_loss:.3f}"
    ratio = "-" if outcome.ratio is None else f"{outcome.ratio:.3f}"
    return (
        f"{outcome.attack:12} {outcome.rule:14} {loss:>9} {ratio:>8}  {outcome.liar_dropped:3}/{outcome.rounds:<3} "
        f"{outcome.honest_dropped:6}  {outcome.seconds:5.0f}"
    )


def main() -> None:
    """Train, print the table, and write the JSON where it is wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="inner steps of each peer, a multiple of ten")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--attacks", nargs="+", choices=ATTACKS, default=ATTACKS)
    parser.add_argument("--rules", nargs="+", choices=AGGREGATIONS, default=AGGREGATIONS)
    parser.add_argument("--json", type=Path, help="file for the results as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    disable_progress_bar()
    print(f"{'attack':12} {'rule':14} {'loss':>9} {'ratio':>8}  liar/rounds honest  seconds", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        outcomes = run_all(arguments.steps, arguments.seed, Path(folder), arguments.attacks, arguments.rules)
    results = {
        "steps": arguments.steps, "seed": arguments.seed, "peers": PEERS,
        "outcomes": [asdict(outcome) for outcome in outcomes],
    }  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    else:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
