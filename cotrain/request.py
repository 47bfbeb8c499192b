"""SessionRequest: what a person asks for (camelCase JSON) -> RunConfig."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from cotrain.config import (
    CheckpointSection,
    Codec,
    DataSection,
    DilocoSection,
    DistributedSection,
    ModelSection,
    ModelSize,
    ModelType,
    MonitoringSection,
    Optimizer,
    Precision,
    RunConfig,
    Scheduler,
    SessionSection,
    SwarmSection,
    TrainSection,
    explain_problem,
)
from cotrain.errors import InvalidRequestError


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
    precision: Precision = "fp32"


class TrainingRequest(CamelModel):
    """The inner steps; a field left out has the default of RunConfig."""

    batch_size: int | None = None
    learning_rate: float | None = None
    epochs: float | None = None
    max_steps: int | None = None
    optimizer: Optimizer | None = None
    lr_scheduler: Scheduler | None = None
    warmup_steps: int | None = None
    weight_decay: float | None = None
    gradient_accumulation_steps: int | None = None
    max_grad_norm: float | None = None


class DistributedRequest(CamelModel):
    """Who trains."""

    nodes: int = 1
    gpus_per_node: int = 0
    min_peers: int | None = None


class DilocoRequest(CamelModel):
    """The outer steps; a field left out has the default of RunConfig."""

    inner_steps: int | None = None
    outer_learning_rate: float | None = None
    outer_momentum: float | None = None
    momentum_ramp: float | None = None
    codec: Codec | None = None
    overlap_steps: int | None = None


class DataRequest(CamelModel):
    """What is learnt; without `dataPath`, the source text of Python's standard library."""

    data_path: str | None = None
    seq_length: int | None = None
    validation_split: float | None = None


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
    distributed: DistributedRequest = Field(default_factory=DistributedRequest)
    diloco: DilocoRequest = Field(default_factory=DilocoRequest)
    data: DataRequest = Field(default_factory=DataRequest)
    monitoring: MonitoringRequest = Field(default_factory=MonitoringRequest)
    checkpoint_interval: int | None = None

    def to_config(self, session_id: str) -> RunConfig:
        """The config of this request. Raises InvalidRequestError that names the request's own fields."""
        try:
            return self._build(session_id)
        except ValidationError as error:
            problems = [explain_problem(dict(item), SessionRequest) for item in error.errors(include_url=False)]
            section = error.title.removesuffix("Section").lower()
            for problem in problems:
                problem["field"] = _request_field(section, problem["field"])
            raise InvalidRequestError(
                problems[0]["message"], field=problems[0]["field"], hint=problems[0]["hint"],
                details={"problems": problems},
            ) from error  # fmt: skip

    def _build(self, session_id: str) -> RunConfig:
        training = self.training.model_dump(exclude_none=True)
        distributed = self.distributed.model_dump(exclude={"min_peers"})
        swarm = {} if self.distributed.min_peers is None else {"min_peers": self.distributed.min_peers}
        checkpoint = {} if self.checkpoint_interval is None else {"interval": self.checkpoint_interval}
        return RunConfig(
            session=SessionSection(id=session_id, name=self.name, description=self.description, seed=self.seed),
            model=ModelSection(**self.model.model_dump()),
            train=TrainSection(**training),
            distributed=DistributedSection(**distributed),
            diloco=DilocoSection(**self.diloco.model_dump(exclude_none=True)),
            swarm=SwarmSection(**swarm),
            data=DataSection(**self.data.model_dump(exclude_none=True)),
            checkpoint=CheckpointSection(**checkpoint),
            monitoring=MonitoringSection(**self.monitoring.model_dump(exclude_none=True)),
        )


_SECTION_TO_REQUEST = {
    "session": "",
    "train": "training",
    "swarm": "distributed",
    "checkpoint": "",
    "runconfig": "",
}


def _request_field(section: str, field: str) -> str:
    """`train`, `batch_size` -> `training.batchSize`: the place in the request that a config's error is about."""
    if section == "checkpoint" and field == "interval":
        return "checkpointInterval"
    parent = _SECTION_TO_REQUEST.get(section, section)
    return ".".join(part for part in (parent, to_camel(field)) if part)
