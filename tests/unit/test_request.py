"""SessionRequest: camelCase JSON in, RunConfig out; errors name the request's own fields."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cotrain.config import RunConfig, dump_config, parse_config
from cotrain.errors import InvalidRequestError
from cotrain.request import SessionRequest


def request(**fields: Any) -> SessionRequest:
    return SessionRequest.model_validate({"name": "Shahnameh", **fields})


def test_a_name_is_enough_and_the_rest_has_the_configs_defaults() -> None:
    config = request().to_config("s-1")
    assert config.session.id == "s-1"
    assert config.session.name == "Shahnameh"
    assert config.model_copy(update={"session": RunConfig().session}) == RunConfig()


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
    ],
)  # fmt: skip
def test_what_does_not_fit_the_schema_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        request(**fields)


requests = st.fixed_dictionaries(
    {"name": st.text(min_size=1, max_size=120)},
    optional={
        "description": st.text(max_size=100),
        "seed": st.integers(0, 2**31 - 1),
        "training": st.fixed_dictionaries(
            {},
            optional={
                "batchSize": st.integers(1, 65536),
                "saveCheckpointEvery": st.integers(1, 99),
                "learningRate": st.floats(1e-9, 10.0),
            },
        ),
        "distributed": st.fixed_dictionaries({"nodes": st.integers(3, 99)}, optional={"minPeers": st.integers(1, 3)}),
        "data": st.fixed_dictionaries({}, optional={"dataPath": st.text(max_size=40)}),
    },
)


@settings(max_examples=60, deadline=None)
@given(requests)
def test_a_request_becomes_toml_and_the_same_config_again(fields: dict[str, Any]) -> None:
    config = SessionRequest.model_validate(fields).to_config("s")
    assert parse_config(dump_config(config)) == config
    assert config.session.name == fields["name"]
