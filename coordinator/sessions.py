"""What people and the checkpointer do to sessions: decided in `lifecycle`, carried out here."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import shutil
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql import ColumnElement

from coordinator.auth.limits import Limits
from coordinator.certificates import Certificates
from coordinator.chain.notes import Notes
from coordinator.checkpointer_messages import Failed, Finish, Follow, Following, Order, Release, Saved
from coordinator.hub import CLOSE_NORMAL, Hub
from coordinator.idempotency import Keep, keep_nothing
from coordinator.lifecycle import (
    DELETABLE_STATES,
    FOLLOWED_STATES,
    Action,
    UserAction,
    possible_actions,
    saved_action,
    transition,
    wish_of,
)
from coordinator.models import SessionRow
from coordinator.needs import dataset_key, needs_of
from coordinator.progress import current_projection
from coordinator.queue import Queue, queue_reasons, under_way
from coordinator.registry import Registry, SavedModel
from coordinator.saves import fail_saves_of_ended, open_saves
from coordinator.scheduler import Offer, Reason, awaited_peers, best_first
from coordinator.settings import Settings
from coordinator.store import Store, Transaction
from coordinator.uplinks import Close, Uplinks
from coordinator.views import OfferView, ProgressView, SessionView, offer_view, progress_view, session_view
from cotrain.config import dump_config
from cotrain.errors import ConflictError, NotFoundError
from cotrain.protocol import WishMessage
from cotrain.request import SessionRequest
from cotrain.status import FINAL_STATES, now, replace_file

_logger = logging.getLogger(__name__)

_ID_LENGTH = 12
_SLUG_LENGTH = 6
_ID_ALPHABET = string.ascii_lowercase + string.digits
_ACTIVITY_POLL_S = 0.1
_ACTIVE_STATES = frozenset({"training", "stopping"})
_OFFERED_STATES = ("waiting", "training")

Send = Callable[[Order], None]
Position = tuple[float, str]
"""Where a page of sessions begins: creation time and id of the last one seen."""


class Sessions:
    """The sessions of this coordinator.

    Args:
        send: hands a command to the checkpointer, without waiting.
    """

    def __init__(
        self, store: Store, hub: Hub, uplinks: Uplinks, settings: Settings, limits: Limits,
        certificates: Certificates, registry: Registry, notes: Notes, send: Send,
    ):  # fmt: skip
        self._store = store
        self._hub = hub
        self._uplinks = uplinks
        self._settings = settings
        self._limits = limits
        self._certificates = certificates
        self._registry = registry
        self._notes = notes
        self._send = send
        self._queue = Queue(settings.queue_limits)
        self._finishing: dict[str, asyncio.Task[None]] = {}

    async def create(self, request: SessionRequest, owner: str, keep: Keep = keep_nothing) -> SessionView:
        """A new session of this account in state draft, with its config on disk.

        Args:
            keep: is given the answer, in the transaction.

        Raises InvalidRequestError, or RateLimitedError if the account has too many that have not ended.
        """
        session = new_session_id(request.name)
        wanted = request.to_config(session)
        config = dump_config(wanted)
        memory = needs_of(config).memory
        created = now()
        row = SessionRow(
            id=session, name=request.name, description=request.description, state="draft", config=config,
            error_msg="", model_path="", asset_folder="", assets=[], owner=owner, visibility=request.visibility,
            created_at=created, updated_at=created, priority=request.schedule.priority,
            dataset=dataset_key(wanted, self._settings.shared), shares_dataset=request.schedule.allow_same_dataset,
            memory_bytes=memory.total_bytes if memory else 0,
        )  # fmt: skip
        async with self._store.write() as transaction:
            self._limits.open_session(await _open_sessions(transaction.rows, owner))
            self._write_config(row)
            transaction.rows.add(row)
            await transaction.rows.flush()
            await transaction.emit(session, "session.state", state_event(row, previous=None))
            view = await self.view(transaction.rows, row)
            await keep(transaction, view)
        return view

    async def get(self, session: str) -> SessionView:
        """Raises NotFoundError."""
        async with self._store.read() as rows:
            return await self.view(rows, await find_session(rows, session))

    async def progress(self, session: str) -> ProgressView:
        """Raises NotFoundError."""
        row = await self.row(session)
        return progress_view(row, current_projection(row, self._uplinks))

    async def row(self, session: str) -> SessionRow:
        """The stored session. Raises NotFoundError."""
        async with self._store.read() as rows:
            return await find_session(rows, session)

    async def newest_first(
        self, before: Position | None, limit: int, seen: ColumnElement[bool]
    ) -> tuple[list[SessionView], Position | None]:
        """At most `limit` sessions older than `before`, and where the next page begins (None at the end).

        Args:
            seen: which sessions the caller may see.
        """
        query = (
            select(SessionRow).where(seen)
            .order_by(SessionRow.created_at.desc(), SessionRow.id.desc()).limit(limit + 1)
        )  # fmt: skip
        if before is not None:
            query = query.where(tuple_(SessionRow.created_at, SessionRow.id) < before)
        async with self._store.read() as rows:
            found = list(await rows.scalars(query))
            page = found[:limit]
            views = await self._views(rows, page)
        return views, (page[-1].created_at, page[-1].id) if len(found) > limit else None

    async def open_to(
        self, memory_bytes: int, gpu_memory_bytes: int, limit: int, seen: ColumnElement[bool]
    ) -> list[OfferView]:
        """At most `limit` sessions that a node with this much memory (0: not known) could join, the best first.

        `seen`: of those that the caller may see.
        """
        async with self._store.read() as rows:
            offered = select(SessionRow).where(SessionRow.state.in_(_OFFERED_STATES), seen)
            found = list(await rows.scalars(offered))
            views = dict(zip((row.id for row in found), await self._views(rows, found), strict=True))
        suitable = best_first(map(self._offer, found), memory_bytes, gpu_memory_bytes)[:limit]
        return [offer_view(views[offer.session], offer.missing_peers) for offer in suitable]

    def _offer(self, row: SessionRow) -> Offer:
        return Offer(
            session=row.id, needs=needs_of(row.config), reported=tuple(self._uplinks.reported_memory(row.id)),
            priority=row.priority, opened_at=row.created_at,
        )  # fmt: skip

    async def act(self, session: str, action: UserAction, keep: Keep = keep_nothing) -> SessionView:
        """Do what a person asks; `keep` is given the answer, in the transaction.

        Raises NotFoundError, or ConflictError with what is possible instead.
        """
        async with self._store.write() as transaction:
            row = await find_session(transaction.rows, session)
            followed = row.state in FOLLOWED_STATES and not await queue_reasons(transaction.rows, [session])
            await change_state(transaction, row, action)
            await self._notes.note_end(transaction, row)
            let_out = await self._queue.on_change(transaction.rows, row)
            view = await self.view(transaction.rows, row)
            await keep(transaction, view)
        if action == "stop":
            self._finish_soon(session)
        elif action == "cancel":
            self._forget_finishing(session)
            if followed:
                self._send(Release(session=session))
        self._push_wish(row)
        await self._begin(let_out)
        return view

    async def delete(self, session: str) -> None:
        """Remove the session, its config and its logs; the final model stays.

        Raises NotFoundError, or ConflictError while it is under way.
        """
        async with self._store.write() as transaction:
            row = await find_session(transaction.rows, session)
            if row.state not in DELETABLE_STATES:
                raise ConflictError(
                    f"a session that is {row.state} cannot be deleted", hint="cancel or stop it first",
                    details={"state": row.state, "possible": possible_actions(row.state)},
                )  # fmt: skip
            await transaction.rows.delete(row)
        self._hub.end_session(session)
        self._uplinks.push(session, Close(CLOSE_NORMAL, "the session was deleted"))
        self._settings.shared.generated_config(session).unlink(missing_ok=True)
        logs = self._settings.shared.training_logs / session
        if logs.is_dir():
            await asyncio.to_thread(shutil.rmtree, logs)

    # ------------------------------------------------------------------------------------ the checkpointer
    async def to_follow(self) -> list[Follow]:
        """What a checkpointer that has just started must do."""
        async with self._store.write() as transaction:
            await self._queue.advance(transaction.rows)  # the limits may be other ones than before the restart
            followed = list(await transaction.rows.scalars(select(SessionRow).where(under_way())))
        return [await self._follow(row) for row in followed]

    async def on_report(self, report: Following | Saved | Failed) -> None:
        """Apply what the checkpointer says of a session; what comes too late is only logged."""
        saved = await self._registry.look_at(report.session, report.path) if isinstance(report, Saved) else None
        try:
            async with self._store.write() as transaction:
                row = await find_session(transaction.rows, report.session)
                await self._apply(transaction, row, report, saved)
                await self._notes.note_end(transaction, row, None if saved is None else saved.status)
                let_out = await self._queue.on_change(transaction.rows, row)
                saves = await open_saves(transaction.rows, row.id) if isinstance(report, Following) else []
        except (ConflictError, NotFoundError) as error:
            _logger.info("the checkpointer's %s of %s comes too late: %s", report.event, report.session, error.message)
            return
        if isinstance(report, Following):
            for save in saves:  # asked for before the coordinator or the checkpointer was restarted
                self._send(save)
            if row.state == "stopping":  # the coordinator or the checkpointer was restarted meanwhile
                self._finish_soon(row.id)
            elif row.state not in FOLLOWED_STATES:  # cancelled while the command was on its way
                self._send(Release(session=row.id))
            return
        self._forget_finishing(row.id)
        self._push_wish(row)
        await self._begin(let_out)

    async def _apply(
        self, transaction: Transaction, row: SessionRow, report: Following | Saved | Failed, saved: SavedModel | None
    ) -> None:  # fmt: skip
        if isinstance(report, Following):
            row.assets = [asset.model_dump(by_alias=True) for asset in report.assets]
            row.asset_folder = report.asset_folder
            row.data_key = report.data_key
            if row.state == "pending":
                await change_state(transaction, row, "prepared")
                self._notes.note_opening(transaction, row)
        elif isinstance(report, Saved):
            row.model_path = report.path
            await change_state(transaction, row, saved_action(row.state))
            if saved is not None:
                await self._registry.add(transaction, row, saved, report.round)
        else:
            row.error_msg = f"{report.message} ({report.hint})" if report.hint else report.message
            await change_state(transaction, row, "fail")

    def close(self) -> None:
        """Stop waiting for participants; the next start takes it up again."""
        for session in list(self._finishing):
            self._forget_finishing(session)

    # ------------------------------------------------------------------------------------ helpers
    async def _begin(self, let_out: Sequence[SessionRow]) -> None:
        """Have the checkpointer follow what the queue has let out; a restart makes up for what is lost here."""
        for row in let_out:
            self._send(await self._follow(row))

    def _finish_soon(self, session: str) -> None:
        self._forget_finishing(session)
        task = asyncio.create_task(self._finish_when_quiet(session))
        self._finishing[session] = task

    def _forget_finishing(self, session: str) -> None:
        if task := self._finishing.pop(session, None):
            task.cancel()

    async def _finish_when_quiet(self, session: str) -> None:
        """Tell the checkpointer to save once nobody trains any more, or after the grace."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.stop_grace_s):
                while any(s.status in _ACTIVE_STATES for s in self._uplinks.statuses(session)):  # noqa: ASYNC110
                    await asyncio.sleep(_ACTIVITY_POLL_S)
        self._send(Finish(session=session))

    def _push_wish(self, row: SessionRow) -> None:
        self._uplinks.push(row.id, WishMessage(wish=wish_of(row.state), reason=f"the session is {row.state}"))

    async def _follow(self, row: SessionRow) -> Follow:
        await self._certificates.publish(row.id)
        path = self._settings.shared.generated_config(row.id)
        if not path.exists():
            self._write_config(row)
        return Follow(session=row.id, config_path=str(path))

    def _write_config(self, row: SessionRow) -> None:
        replace_file(self._settings.shared.generated_config(row.id), row.config.encode())

    async def view(self, rows: AsyncSession, row: SessionRow) -> SessionView:
        """The session as people see it."""
        return (await self._views(rows, [row]))[0]

    async def _views(self, rows: AsyncSession, found: Sequence[SessionRow]) -> list[SessionView]:
        queued = await queue_reasons(rows, [row.id for row in found if row.state == "pending"])
        url = self._settings.public_url
        return [
            session_view(row, current_projection(row, self._uplinks), url, waits_for(row, self._uplinks, queued))
            for row in found
        ]


