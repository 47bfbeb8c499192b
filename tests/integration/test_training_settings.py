"""Every setting of R1.5: changing it changes what it should, in a real run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from cotrain.config import RunConfig
from cotrain.sections import ModelSection, Precision, TrainSection
from cotrain.train.inner import precision_on
from tests.train_fixtures import Outcome, config_for, run_locally, write_rows

STEPS = 4


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """Train for a few steps; the arguments change what stands in [train], `sections` the other tables."""
    data = write_rows(tmp_path / "rows.jsonl", "causal-lm")
    runs: list[Outcome] = []

    def start(
        *, sections: dict[str, dict[str, Any]] | None = None, most_steps: int | None = None, **train: Any
    ) -> Outcome:
        settings = {"batch_size": 4, "max_steps": STEPS, "warmup_steps": 0} | train
        config = config_for("causal-lm", data, **{"train": settings, "diloco": {"inner_steps": 1}, **(sections or {})})
        runs.append(run_locally(config, tmp_path / f"run{len(runs)}", most_steps=most_steps))
        return runs[-1]

    return start


def weights(outcome: Outcome) -> torch.Tensor:
    return outcome.run._inner.weights()


def test_epochs_decide_how_often_the_samples_are_seen(run: Any) -> None:
    one, two = (run(max_steps=None, epochs=epochs) for epochs in (0.25, 0.5))
    assert two.status.samples_wanted == pytest.approx(2 * one.status.samples_wanted, abs=1)
    assert two.status.step == pytest.approx(2 * one.status.step, abs=1)


def test_batch_size_decides_how_much_a_step_sees(run: Any) -> None:
    assert run(batch_size=8).status.tokens == 2 * run(batch_size=4).status.tokens


def test_learning_rate_decides_how_far_a_step_goes(run: Any) -> None:
    start = weights(run(learning_rate=1e-12, max_steps=1))
    short, long = (
        (weights(run(learning_rate=rate, max_steps=1, weight_decay=0.0)) - start).norm() for rate in (1e-4, 1e-3)
    )
    assert float(long / short) == pytest.approx(10.0, rel=0.01)


def test_optimizer_decides_how_gradients_become_steps(run: Any) -> None:
    ends = [weights(run(optimizer=name)) for name in ("adam", "sgd", "adamw", "muon")]
    assert all(not torch.equal(one, other) for i, one in enumerate(ends) for other in ends[:i])


def test_scheduler_decides_the_rate_over_the_run(run: Any) -> None:
    rates = {
        name: run(lr_scheduler=name, learning_rate=1e-3, max_steps=10, min_learning_rate_ratio=0.0).status.learning_rate
        for name in ("cosine", "linear", "constant", "wsd")
    }
    assert rates["constant"] == 1e-3
    assert rates["linear"] == pytest.approx(1e-4)
    assert rates["cosine"] == pytest.approx(1e-3 * 0.5 * (1 - 0.9510565), rel=1e-3)
    assert 0 < rates["wsd"] < 1e-3
    assert len(set(rates.values())) == 4


def test_warm_up_begins_the_run_with_small_rates(run: Any) -> None:
    first, second, without = (
        run(warmup_steps=warmup, max_steps=100, lr_scheduler="constant", most_steps=steps).status.learning_rate
        for warmup, steps in ((5, 1), (5, 2), (0, 1))
    )
    assert [first, second, without] == pytest.approx([3e-3 / 6, 3e-3 * 2 / 6, 3e-3])


def test_weight_decay_shrinks_the_weights(run: Any) -> None:
    without, decayed = (weights(run(weight_decay=decay)).norm() for decay in (0.0, 1.0))
    assert decayed < without


def test_accumulation_makes_steps_larger_and_changes_nothing_else(run: Any) -> None:
    once, twice = run(batch_size=8), run(batch_size=4, gradient_accumulation_steps=2)
    assert once.status.tokens == twice.status.tokens
    assert once.losses == pytest.approx(twice.losses, abs=1e-5)
    assert run(batch_size=4, gradient_accumulation_steps=4).status.tokens == 2 * once.status.tokens


def test_clipping_bounds_a_step(run: Any) -> None:
    start = weights(run(learning_rate=1e-12, max_steps=1))
    steps = [
        (weights(run(optimizer="sgd", learning_rate=1.0, max_steps=1, max_grad_norm=norm, weight_decay=0.0)) - start)
        for norm in (0.01, 0.1)
    ]
    assert [float(step.norm()) for step in steps] == pytest.approx([0.01, 0.1], rel=0.02)


@pytest.mark.parametrize("patience", [2, 4])
def test_a_run_whose_validation_loss_stands_still_stops_after_the_patience(run: Any, patience: int) -> None:
    settings = {"learning_rate": 1e-12, "weight_decay": 0.0, "max_steps": 12}
    sections = {"monitoring": {"evaluation_rounds": 1, "evaluation_batches": 1}}
    stopped = run(early_stopping=True, early_stopping_patience=patience, sections=sections, **settings)
    assert stopped.status.step == 1 + patience, "the first evaluation is the best"
    assert stopped.status.status == "completed"
    assert any(message.startswith("stopped early") for message in stopped.messages("log"))
    assert run(early_stopping=False, early_stopping_patience=patience, sections=sections, **settings).status.step == 12


@pytest.mark.parametrize(
    ("device", "mixed", "precision", "expected"),
    [
        ("cpu", True, None, {"fp32"}), ("cpu", True, "bf16", {"bf16"}), ("cuda", False, None, {"fp32"}),
        ("cuda", True, None, {"bf16", "fp16"}), ("cuda", True, "fp32", {"fp32"}), ("cuda", False, "fp16", {"fp16"}),
    ],
)  # fmt: skip
def test_mixed_precision_is_for_gpus_and_precision_overrides_it(
    device: str, mixed: bool, precision: Precision | None, expected: set[Precision]
) -> None:
    config = RunConfig(model=ModelSection(precision=precision), train=TrainSection(mixed_precision=mixed))
    assert precision_on(torch.device(device), config) in expected


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_lower_precision_rounds_the_losses_and_still_learns(run: Any, precision: Precision) -> None:
    exact, rounded = (run(max_steps=12, sections={"model": {"precision": p}}) for p in ("fp32", precision))
    assert exact.losses != rounded.losses
    assert rounded.losses == pytest.approx(exact.losses, abs=0.2)
    assert rounded.losses[-1] < rounded.losses[0] - 1.0


@pytest.mark.parametrize(("interval", "saved"), [(1, 6), (2, 3), (4, 2), (100, 1)])
def test_the_interval_decides_how_often_a_checkpoint_is_saved(run: Any, interval: int, saved: int) -> None:
    outcome = run(max_steps=6, sections={"checkpoint": {"interval": interval, "keep": 100}})
    assert len(list(outcome.run._places.checkpoints.glob("checkpoint-*"))) == saved


def test_distillation_pulls_the_student_towards_its_teacher(run: Any, tmp_path: Path) -> None:
    """On text that the teacher has never seen: a student of the text alone learns something else than the teacher."""
    teacher = run(max_steps=60)
    other = {"data": {"data_path": str(write_rows(tmp_path / "other.jsonl", "masked-lm"))}}
    alone = run(max_steps=40, sections=other)
    distillation = {"enabled": True, "teacher": str(teacher.final), "alpha": 1.0, "temperature": 1.0}
    taught = run(max_steps=40, sections=other | {"distillation": distillation})

    def distance(outcome: Outcome) -> float:
        dataset = outcome.run._validation
        indices = torch.arange(8).numpy()
        batch = dataset.batch(indices, indices)
        with torch.no_grad():
            ours, theirs = (
                dataset.task.predictions(each.run._inner.model, batch)[0][0].log_softmax(-1)
                for each in (outcome, teacher)
            )
        return float(torch.nn.functional.kl_div(ours, theirs, reduction="batchmean", log_target=True))

    assert distance(taught) < distance(alone) / 2


def test_validation_split_decides_what_is_held_out(run: Any) -> None:
    small, large = (run(max_steps=1, sections={"data": {"validation_split": share}}) for share in (0.1, 0.5))
    assert len(small.run._validation) < len(large.run._validation)
    assert len(small.run._inner.dataset) > len(large.run._inner.dataset)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler; .ci/run installs one")
def test_compiling_and_activation_checkpointing_change_no_loss(run: Any) -> None:
    """Compiled code rounds elsewhere; checkpointing computes the very same again."""
    plain, again, compiled = (
        run(max_steps=100, most_steps=2, sections={"model": model})
        for model in ({}, {"activation_checkpointing": True}, {"compile": True})
    )
    assert again.losses == plain.losses
    assert compiled.losses == pytest.approx(plain.losses, abs=1e-4)
