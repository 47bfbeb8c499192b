"""Private keys under a password: Web3 Secret Storage version 3, which all Ethereum wallets read
(https://ethereum.org/en/developers/docs/data-structures-and-encoding/web3-secret-storage/).

The cipher and the key derivation are eth-account's. What it is given is checked here first: a keystore may come from
anybody, and its own parameters say how much memory and time it costs to open.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from eth_keys.constants import SECPK1_N
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from cotrain.errors import CotrainError, InvalidRequestError
from cotrain.identity.ethereum import EthereumSigner
from cotrain.identity.secret_files import read_secret_file, write_new_secret_file

SCRYPT_N = 2**18
"""scrypt's cost by default, with r = 8: 256 MiB and about a second."""
MAX_SCRYPT_COST = 2**22
"""Bound of n * r * p in a keystore that is opened: 512 MiB."""
MAX_PBKDF2_ROUNDS = 10_000_000
MIN_PASSWORD_LENGTH = 8
MAX_KEYSTORE_BYTES = 16 * 1024

_WHAT = "the keystore"


class KeystoreError(CotrainError):
    """A keystore that cannot be opened: damaged, of another kind, or under another password."""

    code: ClassVar[str] = "keystore"
    exit_code: ClassVar[int] = 77


def _hex(pattern: str) -> Any:
    return StringConstraints(pattern=rf"^(0x)?{pattern}$")


_Salt = Annotated[str, _hex("([0-9a-fA-F]{2}){1,128}")]
_Bytes16 = Annotated[str, _hex("[0-9a-fA-F]{32}")]
_Bytes32 = Annotated[str, _hex("[0-9a-fA-F]{64}")]
_KeyLength = Annotated[int, Field(ge=32, le=64)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, hide_input_in_errors=True)


class _ScryptParameters(_Part):
    n: Annotated[int, Field(ge=2)]
    r: Annotated[int, Field(ge=1)]
    p: Annotated[int, Field(ge=1)]
    dklen: _KeyLength
    salt: _Salt


class _Pbkdf2Parameters(_Part):
    c: Annotated[int, Field(ge=1, le=MAX_PBKDF2_ROUNDS)]
    prf: Literal["hmac-sha256"]
    dklen: _KeyLength
    salt: _Salt


class _CipherParameters(_Part):
    iv: _Bytes16


class _Crypto(_Part):
    cipher: Literal["aes-128-ctr"]
    cipherparams: _CipherParameters
    ciphertext: _Bytes32
    mac: _Bytes32


class _ScryptCrypto(_Crypto):
    kdf: Literal["scrypt"]
    kdfparams: _ScryptParameters


class _Pbkdf2Crypto(_Crypto):
    kdf: Literal["pbkdf2"]
    kdfparams: _Pbkdf2Parameters


class Keystore(_Part):
    """An encrypted private key: what of the file's JSON is needed to open it. What else stands there is ignored."""

    version: Literal[3]
    crypto: Annotated[
        Annotated[_ScryptCrypto | _Pbkdf2Crypto, Field(discriminator="kdf")],
        Field(validation_alias=AliasChoices("crypto", "Crypto")),
    ]
    address: Annotated[str, _hex("[0-9a-fA-F]{40}")] | None = None
    """Hexadecimal, whatever the case of its letters; some wallets leave it out."""


def read_keystore(path: Path) -> Keystore:
    """The keystore in a private file. Raises NotFoundError, SecretFileError or KeystoreError."""
    content = read_secret_file(path, what=_WHAT, limit_bytes=MAX_KEYSTORE_BYTES)
    try:
        keystore = Keystore.model_validate(json.loads(content))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        # pydantic's message about an unknown kdf repeats what stood there
        reason = "kdf should be scrypt or pbkdf2" if first["type"].startswith("union_tag") else first["msg"]
        raise _refusal(path, f"is not a keystore of version 3: {place}: {reason}") from None
    except (ValueError, RecursionError):
        raise _refusal(path, "is not a keystore: it holds no JSON") from None
    parameters = keystore.crypto.kdfparams
    if isinstance(parameters, _ScryptParameters):
        _check_cost(path, parameters)
    return keystore


def _check_cost(path: Path, parameters: _ScryptParameters) -> None:
    if parameters.n & (parameters.n - 1):
        raise _refusal(path, "is not a keystore of version 3: crypto.kdfparams.n is no power of two")
    if parameters.n * parameters.r * parameters.p > MAX_SCRYPT_COST:
        raise KeystoreError(
            f"would take too much memory and time to open: n * r * p is above {MAX_SCRYPT_COST}", field=str(path),
            hint="encrypt the key anew with n = 262144, r = 8, p = 1, as most wallets do",
        )  # fmt: skip


def _refusal(path: Path, reason: str) -> KeystoreError:
    return KeystoreError(reason, field=str(path), hint="restore it from a backup, or name another file")


def open_keystore(path: Path, password: str) -> bytes:
    """The private key (32 bytes) in the keystore at `path`.

    Raises:
        NotFoundError: there is no such file.
        SecretFileError: it is a link, open to others, or cannot be read.
        KeystoreError: it is no keystore, costs too much to open, or the password is another one.
        InvalidRequestError: the password is no Unicode.
    """
    keystore = read_keystore(path)
    _check_encoding(password)
    try:
        key = bytes(EthereumSigner.decrypt(keystore.model_dump(exclude={"address"}), password))
    except ValueError:  # eth-keyfile: the MAC is another one
        raise KeystoreError("the password is wrong", field=str(path), hint="or the file is damaged") from None
    if not is_private_key(key) or not _is_address_of(key, keystore.address):
        raise _refusal(path, "holds another key than it says")
    return key


def write_keystore(path: Path, key: bytes, password: str, *, scrypt_n: int = SCRYPT_N) -> None:
    """Encrypt a private key (32 bytes) into a new file.

    Args:
        path: where; nothing may be there yet.
        key: the private key.
        password: at least 8 characters.
        scrypt_n: scrypt's cost, a power of two.

    Raises:
        ConflictError: something is at `path`; it is left as it is.
        InvalidRequestError: the password is too short, or no Unicode.
        SecretFileError: the file cannot be written.
    """
    if len(password) < MIN_PASSWORD_LENGTH:
        raise InvalidRequestError("is too short", field="password", hint=f"at least {MIN_PASSWORD_LENGTH} characters")
    _check_encoding(password)
    content = EthereumSigner.encrypt(key, password, kdf="scrypt", iterations=scrypt_n)
    write_new_secret_file(path, json.dumps(content, indent=2).encode() + b"\n", what=_WHAT)


def is_private_key(key: bytes) -> bool:
    """Whether these 32 bytes are a key on Ethereum's curve."""
    return 0 < int.from_bytes(key, "big") < SECPK1_N


def _check_encoding(password: str) -> None:
    try:
        password.encode()
    except UnicodeEncodeError:
        raise InvalidRequestError(
            "is not UTF-8", field="password", hint="letters that were cut or of an old encoding"
        ) from None


def _is_address_of(key: bytes, address: str | None) -> bool:
    if address is None:
        return True
    own: str = EthereumSigner.from_key(key).address
    return own.lower().removeprefix("0x") == address.lower().removeprefix("0x")
