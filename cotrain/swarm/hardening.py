"""What must be in place before any DHT or averager of this process starts."""

from __future__ import annotations

import threading
from typing import Any

from hivemind.utils.serializer import MSGPackSerializer

MAX_NESTING = 16


def limit_message_nesting() -> None:
    """Refuse MessagePack that is nested deeper than 16 levels; calling it again changes nothing.

    hivemind 1.1.12 decodes tuples by recursion without a bound: two kilobytes from a stranger, nested 300 deep, crash
    the DHT process with a segmentation fault. Children inherit the limit by fork, so it is set first.
    """
    if getattr(MSGPackSerializer, "_cotrain_nesting_is_limited", False):
        return
    decode = MSGPackSerializer._decode_ext_types.__func__
    depth = threading.local()

    def bounded(cls: type[MSGPackSerializer], type_code: int, data: bytes) -> Any:
        level = getattr(depth, "level", 0)
        if level >= MAX_NESTING:
            raise ValueError(f"a message is nested deeper than {MAX_NESTING} levels")
        depth.level = level + 1
        try:
            return decode(cls, type_code, data)
        finally:
            depth.level = level

    MSGPackSerializer._decode_ext_types = classmethod(bounded)  # type: ignore[assignment]
    MSGPackSerializer._cotrain_nesting_is_limited = True