async def find_session(rows: AsyncSession, session: str) -> SessionRow:
    """Raises NotFoundError."""
    row = await rows.get(SessionRow, session)
    if row is None:
        raise no_such_session()
    return row


def waits_for(row: SessionRow, uplinks: Uplinks, queued: Mapping[str, Reason]) -> Reason | None:
    """Why the session does not train yet; `queued` as `queue_reasons` gives it. None for one that waits for nothing."""
    if row.state == "pending":
        return queued.get(row.id) or Reason("preparing", "the coordinator prepares its data and its model")
    if row.state == "waiting":
        return awaited_peers(needs_of(row.config), uplinks.reported_memory(row.id))
    return None


def no_such_session() -> NotFoundError:
    """The one answer where there is none, and where it is none of the caller's business."""
    return NotFoundError(
        "there is no such session", field="id",
        hint="GET /api/v1/sessions lists them; a private one takes an invitation",
    )  # fmt: skip


async def _open_sessions(rows: AsyncSession, owner: str) -> int:
    """How many sessions of this account have not ended."""
    query = select(func.count()).where(SessionRow.owner == owner, SessionRow.state.not_in(FINAL_STATES))
    return await rows.scalar(query) or 0


async def change_state(transaction: Transaction, row: SessionRow, action: Action) -> None:
    """Do the transition and say so in the event log. Raises ConflictError."""
    previous = row.state
    row.state = transition(previous, action)
    row.updated_at = now()
    await fail_saves_of_ended(transaction.rows, row)
    await transaction.emit(row.id, "session.state", state_event(row, previous=previous))


def state_event(row: SessionRow, *, previous: str | None) -> dict[str, Any]:
    """The data of `session.state`."""
    return {
        "sessionId": row.id, "status": row.state, "previous": previous, "wish": wish_of(row.state),
        "errorMsg": row.error_msg, "modelPath": row.model_path,
        "possibleActions": possible_actions(row.state),
    }  # fmt: skip


def new_session_id(name: str) -> str:
    """Twelve characters of `[a-z0-9-]`: what the name has of them, then random ones."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_SLUG_LENGTH].strip("-")
    prefix = f"{slug}-" if slug else ""
    return prefix + "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH - len(prefix)))
