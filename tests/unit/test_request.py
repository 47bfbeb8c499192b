"""SessionRequest: camelCase JSON in, RunConfig out; errors name the request's own fields."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from coordinator.api.requests import parse_model
from cotrain.config import RunConfig, dump_config, parse_config
from cotrain.errors import InvalidRequestError
from cotrain.request import SessionRequest, request_field
from cotrain.sections import (
    SIZES,
    Aggregation,
    Codec,
    FieldsSection,
    Normalization,
    Optimizer,
    OuterRule,
    Precision,
    Scheduler,
    Strategy,
    TaskName,
    refusal,
)


def request(**fields: Any) -> SessionRequest:
    """A request as the coordinator reads it."""
    return parse_model(json.dumps({"name": "Shahnameh", **fields}).encode(), SessionRequest)


def test_a_name_is_enough_and_the_rest_has_the_configs_defaults() -> None:
    config = request().to_config("s-1")
    assert config.session.id == "s-1"
    assert config.session.name == "Shahnameh"
    assert config.model_copy(update={"session": RunConfig().session}) == RunConfig()


def test_what_is_left_out_has_the_defaults_that_people_were_promised() -> None:
    config = request().to_config("s")
    train = config.train
    assert (train.epochs, train.batch_size, train.learning_rate, train.optimizer) == (10, 32, 0.001, "adamw")
    assert (train.lr_scheduler, train.warmup_steps, train.weight_decay) == ("cosine", 500, 0.01)
    assert (train.gradient_accumulation_steps, train.max_grad_norm, train.mixed_precision) == (4, 1.0, True)
    assert (train.early_stopping, train.early_stopping_patience) == (True, 3)
    assert (config.checkpoint.interval, config.distillation.enabled, config.data.validation_split) == (100, False, 0.2)


def test_every_field_reaches_its_place() -> None:
    config = request(
        description="verses", seed=7,
        model={"type": "llama2", "size": "tiny", "precision": "bf16", "dropout": 0.1, "activationCheckpointing": True,
               "compile": True},
        training={"batchSize": 3, "learningRate": 0.5, "maxSteps": 11, "lrScheduler": "linear",
                  "gradientAccumulationSteps": 2, "maxGradNorm": 0.3, "warmupSteps": 4, "weightDecay": 0.2,
                  "optimizer": "sgd", "beta2": 0.8, "epochs": 1.5, "mixedPrecision": False,
                  "enableEarlyStopping": False, "earlyStoppingPatience": 8,
                  "saveCheckpointEvery": 9, "validationSplit": 0.1, "enableDistillation": True,
                  "task": "text-classification"},
        distillation={"teacher": "big", "temperature": 3.0, "alpha": 0.7},
        distributed={"nodes": 5, "gpusPerNode": 1, "minPeers": 4},
        diloco={"innerSteps": 6, "fragments": 3, "warmupShare": 0.1, "warmupInnerSteps": 2, "outerOptimizer": "average",
                "outerLearningRate": 0.4, "outerMomentum": 0.6, "momentumRamp": 0.2,
                "codec": "fp32", "overlapSteps": 0},
        data={"dataPath": "/books", "seqLength": 64, "tokenizer": "t", "normalization": "persian",
              "fields": {"text": "body"}},
        monitoring={"evaluationRounds": 2, "evaluationBatches": 3},
    ).to_config("s")  # fmt: skip
    assert (config.session.seed, config.session.description, config.checkpoint.interval) == (7, "verses", 9)
    assert (config.model.type, config.model.size, config.model.precision) == ("llama2", "tiny", "bf16")
    assert (config.train.batch_size, config.train.learning_rate, config.train.max_steps) == (3, 0.5, 11)
    assert (config.train.optimizer, config.train.lr_scheduler, config.train.max_grad_norm) == ("sgd", "linear", 0.3)
    assert (config.train.warmup_steps, config.train.weight_decay, config.train.epochs) == (4, 0.2, 1.5)
    assert config.train.beta2 == 0.8
    assert (config.distributed.nodes, config.distributed.gpus_per_node, config.swarm.min_peers) == (5, 1, 4)
    assert (config.diloco.inner_steps, config.diloco.codec, config.diloco.overlap_limit) == (6, "fp32", 0)
    assert (config.diloco.fragments, config.diloco.round_steps) == (3, 2)
    assert (config.diloco.warmup_share, config.diloco.warmup_inner_steps, config.diloco.outer_optimizer) == (
        0.1, 2, "average",
    )  # fmt: skip
    assert (config.diloco.outer_learning_rate, config.diloco.outer_momentum, config.diloco.momentum_ramp) == (
        0.4, 0.6, 0.2,
    )  # fmt: skip
    assert (config.data.data_path, config.data.seq_length, config.data.validation_split) == ("/books", 64, 0.1)
    assert (config.model.dropout, config.model.activation_checkpointing, config.model.compile) == (0.1, True, True)
    assert (config.train.mixed_precision, config.train.early_stopping, config.train.early_stopping_patience) == (
        False, False, 8,
    )  # fmt: skip
    assert (config.train.task, config.data.tokenizer, config.data.normalization, config.data.fields.text) == (
        "text-classification", "t", "persian", "body",
    )  # fmt: skip
    assert config.distillation.model_dump() == {"enabled": True, "teacher": "big", "temperature": 3.0, "alpha": 0.7}
    assert (config.monitoring.evaluation_rounds, config.monitoring.evaluation_batches) == (2, 3)


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"training": {"batchSize": 0}}, "training.batchSize", "greater than or equal to 1"),
        ({"training": {"learningRate": 99.0}}, "training.learningRate", "less than or equal to 10"),
        ({"distributed": {"nodes": 0}}, "distributed.nodes", "greater than or equal to 1"),
        ({"distributed": {"minPeers": 0}}, "distributed.minPeers", "greater than or equal to 1"),
        ({"distributed": {"nodes": 2, "minPeers": 3}}, "distributed.minPeers", "is 3"),
        ({"training": {"validationSplit": 1.0}}, "training.validationSplit", "less than 1"),
        ({"training": {"enableDistillation": True}}, "distillation.teacher", "is missing"),
        ({"distillation": {"alpha": 2.0}}, "distillation.alpha", "less than or equal to 1"),
        ({"model": {"type": "bert"}, "training": {"task": "causal-lm"}}, "training.task", "not for this model"),
        ({"data": {"fields": {"txt": "body"}}}, "data.fields.txt", "unknown key"),
        ({"diloco": {"outerMomentum": 1.0}}, "diloco.outerMomentum", "less than 1"),
        ({"data": {"seqLength": 1}}, "data.seqLength", "greater than or equal to 8"),
        ({"monitoring": {"evaluationBatches": 0}}, "monitoring.evaluationBatches", "greater than or equal to 1"),
        ({"training": {"saveCheckpointEvery": 0}}, "training.saveCheckpointEvery", "greater than or equal to 1"),
        ({"seed": -1}, "seed", "greater than or equal to 0"),
    ],
)
def test_a_value_out_of_range_names_the_requests_own_field(fields: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        request(**fields).to_config("s")
    assert (caught.value.field, caught.value.http_status) == (field, 422)
    assert message in caught.value.message
    assert caught.value.details["problems"][0]["field"] == field


@pytest.mark.parametrize(
    "fields",
    [
        {"name": ""}, {"name": "x" * 121}, {"nmae": "x"}, {"training": {"batchsize": 3}}, {"model": {"size": "huge"}},
        {"training": {"learningRate": float("nan")}}, {"training": {"batchSize": 1.5}}, {"training": []},
        {"name": "a\0b"}, {"description": "\0"}, {"data": {"dataPath": ""}}, {"data": {"dataPath": "a\nb"}},
        {"model": {"source": "x" * 1001}}, {"data": {"fields": {"text": ""}}}, {"training": {"batchSize": True}},
    ],
)  # fmt: skip
def test_what_does_not_fit_the_schema_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):
        request(**fields)


# ---------------------------------------------------------------------------------------------- round trip
def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with any of these fields."""
    return st.fixed_dictionaries({}, optional=fields)


