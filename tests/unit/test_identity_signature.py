"""Signatures: those of real wallets are accepted, and every way to pass off another one is refused."""

from __future__ import annotations

import base64
import hashlib
from functools import partial
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from eth_keys.constants import SECPK1_N
from eth_keys.datatypes import PrivateKey
from eth_utils.crypto import keccak
from hypothesis import given, settings
from hypothesis import strategies as st

from cotrain.errors import CotrainError
from cotrain.identity.account import Account
from cotrain.identity.ethereum import EthereumSigner, encode_defunct
from cotrain.identity.signature import SignatureError, verify_signature
from cotrain.identity.text import sign_in_text
from cotrain.identity.wallet import EthereumWallet

WALLET = EthereumWallet(bytes.fromhex("46" * 32))
ETHEREUM = Account.of("eip155:11155111", WALLET.account.address)
APTOS_KEY = Ed25519PrivateKey.from_private_bytes(bytes.fromhex("11" * 32))
APTOS_PUBLIC_KEY = "0xd04ab232742bb4ab3a1368bd4615e4e6d0224ab71a016baf8520a332c9778737"
APTOS = Account.of("aptos:1", "0x147e4d3a5b10eaed2a93536e284c23096dfcea9ac61f0a8420e5d01fbd8f0ea8")
FIELDS: dict[str, Any] = {
    "domain": "train.example:8443", "uri": "https://train.example:8443/", "nonce": "0123456789abcdef0123456789abcdef",
    "issued_at": 1763740800.25, "expires_at": 1763741100.25,
}  # fmt: skip
ETHEREUM_TEXT, APTOS_TEXT = sign_in_text(ETHEREUM, **FIELDS), sign_in_text(APTOS, **FIELDS)
STATEMENT = "A statement\n\nNonce: 00ff00ff00ff00ff\nlast"
STATEMENT_NONCE = "00ff00ff00ff00ff"

# by viem 2.57.20 (ethers 6.17.0 makes the same) and by @aptos-labs/ts-sdk 5.2.1, of the keys above
VIEM_SIGNATURE = (
    "0x534ffa10c1ba331fbab2f135e87cbdee40ae2675a42701cf381f725f0a34eae1"
    "2aa38c2a57fa56c447be4ecce681031990b88b429e060a594e027c860a32f9171b"
)
VIEM_UNICODE_SIGNATURE = (
    "0x5bda02742184c4cd94c5417535b07ac9377a47391c9cbf7f2d00c7bdc1005e97"
    "3859166ffb533dd0d16207ddfeff9e51d9603955749f091dfbf76c61f22d36821c"
)
APTOS_SIGNATURE = (
    "0x68b3791f0b017f170ca992ae905d15dbad8a68514972a2889002e3687efeee2b"
    "1544253ac842636d5c62ca7dc78b8c7b6424757249b66bbb2f05a37894c2d60e"
)
APTOS_STATEMENT_SIGNATURE = (
    "0xfe8d854bf6771153de7d3bd21c590b51ad2c42b4b1a8a7392e1b809d25c846cb"
    "2e1e794b259b0315084d80eb67ead1f6779ff94f6bb1569dc199358ff64d9901"
)

sign_in = partial(verify_signature, purpose="sign-in")
aptos_sign_in = partial(verify_signature, purpose="sign-in", public_key=APTOS_PUBLIC_KEY)
aptos_statement = partial(
    verify_signature, purpose="statement", public_key=APTOS_PUBLIC_KEY, nonce=STATEMENT_NONCE
)  # fmt: skip


def refused(call: Any) -> SignatureError:
    """The refusal that `call` ends with."""
    with pytest.raises(SignatureError) as caught:
        call()
    error = caught.value
    assert isinstance(error, CotrainError)
    assert (error.code, error.http_status) == ("signature", 401)
    assert error.message
    return error


def vrs(r: int, s: int, v: int) -> str:
    return "0x" + (r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes([v])).hex()


def parts(signature: str) -> tuple[int, int, int]:
    raw = bytes.fromhex(signature[2:])
    return int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:64], "big"), raw[64]


