"""The participants that are connected now: their newest snapshots, and the way down to them."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from dataclasses import dataclass, field

from coordinator.frames import FrameWriter, text_frame
from coordinator.hub import CLOSE_GOING_AWAY, CLOSE_NORMAL
from cotrain.protocol import Ack, ErrorMessage, Welcome, WishMessage
from cotrain.status import Status

Downward = Welcome | Ack | WishMessage | ErrorMessage

_logger = logging.getLogger(__name__)
_POLICY_VIOLATION = 1008


@dataclass(frozen=True)
class Close:
    """Close the socket with this code, once all that came before has been sent."""

    code: int
    reason: str


@dataclass(eq=False)
class Uplink:
    """One participant's open socket."""

    participant: str
    writer: FrameWriter | None = None
    """Where what is pushed goes; None for one that nothing reaches."""
    status: Status | None = None
    memory_bytes: int = 0
    """What the participant has reported of its machine; 0 if nothing."""
    close: Close | None = None
    """How the socket is to be closed. Nothing is sent after that."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set with `close`."""

    def push(self, message: Downward | Close) -> None:
        """Send without waiting, in order; a participant that does not read is let go."""
        if self.close is not None or self.writer is None or not self.writer.is_open:
            return
        if isinstance(message, Close):
            self._end(message)
        elif self.writer.has_room:
            self.writer.write(text_frame(message.model_dump_json(by_alias=True).encode()))
        else:
            _logger.warning("participant %s does not read its uplink", self.participant)
            self._end(Close(_POLICY_VIOLATION, "the uplink is not read"))

    def _end(self, close: Close) -> None:
        self.close = close
        self.ended.set()


class Uplinks:
    """All open uplinks, at most one for each participant."""

    def __init__(self) -> None:
        self._open: defaultdict[str, dict[str, Uplink]] = defaultdict(dict)

    def __len__(self) -> int:
        """Participants that are connected, over all sessions."""
        return sum(len(links) for links in self._open.values())

    def connect(self, session: str, uplink: Uplink) -> None:
        """Register the uplink; an older one of the same participant is closed."""
        older = self._open[session].get(uplink.participant)
        self._open[session][uplink.participant] = uplink
        if older is not None:
            older.push(Close(CLOSE_NORMAL, "a newer connection took over"))

    def disconnect(self, session: str, uplink: Uplink) -> bool:
        """Forget the uplink; False if a newer one of the participant has taken its place."""
        links = self._open.get(session, {})
        if links.get(uplink.participant) is not uplink:
            return False
        del links[uplink.participant]
        if not links:
            del self._open[session]
        return True

    def connected(self, session: str) -> dict[str, Uplink]:
        """The session's open uplinks by participant."""
        return dict(self._open.get(session, {}))

    def statuses(self, session: str) -> list[Status]:
        """The newest snapshots of the connected participants."""
        return [link.status for link in self.connected(session).values() if link.status is not None]

    def reported_memory(self, session: str) -> list[int]:
        """Memory of the connected participants, bytes; 0 for one that has reported none."""
        return [link.memory_bytes for link in self.connected(session).values()]

    def push(self, session: str, message: Downward | Close) -> None:
        """Send to every connected participant of the session."""
        for link in self.connected(session).values():
            link.push(message)

    def drop(self, session: str, participant: str, reason: str) -> None:
        """Close one participant's uplink, if it is open."""
        if link := self.connected(session).get(participant):
            link.push(Close(CLOSE_NORMAL, reason))

    def close(self) -> None:
        """Close everything: the coordinator is going away."""
        for session in list(self._open):
            self.push(session, Close(CLOSE_GOING_AWAY, "the coordinator is going away"))
