"""The wallet that a node signs with, and where it comes from: a keystore, a variable, or the home folder.

The home folder has the keystore `wallet.json` and its password in `wallet.password`, both with mode 0600, made when
they are first needed. This guards a copy of one of the two, no more: who can read the folder has the wallet.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cotrain.errors import ConflictError, InvalidRequestError
from cotrain.identity.account import Account
from cotrain.identity.ethereum import EthereumSigner, encode_defunct
from cotrain.identity.keystore import SCRYPT_N, is_private_key, open_keystore, write_keystore
from cotrain.identity.password import Ask, PasswordSource

HOME_KEYSTORE = "wallet.json"
HOME_PASSWORD = "wallet.password"  # noqa: S105 - the file's name
DEFAULT_CHAIN = "eip155:1"

_RANDOM_PASSWORD_SCRYPT_N = 2**12
"""A password of 256 random bits is not guessed at any speed: a higher cost would fall on the node alone."""
_KEY = re.compile(r"\s*(?:0x)?([0-9a-fA-F]{64})\s*", re.ASCII)


class EthereumWallet:
    """A private key, its account, and signatures with it. Nothing that is printed of it shows the key."""

    __slots__ = ("_signer", "account")

    def __init__(self, key: bytes, *, chain: str = DEFAULT_CHAIN):
        """Args: `key`, a private key (32 bytes); `chain`, CAIP-2 of the Ethereum chain to sign in with."""
        self._signer = EthereumSigner.from_key(key)
        self.account = Account.of(chain, self._signer.address)

    @classmethod
    def create(cls) -> EthereumWallet:
        """A wallet with a new random key."""
        return cls(bytes(EthereumSigner.create().key))

    def sign(self, text: str) -> str:
        """The EIP-191 signature (personal message) over `text`: 0x and 130 hexadecimal digits."""
        return "0x" + bytes(self._signer.sign_message(encode_defunct(text=text)).signature).hex()

    def private_key(self) -> bytes:
        """The key itself (32 bytes), to be stored encrypted or handed to its owner."""
        return bytes(self._signer.key)

    def __repr__(self) -> str:
        return f"EthereumWallet({self.account.address})"


@dataclass(frozen=True)
class WalletOptions:
    """Where a person wants the wallet to come from; with nothing given, from the home folder."""

    keystore: Path | None = None
    password_file: Path | None = None
    """Its first line is the keystore's password."""
    private_key_env: str | None = None
    """Name of the variable that holds a private key, in place of a keystore."""


def open_wallet(home: Path, options: WalletOptions, *, ask: Ask | None) -> EthereumWallet:
    """The wallet that `options` name; the home folder's is made if it has none.

    A keystore's password comes from the password file, else for the home folder's from the file beside it, else from
    COTRAIN_WALLET_PASSWORD, else from `ask`. Variables with a secret are removed from the environment when they are
    read, so that no child process inherits them.

    Args:
        home: the volunteer's folder.
        options: what was asked for.
        ask: asks at the terminal; None where there is none.

    Raises:
        InvalidRequestError: options that exclude each other; a key or a password that cannot be one.
        NotAuthorizedError: a password is needed, and nobody gives one.
        NotFoundError, SecretFileError, KeystoreError: the keystore or the password file cannot be used.
    """
    source = PasswordSource.take(options.password_file, ask=ask)
    if options.private_key_env is not None:
        if options.keystore or options.password_file:
            raise InvalidRequestError(
                "goes with neither a keystore nor a password file", field="--private-key-env", hint="give one of them"
            )
        return EthereumWallet(_key_from_variable(options.private_key_env))
    if options.keystore is None and not os.path.lexists(home / HOME_KEYSTORE):
        with suppress(ConflictError):  # another process has just made it
            return create_home_wallet(home, EthereumWallet.create(), source)
    return open_keystore_file(home, options.keystore or home / HOME_KEYSTORE, source)


def open_keystore_file(home: Path, path: Path, source: PasswordSource) -> EthereumWallet:
    """The wallet in the keystore at `path`, be it the home folder's or another. Errors as `open_wallet`."""
    refuse_key_as_name(str(path), field="the keystore's name")
    beside = home / HOME_PASSWORD if path == home / HOME_KEYSTORE else None
    return EthereumWallet(open_keystore(path, source.of_existing(path, beside=beside)))


def create_home_wallet(home: Path, wallet: EthereumWallet, source: PasswordSource) -> EthereumWallet:
    """Keep `wallet` as the home folder's, and return it. Nobody is asked.

    Its password is the one that was given, else a random one in `wallet.password`.

    Raises:
        ConflictError: the home folder has a wallet; it is left as it is.
        InvalidRequestError, SecretFileError: the password cannot be used, or a file not be written.
    """
    path = home / HOME_KEYSTORE
    if os.path.lexists(path):  # asked first, so that no password file is made in vain
        raise ConflictError("there is a wallet already", field=str(path), hint="it is never written over")
    password = source.kept_in(home / HOME_PASSWORD)
    cost = SCRYPT_N if source.is_given else _RANDOM_PASSWORD_SCRYPT_N
    write_keystore(path, wallet.private_key(), password, scrypt_n=cost)
    return wallet


def parse_private_key(text: str, *, field: str) -> bytes:
    """A private key (32 bytes) from 64 hexadecimal digits, with or without 0x. Raises InvalidRequestError."""
    found = _KEY.fullmatch(text)
    key = bytes.fromhex(found[1]) if found else b""
    if not is_private_key(key):
        raise InvalidRequestError("is not an Ethereum private key", field=field, hint="64 hexadecimal digits")
    return key


def refuse_key_as_name(text: str, *, field: str) -> None:
    """Raises InvalidRequestError, without repeating it, for a private key where a name should stand."""
    if _KEY.fullmatch(text):
        raise InvalidRequestError(
            "is a private key; process lists and the shell's history have it now", field=field,
            hint="take another key, and give it on standard input: cotrain node wallet import",
        )  # fmt: skip


def _key_from_variable(name: str) -> bytes:
    refuse_key_as_name(name, field="--private-key-env")
    text = os.environ.pop(name, "")
    if not text:
        raise InvalidRequestError("the variable is not set", field=name, hint="its value is the key, hexadecimal")
    return parse_private_key(text, field=name)
