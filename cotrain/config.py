"""RunConfig: the TOML that a run trains from; read, checked and written here.

A wrong file is refused before anything starts, with the file, the line where TOML knows it, the key path, the
allowed values and a near match for a misspelt key.
"""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any, Literal

import tomlkit
from pydantic import BaseModel, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from cotrain.errors import ConfigError, InvalidRequestError
from cotrain.sections import (
    LARGEST_INTEGER,
    PRETRAINING_TASK,
    SIZES,
    CheckpointSection,
    DataSection,
    DilocoSection,
    DistillationSection,
    DistributedSection,
    ModelSection,
    MonitoringSection,
    Section,
    SessionSection,
    SwarmSection,
    TaskName,
    TrainSection,
    refusal,
)

SCHEMA_VERSION = 1
BYTES = "bytes"
"""The built-in tokenizer: one token for each byte."""
MAX_CONFIG_BYTES = 256 * 1024


class RunConfig(Section):
    """Everything a run needs to know; each key but `schema_version` has a default."""

    schema_version: Literal[1] = 1
    session: SessionSection = SessionSection()
    model: ModelSection = ModelSection()
    train: TrainSection = TrainSection()
    distillation: DistillationSection = DistillationSection()
    distributed: DistributedSection = DistributedSection()
    diloco: DilocoSection = DilocoSection()
    swarm: SwarmSection = SwarmSection()
    data: DataSection = DataSection()
    checkpoint: CheckpointSection = CheckpointSection()
    monitoring: MonitoringSection = MonitoringSection()

    @model_validator(mode="after")
    def _sections_agree(self) -> RunConfig:
        self._check_model()
        if self.swarm.min_peers > self.distributed.nodes:
            raise _disagreement(
                "swarm.min_peers",
                f"is {self.swarm.min_peers}, more than distributed.nodes ({self.distributed.nodes}): no round could "
                "ever close", "lower it, or expect more nodes",
            )  # fmt: skip
        if self.diloco.fragments > self.diloco.inner_steps:
            raise _disagreement(
                "diloco.fragments", f"is {self.diloco.fragments}, more than diloco.inner_steps "
                f"({self.diloco.inner_steps}): each fragment has a round of its own", "lower it",
            )  # fmt: skip
        if self.distillation.enabled and self.distillation.teacher is None:
            raise _disagreement(
                "distillation.teacher", "is missing", "name a model, or set distillation.enabled = false"
            )
        if self.data.data_path is not None and self.data.dataset is not None:
            raise _disagreement("data.dataset", "is given beside data.data_path", "leave one of them out")
        if self.distributed.strategy != "diloco" and self.distributed.nodes > 1:
            raise _disagreement(
                "distributed.strategy", f"{self.distributed.strategy} joins the devices of one machine only",
                f"{self.distributed.nodes} nodes train together with diloco",
            )  # fmt: skip
        if self.distributed.strategy == "fsdp" and self.model.precision == "fp16":
            raise _disagreement("model.precision", "fp16 cannot be had with fsdp", "take bf16, or strategy ddp")
        return self

    def _check_model(self) -> None:
        model = self.model
        if model.source is not None:
            if self.train.task is None:
                raise _disagreement("train.task", "is missing", "a model.source does not say what it is to learn")
        elif model.size not in SIZES[model.type]:
            sizes = ", ".join(SIZES[model.type])
            raise _disagreement("model.size", f"{model.type} has no preset {model.size}", f"it has {sizes}")
        elif reason := refusal(model.type, self.task):
            raise _disagreement("train.task", f"{self.task} is not for this model: {reason}", "see docs/models.md")

    @property
    def task(self) -> TaskName:
        """What is learnt."""
        return self.train.task or PRETRAINING_TASK[self.model.type]

    @property
    def tokenizer(self) -> str:
        """How text becomes tokens."""
        return self.data.tokenizer or self.model.source or BYTES

    def samples_wanted(self, train_samples: int) -> int:
        """Samples the whole swarm commits before the run is complete.

        `max_steps` x samples per inner step x nominal nodes, or `epochs` x `train_samples`.
        """
        if self.train.max_steps is not None:
            wanted = self.train.max_steps * self.train.samples_per_step * self.distributed.nodes
        else:
            wanted = max(1, round(self.train.epochs * train_samples))
        return min(wanted, LARGEST_INTEGER)  # such a run never ends, and a status can say so


def _disagreement(field: str, message: str, hint: str) -> PydanticCustomError:
    """Two sections that do not fit together, in the form that `explain_problem` knows."""
    return PydanticCustomError("disagreement", "{message}", {"field": field, "message": message, "hint": hint})


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
    elif item["type"] == "disagreement":
        location, hint = [item["ctx"]["field"]], item["ctx"]["hint"]
    return {"field": ".".join(location), "message": message, "hint": hint}


def invalid_input(error: ValidationError, model: type[BaseModel]) -> InvalidRequestError:
    """pydantic's findings as one error that lists them all."""
    found = error.errors(include_url=False, include_input=False)
    listed = [explain_problem(dict(item), model) for item in found]
    first = listed[0]
    return InvalidRequestError(first["message"], field=first["field"], hint=first["hint"], details={"problems": listed})


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
    for name in type(config).model_fields:
        section = getattr(config, name)
        if not isinstance(section, Section):
            continue
        table = tomlkit.table()
        for key, value in section.model_dump(exclude_none=True).items():
            table.add(key, value)
        document.add(tomlkit.nl())
        document.add(tomlkit.comment((type(section).__doc__ or name).strip()))
        document.add(name, table)
    return tomlkit.dumps(document)
