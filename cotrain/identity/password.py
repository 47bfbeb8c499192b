"""Where the password of a keystore comes from: a file, a variable, or a person at a terminal."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cotrain.errors import ConflictError, InvalidRequestError, NotAuthorizedError
from cotrain.identity.secret_files import read_secret_file, write_new_secret_file

PASSWORD_VARIABLE = "COTRAIN_WALLET_PASSWORD"  # noqa: S105 - the variable's name

Ask = Callable[[str], str]
"""Asks a person at a terminal for a secret, which is not shown; the argument says for what."""

_WHAT = "the password file"
_MAX_FILE_BYTES = 4096
_RANDOM_BYTES = 32


@dataclass(frozen=True)
class PasswordSource:
    """The places a password may come from, in their order."""

    file: Path | None = None
    """Its first line is the password."""
    variable: str = field(default="", repr=False)
    """What COTRAIN_WALLET_PASSWORD holds; empty if it is not set."""
    ask: Ask | None = None
    """None where there is no terminal."""

    @classmethod
    def take(cls, file: Path | None, *, ask: Ask | None) -> PasswordSource:
        """The sources of this process. The variable is removed, so that no child process inherits it."""
        return cls(file, os.environ.pop(PASSWORD_VARIABLE, ""), ask)

    @property
    def is_given(self) -> bool:
        """Whether somebody has said a password beforehand."""
        return self.file is not None or bool(self.variable)

    def of_existing(self, keystore: Path, *, beside: Path | None = None) -> str:
        """The password of a keystore that is there.

        Args:
            keystore: named in the error and in the question.
            beside: a file that may hold its password; it comes after `file` and before the others.

        Raises:
            NotAuthorizedError: nobody gives one.
            NotFoundError, SecretFileError, InvalidRequestError: the file that should hold it cannot be used.
        """
        password = self._said(beside) or (self.ask(f"Password of {keystore}") if self.ask else "")
        if not password:
            raise _nobody_gives_one(keystore)
        return password

    def of_new(self, keystore: Path) -> str:
        """The password for a keystore that is to be made; a person is asked for it twice. Errors as `of_existing`."""
        password = self._said(None)
        if password:
            return password
        if self.ask is None:
            raise _nobody_gives_one(keystore)
        password = self.ask(f"New password for {keystore}")
        if self.ask("The same once more") != password:
            raise InvalidRequestError("the two are not the same", field="password", hint="try again")
        return password

    def kept_in(self, beside: Path) -> str:
        """The password for a keystore that is made without asking: what was given, else what `beside` holds.

        A file with a random password is made there if there is none; processes that do so at once get the same.
        """
        password = self._said(beside)
        if password:
            return password
        with suppress(ConflictError):  # another process has just made it
            write_new_secret_file(beside, secrets.token_urlsafe(_RANDOM_BYTES).encode() + b"\n", what=_WHAT)
        return _read(beside)

    def _said(self, beside: Path | None) -> str:
        """What stands in `file`, in `beside` or in the variable, empty if there is none of them."""
        if self.file is not None:
            return _read(self.file)
        if beside is not None and os.path.lexists(beside):
            return _read(beside)
        return self.variable


def _read(path: Path) -> str:
    content = read_secret_file(path, what=_WHAT, limit_bytes=_MAX_FILE_BYTES)
    try:
        password = content.decode().partition("\n")[0].removesuffix("\r")
    except UnicodeDecodeError:
        raise InvalidRequestError("is not UTF-8", field=str(path), hint="the password is its first line") from None
    if not password:
        raise InvalidRequestError("its first line is empty", field=str(path), hint="the password is its first line")
    return password


def _nobody_gives_one(keystore: Path) -> NotAuthorizedError:
    return NotAuthorizedError(
        "needs a password", field=str(keystore),
        hint=f"give --password-file FILE, set {PASSWORD_VARIABLE}, or run it in a terminal",
    )  # fmt: skip
