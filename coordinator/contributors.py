"""Who gave how much to the sessions that a reader may see, summed up in the database by wallet."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import Any

from pydantic import Field
from sqlalchemy import BigInteger, ColumnElement, Select, and_, cast, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from coordinator.models import ContributionRow, ParticipantRow, SessionRow
from cotrain.config import parse_config
from cotrain.errors import ConfigError
from cotrain.request import CamelModel

Position = tuple[int, str]
"""Where a page begins: samples and account of the last one seen."""

_PACKED_TASKS = frozenset({"causal-lm", "masked-lm"})
_MOST_SESSIONS = 50
_MOST_NAMES = 10


class SessionShare(CamelModel):
    """What a wallet gave to one session."""

    id: str
    name: str
    samples: int
    rounds: int
    tokens: int | None


class ContributorTotals(CamelModel):
    """What a wallet gave: samples by which its contributions counted, as the rounds' decisions bear out."""

    account: str
    """CAIP-10."""
    names: list[str] = Field(max_length=_MOST_NAMES)
    """Of its participants."""
    samples: int
    rounds: int
    tokens: int | None
    """Of those sessions whose samples have a fixed length; None where none has."""
    session_count: int
    sessions: list[SessionShare] = Field(max_length=_MOST_SESSIONS)
    """Those that it gave the most to, those first."""


async def most_first(
    rows: AsyncSession, after: Position | None, limit: int, which: ColumnElement[bool]
) -> tuple[list[ContributorTotals], Position | None]:
    """At most `limit` wallets behind `after`, those that gave the most samples first, and where the next page begins.

    Args:
        which: the sessions that count.
    """
    samples = _sum(ContributionRow.samples)
    query = _given(which, ParticipantRow.account, samples).group_by(ParticipantRow.account)
    if after is not None:
        less = samples < after[0]
        query = query.having(or_(less, and_(samples == after[0], ParticipantRow.account > after[1])))
    found = (await rows.execute(query.order_by(samples.desc(), ParticipantRow.account).limit(limit + 1))).all()
    accounts = [account for account, _ in found[:limit]]
    shares = await _shares(rows, accounts, which)
    names = await _names(rows, accounts, which)
    following = (found[limit - 1][1], found[limit - 1][0]) if len(found) > limit else None
    return [totals(account, names.get(account, []), shares.get(account, [])) for account in accounts], following


async def samples_by_account(rows: AsyncSession, session: str) -> dict[str, int]:
    """What each wallet gave to one session, those that gave nothing left out, in the order of their names."""
    samples = _sum(ContributionRow.samples)
    query = (
        _given(SessionRow.id == session, ParticipantRow.account, samples)
        .where(ParticipantRow.account != "").group_by(ParticipantRow.account).having(samples > 0)
        .order_by(ParticipantRow.account)
    )  # fmt: skip
    return {row[0]: row[1] for row in await rows.execute(query)}


def totals(account: str, names: Iterable[str], shares: Collection[SessionShare]) -> ContributorTotals:
    """A wallet with what it gave to each session. Pure."""
    counted = [share.tokens for share in shares if share.tokens is not None]
    ordered = sorted(shares, key=lambda share: (-share.samples, share.id))
    return ContributorTotals(
        account=account, names=sorted(set(names) - {""})[:_MOST_NAMES], samples=sum(share.samples for share in shares),
        rounds=sum(share.rounds for share in shares), tokens=sum(counted) if counted else None,
        session_count=len(shares), sessions=ordered[:_MOST_SESSIONS],
    )  # fmt: skip


@lru_cache(maxsize=4096)
def tokens_per_sample(toml: str) -> int | None:
    """Tokens in every sample of a session with this config; None where samples are texts of different lengths."""
    try:
        config = parse_config(toml)
    except ConfigError:  # of a version of cotrain that is no longer this one: the others are listed all the same
        return None
    return config.data.seq_length if config.task in _PACKED_TASKS else None


def _sum(column: Any) -> ColumnElement[int]:
    # PostgreSQL's sum of integers is no integer
    return cast(func.sum(column), BigInteger)


def _given(which: ColumnElement[bool], *columns: Any) -> Select[Any]:
    """Over the credit of all participants; who was removed is not among them."""
    return (
        select(*columns).select_from(ContributionRow)
        .join(ParticipantRow, ParticipantRow.id == ContributionRow.participant_id)
        .join(SessionRow, SessionRow.id == ContributionRow.session_id)
        .where(which, ParticipantRow.removed_at.is_(None))
    )  # fmt: skip


async def _shares(
    rows: AsyncSession, accounts: Collection[str], which: ColumnElement[bool]
) -> Mapping[str, list[SessionShare]]:
    query = (
        _given(
            which, ParticipantRow.account, SessionRow.id, _sum(ContributionRow.samples), _sum(ContributionRow.rounds)
        )
        .where(ParticipantRow.account.in_(accounts)).group_by(ParticipantRow.account, SessionRow.id)
    )  # fmt: skip
    given = (await rows.execute(query)).all()
    sessions = select(SessionRow.id, SessionRow.name, SessionRow.config).where(
        SessionRow.id.in_({session for _, session, _, _ in given})
    )
    known = {id_: (name, tokens_per_sample(config)) for id_, name, config in await rows.execute(sessions)}
    shares: dict[str, list[SessionShare]] = {}
    for account, session, samples, rounds in given:
        name, length = known[session]
        tokens = None if length is None else samples * length
        share = SessionShare(id=session, name=name, samples=samples, rounds=rounds, tokens=tokens)
        shares.setdefault(account, []).append(share)
    return shares


async def _names(rows: AsyncSession, accounts: Collection[str], which: ColumnElement[bool]) -> Mapping[str, list[str]]:
    query = _given(which, ParticipantRow.account, ParticipantRow.name).where(ParticipantRow.account.in_(accounts))
    names: dict[str, list[str]] = {}
    for account, name in await rows.execute(query.distinct()):
        names.setdefault(account, []).append(name)
    return names
