"""SessionRequest: what a person asks for (camelCase JSON) -> RunConfig."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from cotrain.config import RunConfig, explain_problem
from cotrain.errors import InvalidRequestError
from cotrain.sections import (
    Aggregation,
    CheckpointSection,
    Codec,
    DataSection,
    DilocoSection,
    DistillationSection,
    DistributedSection,
    FieldsSection,
    ModelSection,
    ModelSize,
    ModelType,
    MonitoringSection,
    Optimizer,
    OuterRule,
    Precision,
    Scheduler,
    SessionSection,
    Strategy,
    SwarmSection,
    TaskName,
    TrainSection,
)


class CamelModel(BaseModel):
    """JSON in camelCase, Python in snake_case; unknown fields and NaN are refused."""

    model_config = ConfigDict(
        alias_generator=to_camel, extra="forbid", populate_by_name=True, allow_inf_nan=False,
        use_attribute_docstrings=True,
    )  # fmt: skip


class ModelRequest(CamelModel):
    """What to train."""

    type: ModelType = "llama3"
    size: ModelSize = "nano"
    source: str | None = None
    precision: Precision | None = None
    dropout: float | None = None
    activation_checkpointing: bool = False
    compile: bool = False


class TrainingRequest(CamelModel):
    """The settings of R1.5 and their kin; a field left out has the default of RunConfig."""

    task: TaskName | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    epochs: float | None = None
    max_steps: int | None = None
    optimizer: Optimizer | None = None
    beta2: float | None = None
    lr_scheduler: Scheduler | None = None
    warmup_steps: int | None = None
    weight_decay: float | None = None
    gradient_accumulation_steps: int | None = None
    max_grad_norm: float | None = None
    mixed_precision: bool | None = None
    enable_early_stopping: bool | None = None
    early_stopping_patience: int | None = None
    save_checkpoint_every: int | None = None
    validation_split: float | None = None
    enable_distillation: bool | None = None


class DistillationRequest(CamelModel):
    """The teacher, where `training.enableDistillation` asks for one."""

    teacher: str | None = None
    temperature: float | None = None
    alpha: float | None = None


class DistributedRequest(CamelModel):
    """Who trains."""

    nodes: int = 1
    gpus_per_node: int = 0
    strategy: Strategy = "diloco"
    min_peers: int | None = None
    aggregation: Aggregation | None = None


class DilocoRequest(CamelModel):
    """The outer steps; a field left out has the default of RunConfig."""

    inner_steps: int | None = None
    fragments: int | None = None
    warmup_share: float | None = None
    warmup_inner_steps: int | None = None
    outer_optimizer: OuterRule | None = None
    outer_learning_rate: float | None = None
    outer_momentum: float | None = None
    momentum_ramp: float | None = None
    codec: Codec | None = None
    overlap_steps: int | None = None


class DataRequest(CamelModel):
    """What is learnt; without `dataPath`, the source text of Python's standard library."""

    data_path: str | None = None
    dataset: str | None = None
    tokenizer: str | None = None
    normalization: Literal["none", "persian"] | None = None
    fields: dict[str, str] | None = None
    seq_length: int | None = None


class MonitoringRequest(CamelModel):
    """What is shown; a field left out has the default of RunConfig."""

    evaluation_rounds: int | None = None
    evaluation_batches: int | None = None


class SessionRequest(CamelModel):
    """A session as a person asks for it (seed 003 and R1.5, in camelCase)."""

    name: Annotated[str, Field(min_length=1, max_length=120)]
    description: Annotated[str, Field(max_length=2000)] = ""
    seed: int = 0
    model: ModelRequest = Field(default_factory=ModelRequest)
    training: TrainingRequest = Field(default_factory=TrainingRequest)
    distillation: DistillationRequest = Field(default_factory=DistillationRequest)
    distributed: DistributedRequest = Field(default_factory=DistributedRequest)
    diloco: DilocoRequest = Field(default_factory=DilocoRequest)
    data: DataRequest = Field(default_factory=DataRequest)
    monitoring: MonitoringRequest = Field(default_factory=MonitoringRequest)

    def to_config(self, session_id: str) -> RunConfig:
        """The config of this request. Raises InvalidRequestError that names the request's own fields."""
        try:
            return self._build(session_id)
        except ValidationError as error:
            problems = [explain_problem(dict(item), SessionRequest) for item in error.errors(include_url=False)]
            section = error.title.removesuffix("Section").lower()
            for problem in problems:
                place = [section, problem["field"]] if "." not in problem["field"] else problem["field"].split(".", 1)
                problem["field"] = _request_field(*place)
            raise InvalidRequestError(
                problems[0]["message"], field=problems[0]["field"], hint=problems[0]["hint"],
                details={"problems": problems},
            ) from error  # fmt: skip

    def _build(self, session_id: str) -> RunConfig:
        keys: dict[str, dict[str, Any]] = {
            "model": _given(self.model), "train": _given(self.training), "distillation": _given(self.distillation),
            "distributed": _given(self.distributed), "diloco": _given(self.diloco), "swarm": {},
            "data": _given(self.data), "checkpoint": {}, "monitoring": _given(self.monitoring),
        }  # fmt: skip
        for (section, key), (part, field) in _MOVED.items():
            if field in keys.get(part, {}):
                keys[section][key] = keys[part].pop(field)
        if "fields" in keys["data"]:
            keys["data"]["fields"] = FieldsSection(**keys["data"]["fields"])
        return RunConfig(
            session=SessionSection(id=session_id, name=self.name, description=self.description, seed=self.seed),
            model=ModelSection(**keys["model"]),
            train=TrainSection(**keys["train"]),
            distillation=DistillationSection(**keys["distillation"]),
            distributed=DistributedSection(**keys["distributed"]),
            diloco=DilocoSection(**keys["diloco"]),
            swarm=SwarmSection(**keys["swarm"]),
            data=DataSection(**keys["data"]),
            checkpoint=CheckpointSection(**keys["checkpoint"]),
            monitoring=MonitoringSection(**keys["monitoring"]),
        )


def _given(part: CamelModel) -> dict[str, Any]:
    return part.model_dump(exclude_none=True)


_MOVED: dict[tuple[str, str], tuple[str, str]] = {
    ("train", "early_stopping"): ("train", "enable_early_stopping"),
    ("checkpoint", "interval"): ("train", "save_checkpoint_every"),
    ("data", "validation_split"): ("train", "validation_split"),
    ("distillation", "enabled"): ("train", "enable_distillation"),
    ("swarm", "min_peers"): ("distributed", "min_peers"),
    ("swarm", "aggregation"): ("distributed", "aggregation"),
}
"""(section, key) of the config <- (section it would stand in, name) of the request, where these differ."""

_REQUEST_PART = {"session": "", "train": "training", "runconfig": ""}
"""What the request calls a section, where it has another name."""


def _request_field(section: str, field: str) -> str:
    """`train`, `batch_size` -> `training.batchSize`: the place in the request that a config's error is about."""
    section, field = _MOVED.get((section, field), (section, field))
    part = {"fields": "data.fields"}.get(section, _REQUEST_PART.get(section, section))
    return ".".join(part for part in (part, to_camel(field)) if part)
