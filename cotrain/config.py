"""RunConfig: the TOML that a run trains from; read, checked and written here.

A wrong file is refused before anything starts, with the file, the line where TOML knows it, the key path, the
allowed values and a near match for a misspelt key.
"""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import tomlkit
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cotrain.errors import ConfigError

SCHEMA_VERSION = 1
MAX_CONFIG_BYTES = 256 * 1024

ModelType = Literal["llama2", "llama3"]
ModelSize = Literal["nano", "tiny", "small"]
Precision = Literal["fp32", "bf16"]
Optimizer = Literal["adam", "sgd", "adamw"]
Scheduler = Literal["cosine", "linear", "constant"]
Codec = Literal["int4", "int8", "fp32"]

PositiveInt = Annotated[int, Field(ge=1, le=10**12)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """One table of the file: immutable, no unknown keys, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class SessionSection(Section):
    """Which session this is."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")] = "local"
    """Identifier, also the prefix of everything the swarm keeps in the DHT."""
    name: Annotated[str, Field(max_length=120)] = ""
    """What people call it."""
    description: Annotated[str, Field(max_length=2000)] = ""
    """What it is for."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of the initial weights, the validation split and the data order."""


class ModelSection(Section):
    """What is trained."""

    type: ModelType = "llama3"
    """Architecture."""
    size: ModelSize = "nano"
    """Preset dimensions: nano about 1 M parameters, tiny about 10 M, small about 100 M."""
    precision: Precision = "fp32"
    """Arithmetic of the inner steps; averages and the outer step are always fp32."""


class TrainSection(Section):
    """The inner steps."""

    batch_size: Annotated[int, Field(ge=1, le=65536)] = 32
    """Samples in one forward pass."""
    gradient_accumulation_steps: Annotated[int, Field(ge=1, le=65536)] = 4
    """Forward passes in one inner step."""
    learning_rate: Annotated[float, Field(gt=0.0, le=10.0)] = 1e-3
    """Peak learning rate of the inner optimizer."""
    epochs: Annotated[float, Field(gt=0.0, le=100_000.0)] = 10.0
    """Passes of the whole swarm over the training samples; max_steps, where given, stands in its place."""
    max_steps: PositiveInt | None = None
    """Inner steps of each of `distributed.nodes` peers."""
    optimizer: Optimizer = "adamw"
    """Inner optimizer."""
    lr_scheduler: Scheduler = "cosine"
    """Shape of the learning rate over the run's progress, after the warm-up."""
    warmup_steps: Annotated[int, Field(ge=0)] = 500
    """Inner steps of linear warm-up, at most a tenth of the run."""
    min_learning_rate_ratio: Fraction = 0.1
    """Where the schedule ends, as a share of the peak."""
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.01
    """Decoupled weight decay; norms and biases are spared."""
    max_grad_norm: Annotated[float, Field(gt=0.0)] = 1.0
    """Gradients are clipped to this norm."""

    @property
    def samples_per_step(self) -> int:
        """Samples in one inner step."""
        return self.batch_size * self.gradient_accumulation_steps


class DistributedSection(Section):
    """Who trains."""

    nodes: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Nominal number of nodes: `max_steps` counts for each of them."""
    gpus_per_node: Annotated[int, Field(ge=0, le=64)] = 0
    """Devices a node is expected to have; 0 means the processor."""
    strategy: Literal["diloco"] = "diloco"
    """How nodes train together."""


class DilocoSection(Section):
    """The outer steps (DiLoCo, arXiv:2311.08105)."""

    inner_steps: Annotated[int, Field(ge=1, le=100_000)] = 50
    """Inner steps in a round."""
    outer_learning_rate: Annotated[float, Field(gt=0.0, le=10.0)] = 0.7
    """Learning rate of the outer Nesterov SGD."""
    outer_momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.8
    """Momentum of the outer Nesterov SGD, once ramped up."""
    momentum_ramp: Fraction = 0.5
    """Share of the run's rounds over which the outer momentum rises linearly from 0."""
    codec: Codec = "int4"
    """How pseudo-gradients and their averages are encoded on the wire, block by block."""
    overlap_steps: Annotated[int, Field(ge=0, le=10_000)] | None = None
    """Inner steps that may run while a round is averaged; absent: a quarter of a round; 0: wait."""

    @property
    def overlap_limit(self) -> int:
        """Inner steps that may run while a round is averaged."""
        return self.inner_steps // 4 if self.overlap_steps is None else self.overlap_steps


class SwarmSection(Section):
    """How peers meet."""

    min_peers: Annotated[int, Field(ge=1, le=1000)] = 1
    """Below this many peers in a round the outer state does not advance."""
    gather_s: Annotated[float, Field(ge=0.0, le=3600.0)] = 30.0
    """Seconds that the first peers wait for `distributed.nodes` of them before round 0."""
    matchmaking_s: Annotated[float, Field(ge=1.0, le=300.0)] = 5.0
    """Seconds to look for a group before a round is tried again."""
    record_ttl_s: Annotated[float, Field(ge=3.0, le=600.0)] = 15.0
    """Seconds after its last record at which a peer counts as gone."""


class DataSection(Section):
    """What is learnt."""

    seq_length: Annotated[int, Field(ge=8, le=1_048_576)] = 256
    """Tokens in a sample."""
    data_path: str | None = None
    """A text file or a folder of them; absent: the source text of Python's standard library."""
    tokenizer: Literal["bytes"] = "bytes"
    """How text becomes tokens; bytes: one token for each byte."""
    validation_split: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    """Share of the documents that is kept for validation."""


class CheckpointSection(Section):
    """What is kept."""

    interval: PositiveInt = 100
    """Inner steps between checkpoints of the outer state, rounded up to a round's end."""
    output_path: str | None = None
    """Where the final model goes (`<output_path>/final`); absent: the data folder's `models/final/<session>`."""


