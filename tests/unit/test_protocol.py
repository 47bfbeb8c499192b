"""Messages between node, coordinator and browser: what is sent is read again, anything else is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from cotrain.membership.bond import Bond
from cotrain.protocol import (
    DOWNLINK_MESSAGE,
    PROTOCOL_VERSION,
    UPLINK_MESSAGE,
    Ack,
    Asset,
    ErrorMessage,
    Goodbye,
    Hello,
    RegisterRequest,
    StatusMessage,
    Welcome,
    WishMessage,
)
from cotrain.status import Status

STATUS = Status(session="s", peer="p", run="r", sequence=1, updated_at=0.0, status="training", phase="training")
BOND = Bond(
    coordinator="https://c.example",
    nonce="ab" * 16,
    issued_at=1,
    expires_at=2,
    signature="0x",
    peer_signature="cd" * 64,
)
PEER = "12D3KooWFakePeerXidForTestsMadeUpofBase58characters"


@pytest.mark.parametrize(
    "message", [Hello(), StatusMessage(run="r", seq=1, status=STATUS), Goodbye(run="r", seq=2, reason="done")]
)
def test_uplink_messages_are_told_apart_by_their_type(message: BaseModel) -> None:
    assert UPLINK_MESSAGE.validate_json(message.model_dump_json(by_alias=True)) == message


@pytest.mark.parametrize(
    "message",
    [Welcome(acknowledged={"r": 3}, wish="pause"), Ack(run="r", seq=3), WishMessage(wish="stop"),
     ErrorMessage(code="protocol", message="no")],
)  # fmt: skip
def test_downlink_messages_are_told_apart_by_their_type(message: BaseModel) -> None:
    assert DOWNLINK_MESSAGE.validate_json(message.model_dump_json(by_alias=True)) == message


@pytest.mark.parametrize(
    "message",
    [
        {}, [], {"type": "dance"}, {"type": "welcome"}, {"type": "hello", "extra": 1},
        {"type": "goodbye", "run": "r", "seq": 0}, {"type": "goodbye", "run": "", "seq": 1},
        {"type": "goodbye", "run": "r", "seq": 2**63}, {"type": "goodbye", "run": "r", "seq": 10**12 + 1},
        {"type": "status", "run": "r", "seq": 2**63, "status": STATUS.model_dump(by_alias=True)},
        {"type": "goodbye", "run": "r" * 65, "seq": 1}, {"type": "status", "run": "r", "seq": 1, "status": {}},
    ],
)  # fmt: skip
def test_what_is_no_uplink_message_is_refused(message: Any) -> None:
    with pytest.raises(ValidationError):
        UPLINK_MESSAGE.validate_json(json.dumps(message))


@pytest.mark.parametrize("text", ["", "{", "NaN", "\x00", "[" * 10_000, '{"type": "hello", "protocol": NaN}'])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        UPLINK_MESSAGE.validate_json(text)


def test_json_is_in_camel_case() -> None:
    assert json.loads(RegisterRequest(peer_id=PEER, bond=BOND).model_dump_json(by_alias=True)) == {
        "protocol": PROTOCOL_VERSION, "peerId": PEER, "name": "", "role": "reduce",
        "bond": {
            "coordinator": "https://c.example", "nonce": "ab" * 16, "issuedAt": 1, "expiresAt": 2, "signature": "0x",
            "publicKey": None, "peerSignature": "cd" * 64,
        },
        "hardware": {"device": "cpu", "memoryBytes": 0, "gpuMemoryBytes": 0, "cpuCount": 0, "platform": ""},
        "invitation": None,
    }  # fmt: skip


@pytest.mark.parametrize("peer_id", ["", "short", "0" * 50, "../../etc/passwd", "x" * 129, PEER + "\n", PEER + "l"])
def test_a_peer_id_is_base58(peer_id: str) -> None:
    with pytest.raises(ValidationError):
        RegisterRequest(peer_id=peer_id, bond=BOND)


@pytest.mark.parametrize(
    "change",
    [{"name": "../train.safetensors"}, {"name": "a/b"}, {"name": ".hidden"}, {"name": ""}, {"name": "a\n"},
     {"sha256": "A" * 64}, {"sha256": "a" * 63}, {"sha256": "a" * 64 + "\n"}, {"size_bytes": -1},
     {"size_bytes": 2**63}],
)  # fmt: skip
def test_an_asset_cannot_name_a_path_nor_a_false_hash(change: dict[str, Any]) -> None:
    good = {"name": "train.safetensors", "sha256": "a" * 64, "size_bytes": 3}
    assert Asset.model_validate(good).name == "train.safetensors"
    with pytest.raises(ValidationError):
        Asset.model_validate({**good, **change})
