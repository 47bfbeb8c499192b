"""The credit that participants have for rounds, in the database: each round of a session is counted once."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from coordinator.credits import Credit, account, credits_in
from coordinator.models import ContributionRow, CreditedRoundRow, ParticipantRow
from coordinator.store import Transaction
from cotrain.status import Record


async def count_rounds(transaction: Transaction, session: str, records: Sequence[Record]) -> None:
    """Credit participants for the rounds in these records that were not counted before.

    A peer that is no participant of the session gets nothing.
    """
    rows, told = transaction.rows, {found[0] for record in records if (found := credits_in(record)) is not None}
    if not told:
        return
    before = select(CreditedRoundRow.round).where(
        CreditedRoundRow.session_id == session, CreditedRoundRow.round.in_(told)
    )
    credits, fresh = account(records, set(await rows.scalars(before)))
    rows.add_all(CreditedRoundRow(session_id=session, round=round_) for round_ in fresh)
    registered = await rows.execute(
        select(ParticipantRow.peer_id, ParticipantRow.id).where(
            ParticipantRow.session_id == session, ParticipantRow.peer_id.in_(credits)
        )
    )
    participants = {participant: credits[peer] for peer, participant in registered}
    present = await _rows_of(rows, session, participants)
    for participant, credit in participants.items():
        row = present.get(participant)
        if row is None:
            row = ContributionRow(session_id=session, participant_id=participant, samples=0, rounds=0)
            rows.add(row)
        row.samples, row.rounds = row.samples + credit.samples, row.rounds + credit.rounds
    await rows.flush()


async def credits_of(rows: AsyncSession, session: str, participants: Collection[str]) -> dict[str, Credit]:
    """Credit by participant; who has none is not among them."""
    found = await _rows_of(rows, session, participants)
    return {participant: Credit(row.samples, row.rounds) for participant, row in found.items()}


async def rounds_credited(rows: AsyncSession, session: str) -> int:
    """How many rounds of a session were counted."""
    query = select(func.count()).select_from(CreditedRoundRow).where(CreditedRoundRow.session_id == session)
    return await rows.scalar(query) or 0


async def _rows_of(rows: AsyncSession, session: str, participants: Collection[str]) -> dict[str, ContributionRow]:
    found = await rows.scalars(
        select(ContributionRow).where(
            ContributionRow.session_id == session, ContributionRow.participant_id.in_(participants)
        )
    )
    return {row.participant_id: row for row in found}
