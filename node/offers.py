"""Which of a coordinator's open sessions a node takes part in when its volunteer names none. Pure, no I/O.

The coordinator puts those that a machine is large enough for in order, the best first: those that lack nodes to begin
(the nearest to its start first), then by priority and age. Here its answer is checked, chosen from, and told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cotrain.display import format_bytes
from cotrain.errors import CotrainError, ProtocolError
from cotrain.protocol import Hardware
from node.sessions.text import printable

MOST_OFFERS = 50
"""That are asked for, and tried one after the other."""
_NAMED_OTHERS = 5
_SESSION_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class NothingOpenError(CotrainError):
    """The coordinator has no session that takes this machine now; another time it may."""

    code = "nothing-open"
    http_status = 503
    exit_code = 69


@dataclass(frozen=True)
class Offer:
    """A session that this machine could join.

    Attributes:
        missing_peers: nodes that it lacks to begin; 0 if there are enough.
        memory_bytes: what each node needs, 0: nobody knows.
    """

    session: str
    name: str
    missing_peers: int
    memory_bytes: int

    def __str__(self) -> str:
        lacks = f", lacks {nodes(self.missing_peers)}" if self.missing_peers else ""
        return f"{self.session} ({self.name}{lacks})"


def read_offers(items: Sequence[Mapping[str, Any]]) -> list[Offer]:
    """The coordinator's answer, in its order. Raises ProtocolError; a session's id becomes part of paths here."""
    found = []
    for item in items:
        session, name = item.get("id"), item.get("name")
        lacks, memory_bytes = item.get("missingPeers"), item.get("memoryBytes")
        if (
            not isinstance(session, str) or _SESSION_ID.fullmatch(session) is None or not isinstance(name, str)
            or not isinstance(lacks, int) or not isinstance(memory_bytes, int)
        ):  # fmt: skip
            raise ProtocolError(
                "the coordinator's list of open sessions cannot be read",
                hint="check the address; if it is right, upgrade with: pip install --upgrade cotrain",
            )
        found.append(Offer(session, printable(name), lacks, memory_bytes))
    return found


def nodes(count: int) -> str:
    """`1 node`, `3 nodes`."""
    return f"{count} node" if count == 1 else f"{count} nodes"


def machine_of(hardware: Hardware) -> str:
    """What the coordinator was told of this machine."""
    gpu = f"a GPU of {format_bytes(hardware.gpu_memory_bytes)}" if hardware.gpu_memory_bytes else "no GPU"
    return f"{format_bytes(hardware.memory_bytes)} of memory, {gpu}"


def reason_for(offer: Offer) -> str:
    """Why this one, of those that are left: as the coordinator orders them."""
    why = f"it lacks {nodes(offer.missing_peers)} to begin" if offer.missing_peers else (
        "none that is open lacks nodes to begin, and it is the first by priority and age"
    )  # fmt: skip
    needs = f"; a node needs about {format_bytes(offer.memory_bytes)} of memory" if offer.memory_bytes else ""
    return why + needs


def choice_lines(offer: Offer, others: Sequence[Offer]) -> list[str]:
    """What a volunteer is told of a choice: which session and why, and which others there are."""
    named = [str(other) for other in others[:_NAMED_OTHERS]]
    more = [f"{len(others) - _NAMED_OTHERS} more"] if len(others) > _NAMED_OTHERS else []
    told = f"also open: {'; '.join([*named, *more])}" if named else "no other session is open for this machine"
    return [f"chosen: session {offer.session} ({offer.name}): {reason_for(offer)}", told]


def nothing_open(base_url: str, hardware: Hardware, refusals: Mapping[str, str]) -> NothingOpenError:
    """`refusals`: sessions that were offered and then did not take this node, with their reasons."""
    if refusals:
        said = "; ".join(f"{session}: {printable(reason)}" for session, reason in refusals.items())
        what = f"every session that was offered has turned it away ({said})"
    else:
        what = f"the coordinator was asked for sessions for {machine_of(hardware)}"
    return NothingOpenError(
        f"nothing open for this machine: {what}", field=base_url,
        hint=f"try again later; see all of its sessions with: cotrain sessions list --coordinator {base_url}",
    )  # fmt: skip
