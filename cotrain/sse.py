"""Server-sent events, read line by line. Pure."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from cotrain.errors import ProtocolError

END = "end"
"""The coordinator's word that it closes the stream; there is more for whoever comes back."""


class ServerEvent(NamedTuple):
    """One event of a session's stream.

    Attributes:
        number: what to resume after; None for one that does not count.
        kind: `snapshot`, `session.state`, `training.progress`, `training.log`, `participant.state`, or END.
        message: the JSON object as it was sent: seq, time, type, data.
    """

    number: int | None
    kind: str
    message: dict[str, Any]


class EventReader:
    """Makes events of the lines of one stream."""

    def __init__(self) -> None:
        self._fields: dict[str, str] = {}

    def feed(self, line: str) -> ServerEvent | None:
        """Take the next line, without its end; the event that it completes. Raises ProtocolError."""
        if line:
            name, _, value = line.partition(":")
            if name:  # else it is a comment: the stream is alive
                self._fields[name] = value.removeprefix(" ")
            return None
        fields, self._fields = self._fields, {}
        return _event(fields) if "data" in fields else None


def _event(fields: dict[str, str]) -> ServerEvent:
    number = fields.get("id")
    try:
        message = json.loads(fields["data"])
        if not isinstance(message, dict):
            raise TypeError("not a JSON object")
        return ServerEvent(None if number is None else int(number), fields.get("event", ""), message)
    except (ValueError, TypeError) as error:
        raise ProtocolError(
            f"the stream of events is not what a coordinator sends ({type(error).__name__})",
            hint="check the address; if it is right, upgrade with: pip install --upgrade cotrain",
        ) from error
