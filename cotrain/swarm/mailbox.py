"""Memory that a process shares with its DHT's process, for answers that are too long for the pipe between them.

hivemind hands results over through a pipe that uvloop has made non-blocking: a value of 16 kB or more breaks it, and
the DHT is wedged for good. What all peers say of themselves is longer than that from about thirty peers on.
"""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Mapping
from typing import Any

from hivemind.dht import DHT
from hivemind.dht.node import DHTNode
from hivemind.utils.timed_storage import ValueWithExpiration

MAILBOX_BYTES = 4 * 1024 * 1024
"""For about ten thousand records."""

_HEADER = struct.Struct("<QQ")  # number of the letter, length
_mailbox: mmap.mmap | None = None
_number = 0


def open_mailbox() -> None:
    """Make this process's mailbox; the DHT's process inherits it, so call it just before that is forked."""
    global _mailbox
    _mailbox = mmap.mmap(-1, MAILBOX_BYTES)


def read_dictionary(dht: DHT, key: str, timeout_s: float) -> dict[Any, ValueWithExpiration[Any]]:
    """The records under a key of the DHT by their subkeys, the newest of each; empty if there are none.

    One thread at a time may call it. Raises TimeoutError, and RuntimeError for more records than the mailbox holds.
    """
    global _number
    assert _mailbox is not None, "open_mailbox() comes before the DHT is started"
    _number += 1
    length = dht.run_coroutine(_Reading(key, _number), return_future=True).result(timeout_s)
    number, written = _HEADER.unpack_from(_mailbox, 0)
    if length > MAILBOX_BYTES - _HEADER.size:
        raise RuntimeError(f"the records under {key} take {length} bytes, more than there is room for")
    if (number, written) != (_number, length):
        raise TimeoutError("another answer came first")  # one that was given up earlier has arrived late
    content = json.loads(_mailbox[_HEADER.size : _HEADER.size + length])
    return {subkey: ValueWithExpiration(value, expires) for subkey, value, expires in content}


class _Reading:
    """Done in the DHT's process: get a key and put the records into the mailbox; the result is their length."""

    def __init__(self, key: str, number: int):
        self._key, self._number = key, number

    async def __call__(self, _dht: DHT, node: DHTNode) -> int:
        found = await node.get(self._key, latest=True)
        entries = found.value if found is not None else None
        content = json.dumps(_listed(entries) if isinstance(entries, Mapping) else []).encode()
        if len(content) <= MAILBOX_BYTES - _HEADER.size:
            assert _mailbox is not None
            _mailbox[_HEADER.size : _HEADER.size + len(content)] = content
            _HEADER.pack_into(_mailbox, 0, self._number, len(content))
        return len(content)


def _listed(entries: Mapping[Any, Any]) -> list[tuple[str, str, float]]:
    """Those records whose subkey and value are texts; there are no others of ours."""
    return [
        (subkey, entry.value, entry.expiration_time)
        for subkey, entry in entries.items()
        if isinstance(subkey, str) and isinstance(entry, ValueWithExpiration) and isinstance(entry.value, str)
    ]
