"""What a shell offers in place of a session's id: those of the coordinator, where it answers at once."""

from __future__ import annotations

import re

import typer

_LIMIT_S = 1.0
_MOST = 50
_ID = re.compile(r"[a-z0-9-]{1,63}")


def session_ids(ctx: typer.Context, incomplete: str) -> list[str]:
    """Ids of the newest sessions that begin so; none where the coordinator does not answer at once."""
    # only now: a shell waits for this, and for other words it is not needed
    from cotrain.errors import CotrainError
    from node.sessions.options import ask, target_of

    try:
        target = target_of(ctx.params.get("coordinator") or "")
        page = ask(target, lambda api: api.get_once("sessions", limit_s=_LIMIT_S, limit=_MOST))
    except (CotrainError, OSError):  # a TimeoutError is one; nothing can be said in the middle of a command line
        return []
    # shells evaluate what they are offered: names, which strangers choose, are left out
    ids = [str(view["id"]) for view in page["items"]]
    return [one for one in ids if one.startswith(incomplete) and _ID.fullmatch(one)]
