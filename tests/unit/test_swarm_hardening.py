"""Deeply nested MessagePack, which crashes an unguarded DHT process, is refused with an error."""

from __future__ import annotations

import signal
import subprocess
import sys

import msgpack  # type: ignore[import-untyped]
import pytest
from hivemind.utils.serializer import MSGPackSerializer

from cotrain.swarm.hardening import MAX_NESTING, limit_message_nesting

limit_message_nesting()


def nested_tuples(levels: int) -> bytes:
    """MessagePack of tuples within tuples, as hivemind decodes them; built without its recursion."""
    content: bytes = msgpack.packb([])
    for _ in range(levels):
        content = msgpack.packb([msgpack.ExtType(0x40, content)])
    return content


@pytest.mark.parametrize("levels", [MAX_NESTING + 1, 300, 5000])
def test_deep_nesting_is_refused_and_leaves_no_trace(levels: int) -> None:
    with pytest.raises(ValueError, match=f"nested deeper than {MAX_NESTING} levels"):
        MSGPackSerializer.loads(nested_tuples(levels))
    assert MSGPackSerializer.loads(nested_tuples(MAX_NESTING)) is not None


def test_ordinary_values_pass() -> None:
    value = {"a": (1, (2, (3, "four"))), "b": [b"five", 6.0, None]}
    assert MSGPackSerializer.loads(MSGPackSerializer.dumps(value)) == value


def test_the_limit_may_be_set_twice() -> None:
    limit_message_nesting()
    test_ordinary_values_pass()


def test_without_the_limit_the_decoder_crashes_the_process() -> None:
    """The reason for the limit: if hivemind mends this one day, the guard can go."""
    script = (
        "import sys\n"
        "from hivemind.utils.serializer import MSGPackSerializer\n"
        "MSGPackSerializer.loads(sys.stdin.buffer.read())\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], input=nested_tuples(300), timeout=60, check=False)
    assert ended.returncode == -signal.SIGSEGV
