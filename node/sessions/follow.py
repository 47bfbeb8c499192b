"""Follows a session's stream: everything until it ends, or its training log alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from cotrain.errors import CotrainError
from node.sessions.api import SessionsApi
from node.sessions.views import SessionView
from node.sessions.watched import Watched


class SessionFailedError(CotrainError):
    """A session that was watched has failed; the message is its own."""

    code = "session-failed"


async def watch(api: SessionsApi, session: str, view: SessionView, after: int | None = None) -> None:
    """Show what happens in a session until it ends.

    Args:
        after: the last event that is known: those after it are shown; None: those from now on.

    Raises SessionFailedError if it fails, and what the coordinator answers.
    """
    await api.get(f"sessions/{session}")  # a wrong address is said after a few tries; later the stream waits for ever
    watched = Watched()
    async with aclosing(api.events(session, after)) as events:
        async for event in events:
            line = watched.apply(event)
            view.show(event, line, watched)
            if watched.ended:
                break
    if watched.session["status"] == "failed":
        raise SessionFailedError(
            watched.session["errorMsg"] or "the session has failed", field=session,
            hint=f"see: cotrain sessions logs {session}",
        )  # fmt: skip


async def show_log(
    api: SessionsApi, session: str, show: Callable[[dict[str, Any]], None], *, last: int, follow: bool
) -> None:
    """Show the last records of the training log, the oldest first, and then those to come until the session ends."""
    if not follow:
        for record in await _last_records(api, session, last):
            show(record)
        return
    await api.get(f"sessions/{session}")
    watched = Watched()
    shown: set[tuple[str, str, int]] | None = None
    async with aclosing(api.events(session)) as events:
        async for event in events:
            watched.apply(event)
            if shown is None:  # the stream is open: what is stored now, and what it brings, is all there is
                shown = set()
                for record in await _last_records(api, session, last):
                    shown.add(_key(record))
                    show(record)
            elif event.kind == "training.log" and _key(event.message["data"]) not in shown:
                show(event.message["data"])
            if watched.ended:
                break


async def _last_records(api: SessionsApi, session: str, last: int) -> list[dict[str, Any]]:
    return list(reversed(await api.items(f"sessions/{session}/logs", most=last)))


def _key(record: dict[str, Any]) -> tuple[str, str, int]:
    return record["source"], record["run"], record["number"]
