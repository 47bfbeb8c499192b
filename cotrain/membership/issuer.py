"""The coordinator's signing keys on disk: followed by new ones, trusted until what they signed has expired."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from cotrain.errors import ConfigError
from cotrain.membership.certificate import GRACE_S, LIFETIME_S, Certificate, Endorsement, RevocationList, Role
from cotrain.membership.document import Credential
from cotrain.membership.sealed import IssuerKey
from cotrain.sections import SessionId

REVOCATIONS_HOLD_S = 600
"""How long the DHT may carry one signed list; a newer one is signed well before."""

_SUFFIX = ".issuer.json"


class _KeyFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    seed: str
    created_at: int
    endorsement: str
    """By the key before this one; empty for the first, and for one that replaces a stolen key."""


@dataclass(frozen=True)
class _Generation:
    key: IssuerKey = field(repr=False)
    created_at: int
    endorsement: str


class Issuer:
    """Signs certificates and revocations with the newest key of a folder.

    Keys are in files of mode 0600, one each, named by the time of their making. A key is trusted for as long after the
    next one was made as what it signed may still hold.
    """

    def __init__(self, folder: Path, *, now: float):
        """Loads the keys; makes the first if there is none. Raises ConfigError for a file that cannot be used."""
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not list(folder.glob(f"*{_SUFFIX}")):
            _write_key(folder, IssuerKey.generate(), now=now, endorsed_by=None)
        self._stamp: tuple[str, ...] = ()
        self._generations: list[_Generation] = []
        self._load()

    def _load(self) -> None:
        """Read the folder again if its files are other ones: `rotate` may have run in another process."""
        paths = sorted(self._folder.glob(f"*{_SUFFIX}"))
        stamp = tuple(path.name for path in paths)
        if stamp != self._stamp:
            self._generations = [_read_key(path) for path in paths]
            self._stamp = stamp

    def _trusted(self, now: float) -> list[_Generation]:
        """Keys whose certificates may still hold, oldest first; the last one signs."""
        self._load()
        unendorsed = [number for number, generation in enumerate(self._generations) if not generation.endorsement]
        chain = self._generations[unendorsed[-1] :]  # what is older was stolen, or signed by what was
        until = [follower.created_at + LIFETIME_S + GRACE_S for follower in chain[1:]]
        return [*(g for g, end in zip(chain, until, strict=False) if now < end), chain[-1]]

    def public_keys(self, now: float) -> list[str]:
        """The keys that peers should trust, oldest first."""
        return [generation.key.public for generation in self._trusted(now)]

    def issue(
        self, *, session: SessionId, peer_id: str, account: str, role: Role, now: float, until: float
    ) -> tuple[Certificate, Credential]:
        """A certificate for at most LIFETIME_S, and no longer than `until` (Unix seconds)."""
        certificate = Certificate(
            serial=secrets.token_hex(8), session=session, peer_id=peer_id, account=account, role=role,
            issued_at=int(now), expires_at=int(min(now + LIFETIME_S, until)),
        )  # fmt: skip
        trusted = self._trusted(now)
        return certificate, Credential(
            certificate=certificate.seal("certificate", trusted[-1].key),
            endorsements=[generation.endorsement for generation in trusted if generation.endorsement],
        )

    def revoke(self, session: SessionId, serials: list[str], *, now: float) -> str:
        """A signed list, for one record of the DHT."""
        revocations = RevocationList(
            session=session, serials=serials, issued_at=int(now), expires_at=int(now) + REVOCATIONS_HOLD_S
        )
        return revocations.seal("revocations", self._trusted(now)[-1].key)

    def rotate(self, *, now: float, stolen: bool = False) -> str:
        """Make the next key and return its public half.

        The present key endorses it, so that peers that know only the present one accept the next. A `stolen` key
        endorses nothing and is trusted no more: nodes must register again.
        """
        self._load()
        key = IssuerKey.generate()
        newest = self._generations[-1]
        _write_key(self._folder, key, now=max(now, newest.created_at + 1), endorsed_by=None if stolen else newest.key)
        self._load()
        return key.public


def _write_key(folder: Path, key: IssuerKey, *, now: float, endorsed_by: IssuerKey | None) -> None:
    created_at = int(now)
    endorsement = ""
    if endorsed_by is not None:
        endorsement = Endorsement(key=key.public, issued_at=created_at).seal("endorsement", endorsed_by)
    content = _KeyFile(seed=key.private.private_bytes_raw().hex(), created_at=created_at, endorsement=endorsement)
    path = folder / f"{created_at:012d}{_SUFFIX}"
    temporary = folder / f".{path.name}.{os.getpid()}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(content.model_dump_json())
        file.flush()
        os.fsync(file.fileno())
    os.link(temporary, path)
    temporary.unlink()


def _read_key(path: Path) -> _Generation:
    try:
        content = _KeyFile.model_validate_json(path.read_bytes())
        return _Generation(IssuerKey.from_seed(bytes.fromhex(content.seed)), content.created_at, content.endorsement)
    except (OSError, ValidationError, ValueError):
        # without the cause: it would show what the file holds
        raise ConfigError(
            "is not a signing key of a coordinator", field=str(path),
            hint="restore it from a backup, or move it away: another key is used, and nodes register again",
        ) from None  # fmt: skip
