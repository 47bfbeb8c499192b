"""Whether a signature is an account's own over a text, found out without a network.

Ethereum: personal messages (https://eips.ethereum.org/EIPS/eip-191), secp256k1 with low s only
(https://eips.ethereum.org/EIPS/eip-2). Aptos: Ed25519 (RFC 8032) over the bytes that its wallets make of a text: for a
sign-in those of AIP-116, for any other statement those of AIP-62's signMessage.
"""

from __future__ import annotations

import hashlib
import re
from typing import ClassVar, Literal

from eth_keys.constants import SECPK1_N
from eth_keys.datatypes import Signature
from eth_keys.exceptions import BadSignature
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError

from cotrain.errors import CotrainError
from cotrain.identity.account import Account
from cotrain.identity.ed25519 import ed25519_verifies, is_weak_ed25519
from cotrain.identity.ethereum import encode_defunct

Purpose = Literal["sign-in", "statement"]

_PARITY = {0: 0, 1: 1, 27: 0, 28: 1}
_APTOS_SIGN_IN_PREFIX = hashlib.sha3_256(b"SIGN_IN_WITH_APTOS::").digest()
_APTOS_ED25519_SCHEME = b"\x00"


class SignatureError(CotrainError):
    """A signature that proves nothing. The message is the reason: for the log, not for the caller."""

    code: ClassVar[str] = "signature"
    http_status: ClassVar[int] = 401
    exit_code: ClassVar[int] = 77


def verify_signature(
    account: Account, text: str, signature: str, *, purpose: Purpose, public_key: str | None = None, nonce: str = ""
) -> None:
    """Return if `signature` is `account`'s own over exactly `text`.

    Args:
        account: who is said to have signed.
        text: what was to be signed, to the byte (UTF-8).
        signature: 0x and hexadecimal digits: 65 bytes (r, s, v) of an Ethereum account, 64 of an Aptos one.
        purpose: what an Aptos wallet was asked for. It does not matter on Ethereum, where the texts alone differ.
        public_key: an Aptos account's, 32 bytes, 0x and hexadecimal digits.
        nonce: of a statement on Aptos: the value of the text's own line `Nonce: `, which its wallets sign once more.

    Raises:
        SignatureError: for every other signature.
    """
    try:
        body = text.encode()
    except UnicodeEncodeError:
        raise SignatureError("the text is no Unicode") from None
    if account.namespace == "eip155":
        _verify_ethereum(account, body, signature)
    else:
        signed = _aptos_statement(text, nonce) if purpose == "statement" else _APTOS_SIGN_IN_PREFIX + body
        _verify_aptos(account, signed, signature, public_key)


def _verify_ethereum(account: Account, body: bytes, signature: str) -> None:
    raw = _from_hex(signature, size=65, what="the signature")
    r, s, v = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:64], "big"), raw[64]
    if v not in _PARITY:
        raise SignatureError("v is none of 0, 1, 27, 28")
    if not (0 < r < SECPK1_N and 0 < s < SECPK1_N):
        raise SignatureError("r or s is not within the curve's order")
    if s > SECPK1_N // 2:
        raise SignatureError("s is the high one of two: anybody can make it from the other")
    message = encode_defunct(primitive=body)
    digest = keccak(b"\x19" + message.version + message.header + message.body)
    try:
        key = Signature(vrs=(_PARITY[v], r, s)).recover_public_key_from_msg_hash(digest)
    except (BadSignature, ValidationError, ValueError) as error:  # which one depends on the backend and its version
        raise SignatureError("no public key belongs to this signature") from error
    if key.to_checksum_address() != account.address:
        raise SignatureError("the signature is over another text, or of another account")


def _aptos_statement(text: str, nonce: str) -> bytes:
    """What signMessage signs when address, application and chain id are left out of it."""
    if f"Nonce: {nonce}" not in text.split("\n"):
        raise SignatureError("the nonce is not the one in the text")
    return f"APTOS\nmessage: {text}\nnonce: {nonce}".encode()


def _verify_aptos(account: Account, signed: bytes, signature: str, public_key: str | None) -> None:
    if public_key is None:
        raise SignatureError("an Aptos account's signature comes with its public key")
    key = _from_hex(public_key, size=32, what="the public key")
    raw = _from_hex(signature, size=64, what="the signature")
    if hashlib.sha3_256(key + _APTOS_ED25519_SCHEME).hexdigest() != account.address.removeprefix("0x"):
        raise SignatureError(
            "the address does not follow from the public key: another account's key, or an account whose key was "
            "rotated, or that has none of its own (keyless, multi-key); only a full node could verify those"
        )
    if is_weak_ed25519(key):
        raise SignatureError("the public key is one of those that anybody can sign for")
    if not ed25519_verifies(key, raw, signed):
        raise SignatureError("the signature is over another text, or for another purpose")


def _from_hex(text: str, *, size: int, what: str) -> bytes:
    if re.fullmatch(rf"0x[0-9a-fA-F]{{{2 * size}}}", text, re.ASCII) is None:
        raise SignatureError(f"{what} is not 0x and {2 * size} hexadecimal digits")
    return bytes.fromhex(text[2:])
