"""The training benchmark takes real inner steps, and prints what the doctor reads."""

from __future__ import annotations

import pytest
import torch

from cotrain.config import RunConfig
from cotrain.sections import DataSection, TrainSection
from cotrain.train import benchmark
from node.doctor import Measured

SMALL = RunConfig(train=TrainSection(batch_size=2, gradient_accumulation_steps=1), data=DataSection(seq_length=16))


def test_it_prints_what_the_doctor_reads(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(SMALL, seconds=0.2) == 0
    found = Measured.model_validate_json(capsys.readouterr().out)
    assert found.device == ("cuda" if torch.cuda.device_count() else "cpu")
    assert found.tokens_per_s > 0


def test_its_model_is_the_nano_preset_of_the_defaults() -> None:
    assert benchmark.NANO.model == RunConfig().model
    assert benchmark.NANO.model.size == "nano"
