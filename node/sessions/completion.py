"""What a shell offers in place of a session's id: those of the coordinator, where it answers at once."""

from __future__ import annotations

from typing import Any

import typer

_LIMIT_S = 1.0
_MOST = 50


def session_ids(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Ids and names of the newest sessions; none where the coordinator does not answer at once."""
    # only now: a shell waits for this, and for other words it is not needed
    from cotrain.errors import CotrainError
    from node.sessions.options import ask, target_of

    try:
        target = target_of(ctx.params.get("coordinator") or "")
        page = ask(target, lambda api: api.get_once("sessions", limit_s=_LIMIT_S, limit=_MOST))
    except (CotrainError, OSError):  # a TimeoutError is one; nothing can be said in the middle of a command line
        return []
    return [_offer(view) for view in page["items"] if view["id"].startswith(incomplete)]


def _offer(view: dict[str, Any]) -> tuple[str, str]:
    return view["id"], f"{view['status']}, {view['name']}"
