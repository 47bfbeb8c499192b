"""SessionRequest: what a person asks for (camelCase JSON) -> RunConfig."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from cotrain.config import RunConfig, explain_problem
from cotrain.described import DescribedModel
from cotrain.errors import InvalidRequestError
from cotrain.sections import (
    AccumulationSteps,
    Aggregation,
    Batches,
    BatchSize,
    Codec,
    Devices,
    Dropout,
    Epochs,
    FieldsSection,
    Fraction,
    FragmentCount,
    GradientNorm,
    InnerSteps,
    LearningRate,
    MinPeers,
    ModelSize,
    ModelType,
    Momentum,
    Nodes,
    Normalization,
    Optimizer,
    OuterRule,
    OverlapSteps,
    PositiveInt,
    Precision,
    Scheduler,
    Seed,
    SequenceLength,
    Share,
    Source,
    Strategy,
    TaskName,
    Temperature,
    Text,
    Title,
    ValidationSplit,
    WarmupSteps,
)

DEFAULT_PRIORITY = 5
HIGHEST_PRIORITY = 9
Priority = Annotated[int, Field(ge=0, le=HIGHEST_PRIORITY)]
Visibility = Literal["public", "private"]


class CamelModel(DescribedModel):
    """JSON in camelCase, Python in snake_case; unknown fields and NaN are refused."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", populate_by_name=True, allow_inf_nan=False)


class ModelRequest(CamelModel):
    """What to train."""

    type: ModelType = "llama3"
    size: ModelSize = "nano"
    source: Source | None = None
    precision: Precision | None = None
    dropout: Dropout | None = None
    activation_checkpointing: bool = False
    compile: bool = False


class TrainingRequest(CamelModel):
    """The settings of R1.5 and their kin; a field left out has the default of RunConfig."""

    task: TaskName | None = None
    batch_size: BatchSize | None = None
    learning_rate: LearningRate | None = None
    epochs: Epochs | None = None
    max_steps: PositiveInt | None = None
    optimizer: Optimizer | None = None
    beta2: Share | None = None
    lr_scheduler: Scheduler | None = None
    warmup_steps: WarmupSteps | None = None
    weight_decay: Fraction | None = None
    gradient_accumulation_steps: AccumulationSteps | None = None
    max_grad_norm: GradientNorm | None = None
    mixed_precision: bool | None = None
    enable_early_stopping: bool | None = None
    early_stopping_patience: PositiveInt | None = None
    save_checkpoint_every: PositiveInt | None = None
    validation_split: ValidationSplit | None = None
    enable_distillation: bool | None = None


class DistillationRequest(CamelModel):
    """The teacher, where `training.enableDistillation` asks for one."""

    teacher: Source | None = None
    temperature: Temperature | None = None
    alpha: Fraction | None = None


class DistributedRequest(
    CamelModel,
    json_schema_extra={
        "if": {"required": ["strategy"], "properties": {"strategy": {"enum": ["ddp", "fsdp"]}}},
        "then": {"properties": {"nodes": {"const": 1}}},
    },
):
    """Who trains."""

    nodes: Nodes = 1
    gpus_per_node: Devices = 0
    strategy: Strategy = "diloco"
    min_peers: MinPeers | None = None
    aggregation: Aggregation | None = None


class DilocoRequest(CamelModel):
    """The outer steps; a field left out has the default of RunConfig."""

    inner_steps: InnerSteps | None = None
    fragments: FragmentCount | None = None
    warmup_share: Share | None = None
    warmup_inner_steps: InnerSteps | None = None
    outer_optimizer: OuterRule | None = None
    outer_learning_rate: LearningRate | None = None
    outer_momentum: Momentum | None = None
    momentum_ramp: Fraction | None = None
    codec: Codec | None = None
    overlap_steps: OverlapSteps | None = None


class DataRequest(
    CamelModel,
    json_schema_extra={
        "not": {
            "required": ["dataPath", "dataset"],
            "properties": {"dataPath": {"type": "string"}, "dataset": {"type": "string"}},
        }
    },
):
    """What is learnt; without `dataPath`, the source text of Python's standard library."""

    data_path: Source | None = None
    dataset: Source | None = None
    tokenizer: Source | None = None
    normalization: Normalization | None = None
    fields: FieldsSection = Field(default_factory=FieldsSection)
    seq_length: SequenceLength | None = None


class MonitoringRequest(CamelModel):
    """What is shown; a field left out has the default of RunConfig."""

    evaluation_rounds: PositiveInt | None = None
    evaluation_batches: Batches | None = None


class ScheduleRequest(CamelModel):
    """How the session stands in the coordinator's queue. It is no part of what the nodes train from."""

    priority: Priority = DEFAULT_PRIORITY
    """Greater ones start first."""
    allow_same_dataset: bool = False
    """Whether it may train on the same data as other sessions that allow it."""


class SessionRequest(CamelModel):
    """A session as a person asks for it (seed 003 and R1.5, in camelCase)."""

    name: Annotated[Title, Field(min_length=1)]
    visibility: Visibility = "public"
    """A private session is seen and joined by invitation only. This stays as it is."""
    description: Text = ""
    seed: Seed = 0
    model: ModelRequest = Field(default_factory=ModelRequest)
    training: TrainingRequest = Field(default_factory=TrainingRequest)
    distillation: DistillationRequest = Field(default_factory=DistillationRequest)
    distributed: DistributedRequest = Field(default_factory=DistributedRequest)
    diloco: DilocoRequest = Field(default_factory=DilocoRequest)
    data: DataRequest = Field(default_factory=DataRequest)
    monitoring: MonitoringRequest = Field(default_factory=MonitoringRequest)
    schedule: ScheduleRequest = Field(default_factory=ScheduleRequest)

    def to_config(self, session_id: str) -> RunConfig:
        """The config of this request. Raises InvalidRequestError that names the request's own fields."""
        try:
            return RunConfig.model_validate(self._sections(session_id))
        except ValidationError as error:
            problems = [explain_problem(dict(item), RunConfig) for item in error.errors(include_url=False)]
            for problem in problems:
                problem["field"] = request_field(problem["field"])
            raise InvalidRequestError(
                problems[0]["message"], field=problems[0]["field"], hint=problems[0]["hint"],
                details={"problems": problems},
            ) from error  # fmt: skip

    def _sections(self, session_id: str) -> dict[str, dict[str, Any]]:
        sections: dict[str, dict[str, Any]] = {
            "session": {"id": session_id, "name": self.name, "description": self.description, "seed": self.seed},
            "model": _given(self.model), "train": _given(self.training), "distillation": _given(self.distillation),
            "distributed": _given(self.distributed), "diloco": _given(self.diloco), "swarm": {},
            "data": _given(self.data), "checkpoint": {}, "monitoring": _given(self.monitoring),
        }  # fmt: skip
        for (section, key), (part, field) in _MOVED.items():
            if field in sections[part]:
                sections[section][key] = sections[part].pop(field)
        return sections


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

_REQUEST_PARTS = {"session": "", "train": "training."}
"""What the request calls a section, where that is not its own name and a dot."""


def request_field(key: str) -> str:
    """`train.batch_size` -> `training.batchSize`: the place in the request that a config's key comes from."""
    section, _, name = key.partition(".")
    part, field = _MOVED.get((section, name), (section, name))
    return _REQUEST_PARTS.get(part, f"{part}.") + ".".join(map(to_camel, field.split(".")))