def one_of(literal: Any) -> st.SearchStrategy[str]:
    return st.sampled_from(get_args(literal))


steps = st.integers(1, 10**12)
shares = st.floats(0.0, 1.0)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=100)
sources = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=60)
models = st.sampled_from(
    [
        (kind, size, task)
        for kind, sizes in SIZES.items()
        for size in sizes
        for task in get_args(TaskName)
        if not refusal(kind, task)
    ]
)
OF_COORDINATOR = {"visibility", "schedule.priority", "schedule.allowSameDataset"}
"""Fields that are no part of a run."""
FIELDS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "model": {
        "source": sources, "precision": one_of(Precision), "dropout": st.floats(0.0, 0.99),
        "activationCheckpointing": st.booleans(), "compile": st.booleans(),
    },
    "training": {
        "batchSize": st.integers(1, 65536), "learningRate": st.floats(1e-9, 10.0), "epochs": st.floats(1e-3, 1e5),
        "maxSteps": steps, "optimizer": one_of(Optimizer), "beta2": st.floats(0.0, 0.99),
        "lrScheduler": one_of(Scheduler), "warmupSteps": st.integers(0, 10**12), "weightDecay": shares,
        "gradientAccumulationSteps": st.integers(1, 65536), "maxGradNorm": st.floats(1e-9, 1e9),
        "mixedPrecision": st.booleans(), "enableEarlyStopping": st.booleans(), "earlyStoppingPatience": steps,
        "saveCheckpointEvery": steps, "validationSplit": st.floats(0.01, 0.99), "enableDistillation": st.booleans(),
    },
    "distillation": {"teacher": sources, "temperature": st.floats(0.1, 100.0), "alpha": shares},
    "distributed": {
        "nodes": st.integers(1, 10_000), "gpusPerNode": st.integers(0, 64), "strategy": one_of(Strategy),
        "minPeers": st.integers(1, 1000), "aggregation": one_of(Aggregation),
    },
    "diloco": {
        "innerSteps": st.integers(8, 100_000), "fragments": st.integers(1, 8), "warmupShare": st.floats(0.0, 0.99),
        "warmupInnerSteps": st.integers(1, 100_000), "outerOptimizer": one_of(OuterRule),
        "outerLearningRate": st.floats(1e-9, 10.0), "outerMomentum": st.floats(0.0, 0.99), "momentumRamp": shares,
        "codec": one_of(Codec), "overlapSteps": st.integers(0, 10_000),
    },
    "data": {
        "dataPath": sources, "dataset": sources, "tokenizer": sources, "normalization": one_of(Normalization),
        "fields": some(**{name: texts.filter(bool) for name in FieldsSection.model_fields}),
        "seqLength": st.integers(8, 1_048_576),
    },
    "monitoring": {"evaluationRounds": steps, "evaluationBatches": st.integers(1, 100_000)},
}  # fmt: skip
"""Every field of a request, by part, but for those that `models` and `requests` choose together."""


