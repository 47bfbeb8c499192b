"""Keystores: other wallets' are read, and one that is damaged or hostile costs nothing but an error."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import pytest
from eth_keys.constants import SECPK1_N
from eth_utils.crypto import keccak
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cotrain.errors import ConflictError, InvalidRequestError, NotFoundError
from cotrain.identity.ethereum import EthereumSigner
from cotrain.identity.keystore import (
    MAX_SCRYPT_COST,
    KeystoreError,
    is_private_key,
    open_keystore,
    read_keystore,
    write_keystore,
)
from cotrain.identity.secret_files import SecretFileError

KEY = bytes.fromhex("46" * 32)
ADDRESS = "9d8a62f656a8d1615c1294fd71e9cfb3e4855a4f"
PASSWORD = "correct horse"

# made with ethers 6.17.0, encryptKeystoreJson, of the key and password above
ETHERS: dict[str, Any] = {
    "address": ADDRESS, "id": "3e067b6e-9e05-4f9b-abbb-027daa5d91b1", "version": 3,
    "Crypto": {
        "cipher": "aes-128-ctr", "cipherparams": {"iv": "30203103a54aee123d199db29126f22b"},
        "ciphertext": "b3d523e4fed3e84f4e693a1b41c632ef0c19df200daf9ba103060b84f7cfdfc7", "kdf": "scrypt",
        "kdfparams": {
            "salt": "2c43c63256c5e722a40ebe805cbe7d0f43b62a6de2952c9a45a1fe587d7c8534",
            "n": 4096, "dklen": 32, "p": 1, "r": 8,
        },
        "mac": "3b99d1cea283e12c77067296540925bebbb0403e1938e3504acf3c4bd5bcfd9b",
    },
}  # fmt: skip


def put(path: Path, content: Any) -> Path:
    """Write a private file: JSON, or bytes as they are."""
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    path.chmod(0o600)
    return path


def changed(place: str, value: Any) -> dict[str, Any]:
    """The keystore above with another value at a dotted place; without it if the value is None."""
    content = json.loads(json.dumps(ETHERS))
    *folders, name = place.split(".")
    target = content
    for folder in folders:
        target = target[folder]
    target[name] = value
    if value is None:
        del target[name]
    return content


def test_other_wallets_keystores_are_opened(tmp_path: Path) -> None:
    assert open_keystore(put(tmp_path / "ethers", ETHERS), PASSWORD) == KEY
    pbkdf2 = EthereumSigner.encrypt(KEY, PASSWORD, kdf="pbkdf2", iterations=10)
    assert open_keystore(put(tmp_path / "pbkdf2", pbkdf2), PASSWORD) == KEY
    assert open_keystore(put(tmp_path / "without address", changed("address", None)), PASSWORD) == KEY
    assert open_keystore(put(tmp_path / "with 0x", changed("address", "0x" + ADDRESS.upper())), PASSWORD) == KEY


def test_a_keystore_is_written_with_the_usual_cost(tmp_path: Path) -> None:
    path = tmp_path / "keystore"
    write_keystore(path, KEY, PASSWORD)
    content = json.loads(path.read_bytes())
    assert content["version"] == 3
    assert content["crypto"]["kdf"] == "scrypt"
    assert {name: content["crypto"]["kdfparams"][name] for name in "nrp"} == {"n": 262144, "r": 8, "p": 1}
    assert EthereumSigner.decrypt(content, PASSWORD) == KEY
    assert open_keystore(path, PASSWORD) == KEY


passwords = st.text(st.characters(exclude_categories=["Cs"]), min_size=8, max_size=40)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, SECPK1_N - 1), passwords, passwords)
def test_only_its_password_opens_a_keystore(tmp_path: Path, secret: int, password: str, other: str) -> None:
    key, path = secret.to_bytes(32, "big"), tmp_path / "keystore"
    path.unlink(missing_ok=True)
    write_keystore(path, key, password, scrypt_n=2)
    assert open_keystore(path, password) == key
    assert key.hex() not in path.read_text()
    if other != password:
        with pytest.raises(KeystoreError, match="the password is wrong") as caught:
            open_keystore(path, other)
        assert caught.value.field == str(path)


def test_a_keystore_is_never_written_over(tmp_path: Path) -> None:
    path = put(tmp_path / "keystore", ETHERS)
    before = path.read_bytes()
    with pytest.raises(ConflictError):
        write_keystore(path, KEY, PASSWORD, scrypt_n=2)
    assert path.read_bytes() == before


@pytest.mark.parametrize("password", ["", "1234567"])
def test_a_short_password_is_refused(tmp_path: Path, password: str) -> None:
    with pytest.raises(InvalidRequestError, match="too short") as caught:
        write_keystore(tmp_path / "keystore", KEY, password, scrypt_n=2)
    assert caught.value.hint == "at least 8 characters"
    assert list(tmp_path.iterdir()) == []


def test_a_password_that_is_no_unicode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="not UTF-8"):
        write_keystore(tmp_path / "keystore", KEY, "password\udc80", scrypt_n=2)
    with pytest.raises(InvalidRequestError, match="not UTF-8"):
        open_keystore(put(tmp_path / "keystore", ETHERS), "password\udc80")


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [
        ("version", 4, "version"),
        ("version", "3", "version"),
        ("version", None, "version"),
        ("Crypto", None, "crypto"),
        ("Crypto", [], "Crypto"),
        ("Crypto.cipher", "aes-256-cbc", "cipher"),
        ("Crypto.cipherparams.iv", "00", "iv"),
        ("Crypto.ciphertext", "00" * 31, "ciphertext"),
        ("Crypto.ciphertext", "zz" * 32, "ciphertext"),
        ("Crypto.mac", "", "mac"),
        ("Crypto.mac", 5, "mac"),
        ("Crypto.kdf", "argon2id", "kdf should be scrypt or pbkdf2"),
        ("Crypto.kdf", None, "kdf should be scrypt or pbkdf2"),
        ("Crypto.kdf", "pbkdf2", "kdfparams"),
        ("Crypto.kdfparams.n", "4096", "kdfparams.n"),
        ("Crypto.kdfparams.n", 4096.0, "kdfparams.n"),
        ("Crypto.kdfparams.n", True, "kdfparams.n"),
        ("Crypto.kdfparams.n", 1, "kdfparams.n"),
        ("Crypto.kdfparams.n", 4095, "power of two"),
        ("Crypto.kdfparams.r", 0, "kdfparams.r"),
        ("Crypto.kdfparams.p", -1, "kdfparams.p"),
        ("Crypto.kdfparams.dklen", 16, "kdfparams.dklen"),
        ("Crypto.kdfparams.dklen", 2**40, "kdfparams.dklen"),
        ("Crypto.kdfparams.salt", "", "kdfparams.salt"),
        ("Crypto.kdfparams.salt", "abc", "kdfparams.salt"),
        ("Crypto.kdfparams.salt", "00" * 129, "kdfparams.salt"),
        ("address", "0x1", "address"),
        ("address", ADDRESS + "\n", "address"),
    ],
)  # fmt: skip
def test_what_is_no_keystore_is_refused_with_the_place(tmp_path: Path, place: str, value: Any, named: str) -> None:
    path = put(tmp_path / "keystore", changed(place, value))
    with pytest.raises(KeystoreError, match="not a keystore of version 3") as caught:
        open_keystore(path, PASSWORD)
    assert named in caught.value.message
    assert caught.value.field == str(path)
    assert caught.value.hint
    assert "argon2id" not in str(caught.value)


@pytest.mark.parametrize(
    ("n", "r", "p"),
    [(2**40, 8, 1), (2**18, 2**20, 1), (2**18, 8, 2**20), (2, 1, 2**60), (2**400, 1, 1), (2 * MAX_SCRYPT_COST, 1, 1)],
)
def test_a_keystore_that_would_eat_the_machine_is_refused_at_once(tmp_path: Path, n: int, r: int, p: int) -> None:
    content = changed("Crypto.kdfparams.n", n)
    content["Crypto"]["kdfparams"] |= {"r": r, "p": p}
    started = time.process_time()
    with pytest.raises(KeystoreError, match="too much memory and time") as caught:
        open_keystore(put(tmp_path / "keystore", content), PASSWORD)
    assert time.process_time() - started < 0.5
    assert "n = 262144" in caught.value.hint


def test_the_usual_costs_are_within_the_bound(tmp_path: Path) -> None:
    for n, r, p in [(2**18, 8, 1), (2**18, 1, 8), (2**17, 8, 1), (2**12, 8, 6), (MAX_SCRYPT_COST, 1, 1)]:
        content = changed("Crypto.kdfparams.n", n)
        content["Crypto"]["kdfparams"] |= {"r": r, "p": p}
        assert read_keystore(put(tmp_path / "keystore", content)).address == ADDRESS


def test_rounds_of_pbkdf2_are_bounded(tmp_path: Path) -> None:
    content = EthereumSigner.encrypt(KEY, PASSWORD, kdf="pbkdf2", iterations=10)
    content["crypto"]["kdfparams"]["c"] = 10**12
    with pytest.raises(KeystoreError, match=r"kdfparams\.c"):
        open_keystore(put(tmp_path / "keystore", content), PASSWORD)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[" * 10_000, b'{"version": 1' + b"0" * 5000 + b"}", b"-----BEGIN PRIVATE KEY-----"],
)
def test_what_is_no_json_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(KeystoreError, match="not a keystore"):
        open_keystore(put(tmp_path / "keystore", content), PASSWORD)


@pytest.mark.parametrize("content", [[], "text", None, 3])
def test_json_of_another_kind_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(KeystoreError, match="version 3: the file"):
        open_keystore(put(tmp_path / "keystore", content), PASSWORD)


def test_files_that_are_missing_open_to_others_linked_or_huge_are_refused(tmp_path: Path) -> None:
    path = put(tmp_path / "keystore", ETHERS)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(NotFoundError, match="the keystore is not there"):
        open_keystore(tmp_path / "absent", PASSWORD)
    with pytest.raises(SecretFileError, match="is a link"):
        open_keystore(tmp_path / "link", PASSWORD)
    with pytest.raises(SecretFileError, match="more than 16384 bytes"):
        open_keystore(put(tmp_path / "huge", b" " * 20_000), PASSWORD)
    path.chmod(0o644)
    with pytest.raises(SecretFileError, match="open to others"):
        open_keystore(path, PASSWORD)


def test_a_keystore_that_names_another_address_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path / "keystore", changed("address", "00" * 20))
    with pytest.raises(KeystoreError, match="another key than it says"):
        open_keystore(path, PASSWORD)


def test_an_altered_iv_is_noticed_by_the_address(tmp_path: Path) -> None:
    # the format's own check covers the ciphertext alone
    path = put(tmp_path / "keystore", changed("Crypto.cipherparams.iv", "00" * 16))
    with pytest.raises(KeystoreError, match="another key than it says"):
        open_keystore(path, PASSWORD)


@pytest.mark.parametrize("secret", [0, SECPK1_N, 2**256 - 1])
def test_a_keystore_of_what_is_no_key_is_refused(tmp_path: Path, secret: int) -> None:
    content = EthereumSigner.encrypt(KEY, PASSWORD, kdf="pbkdf2", iterations=10)
    crypto = content["crypto"]
    derived = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), bytes.fromhex(crypto["kdfparams"]["salt"]), 10, 32)
    masked = int(crypto["ciphertext"], 16) ^ int.from_bytes(KEY, "big") ^ secret
    ciphertext = masked.to_bytes(32, "big")
    crypto |= {"ciphertext": ciphertext.hex(), "mac": keccak(derived[16:] + ciphertext).hex()}
    del content["address"]
    with pytest.raises(KeystoreError, match="another key than it says"):
        open_keystore(put(tmp_path / "keystore", content), PASSWORD)


@pytest.mark.parametrize(
    ("secret", "fine"), [(0, False), (1, True), (SECPK1_N - 1, True), (SECPK1_N, False), (2**256 - 1, False)]
)
def test_a_key_lies_within_the_curves_order(secret: int, fine: bool) -> None:
    assert is_private_key(secret.to_bytes(32, "big")) is fine
    assert not is_private_key(b"")