def flipped(hexadecimal: str, bit: int) -> str:
    raw = bytearray.fromhex(hexadecimal[2:])
    bit %= 8 * len(raw)
    raw[bit // 8] ^= 1 << bit % 8
    return "0x" + raw.hex()


def aptos_account(public_key: bytes) -> Account:
    return Account.of("aptos:1", "0x" + hashlib.sha3_256(public_key + b"\x00").hexdigest())


# ------------------------------------------------------------------------------------------------- what is accepted
def test_signatures_of_the_chains_own_libraries_are_accepted() -> None:
    sign_in(ETHEREUM, ETHEREUM_TEXT, VIEM_SIGNATURE)
    sign_in(ETHEREUM, "سلام\n😀", VIEM_UNICODE_SIGNATURE)
    aptos_sign_in(APTOS, APTOS_TEXT, APTOS_SIGNATURE)
    aptos_statement(APTOS, STATEMENT, APTOS_STATEMENT_SIGNATURE)


def test_spelling_does_not_matter() -> None:
    r, s, v = parts(VIEM_SIGNATURE)
    sign_in(ETHEREUM, ETHEREUM_TEXT, vrs(r, s, v - 27))
    sign_in(ETHEREUM, ETHEREUM_TEXT, "0x" + VIEM_SIGNATURE[2:].upper())
    aptos_sign_in(APTOS, APTOS_TEXT, "0x" + APTOS_SIGNATURE[2:].upper())


def test_ethereums_purposes_differ_by_their_texts_alone() -> None:
    verify_signature(ETHEREUM, STATEMENT, WALLET.sign(STATEMENT), purpose="statement")


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


@settings(max_examples=40)
@given(st.integers(1, SECPK1_N - 1), texts, st.integers(0, 519), st.data())
def test_a_wallet_signs_any_text_and_one_flipped_bit_is_refused(
    secret: int, text: str, bit: int, data: st.DataObject
) -> None:
    wallet = EthereumWallet(secret.to_bytes(32, "big"))
    signature = wallet.sign(text)
    sign_in(wallet.account, text, signature)
    refused(lambda: sign_in(wallet.account, text, flipped(signature, bit)))
    other = Account.of("eip155:1", flipped(wallet.account.address.lower(), data.draw(st.integers(0, 159))))
    refused(lambda: sign_in(other, text, signature))
    altered = data.draw(texts.filter(lambda drawn: drawn != text))
    refused(lambda: sign_in(wallet.account, altered, signature))


@given(st.binary(min_size=32, max_size=32), texts, st.integers(0, 511), st.integers(0, 255))
def test_an_aptos_key_signs_any_text_and_one_flipped_bit_is_refused(
    seed: bytes, text: str, bit: int, key_bit: int
) -> None:
    private = Ed25519PrivateKey.from_private_bytes(seed)
    raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    account, public = aptos_account(raw), "0x" + raw.hex()
    signature = "0x" + private.sign(hashlib.sha3_256(b"SIGN_IN_WITH_APTOS::").digest() + text.encode()).hex()
    sign_in(account, text, signature, public_key=public)
    refused(lambda: sign_in(account, text, flipped(signature, bit), public_key=public))
    refused(lambda: sign_in(account, text, signature, public_key=flipped(public, key_bit)))
    refused(lambda: sign_in(account, text + "\n", signature, public_key=public))
    other = Account.of("aptos:1", flipped(account.address, key_bit))
    refused(lambda: sign_in(other, text, signature, public_key=public))


# ------------------------------------------------------------------------------------------------- attacks, Ethereum
@pytest.mark.parametrize(
    ("changed", "value"),
    [
        ("domain", "evil.example"), ("uri", "https://evil.example/"), ("nonce", "1" * 32),
        ("issued_at", 1763740800.251), ("expires_at", 1863741100.25),
    ],
)  # fmt: skip
def test_a_signature_serves_for_no_other_text(changed: str, value: Any) -> None:
    other = {**FIELDS, changed: value}
    refused(lambda: sign_in(ETHEREUM, sign_in_text(ETHEREUM, **other), VIEM_SIGNATURE))
    refused(lambda: aptos_sign_in(APTOS, sign_in_text(APTOS, **other), APTOS_SIGNATURE))


def test_a_signature_serves_for_no_other_chain() -> None:
    mainnet, testnet = Account.of("eip155:1", ETHEREUM.address), Account.of("aptos:2", APTOS.address)
    refused(lambda: sign_in(mainnet, sign_in_text(mainnet, **FIELDS), VIEM_SIGNATURE))
    refused(lambda: aptos_sign_in(testnet, sign_in_text(testnet, **FIELDS), APTOS_SIGNATURE))
    assert "128 hexadecimal" in refused(lambda: aptos_sign_in(APTOS, APTOS_TEXT, VIEM_SIGNATURE)).message
    assert "130 hexadecimal" in refused(lambda: sign_in(ETHEREUM, ETHEREUM_TEXT, APTOS_SIGNATURE)).message


def test_a_signature_serves_for_no_other_address() -> None:
    other = EthereumWallet.create().account
    assert "another account" in refused(lambda: sign_in(other, ETHEREUM_TEXT, VIEM_SIGNATURE)).message


def test_the_high_s_twin_is_refused() -> None:
    r, s, v = parts(VIEM_SIGNATURE)
    twin = vrs(r, SECPK1_N - s, 55 - v)
    # without the rule it would be as good as the first
    assert EthereumSigner.recover_message(encode_defunct(text=ETHEREUM_TEXT), signature=twin) == ETHEREUM.address
    assert "high" in refused(lambda: sign_in(ETHEREUM, ETHEREUM_TEXT, twin)).message


def test_a_signature_that_leads_to_the_point_at_infinity_is_refused() -> None:
    message = encode_defunct(text=ETHEREUM_TEXT)
    digest = int.from_bytes(keccak(b"\x19" + message.version + message.header + message.body), "big")
    point = PrivateKey((7).to_bytes(32, "big")).public_key.to_bytes()
    r, odd, s = int.from_bytes(point[:32], "big"), point[-1] & 1, digest * pow(7, -1, SECPK1_N) % SECPK1_N
    if s > SECPK1_N // 2:
        s, odd = SECPK1_N - s, 1 - odd
    # the address of a public key that is all zeros
    nobody = Account.of("eip155:1", "0x" + keccak(bytes(64))[-20:].hex())
    assert "no public key" in refused(lambda: sign_in(nobody, ETHEREUM_TEXT, vrs(r, s, odd))).message


R, S, V = parts(VIEM_SIGNATURE)
MALFORMED = {
    "empty": "",
    "only the prefix": "0x",
    "no prefix": VIEM_SIGNATURE[2:],
    "capital prefix": "0X" + VIEM_SIGNATURE[2:],
    "odd number of digits": VIEM_SIGNATURE[:-1],
    "a byte short": VIEM_SIGNATURE[:-2],
    "a byte long": VIEM_SIGNATURE + "1b",
    "a blank before": " " + VIEM_SIGNATURE,
    "a line end behind": VIEM_SIGNATURE + "\n",
    "no digit": VIEM_SIGNATURE[:-1] + "g",
    "digits of another script": VIEM_SIGNATURE[:-2] + "١b",
    "base64": base64.b64encode(bytes.fromhex(VIEM_SIGNATURE[2:])).decode(),
    "JSON": '{"r": "0x1"}',
    "compact (EIP-2098)": VIEM_SIGNATURE[:-2],
    "huge": "0x" + "00" * 100_000,
    "all zeros": vrs(0, 0, 0),
    "r is 0": vrs(0, S, V),
    "s is 0": vrs(R, 0, V),
    "r is the order": vrs(SECPK1_N, S, V),
    "s is the order": vrs(R, SECPK1_N, V),
    "r at its greatest": vrs(2**256 - 1, S, V),
    "r of no point": vrs(5, S, V),
    "v is 2": vrs(R, S, 2),
    "v is 26": vrs(R, S, 26),
    "v is 29": vrs(R, S, 29),
    "v of EIP-155": vrs(R, S, 37),
    "v at its greatest": vrs(R, S, 255),
    "the other v": vrs(R, S, 55 - V),
    "r and s exchanged": vrs(S, R, V),
    "another scheme's": APTOS_SIGNATURE,
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_signature_is_refused(kind: str) -> None:
    refused(lambda: sign_in(ETHEREUM, ETHEREUM_TEXT, MALFORMED[kind]))
    refused(lambda: verify_signature(ETHEREUM, ETHEREUM_TEXT, MALFORMED[kind], purpose="statement"))


@settings(max_examples=60)
@given(st.one_of(st.text(), st.binary(min_size=65, max_size=65).map(lambda raw: "0x" + raw.hex())))
def test_whatever_else_is_sent_is_refused_in_the_same_way(signature: str) -> None:
    refused(lambda: sign_in(ETHEREUM, ETHEREUM_TEXT, signature))
    refused(lambda: aptos_sign_in(APTOS, APTOS_TEXT, signature[:130]))


def test_a_text_that_is_no_unicode_is_refused() -> None:
    refused(lambda: sign_in(ETHEREUM, "\ud800", VIEM_SIGNATURE))
    refused(lambda: aptos_sign_in(APTOS, "\ud800", APTOS_SIGNATURE))
    refused(lambda: verify_signature(APTOS, STATEMENT, APTOS_SIGNATURE, purpose="statement", nonce="\ud800",
                                     public_key=APTOS_PUBLIC_KEY))  # fmt: skip


# ------------------------------------------------------------------------------------------------- attacks, Aptos
def test_a_sign_in_is_no_statement_and_a_statement_is_no_sign_in() -> None:
    nonce = FIELDS["nonce"]
    as_statement = f"APTOS\nmessage: {APTOS_TEXT}\nnonce: {nonce}".encode()
    statement = "0x" + APTOS_KEY.sign(as_statement).hex()
    verify_signature(
        APTOS, APTOS_TEXT, statement, purpose="statement", public_key=APTOS_PUBLIC_KEY, nonce=nonce
    )  # fmt: skip
    refused(lambda: aptos_sign_in(APTOS, APTOS_TEXT, statement))
    error = refused(
        lambda: verify_signature(
            APTOS, APTOS_TEXT, APTOS_SIGNATURE, purpose="statement", public_key=APTOS_PUBLIC_KEY, nonce=nonce
        )
    )
    assert "purpose" in error.message


@pytest.mark.parametrize("nonce", ["", "00ff", STATEMENT_NONCE + "\nlast", STATEMENT_NONCE[:-1]])
def test_a_statements_nonce_is_the_one_in_its_text(nonce: str) -> None:
    signature = "0x" + APTOS_KEY.sign(f"APTOS\nmessage: {STATEMENT}\nnonce: {nonce}".encode()).hex()
    error = refused(
        lambda: verify_signature(
            APTOS, STATEMENT, signature, purpose="statement", public_key=APTOS_PUBLIC_KEY, nonce=nonce
        )
    )
    assert "nonce" in error.message


def test_a_statement_with_the_wallets_extra_lines_is_another_one() -> None:
    signed = f"APTOS\naddress: {APTOS.address}\nmessage: {STATEMENT}\nnonce: {STATEMENT_NONCE}".encode()
    refused(lambda: aptos_statement(APTOS, STATEMENT, "0x" + APTOS_KEY.sign(signed).hex()))


def test_plain_bytes_are_neither() -> None:
    plain = "0x" + APTOS_KEY.sign(APTOS_TEXT.encode()).hex()
    refused(lambda: aptos_sign_in(APTOS, APTOS_TEXT, plain))


@pytest.mark.parametrize(
    "public_key",
    [None, "", "0x", APTOS_PUBLIC_KEY[2:], APTOS_PUBLIC_KEY[:-2], APTOS_PUBLIC_KEY + "00", APTOS_PUBLIC_KEY + "\n",
     "0x" + "zz" * 32, "0x00" + APTOS_PUBLIC_KEY[2:], "0x" + "22" * 32],
)  # fmt: skip
def test_a_wrong_public_key_is_refused(public_key: str | None) -> None:
    refused(lambda: sign_in(APTOS, APTOS_TEXT, APTOS_SIGNATURE, public_key=public_key))


@pytest.mark.parametrize(
    "address",
    # of the same key: a single-key account by @aptos-labs/ts-sdk, and one whose key was rotated to it
    ["0xc4c6cf75ac3530d31e455f8662df984159f5c71d9903a7202efc68f83775073a", "0x" + "ab" * 32],
)
def test_an_address_that_does_not_follow_from_the_key_is_refused_with_the_reason(address: str) -> None:
    account = Account.of("aptos:1", address)
    error = refused(lambda: aptos_sign_in(account, APTOS_TEXT, APTOS_SIGNATURE))
    assert "rotated" in error.message
    assert "keyless" in error.message


def weak_keys() -> list[bytes]:
    """Every encoding of Ed25519's eight points of small order, those that are not the canonical ones included."""
    p = 2**255 - 19
    d = -121665 * pow(121666, -1, p) % p
    minus_one_root = pow(2, (p - 1) // 4, p)

    def roots(square: int) -> set[int]:
        candidates = {pow(square, (p + 3) // 8, p) * factor % p for factor in (1, minus_one_root)}
        return {sign * root % p for root in candidates if root * root % p == square % p for sign in (1, -1)}

    # doubled, a point of order 8 has y = 0, which says d y^4 + 2 y^2 = 1
    of_order_8 = {y for root in roots(1 + d) for y in roots((root - 1) * pow(d, -1, p) % p)}
    values = {0, 1, p - 1, p, p + 1} | of_order_8
    return sorted((y | sign << 255).to_bytes(32, "little") for y in values for sign in (0, 1))


def is_accepted_by_openssl(public_key: bytes, signature: bytes, text: str) -> bool:
    signed = hashlib.sha3_256(b"SIGN_IN_WITH_APTOS::").digest() + text.encode()
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, signed)
    except InvalidSignature:
        return False
    return True


def test_keys_that_anybody_can_sign_for_are_refused() -> None:
    forged = bytes([1]) + bytes(63)  # R the neutral point, s zero: made without any private key
    accepted_by_openssl = 0
    keys = weak_keys()
    for raw in keys:
        texts = [text for text in map(str, range(100)) if is_accepted_by_openssl(raw, forged, text)]
        accepted_by_openssl += bool(texts)
        for text in [*texts, "another"]:
            call = partial(sign_in, aptos_account(raw), text, "0x" + forged.hex(), public_key="0x" + raw.hex())
            assert "anybody" in refused(call).message
    assert len(keys) == 14
    assert accepted_by_openssl >= 8


def test_a_public_key_that_is_no_point_is_refused() -> None:
    raw = (2).to_bytes(32, "little")
    refused(lambda: sign_in(aptos_account(raw), APTOS_TEXT, APTOS_SIGNATURE, public_key="0x" + raw.hex()))