class MonitoringSection(Section):
    """What is shown."""

    status_interval_s: Annotated[float, Field(ge=0.1, le=60.0)] = 1.0
    """Seconds between two snapshots of `status.json` at most; every change of phase is written at once."""
    evaluation_rounds: PositiveInt = 1
    """The checkpointer evaluates the outer parameters every this many rounds."""
    evaluation_batches: Annotated[int, Field(ge=1, le=100_000)] = 16
    """Batches of the validation split in one evaluation."""


class RunConfig(Section):
    """Everything a run needs to know; each key but `schema_version` has a default."""

    schema_version: Literal[1] = 1
    session: SessionSection = SessionSection()
    model: ModelSection = ModelSection()
    train: TrainSection = TrainSection()
    distributed: DistributedSection = DistributedSection()
    diloco: DilocoSection = DilocoSection()
    swarm: SwarmSection = SwarmSection()
    data: DataSection = DataSection()
    checkpoint: CheckpointSection = CheckpointSection()
    monitoring: MonitoringSection = MonitoringSection()

    @model_validator(mode="after")
    def _sections_agree(self) -> RunConfig:
        if self.swarm.min_peers > self.distributed.nodes:
            raise ValueError(
                f"swarm.min_peers is {self.swarm.min_peers}, more than distributed.nodes ({self.distributed.nodes}): "
                "no round could ever close"
            )
        return self

    def samples_wanted(self, train_samples: int) -> int:
        """Samples the whole swarm commits before the run is complete.

        `max_steps` x samples per inner step x nominal nodes, or `epochs` x `train_samples`.
        """
        if self.train.max_steps is not None:
            return self.train.max_steps * self.train.samples_per_step * self.distributed.nodes
        return max(1, round(self.train.epochs * train_samples))

    def samples_per_round(self) -> int:
        """Samples that a round is expected to commit when all nominal nodes take part."""
        return self.diloco.inner_steps * self.train.samples_per_step * self.distributed.nodes


# ---------------------------------------------------------------------------------------------- reading
def load_config(path: Path) -> RunConfig:
    """Read and check a file. Raises ConfigError that names file, line or key, and the way out."""
    try:
        size = path.stat().st_size
        if size > MAX_CONFIG_BYTES:
            raise ConfigError(
                f"the file has {size} bytes, at most {MAX_CONFIG_BYTES} are read", field=str(path),
                hint="a config is small: is this the right file?",
            )  # fmt: skip
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", field=str(path)) from error
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8 text", field=str(path)) from error
    return parse_config(text, source=str(path))


def parse_config(text: str, *, source: str = "config") -> RunConfig:
    """Check the text of a TOML file; `source` names it in errors. Raises ConfigError."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"is not valid TOML: {error}", field=source) from error
    except RecursionError:
        raise ConfigError("is nested too deeply", field=source, hint="a config has tables of plain values") from None
    if "schema_version" not in data:
        raise ConfigError(
            "schema_version is missing", field=f"{source}: schema_version",
            hint=f"begin the file with: schema_version = {SCHEMA_VERSION}",
        )  # fmt: skip
    version = data["schema_version"]
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise ConfigError(
            f"the file has schema_version {version}, this cotrain knows {SCHEMA_VERSION}",
            field=f"{source}: schema_version", hint="upgrade with: pip install --upgrade cotrain",
        )  # fmt: skip
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        raise _explain(error, source) from error


def _explain(error: ValidationError, source: str) -> ConfigError:
    """The first problem as the error itself, all of them in its details."""
    problems = [explain_problem(dict(item), RunConfig) for item in error.errors(include_url=False)]
    first = problems[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return ConfigError(
        first["message"] + more, field=f"{source}: {first['field']}" if first["field"] else source,
        hint=first["hint"], details={"problems": problems},
    )  # fmt: skip


def explain_problem(item: dict[str, Any], model: type[BaseModel]) -> dict[str, str]:
    """One entry of pydantic's `errors()` -> `{field, message, hint}`; unknown keys get a did-you-mean."""
    location = [str(part) for part in item["loc"]]
    message, hint = str(item["msg"]).removeprefix("Value error, "), ""
    if item["type"] == "extra_forbidden":
        known = known_keys(model, location[:-1])
        near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
        message = f"unknown key {location[-1]!r}"
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
    elif item["type"] == "literal_error":
        hint = f"allowed: {item['ctx']['expected']}"
        message = "not one of the allowed values"
    return {"field": ".".join(location), "message": message, "hint": hint}


def known_keys(model: type[BaseModel], location: list[str]) -> list[str]:
    """The keys (by alias, where there is one) that are allowed in the table at `location`."""
    for part in location:
        for name, field in model.model_fields.items():
            if part in (name, field.alias) and isinstance(field.annotation, type):
                model = field.annotation
                break
        else:
            return []
    return [field.alias or name for name, field in model.model_fields.items()]


# ---------------------------------------------------------------------------------------------- writing
def dump_config(config: RunConfig) -> str:
    """The canonical TOML of a config: every key in its section, a comment above each section; absent keys left out."""
    document = tomlkit.document()
    document.add("schema_version", tomlkit.item(config.schema_version))
    for name, field in type(config).model_fields.items():
        section = getattr(config, name)
        if not isinstance(section, Section):
            continue
        table = tomlkit.table()
        for key, value in section.model_dump(exclude_none=True).items():
            table.add(key, value)
        document.add(tomlkit.nl())
        document.add(tomlkit.comment((type(section).__doc__ or field.description or name).strip()))
        document.add(name, table)
    return tomlkit.dumps(document)
