"""What the API answers about models and their versions."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from coordinator.model_rows import ModelRow, ModelVersionRow
from coordinator.views import iso_time
from cotrain.config import parse_config
from cotrain.errors import ConfigError
from cotrain.request import CamelModel

_CONFIGS_REMEMBERED = 4096


class ContributorView(CamelModel):
    """A wallet that trained a version.

    `samples` and `rounds` follow from decisions that the checkpointer has checked. Where some rounds could not be
    credited, wallets are named, too, whose peers only say that they trained: with 0 of both.
    """

    account: str
    """CAIP-10."""
    names: list[str]
    """Of its participants."""
    peers: int
    samples: int = 0
    """By which its peers' contributions counted in the averages of all rounds that were credited."""
    rounds: int = 0
    """That were credited to its peers, added up."""
    tokens: int
    """That the last run of each of its peers trained on: what they said themselves, checked by nobody."""


class EvaluationView(CamelModel):
    """The last evaluation that the checkpointer made of a version, or of the rounds just before it."""

    round: int
    samples: int
    """That the outer state had taken in."""
    targets: int | None = None
    """Predicted; null where that is not known."""
    metrics: dict[str, float]
    """By name: `validationLoss` (nats per target), `accuracy`, and what else the task is measured by."""


class AskedEvaluationView(CamelModel):
    """What an evaluation that somebody asked for has found."""

    job: str
    dataset: str | None
    """In the catalog; null with `dataPath` null, too: the data that it was trained with."""
    data_path: str | None = None
    """In the coordinator's `datasets`."""
    split: str
    data_fingerprint: str
    """The same one: the same samples."""
    targets: int
    """Predicted."""
    metrics: dict[str, float]
    """By name, as those of the checkpointer's evaluations."""
    evaluated_at: str


class VersionView(CamelModel):
    """What one session made of a model."""

    model: str
    version: int
    session_id: str | None
    """null once the session was deleted."""
    data_fingerprint: str
    """The same one: the same samples, in training and validation. Empty where that is not known."""
    contributors: list[ContributorView]
    uncredited_rounds: int | None
    """Rounds of its session of which it is not known who gave what; null where not even their number is known."""
    evaluation: EvaluationView | None
    last_evaluation: AskedEvaluationView | None = None
    """The newest one that somebody asked for; `evaluation` is that of its training."""
    round: int | None
    """Whose outer parameters it has."""
    parameters: int
    """0 where that is not known."""
    size_bytes: int
    """Of its files."""
    available: bool
    """Whether its files are still there."""
    servable: bool = False
    """Whether it can be chatted with: it is available, and goes on with a text."""
    pinned: bool
    created_at: str


class VersionDetailView(VersionView):
    """A version with what it was trained from."""

    config: str
    """TOML."""


class ModelView(CamelModel):
    """A named model."""

    id: str
    name: str
    owner: str
    """CAIP-10 account whose sessions make its versions."""
    versions: int
    newest: VersionView | None
    promoted_version: int | None = None
    """The version that answers chats; null: the newest one that can."""
    created_at: str


class ModelDetailView(ModelView):
    """A named model with its versions."""

    items: list[VersionView]
    """A page of them, newest first."""
    answers_chats: bool = True
    """Whether its servable versions can be chatted with here: the operator may have switched chats off."""
    next_cursor: str | None = None


def version_view(row: ModelVersionRow) -> VersionView:
    """A version as people see it."""
    return VersionView(**_version_fields(row))


def version_detail_view(row: ModelVersionRow) -> VersionDetailView:
    """A version with its config."""
    return VersionDetailView(config=row.config, **_version_fields(row))


def model_view(row: ModelRow, versions: int, newest: ModelVersionRow | None) -> ModelView:
    """A model as people see it."""
    return ModelView(
        id=row.id, name=row.name, owner=row.owner, versions=versions, created_at=iso_time(row.created_at),
        newest=None if newest is None else version_view(newest), promoted_version=row.promoted_version,
    )  # fmt: skip


def is_servable(path: str, config: str) -> bool:
    """Whether a version can be chatted with: its files are at `path`, and it was trained to go on with a text."""
    return path != "" and _goes_on_with_texts(config)


@lru_cache(maxsize=_CONFIGS_REMEMBERED)  # a version's config never changes, and reading one takes a millisecond
def _goes_on_with_texts(config: str) -> bool:
    try:
        return parse_config(config).task == "causal-lm"
    except ConfigError:  # of a version of cotrain whose configs were other ones
        return False


def _version_fields(row: ModelVersionRow) -> dict[str, Any]:
    return {
        "model": row.model_id, "version": row.version, "session_id": row.session_id,
        "data_fingerprint": row.data_fingerprint,
        "contributors": [ContributorView.model_validate(one) for one in row.contributors],
        "uncredited_rounds": row.uncredited_rounds,
        "evaluation": None if row.evaluation is None else EvaluationView.model_validate(row.evaluation),
        "last_evaluation": None
        if row.last_evaluation is None
        else AskedEvaluationView.model_validate(row.last_evaluation),
        "round": row.round, "parameters": row.parameters, "size_bytes": row.size_bytes,
        "available": row.path != "", "servable": is_servable(row.path, row.config), "pinned": row.pinned,
        "created_at": iso_time(row.created_at),
    }  # fmt: skip
