"""The registry's compiled form, and the calls that are made of it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from eth_abi.abi import encode

from cotrain.chain.merkle import Share, account_key, keccak, session_key
from cotrain.chain.registry import Record, artifact, read_session, read_verify, session_call, verify_call
from cotrain.errors import ProtocolError

SOURCE = Path(__file__).resolve().parents[2] / "contracts" / "CotrainRegistry.sol"
OPENER = "0x" + "1" * 40
SHARE = Share("aptos:1:0x" + "b" * 64, 300)
RECORD = (b"\1" * 32, b"\2" * 32, b"\3" * 32, 1000, 1_700_000_000, 1_700_000_100)
RECORD_TYPES = ["bytes32", "bytes32", "bytes32", "uint128", "uint64", "uint64"]


def selector(name: str) -> bytes:
    """Of a function, from what the compiler says of it."""
    (found,) = [one for one in artifact()["abi"] if one["type"] == "function" and one["name"] == name]
    return keccak(f"{name}({','.join(one['type'] for one in found['inputs'])})".encode())[:4]


def test_the_compiled_form_is_of_this_source() -> None:
    assert artifact()["sourceSha256"] == hashlib.sha256(SOURCE.read_bytes()).hexdigest()
    assert artifact()["compiler"]["version"].startswith("0.8.30+")
    assert artifact()["compiler"]["settings"]["evmVersion"] == "cancun"


def test_the_call_for_a_record() -> None:
    call = session_call(OPENER, session_key("tales"))
    assert call == selector("session") + bytes(12) + b"\x11" * 20 + session_key("tales")
    assert read_session(encode(RECORD_TYPES, RECORD)) == Record(*RECORD)


def test_the_call_for_a_share() -> None:
    call = verify_call(OPENER, session_key("tales"), SHARE, [b"\5" * 32])
    words = [call[begin : begin + 32] for begin in range(4, len(call), 32)]
    assert call[:4] == selector("verify")
    assert words[1:4] == [session_key("tales"), account_key(SHARE.account), (300).to_bytes(32)]
    assert words[-2:] == [(1).to_bytes(32), b"\5" * 32]
    assert read_verify((1).to_bytes(32))
    assert not read_verify(bytes(32))


@pytest.mark.parametrize("answer", [b"", b"\1", bytes(31), bytes(64), (2).to_bytes(32), b"\xff" * 32])
def test_what_is_no_yes_and_no_no_is_refused(answer: bytes) -> None:
    with pytest.raises(ProtocolError, match="not what the registry answers"):
        read_verify(answer)


@pytest.mark.parametrize(
    "answer", [b"", bytes(32 * 5), bytes(32 * 7), bytes(32 * 4) + b"\xff" * 64], ids=["none", "short", "long", "beyond"]
)
def test_what_is_no_record_is_refused(answer: bytes) -> None:
    with pytest.raises(ProtocolError, match="not what the registry answers"):
        read_session(answer)
