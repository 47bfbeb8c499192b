"""What is held against participants: a proof puts a peer out, all else is counted and told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from coordinator.checkpointer_messages import Judged
from coordinator.drops import DropCounter, Suspect, dropped_in
from coordinator.models import LogRow, ParticipantRow, SessionRow
from coordinator.participants import Participants
from coordinator.store import Store, Transaction
from coordinator.training_log import COORDINATOR, SUSPICION, add_suspicion
from cotrain.status import Record

_MOST_SESSIONS = 256
_MOST_DROPPED = 256
"""Peers that one record is believed to name."""


class Suspicions:
    """Acts on evidence that the checkpointer has checked, and looks at what round records say of others."""

    def __init__(self, store: Store, participants: Participants):
        self._store = store
        self._participants = participants
        self._drops: dict[str, DropCounter] = {}

    # ------------------------------------------------------------------------------------ evidence
    async def on_judged(self, report: Judged) -> None:
        """Act on evidence that holds, once."""
        async with self._store.write() as transaction:
            if await transaction.rows.get(SessionRow, report.session) is None:
                return
            accused = await _by_peer(transaction.rows, report.session, report.accused)
            witness = await _by_peer(transaction.rows, report.session, report.witness)
            if accused is None or accused.removed_at is not None:
                return  # nobody of this session, or out already
            if report.verdict == "testimony":
                await _note_testimony(transaction, report, accused, witness)
                return
            deed = f"in round {report.round} it {report.what}"
            await self._participants.put_out(transaction, accused, f"this account was put out of the session: {deed}")
            found_by = report.witness if witness is None else name_of(witness)
            await add_suspicion(
                transaction, report.session,
                f"{name_of(accused)} is put out of the session: {deed}. {found_by} found it out, and the checkpointer "
                "has repeated the check",
                {**_facts(report, accused), "removed": True}, level="error",
            )  # fmt: skip
        await self._participants.cut_off(accused, "evidence was found against this participant")

    # ------------------------------------------------------------------------------------ round records
    async def note_rounds(
        self, transaction: Transaction, session: str, participant: str, records: Sequence[Record]
    ) -> None:
        """Look at whom a member has left out of its averages, in records that tell of it."""
        row = await transaction.rows.get(SessionRow, session)
        member = await transaction.rows.get(ParticipantRow, participant)
        if row is None or member is None:
            return
        reached = int((row.checkpointer_status or {}).get("round", 0))
        for record in records:
            dropped = dropped_in(record.data.get("dropped"))
            round_ = record.data["round"]
            assert isinstance(round_, int)
            known = await _known(transaction.rows, session, list(dropped)[:_MOST_DROPPED])
            said = {peer: reason[:100] for peer, reason in dropped.items() if peer in known}
            for suspect in self._counter(session).note(round_, member.account, said, reached=reached):
                await _tell_of_drops(transaction, session, suspect, known[suspect.peer])

    def _counter(self, session: str) -> DropCounter:
        """Kept in memory: after a restart the counting begins anew."""
        while len(self._drops) >= _MOST_SESSIONS and session not in self._drops:
            del self._drops[next(iter(self._drops))]
        return self._drops.setdefault(session, DropCounter())


def tells_of_drops(record: Record) -> bool:
    """Whether it says of a round that somebody was left out of an average. Pure."""
    return (
        record.kind == "round" and isinstance(record.data.get("round"), int)
        and bool(dropped_in(record.data.get("dropped")))
    )  # fmt: skip


async def _note_testimony(
    transaction: Transaction, report: Judged, accused: ParticipantRow, witness: ParticipantRow | None
) -> None:
    """A witness's word counts once for its wallet, and nobody's own word against himself."""
    if witness is None or witness.removed_at is not None or witness.account == accused.account:
        return
    wallets = {data["wallet"] for data in await _testimonies(transaction.rows, report.session, accused)}
    if witness.account in wallets:
        return
    count = len(wallets) + 1
    await add_suspicion(
        transaction, report.session,
        f"{name_of(witness)} says of {name_of(accused)}: in round {report.round} it {report.what}. That cannot be "
        f"proved; {count} {'wallet says' if count == 1 else 'wallets say'} such things of it",
        {**_facts(report, accused), "wallet": witness.account, "witnesses": count, "removed": False},
        level="info" if count == 1 else "warning",  # whoever leaves at the wrong moment earns one
    )  # fmt: skip


async def _testimonies(rows: AsyncSession, session: str, accused: ParticipantRow) -> list[dict[str, Any]]:
    """What has been told of this participant by witnesses."""
    own = (LogRow.session_id == session, LogRow.source == COORDINATOR, LogRow.kind == SUSPICION)
    told = await rows.scalars(select(LogRow.data).where(*own))
    return [data for data in told if data["accused"] == accused.peer_id and data["held"] == "testimony"]


async def _tell_of_drops(transaction: Transaction, session: str, suspect: Suspect, peer: ParticipantRow) -> None:
    rounds = ", ".join(map(str, suspect.rounds))
    await add_suspicion(
        transaction, session,
        f"{name_of(peer)} is suspicious: members of {len(suspect.seen_by)} wallets have left it out of their averages "
        f"in the rounds {rounds} ({', '.join(suspect.reasons)})",
        {"held": "dropped", "accused": peer.peer_id, "participant": peer.id, "round": suspect.rounds[-1],
         "rounds": [str(number) for number in suspect.rounds], "seenBy": list(suspect.seen_by),
         "reasons": list(suspect.reasons), "removed": False},
    )  # fmt: skip


def _facts(report: Judged, accused: ParticipantRow) -> dict[str, Any]:
    return {
        "held": report.verdict, "accused": report.accused, "participant": accused.id, "witness": report.witness,
        "round": report.round, "what": report.what,
    }  # fmt: skip


def name_of(participant: ParticipantRow) -> str:
    """What people know a participant by."""
    return participant.name or participant.id


async def _by_peer(rows: AsyncSession, session: str, peer: str) -> ParticipantRow | None:
    found = await _known(rows, session, [peer])
    return found.get(peer)


async def _known(rows: AsyncSession, session: str, peers: Sequence[str]) -> dict[str, ParticipantRow]:
    """Those of the peers that are participants."""
    found = await rows.scalars(
        select(ParticipantRow).where(ParticipantRow.session_id == session, ParticipantRow.peer_id.in_(peers))
    )
    return {row.peer_id: row for row in found}
