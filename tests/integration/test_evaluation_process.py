"""The evaluation's process itself: a tiny model on real data, data that are gone, a limit that is reached."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from pathlib import Path

import pytest

from coordinator.config import CoordinatorConfig, ModelsSection
from coordinator.evaluation_process import Evaluated, EvaluationTask, NotEvaluated, evaluate_in_process
from coordinator.settings import Settings
from cotrain.config import RunConfig, dump_config
from cotrain.paths import SharedPaths
from cotrain.request import SessionRequest
from cotrain.train.checkpoint import export_model
from cotrain.train.data.prepare import prepare_dataset
from cotrain.train.model import build_model
from cotrain.train.tokenizer import byte_tokenizer
from tests.system import own_children
from tests.waiting import wait_until

POEM = "".join(f"Line {number} of a poem that nobody will learn by heart.\n" for number in range(2000))
REQUEST = {"name": "Poems", "data": {"dataPath": "poems.txt", "seqLength": 64}, "training": {"batchSize": 4}}
VOCABULARY = 256


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A data folder with data, and settings for it."""
    shared = SharedPaths(tmp_path / "shared").create()
    (shared.root / "datasets" / "poems.txt").write_text(POEM)
    return Settings(shared=shared, public_url="http://coordinator.test")


@pytest.fixture
def task(settings: Settings) -> EvaluationTask:
    """A fresh model, which knows nothing, on the data that a session would have prepared for it."""
    config = SessionRequest.model_validate(REQUEST).to_config("poems")
    prepared = prepare_dataset(
        _with_path(config, settings.shared), folder=settings.shared.processed_datasets,
        splits_folder=settings.shared.dataset_splits,
    )  # fmt: skip
    folder = settings.shared.final_model("poems")
    export_model(build_model(config.model, prepared.spec, seed=0), byte_tokenizer(), folder)
    return EvaluationTask(
        config=dump_config(config), model_path=str(folder), batches=2, data_fingerprint=prepared.train.parent.name
    )


def _with_path(config: RunConfig, shared: SharedPaths) -> RunConfig:
    data = config.data.model_copy(update={"data_path": str(shared.root / "datasets" / "poems.txt")})
    return config.model_copy(update={"data": data})


async def test_a_model_that_knows_nothing_is_as_good_as_chance(settings: Settings, task: EvaluationTask) -> None:
    before = sorted(settings.shared.processed_datasets.iterdir())
    outcome = await evaluate_in_process(settings, task)
    assert isinstance(outcome, Evaluated), outcome
    assert outcome.metrics["validationLoss"] == pytest.approx(math.log(VOCABULARY), abs=0.3)
    assert 0 <= outcome.metrics["accuracy"] < 0.1
    assert outcome.targets == 2 * 4 * 64
    assert outcome.data_fingerprint == task.data_fingerprint
    assert sorted(settings.shared.processed_datasets.iterdir()) == before


async def test_data_prepared_for_one_evaluation_do_not_stay(settings: Settings, task: EvaluationTask) -> None:
    before = sorted(settings.shared.processed_datasets.iterdir())
    (settings.shared.root / "datasets" / "poems.txt").write_text(POEM.replace("heart", "rote"))
    outcome = await evaluate_in_process(settings, task.model_copy(update={"data_fingerprint": ""}))
    assert isinstance(outcome, Evaluated), outcome
    assert outcome.data_fingerprint != task.data_fingerprint
    assert sorted(settings.shared.processed_datasets.iterdir()) == before
    assert list(settings.shared.temporary_models.iterdir()) == []


@pytest.mark.parametrize("changed", [True, False])
async def test_data_that_are_gone_are_told_with_the_way_to_get_them(
    settings: Settings, task: EvaluationTask, changed: bool
) -> None:
    path = settings.shared.root / "datasets" / "poems.txt"
    path.write_text(POEM.upper()) if changed else path.unlink()
    outcome = await evaluate_in_process(settings, task)
    assert isinstance(outcome, NotEvaluated)
    assert ("no longer those" if changed else "cannot be had") in outcome.message
    assert "put them back at poems.txt" in outcome.hint
    assert str(settings.shared.root) not in outcome.message + outcome.hint


async def test_a_limit_ends_the_process(settings: Settings, task: EvaluationTask) -> None:
    before = own_children()
    limited = CoordinatorConfig(models=ModelsSection(evaluation_limit_s=1.0))
    outcome = await evaluate_in_process(dataclasses.replace(settings, config=limited), task)
    assert isinstance(outcome, NotEvaluated)
    assert "more than 1 s" in outcome.message
    assert not own_children() - before


async def test_who_no_longer_waits_leaves_no_process(settings: Settings, task: EvaluationTask) -> None:
    before = own_children()
    waiting = asyncio.create_task(evaluate_in_process(settings, task))
    await asyncio.to_thread(wait_until, lambda: own_children() - before, limit_s=60, what="its process is there")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not own_children() - before
