"""Which coordinator and which session a command is about, and what it brings to be let in."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from cotrain.errors import InvalidRequestError
from node.client import invitation_token, parse_coordinator_url, parse_session_url
from node.sessions.sign_ins import SignIns, read_sign_ins

COORDINATOR_VARIABLE = "COTRAIN_COORDINATOR"
_SESSION_ID = re.compile(r"(?!open$)[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True)
class Target:
    """Whom to ask about what.

    Attributes:
        base_url: the coordinator's URL, without a slash at its end.
        session: the session's id; empty for a command that is about none.
        token: of the account that is signed in there; empty without one.
        invitation: token of an invitation; empty without one.
    """

    base_url: str
    session: str = ""
    token: str = field(default="", repr=False)
    invitation: str = field(default="", repr=False)


def find_target(home: Path, coordinator: str = "", session: str | None = None, invitation: str = "") -> Target:
    """What a command line means.

    Args:
        coordinator: as it was given; empty: COTRAIN_COORDINATOR, else the one that was signed in to last.
        session: an id, or a session's address, which names its coordinator and may hold an invitation.

    Raises InvalidRequestError, ConfigError for what is no address, SecretFileError.
    """
    sign_ins = read_sign_ins(home)
    if session is not None and "://" in session:
        base_url, name = parse_session_url(session)
        if coordinator and parse_coordinator_url(coordinator) != base_url:
            raise InvalidRequestError(
                "names another coordinator than the session's address", field="--coordinator", hint="leave it out"
            )
    else:
        base_url, name = _coordinator(coordinator, sign_ins), _session_id(session)
    invited = invitation_token(invitation, session or "") or ""
    return Target(base_url, name, sign_ins.tokens.get(base_url, ""), invited)


def _coordinator(given: str, sign_ins: SignIns) -> str:
    url = given or os.environ.get(COORDINATOR_VARIABLE, "")
    if url:
        return parse_coordinator_url(url)
    if sign_ins.latest:
        return sign_ins.latest
    raise InvalidRequestError(
        "no coordinator is named", field="--coordinator",
        hint=f"give it, set {COORDINATOR_VARIABLE}, or sign in with: cotrain sessions login URL",
    )  # fmt: skip


def _session_id(given: str | None) -> str:
    if given is None:
        return ""
    if _SESSION_ID.fullmatch(given) is None:
        raise InvalidRequestError(
            f"{given!r} is not the id of a session", field="SESSION", hint="see: cotrain sessions list"
        )
    return given
