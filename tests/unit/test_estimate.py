"""Estimates of memory and traffic: pure, from above, and in step with what they stand for."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from cotrain.catalog import load_models
from cotrain.config import RunConfig
from cotrain.estimate import (
    CODEC_BLOCK,
    PART_VALUES,
    Estimate,
    encoded_bytes,
    estimate,
    estimate_memory,
    estimate_traffic,
    fits,
    shortage,
)
from cotrain.model_facts import model_facts
from cotrain.request import SessionRequest
from cotrain.sections import PRETRAINING_TASK, SIZES, Codec, ModelSection, ModelType
from cotrain.swarm import parts
from cotrain.swarm.shared_memory import VECTORS
from cotrain.train import codec
from cotrain.train.fragments import divide
from cotrain.train.model import build_model, empty_model, parameter_layout
from tests.unit.task_fixtures import spec_of

GIB = 2**30


def config_of(**fields: Any) -> RunConfig:
    return SessionRequest.model_validate({"name": "x", **fields}).to_config("s")


def estimated(**fields: Any) -> Estimate:
    config = config_of(**fields)
    facts = model_facts(config, load_models()).facts
    assert facts is not None
    return estimate(config, facts)


# ---------------------------------------------------------------------------------------------- in step with the code
@pytest.mark.parametrize("name", ["int4", "int8", "fp32"])
@pytest.mark.parametrize("values", [1, 255, 256, 257, 1_000_003])
def test_encodings_are_as_long_as_the_codec_makes_them(name: Codec, values: int) -> None:
    assert encoded_bytes(name, values) == codec.make_codec(name).encoded_bytes(values)


def test_constants_are_those_of_the_swarm() -> None:
    assert (CODEC_BLOCK, PART_VALUES) == (codec.BLOCK, parts.PART_VALUES)
    said = estimated(model={"type": "llama3", "size": "tiny"})
    assert said.memory.outer_state_bytes == 4 * VECTORS * said.parameters


@pytest.mark.parametrize("kind", PRETRAINING_TASK)
@pytest.mark.parametrize("fragments", [2, 3])
def test_no_fragment_is_larger_than_estimated(kind: ModelType, fragments: int) -> None:
    spec = spec_of(PRETRAINING_TASK[kind], seq_length=256)
    model = empty_model(ModelSection(type=kind, size="tiny"), spec)
    layout = [(name, torch.Size(shape).numel()) for name, shape, _ in parameter_layout(model)]
    largest = max(sum(stop - start for start, stop in ranges) for ranges in divide(layout, fragments))
    said = estimated(model={"type": kind, "size": "tiny"}, diloco={"fragments": fragments})
    assert 16 * said.parameters + 4 * largest <= said.memory.outer_state_bytes <= 20 * said.parameters


@pytest.mark.parametrize("kind", PRETRAINING_TASK)
@pytest.mark.parametrize("changes", [{}, {"dropout": 0.1}, {"attention": "eager"}], ids=str)
def test_activations_are_estimated_from_above(kind: ModelType, changes: dict[str, Any]) -> None:
    """Beside what autograd really keeps for the backward pass, in fp32 on the processor."""
    samples, length = 2, 192
    section = ModelSection(type=kind, size="nano", **changes)
    config = RunConfig().model_copy(update={"model": section})
    config = config.model_copy(
        update={
            "train": config.train.model_copy(update={"batch_size": samples}),
            "data": config.data.model_copy(update={"seq_length": length}),
        }
    )
    facts = model_facts(config).facts
    assert facts is not None
    kept = kept_by_autograd(section, samples, length)
    said = estimate_memory(config, facts).activations_bytes
    assert kept < said < 3 * kept


def kept_by_autograd(section: ModelSection, samples: int, length: int) -> int:
    """Bytes of the tensors, parameters aside, that a forward pass keeps."""
    model = build_model(section, spec_of(PRETRAINING_TASK[section.type], seq_length=length), seed=0)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    inputs = {"input_ids": torch.ones(samples, length, dtype=torch.long)}
    if section.type == "t5":
        inputs["decoder_input_ids"] = inputs["input_ids"]
    held: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if (place := tensor.untyped_storage().data_ptr()) not in weights:
            held[place] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        model(**inputs, use_cache=False).logits.float().logsumexp(-1).sum()
    return sum(tensor.untyped_storage().nbytes() for tensor in held.values())


def test_estimating_loads_no_torch() -> None:
    code = "import sys, cotrain.model_facts; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---------------------------------------------------------------------------------------------- memory
@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"training": {"batchSize": 64}}, "activations_bytes"),
        ({"data": {"seqLength": 512}}, "activations_bytes"),
        ({"model": {"type": "llama3", "size": "tiny"}}, "weights_bytes"),
        ({"model": {"precision": "bf16"}}, "weights_bytes"),
        ({"distributed": {"nodes": 9}}, "averaging_bytes"),
        ({"diloco": {"codec": "fp32"}}, "averaging_bytes"),
    ],
    ids=str,
)
def test_what_takes_more_memory_is_estimated_higher(fields: dict[str, Any], field: str) -> None:
    assert getattr(estimated(**fields).memory, field) > getattr(estimated().memory, field)
    assert estimated(**fields).memory.total_bytes > estimated().memory.total_bytes


@pytest.mark.parametrize(
    "fields",
    [
        {"model": {"activationCheckpointing": True}}, {"training": {"optimizer": "sgd"}},
        {"training": {"optimizer": "muon"}}, {"training": {"batchSize": 1}}, {"diloco": {"fragments": 4}},
    ],
    ids=str,
)  # fmt: skip
def test_what_saves_memory_is_estimated_lower(fields: dict[str, Any]) -> None:
    tiny = {"model": {"type": "llama3", "size": "tiny", **fields.pop("model", {})}, **fields}
    assert estimated(**tiny).memory.total_bytes < estimated(model={"type": "llama3", "size": "tiny"}).memory.total_bytes


def test_with_gpus_the_inner_steps_take_their_memory_and_fsdp_shares_it() -> None:
    alone = estimated(model={"type": "llama3", "size": "small"}).memory
    four = {"nodes": 1, "gpusPerNode": 4}
    ddp = estimated(model={"type": "llama3", "size": "small"}, distributed={**four, "strategy": "ddp"}).memory
    fsdp = estimated(model={"type": "llama3", "size": "small"}, distributed={**four, "strategy": "fsdp"}).memory
    assert alone.gpu_bytes == 0
    assert ddp.optimizer_bytes == alone.optimizer_bytes == 4 * fsdp.optimizer_bytes
    assert fsdp.gpu_bytes < ddp.gpu_bytes


def test_a_model_of_the_catalog_has_at_most_what_its_download_holds() -> None:
    known = model_facts(config_of(model={"source": "gpt2-fa"}, training={"task": "causal-lm"}), load_models())
    assert known.facts is not None
    assert known.facts.count.total == 300_000_000
    assert [key for key, _ in known.unknown] == ["model.source"]


def test_of_a_model_that_nobody_knows_nothing_is_said() -> None:
    known = model_facts(config_of(model={"source": "org/name"}, training={"task": "causal-lm"}), load_models())
    assert known.facts is None
    assert known.unknown[0][0] == "model.source"


# ---------------------------------------------------------------------------------------------- traffic
def test_traffic_of_two_peers_is_what_was_measured() -> None:
    config = config_of(distributed={"nodes": 2})
    found = estimate_traffic(config, 940_416)
    assert found.averaging_bytes / 940_416 == pytest.approx(0.508, abs=0.001)  # docs/LOG.md, the demo
    assert found.join_bytes == 8 * 940_416


@pytest.mark.parametrize(("nodes", "share"), [(1, 0.0), (2, 1.0), (4, 1.5), (10_000, 2.0)])
def test_averaging_sends_two_n_minus_one_nths(nodes: int, share: float) -> None:
    found = estimate_traffic(config_of(distributed={"nodes": nodes}), 10**8)
    assert found.averaging_bytes == pytest.approx(share * encoded_bytes("int4", 10**8), rel=1e-3)
    assert found.sent_bytes >= found.received_bytes >= found.averaging_bytes


def test_fragments_divide_the_traffic_of_a_round() -> None:
    whole, quarter = (
        estimate_traffic(config_of(distributed={"nodes": 4}, diloco={"fragments": f}), 10**8) for f in (1, 4)
    )
    assert quarter.averaging_bytes == pytest.approx(whole.averaging_bytes / 4, rel=1e-3)
    assert quarter.round_steps == whole.round_steps // 4


# ---------------------------------------------------------------------------------------------- refusals
def test_seventy_billion_parameters_on_eight_gibibytes_are_refused_with_the_reason() -> None:
    memory = estimated(model={"type": "llama3", "size": "70B"}).memory
    reason = fits(memory, 8 * GIB)
    assert "8.0 GiB" in reason
    assert "model.size" in reason
    assert "2 nodes are needed, 0 of 3 are large enough" in shortage(memory, [8 * GIB] * 3, 2)


def test_a_batch_that_is_too_large_is_told_as_one() -> None:
    memory = estimated(training={"batchSize": 4096}).memory
    assert "training.batchSize" in fits(memory, 8 * GIB)


def test_a_nano_model_fits_into_four_gibibytes() -> None:
    memory = estimated(training={"batchSize": 8}, data={"seqLength": 128}).memory
    assert fits(memory, 4 * GIB) == ""
    assert shortage(memory, [4 * GIB, 0], 2) == ""
    assert shortage(memory, [4 * GIB], 2) == "2 nodes are needed, 1 are here"


def test_a_gpu_that_is_too_small_is_told() -> None:
    memory = estimated(
        model={"type": "llama3", "size": "8B"}, distributed={"nodes": 2, "gpusPerNode": 1}, training={"batchSize": 1}
    ).memory
    assert fits(memory, 4096 * GIB, 80 * GIB).startswith("a GPU needs about")
    assert fits(memory, 4096 * GIB, 4096 * GIB) == ""


@pytest.mark.parametrize(("kind", "size"), [(kind, size) for kind, sizes in SIZES.items() for size in sizes])
def test_every_preset_has_an_estimate(kind: ModelType, size: str) -> None:
    said = estimated(model={"type": kind, "size": size})
    assert said.memory.total_bytes > 16 * said.parameters
