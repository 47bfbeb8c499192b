"""Who may do what: one table, and the questions that are put to it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from cotrain.errors import ForbiddenError, NotAuthorizedError

Role = Literal["visitor", "account", "participant", "owner", "operator"]
Act = Literal[
    "read", "open", "steer", "delete", "register", "leave", "remove", "add", "withdraw", "pin", "invite",
    "promote", "evaluate", "recall", "learn",
]  # fmt: skip

ROLES: tuple[Role, ...] = get_args(Role)
ACTS: tuple[Act, ...] = get_args(Act)

PERMISSIONS: Mapping[Act, frozenset[Role]] = {
    "read": frozenset({"visitor"}),
    "open": frozenset({"account"}),
    "steer": frozenset({"owner", "operator"}),
    "delete": frozenset({"owner", "operator"}),
    "register": frozenset({"account"}),
    "leave": frozenset({"participant"}),
    "remove": frozenset({"owner", "operator"}),
    "add": frozenset({"account"}),
    "withdraw": frozenset({"owner", "operator"}),
    "pin": frozenset({"owner", "operator"}),
    "promote": frozenset({"owner", "operator"}),
    "invite": frozenset({"owner", "operator"}),
    "evaluate": frozenset({"account"}),
    "recall": frozenset({"account"}),
    "learn": frozenset({"operator"}),
}
"""Each act with the roles that may do it. Steering is start, pause, resume, stop, cancel and save; `register`, `leave`
and `remove` are of participants; `add` and `withdraw` of the catalog's entries; `pin` and `promote` are of a model,
whose owner is that of its sessions; `evaluate` is of models and jobs, `recall` of the account's own chats; `learn`
begins a cycle of auto-learning. A
participant's own token stands for the role of that one and for no other. Of a private session
`coordinator.invitations` says who sees it at all: to others there is none."""

_WORDS: Mapping[Act, str] = {
    "read": "read this", "open": "open a session", "steer": "steer this session", "delete": "delete this session",
    "register": "register a peer", "leave": "let this participant leave", "remove": "remove a participant",
    "add": "add to the catalog", "withdraw": "delete this entry of the catalog",
    "pin": "say which versions of this model are kept", "promote": "say which version of this model answers chats",
    "recall": "see and delete the chats that are kept of it",
    "invite": "say who is invited", "evaluate": "have models evaluated and read about jobs",
    "learn": "begin a cycle of auto-learning",
}  # fmt: skip
_WHO: Mapping[Role, str] = {
    "visitor": "everybody", "account": "whoever is signed in", "participant": "the participant's own wallet",
    "owner": "the session's owner", "operator": "an operator of this coordinator",
}  # fmt: skip


@dataclass(frozen=True)
class Caller:
    """Whoever sent a request."""

    account: str | None = None
    """CAIP-10; None for a visitor."""
    operator: bool = False
    expires_at: float = 0.0
    """When the sign-in ends, in Unix seconds."""


VISITOR = Caller()


def roles_of(caller: Caller, *, owner: str = "", participant: str = "") -> frozenset[Role]:
    """All roles of a caller towards a thing.

    Args:
        owner: account of the owner of the session or entry; empty for a session from before there were owners.
        participant: account of the participant that it is about; empty if it is about none.
    """
    roles: set[Role] = {"visitor"}
    if caller.account:
        roles.add("account")
        if caller.account == owner:
            roles.add("owner")
        if caller.account == participant:
            roles.add("participant")
        if caller.operator:
            roles.add("operator")
    return frozenset(roles)


def may(act: Act, caller: Caller, *, owner: str = "", participant: str = "") -> bool:
    """Whether the caller may do this."""
    return not PERMISSIONS[act].isdisjoint(roles_of(caller, owner=owner, participant=participant))


def require(act: Act, caller: Caller, *, owner: str = "", participant: str = "") -> None:
    """Raises NotAuthorizedError for a visitor who may not do this, ForbiddenError for an account; both say who may."""
    if may(act, caller, owner=owner, participant=participant):
        return
    allowed = [role for role in ROLES if role in PERMISSIONS[act]]
    words = {**_WHO, "owner": "whoever has added it"} if act == "withdraw" else _WHO
    who = " or ".join(words[role] for role in allowed)
    message, details = f"only {who} may {_WORDS[act]}", {"allowed": allowed}
    if caller.account is None:
        raise NotAuthorizedError(message, field="Authorization", hint="sign in with your wallet", details=details)
    raise ForbiddenError(message, hint="sign in with another wallet", details=details)


def require_priority(priority: int, caller: Caller, *, highest: int) -> None:
    """Raises ForbiddenError where others would have to wait for somebody who is no operator."""
    if priority > highest and not caller.operator:
        raise ForbiddenError(
            f"only {_WHO['operator']} may open a session with a priority above {highest}, not {priority}",
            field="schedule.priority", hint=f"ask for {highest} or less, or ask an operator",
        )  # fmt: skip
