"""The registry's contract: its compiled form, and calls of what it lets everybody ask. Pure.

`contracts/CotrainRegistry.sol` says what it does; `make contracts-check` holds the compiled form against it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from cotrain.chain.merkle import HASH_BYTES, Share, account_key, keccak
from cotrain.errors import ProtocolError

_ARTIFACT = "CotrainRegistry.json"
_SESSION = "session(address,bytes32)"
_VERIFY = "verify(address,bytes32,bytes32,uint256,bytes32[])"
_RECORD = ["bytes32", "bytes32", "bytes32", "uint128", "uint64", "uint64"]


@dataclass(frozen=True)
class Record:
    """What an opener has recorded about a session: the contract's struct, whose text says what each field means.

    Attributes:
        config_hash, final_digest, contributions_root: 32 bytes each.
        opened_at: Unix seconds; 0 where nothing is recorded.
        closed_at: Unix seconds; 0 as long as it is open.
    """

    config_hash: bytes
    final_digest: bytes
    contributions_root: bytes
    total_samples: int
    opened_at: int
    closed_at: int


@cache
def artifact() -> dict[str, Any]:
    """The compiled contract: `abi`, `bytecode` and `deployedBytecode` (0x-hex), `compiler`, `sourceSha256`."""
    text = files("cotrain.chain").joinpath(_ARTIFACT).read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def is_registry(code: bytes) -> bool:
    """Whether what stands at an address is this contract, byte by byte."""
    return code == bytes.fromhex(artifact()["deployedBytecode"].removeprefix("0x"))


def session_call(opener: str, key: bytes) -> bytes:
    """Calldata that asks for a record. Args: `opener`, 0x-address; `key`, see `cotrain.chain.merkle.session_key`."""
    return _call(_SESSION, ["address", "bytes32"], [opener, key])


def read_session(answer: bytes) -> Record:
    """The answer to `session_call`. Raises ProtocolError."""
    return Record(*_decode(_RECORD, answer))


def verify_call(opener: str, key: bytes, share: Share, proof: Sequence[bytes]) -> bytes:
    """Calldata that asks whether a share is under the recorded root."""
    types = ["address", "bytes32", "bytes32", "uint256", "bytes32[]"]
    return _call(_VERIFY, types, [opener, key, account_key(share.account), share.samples, list(proof)])


def read_verify(answer: bytes) -> bool:
    """The answer to `verify_call`. Raises ProtocolError."""
    return bool(_decode(["bool"], answer)[0])


def _call(signature: str, types: list[str], values: list[Any]) -> bytes:
    from eth_abi.abi import encode

    return keccak(signature.encode())[:4] + encode(types, values)


def _decode(types: list[str], answer: bytes) -> tuple[Any, ...]:
    from eth_abi.abi import decode
    from eth_abi.exceptions import DecodingError

    if len(answer) != HASH_BYTES * len(types):
        raise ProtocolError("the chain's answer is not what the registry answers", hint="is the address a registry's?")
    try:
        return tuple(decode(types, answer))
    except DecodingError as error:
        raise ProtocolError("the chain's answer is not what the registry answers") from error