def agreeing(parts: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The same without what no config may say at once."""
    training, distributed, data = parts["training"], parts["distributed"], parts["data"]
    if "dataset" in data:
        data.pop("dataPath", None)
    if "teacher" not in parts["distillation"]:
        training.pop("enableDistillation", None)
    if distributed.get("strategy", "diloco") != "diloco":
        distributed["nodes"] = 1
    if distributed.get("strategy") == "fsdp" and parts["model"].get("precision") == "fp16":
        del parts["model"]["precision"]
    if "minPeers" in distributed:
        distributed["minPeers"] = min(distributed["minPeers"], distributed.get("nodes", 1))
    return parts


requests = st.builds(
    lambda model, own, parts: {
        **own,
        **parts,
        "model": {"type": model[0], "size": model[1], **parts["model"]},
        "training": {"task": model[2], **parts["training"]},
    },
    models,
    st.fixed_dictionaries(
        {"name": texts.filter(bool)}, optional={"description": texts, "seed": st.integers(0, 2**31 - 1)}
    ),
    st.fixed_dictionaries({part: some(**fields) for part, fields in FIELDS.items()}).map(agreeing),
)


def test_the_requests_that_are_tried_have_every_field() -> None:
    tried = {f"{part}.{name}" for part, fields in FIELDS.items() for name in fields if name != "fields"}
    tried |= {f"data.fields.{name}" for name in FieldsSection.model_fields}
    together = {"name", "description", "seed", "model.type", "model.size", "training.task"}
    assert tried | together | OF_COORDINATOR == set(bounds(SessionRequest))


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """What stands in a tree of objects, by its path."""
    if not isinstance(value, dict):
        return {path: value}
    return {p: leaf for name, part in value.items() for p, leaf in leaves(part, f"{path}.{name}".strip(".")).items()}


@settings(max_examples=150)
@given(requests)
def test_a_request_becomes_toml_and_the_same_config_again(fields: dict[str, Any]) -> None:
    config = request(**fields).to_config("s")
    assert parse_config(dump_config(config)) == config
    # each value that was asked for stands in the config, and nowhere else than where its key says
    found = {request_field(key): value for key, value in leaves(config.model_dump()).items()}
    assert {path: found[path] for path in leaves(fields)} == leaves(fields)


def test_requests_and_config_files_have_the_same_bounds() -> None:
    asked, kept = (bounds(model) for model in (SessionRequest, RunConfig))
    of_request = {request_field(key): allowed for key, allowed in kept.items()}
    del asked["name"]  # must be given by people
    asked = {path: allowed for path, allowed in asked.items() if path not in OF_COORDINATOR}
    assert len(asked) > 40
    assert {path: of_request[path] for path in asked} == asked


def bounds(model: type[BaseModel]) -> dict[str, Any]:
    """What the JSON schema of a model allows, by the path of the field."""
    schema = model.model_json_schema()
    definitions = schema["$defs"]

    def walk(node: dict[str, Any], path: str) -> dict[str, Any]:
        node = definitions[node["$ref"].rpartition("/")[2]] if "$ref" in node else node
        if "properties" in node:
            parts = node["properties"].items()
            return {p: b for name, part in parts for p, b in walk(part, f"{path}.{name}".strip(".")).items()}
        allowed = [option for option in node.get("anyOf", [node]) if option != {"type": "null"}]
        unsaid = ("title", "description", "default")
        return {path: [{key: fact for key, fact in option.items() if key not in unsaid} for option in allowed]}

    return walk(schema, "")
