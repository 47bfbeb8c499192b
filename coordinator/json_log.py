"""The coordinator's log: one line a record, as text or as JSON, each with the request that it belongs to."""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

from aiohttp.http_exceptions import HttpProcessingError

from cotrain.logs import level_from_env

LogFormat = Literal["text", "json"]

LOGGED_REQUEST: ContextVar[str] = ContextVar("logged_request", default="")
"""Id of the request that is being answered; empty outside of one."""
FIELDS = "cotrain_fields"
"""Attribute of a record: a dict of what JSON shows beside the message."""

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def configure_log(log_format: LogFormat) -> None:
    """Log to stderr, at the level of `COTRAIN_LOG_LEVEL`. Raises ConfigError for one that does not exist."""
    logging.basicConfig(level=level_from_env(), handlers=[log_handler(log_format)])


def log_handler(log_format: LogFormat) -> logging.Handler:
    """A handler that writes to stderr in this form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter(_TEXT))
    handler.addFilter(without_input)
    return handler


class JsonFormatter(logging.Formatter):
    """A record as one JSON object in one line of ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        """`time`, `level`, `logger`, `message`; where there is one, `requestId`, `exception`, and own fields."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname, "logger": record.name, "message": record.getMessage(),
        }  # fmt: skip
        if request := LOGGED_REQUEST.get():
            entry["requestId"] = request
        entry |= getattr(record, FIELDS, {})
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class TextFormatter(logging.Formatter):
    """A record as a line for people; a trace stands below it."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line. What somebody sent cannot begin another one."""
        line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in super().formatMessage(record))
        request = LOGGED_REQUEST.get()
        return f"{line} [request {request}]" if request else line


def without_input(record: logging.LogRecord) -> bool:
    """A filter that lets every record through, without the bytes of a request that is not HTTP.

    aiohttp quotes them in the trace of its error, and they may hold a token.
    """
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError):
        record.msg, record.args = "a request that cannot be read is refused: %s", (type(error).__name__,)
        record.levelno, record.levelname = logging.INFO, "INFO"
        record.exc_info = record.exc_text = None
    return True
