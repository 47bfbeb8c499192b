"""What a version of a model says of how it came about, from what the coordinator knows of its session. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic.alias_generators import to_camel

from coordinator.credits import Credit
from coordinator.model_views import ContributorView, EvaluationView
from coordinator.models import ParticipantRow

_NAME_LENGTH = 120
_ACCOUNT_DIGITS = 8
_NO_METRICS = frozenset({"round", "samples", "targets"})


def contributors_of(
    participants: Iterable[ParticipantRow], credits: Mapping[str, Credit], *, all_credited: bool
) -> list[ContributorView]:
    """The wallets that have trained, in the order of their registration; who was removed is not among them.

    Args:
        credits: by participant.
        all_credited: every round was: then who has no credit has given nothing. Else who says that it trained is
            named, too.
    """
    found: dict[str, ContributorView] = {}
    for row in participants:
        status: Mapping[str, Any] = row.status or {}
        credit = credits.get(row.id)
        if row.removed_at is not None or (credit is None and (all_credited or not status.get("step"))):
            continue
        one = found.setdefault(row.account, ContributorView(account=row.account, names=[], peers=0, tokens=0))
        one.peers += 1
        one.samples += credit.samples if credit else 0
        one.rounds += credit.rounds if credit else 0
        one.tokens += int(status.get("tokens", 0))
        if row.name and row.name not in one.names:
            one.names.append(row.name)
    return list(found.values())


def evaluation_at(round_: int | None, records: Sequence[Mapping[str, Any]]) -> EvaluationView | None:
    """The evaluation of the state after `round_`, or the last one before it; None if there is none.

    Args:
        round_: None: not known, the last evaluation counts.
        records: data of the checkpointer's evaluation records, oldest first.
    """
    evaluations = [evaluation for data in records if (evaluation := _evaluation(data)) is not None]
    until = [one for one in evaluations if round_ is None or one.round <= round_]
    if not until:
        return None
    return max(reversed(until), key=lambda one: one.round)  # of two of one round the later one


def _evaluation(data: Mapping[str, Any]) -> EvaluationView | None:
    numbers = {key: v for key, v in data.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    metrics = {to_camel(key): float(value) for key, value in numbers.items() if key not in _NO_METRICS}
    if "round" not in numbers or "validationLoss" not in metrics:
        return None
    targets = numbers.get("targets")
    return EvaluationView(
        round=int(numbers["round"]), samples=int(numbers.get("samples", 0)), metrics=metrics,
        targets=None if targets is None else int(targets),
    )  # fmt: skip


def model_names(name: str, owner: str, unused: str) -> list[str]:
    """Names for the model of a session of this name: the first counts that nobody else's model has.

    Sessions of one owner with one name make versions of one model; nobody's session makes one of another's.

    Args:
        unused: makes the last of them one that nobody has.
    """
    suffixes = [suffix for suffix in (owner[-_ACCOUNT_DIGITS:], unused) if suffix]
    endings = ["", *(f" ({suffix})" for suffix in suffixes)]
    return [name[: _NAME_LENGTH - len(ending)] + ending for ending in endings]
