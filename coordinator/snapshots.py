"""Applies what a group of uplinks has brought: in one transaction, by a few statements however large it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, tuple_, update

from coordinator.appender import Appender, table_of
from coordinator.models import ParticipantRow, RunRow, SessionRow
from coordinator.participants import state_event
from coordinator.training_log import add_record, fresh_records
from coordinator.views import participant_state
from cotrain.protocol import Goodbye, StatusMessage
from cotrain.status import Record, State, Status, now

RunKey = tuple[str, str, str]
"""Session, participant, run."""


@dataclass(frozen=True)
class Brought:
    """What has arrived from one uplink, in order."""

    session: str
    participant: str
    messages: Sequence[StatusMessage | Goodbye]

    def key(self, message: StatusMessage | Goodbye) -> RunKey:
        """Of the run that the message is of."""
        return self.session, self.participant, message.run


@dataclass(frozen=True)
class Applied:
    """What it has changed.

    Attributes:
        state: of the session, before.
        acknowledged: the highest applied `seq` of each run in it.
        newest: the newest snapshot, None if all were known.
        records: those that were not known.
    """

    state: State
    acknowledged: dict[str, int]
    newest: Status | None
    records: Sequence[Record]


@dataclass
class _Run:
    """How far a run has been applied."""

    applied_seq: int
    last_record: int
    stored: bool
    changed: bool = False


@dataclass
class _Member:
    """A participant, and the newest that is known of it now."""

    peer_id: str
    name: str
    state: str
    created_at: float
    synced_at: float | None
    status: Status | None = None
    seen_at: float = 0.0


@dataclass
class _Rows:
    """What the group is applied to; a session or a participant that is missing has been deleted."""

    sessions: dict[str, State]
    members: dict[str, _Member]
    runs: dict[RunKey, _Run] = field(default_factory=dict)


def apply_group(connection: Connection, appender: Appender, group: Sequence[Brought]) -> list[Applied | None]:
    """Apply each message once, by run and number; None for those whose session is gone."""
    rows = _load(connection, group)
    appender.expect_events(connection, rows.sessions)
    outcomes = [_apply(appender, rows, one) if one.session in rows.sessions else None for one in group]
    _write_runs(connection, rows.runs)
    _write_members(connection, rows.members)
    return outcomes


def _load(connection: Connection, group: Sequence[Brought]) -> _Rows:
    sessions = connection.execute(
        select(SessionRow.id, SessionRow.state).where(SessionRow.id.in_({one.session for one in group}))
    )
    members = connection.execute(
        select(
            ParticipantRow.id, ParticipantRow.peer_id, ParticipantRow.name, ParticipantRow.state,
            ParticipantRow.created_at, ParticipantRow.last_sync_at,
        ).where(ParticipantRow.id.in_({one.participant for one in group}))
    )  # fmt: skip
    wanted = {one.key(message) for one in group for message in one.messages}
    runs = connection.execute(
        select(RunRow.session_id, RunRow.source, RunRow.run, RunRow.applied_seq, RunRow.last_record)
        .where(tuple_(RunRow.session_id, RunRow.source, RunRow.run).in_(sorted(wanted)))
    )  # fmt: skip
    return _Rows(
        dict(sessions.all()),
        {row.id: _Member(row.peer_id, row.name, row.state, row.created_at, row.last_sync_at) for row in members},
        {(session, source, run): _Run(seq, record, stored=True) for session, source, run, seq, record in runs},
    )


def _apply(appender: Appender, rows: _Rows, one: Brought) -> Applied:
    newest: Status | None = None
    acknowledged: dict[str, int] = {}
    records: list[Record] = []
    for message in one.messages:
        run = rows.runs.setdefault(one.key(message), _Run(0, 0, stored=False))
        if message.seq > run.applied_seq:
            run.applied_seq, run.changed = message.seq, True
            if isinstance(message, StatusMessage):
                newest = message.status
                records += _add_records(appender, one, message, run)
        acknowledged[message.run] = run.applied_seq
    member = rows.members.get(one.participant)
    if newest is not None and member is not None:
        _note_newest(appender, one, member, newest, records)
    return Applied(rows.sessions[one.session], acknowledged, newest, records)


def _add_records(appender: Appender, one: Brought, message: StatusMessage, run: _Run) -> list[Record]:
    fresh = fresh_records(message.status.records, run.last_record)
    for record in fresh:
        add_record(appender, one.session, one.participant, message.run, record.model_dump())
        run.last_record = record.number
    return fresh


def _note_newest(
    appender: Appender, one: Brought, member: _Member, status: Status, fresh: Sequence[Record]
) -> None:  # fmt: skip
    member.status, member.seen_at = status, now()
    if rounds := [record.time for record in fresh if record.kind == "round"]:
        # within bounds: its clock may be wrong
        member.synced_at = min(max(rounds[-1], member.created_at), member.seen_at)
    state = participant_state(status, member.seen_at, connected=True, clock=member.seen_at)
    if state != member.state:
        member.state = state
        told = state_event(one.session, one.participant, member.peer_id, member.name, state)
        appender.emit(one.session, "participant.state", told)


def _write_runs(connection: Connection, runs: dict[RunKey, _Run]) -> None:
    table = table_of(RunRow)
    fresh: list[dict[str, Any]] = []
    changed: list[dict[str, Any]] = []
    for (session, source, name), run in runs.items():
        values = {"applied_seq": run.applied_seq, "last_record": run.last_record, "updated_at": now()}
        if not run.stored:
            fresh.append({"session_id": session, "source": source, "run": name, **values})
        elif run.changed:
            changed.append({"of_session": session, "of_source": source, "of_run": name, **values})
    if fresh:
        connection.execute(insert(table), fresh)
    if changed:
        its_own = (
            table.c.session_id == bindparam("of_session"), table.c.source == bindparam("of_source"),
            table.c.run == bindparam("of_run"),
        )  # fmt: skip
        connection.execute(update(table).where(*its_own), changed)


def _write_members(connection: Connection, members: dict[str, _Member]) -> None:
    table = table_of(ParticipantRow)
    changed = [
        {"of": id_, "state": member.state, "last_seen_at": member.seen_at, "last_sync_at": member.synced_at,
         "status": member.status.model_dump(by_alias=True, exclude={"records"})}
        for id_, member in members.items() if member.status is not None
    ]  # fmt: skip
    if changed:
        connection.execute(update(table).where(table.c.id == bindparam("of")), changed)
