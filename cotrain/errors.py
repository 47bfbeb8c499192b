"""Every error that reaches a person: what happened, where, and what to do next.

Each class has a stable `code` (for scripts and for problem+json), the exit code of the command line and, where
the error can answer an HTTP request, its status.
"""

from __future__ import annotations

import errno
from typing import Any, ClassVar


class CotrainError(Exception):
    """Base of all errors of cotrain.

    Args:
        message: what happened, in one sentence, for the person who can act.
        field: where it happened (a JSON path, `file:line`, a peer), empty if nowhere in particular.
        hint: what to do next.
        details: facts for machines (allowed values, the present state), JSON-serializable.
    """

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 70

    def __init__(self, message: str, *, field: str = "", hint: str = "", details: dict[str, Any] | None = None):
        super().__init__(message)
        self.message = message
        self.field = field
        self.hint = hint
        self.details = details or {}

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{where}{self.message}{hint}"


class ConfigError(CotrainError):
    """A config file or a request that cannot be used as it is."""

    code = "invalid-config"
    http_status = 422
    exit_code = 2


class InvalidRequestError(CotrainError):
    """Input that does not fit its schema."""

    code = "invalid-request"
    http_status = 422
    exit_code = 2


class NotFoundError(CotrainError):
    code = "not-found"
    http_status = 404
    exit_code = 66


class ConflictError(CotrainError):
    """What was asked is not possible in the present state; `details` names the state and what is possible."""

    code = "conflict"
    http_status = 409
    exit_code = 75


class NotAuthorizedError(CotrainError):
    """No token, or one that the coordinator does not know."""

    code = "not-authorized"
    http_status = 401
    exit_code = 77


class ForbiddenError(CotrainError):
    """A known caller, who may not do this."""

    code = "forbidden"
    http_status = 403
    exit_code = 77


class RateLimitedError(CotrainError):
    """Too often; `details` says after how many seconds to come back (`retryAfterS`)."""

    code = "rate-limited"
    http_status = 429
    exit_code = 75


class UnreachableError(CotrainError):
    """A coordinator or a swarm that did not answer within the bounded tries."""

    code = "unreachable"
    http_status = 503
    exit_code = 69


class ProtocolError(CotrainError):
    """The other side speaks another version, or sent what the protocol does not allow."""

    code = "protocol"
    http_status = 400
    exit_code = 76


class IntegrityError(CotrainError):
    """Bytes that do not have the hash or size they were announced with."""

    code = "integrity"
    http_status = 502
    exit_code = 74


class SwarmError(CotrainError):
    """The swarm could not do what the run needs (no donor, no group in time)."""

    code = "swarm"
    http_status = 503
    exit_code = 69


class DivergedError(CotrainError):
    """The loss is no longer finite; training on would only spread it."""

    code = "diverged"
    http_status = 500
    exit_code = 65


class MemoryShortageError(CotrainError):
    """Not even one sample at a time fits into the device's memory."""

    code = "out-of-memory"
    http_status = 507
    exit_code = 71


class MissingDeviceError(CotrainError):
    """A device that the config demands is not in this machine."""

    code = "no-device"
    http_status = 500
    exit_code = 78


_MAKE_ROOM = "free some space on that disk, or let COTRAIN_HOME or COTRAIN_SHARED name a folder on another one"
_MAKE_WRITABLE = "allow writing there, or let COTRAIN_HOME or COTRAIN_SHARED name another folder"
_STORAGE_HINTS = {
    errno.ENOSPC: _MAKE_ROOM, errno.EDQUOT: _MAKE_ROOM,
    errno.EROFS: _MAKE_WRITABLE, errno.EACCES: _MAKE_WRITABLE, errno.EPERM: _MAKE_WRITABLE,
}  # fmt: skip


def storage_hint(error: OSError) -> str:
    """What mends a disk that takes nothing (full, read-only, another user's); empty for other troubles."""
    return _STORAGE_HINTS.get(error.errno or 0, "")
