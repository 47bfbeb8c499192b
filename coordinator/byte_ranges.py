"""Which bytes of a file a request asks for (RFC 9110, 13.1.5 and 14). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from coordinator.problem import FILE_SIZE
from cotrain.errors import CotrainError

_ONE_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.ASCII | re.IGNORECASE)


class RangeNotSatisfiableError(CotrainError):
    """A range that begins behind the file's end."""

    code = "requested-range-not-satisfiable"
    http_status = 416
    exit_code = 2


@dataclass(frozen=True)
class ByteRange:
    """Bytes `first` to `last`, both included."""

    first: int
    last: int

    @property
    def size_bytes(self) -> int:
        """How many they are."""
        return self.last - self.first + 1


def requested_range(wanted: str | None, if_range: str | None, *, etag: str, size_bytes: int) -> ByteRange | None:
    """The part of a file that is asked for; None: all of it.

    What is no range, or several, is answered with the whole file, as the RFC allows.

    Args:
        wanted: the header `Range`.
        if_range: the header `If-Range`: with another ETag than the file's own, or with a date, all of it is wanted.
        etag: the file's, with its quotation marks.

    Raises RangeNotSatisfiableError if none of the bytes are there.
    """
    if wanted is None or (if_range is not None and if_range.strip() != etag):
        return None
    found = _ONE_RANGE.fullmatch(wanted.strip())
    if found is None or not (found[1] or found[2]):
        return None
    if found[1]:
        first, last = int(found[1]), int(found[2] or size_bytes - 1)
        if found[2] and last < first:  # not a range by the RFC's grammar
            return None
    else:
        first, last = max(0, size_bytes - int(found[2])), size_bytes - 1
    if first >= size_bytes:
        raise RangeNotSatisfiableError(
            f"the file has {size_bytes} bytes", field="Range", hint="ask for bytes that it has",
            details={FILE_SIZE: size_bytes},
        )  # fmt: skip
    return ByteRange(first, min(last, size_bytes - 1))
