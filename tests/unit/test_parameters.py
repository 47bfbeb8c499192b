"""Parameters counted from dimensions, beside those of the models themselves (on the meta device, without weights)."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cotrain.parameters import Vocabulary, count_preset
from cotrain.sections import SIZES, ModelSection, ModelSize, ModelType, TaskName
from cotrain.train.model import count_parameters, empty_model
from cotrain.train.muon import hidden_matrices
from cotrain.train.presets import supported_pairs
from cotrain.train.sharding import transformer_layers
from cotrain.train.spec import DataSpec

LABELS = ("a", "b", "c")


@pytest.mark.parametrize(
    ("kind", "size", "task"), [(kind, size, task) for kind, task in supported_pairs() for size in SIZES[kind]]
)
def test_a_preset_is_counted_as_its_model_is(kind: ModelType, size: ModelSize, task: TaskName) -> None:
    spec = DataSpec(task=task, vocab_size=292, seq_length=100, pad_id=256, start_id=257, end_id=258, labels=LABELS)
    model = empty_model(ModelSection(type=kind, size=size), spec)
    found = count_preset(kind, size, task, Vocabulary(tokens=292, positions=100, pad_id=256, labels=len(LABELS)))
    assert found.total == count_parameters(model)
    assert found.layers == len(transformer_layers(model))
    assert found.matrices == sum(matrix.numel() for matrix in hidden_matrices(model))
    distances = sum(p.numel() for name, p in model.named_parameters() if "relative_attention_bias" in name)
    inside = sum(parameter.numel() for layer in transformer_layers(model) for parameter in layer.parameters())
    assert found.in_layers == inside - distances  # T5's distances stand in a layer, but are counted with embeddings


def test_counting_loads_no_torch() -> None:
    code = "import sys, cotrain.parameters; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
