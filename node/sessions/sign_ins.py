"""Which coordinators this machine has signed in to, with their tokens: a file that nobody else may read."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError

from cotrain.errors import ConfigError, NotFoundError
from cotrain.identity.secret_files import read_secret_file, replace_secret_file
from cotrain.request import CamelModel

SIGN_INS_FILE = "coordinators.json"
"""In COTRAIN_HOME."""
_WHAT = "the file of sign-ins"
_LIMIT_BYTES = 256 * 1024


class SignIns(CamelModel):
    """What was remembered."""

    latest: str = ""
    """URL of the coordinator that was signed in to last; empty if there is none."""
    tokens: dict[str, str] = Field(default_factory=dict, repr=False)
    """Secret: of each coordinator by its URL."""


def read_sign_ins(home: Path) -> SignIns:
    """What was remembered; nothing, where there is no file. Raises SecretFileError, ConfigError."""
    path = home / SIGN_INS_FILE
    try:
        return SignIns.model_validate_json(read_secret_file(path, what=_WHAT, limit_bytes=_LIMIT_BYTES))
    except NotFoundError:
        return SignIns()
    except ValidationError:  # its text would quote what is in the file
        raise ConfigError(
            f"{_WHAT} is damaged", field=str(path), hint="delete it, and sign in again: cotrain sessions login URL"
        ) from None


def remember(home: Path, base_url: str, token: str) -> None:
    """Keep the token of a coordinator; commands that name none ask this one from now on. Raises as `read_sign_ins`."""
    found = read_sign_ins(home)
    _write(home, SignIns(latest=base_url, tokens={**found.tokens, base_url: token}))


def forget(home: Path, base_url: str) -> None:
    """Drop the token of a coordinator. Raises as `read_sign_ins`."""
    found = read_sign_ins(home)
    tokens = {url: token for url, token in found.tokens.items() if url != base_url}
    _write(home, SignIns(latest="" if found.latest == base_url else found.latest, tokens=tokens))


def _write(home: Path, sign_ins: SignIns) -> None:
    replace_secret_file(home / SIGN_INS_FILE, sign_ins.model_dump_json(by_alias=True).encode(), what=_WHAT)
