"""Whether a node may join a session, as the two are. Pure."""

from __future__ import annotations

from coordinator.lifecycle import JOINABLE_STATES, possible_actions
from coordinator.models import SessionRow
from coordinator.needs import needs_of
from coordinator.problem import RETRY_AFTER, UpgradeRequiredError
from coordinator.scheduler import Reason, too_small
from cotrain.errors import ConflictError, UnreachableError
from cotrain.protocol import PROTOCOL_VERSION, Hardware

_RETRY_AFTER_S = 2


def check_protocol(version: int) -> None:
    """Raises UpgradeRequiredError that names the side to upgrade, and how."""
    if version == PROTOCOL_VERSION:
        return
    newer = version > PROTOCOL_VERSION
    raise UpgradeRequiredError(
        f"the node speaks protocol {version}, this coordinator {PROTOCOL_VERSION}",
        field="protocol",
        hint=f"upgrade the {'coordinator' if newer else 'node'}: pip install --upgrade cotrain",
        details={"protocol": PROTOCOL_VERSION},
    )


def check_joinable(row: SessionRow, checkpointer_up: bool, queued: Reason | None = None) -> None:
    """Raises ConflictError if the session can never be joined as it is, UnreachableError if it soon can.

    `queued`: why it waits in the queue, if it does.
    """
    if row.state in JOINABLE_STATES and checkpointer_up:
        return
    if row.state in JOINABLE_STATES or row.state == "pending":
        raise UnreachableError(
            f"the session waits in the queue: {queued.message}" if queued else "the session is being prepared",
            hint=f"try again in {_RETRY_AFTER_S} s",
            details={"state": row.state, RETRY_AFTER: _RETRY_AFTER_S},
        )  # fmt: skip
    raise ConflictError(
        f"a session that is {row.state} cannot be joined",
        hint="it must be started first" if row.state == "draft" else "look for another session",
        details={"state": row.state, "possible": possible_actions(row.state)},
    )


def check_memory(row: SessionRow, hardware: Hardware) -> None:
    """Raises ConflictError, which says how much is needed, for a node that is known to be too small."""
    found = needs_of(row.config).memory
    if why := too_small(found, hardware.memory_bytes, hardware.gpu_memory_bytes):
        raise ConflictError(
            f"this node is too small for the session: {why}", field="hardware",
            hint=f"GET /api/v1/sessions/open?memoryBytes={hardware.memory_bytes} lists the sessions that it can join",
            details={"state": row.state, "possible": [], "memoryBytes": row.memory_bytes},
        )  # fmt: skip
