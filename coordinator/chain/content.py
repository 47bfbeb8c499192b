"""What an entry says to the registry, and what the registry's answer means for it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.chain.machine import Kind, Standing
from coordinator.chain.rows import ChainEntryRow
from cotrain.chain.merkle import HASH_BYTES, keccak, session_key
from cotrain.chain.registry import Record

_OPEN = "openSession(bytes32,bytes32)"
_CLOSE = "closeSession(bytes32,bytes32,bytes32,uint128)"


@dataclass(frozen=True)
class Content:
    """An entry in the contract's terms; hashes are of 32 bytes, those of the end zero in an opening."""

    kind: Kind
    session: str
    config_hash: bytes
    final_digest: bytes = bytes(HASH_BYTES)
    contributions_root: bytes = bytes(HASH_BYTES)
    total_samples: int = 0

    @property
    def key(self) -> bytes:
        """Under which the contract keeps the session (32 bytes)."""
        return session_key(self.session)

    def calldata(self) -> bytes:
        """The call that records it: a selector and words of 32 bytes."""
        if self.kind == "open":
            return keccak(_OPEN.encode())[:4] + self.key + self.config_hash
        said = self.final_digest + self.contributions_root + self.total_samples.to_bytes(HASH_BYTES)
        return keccak(_CLOSE.encode())[:4] + self.key + said


def content_of(row: ChainEntryRow) -> Content:
    """What a stored entry says."""
    return Content(
        row.kind, row.session_id, bytes.fromhex(row.config_hash), _hash(row.final_digest),
        _hash(row.contributions_root), row.total_samples,
    )  # fmt: skip


def standing_of(content: Content, held: Record | None) -> Standing:
    """What the contract says of an entry; None: there was no contract yet."""
    if held is None or not held.opened_at:
        return "absent" if content.kind == "open" else "unopened"
    if held.config_hash != content.config_hash:
        return "other"
    if content.kind == "open":
        return "same"
    if not held.closed_at:
        return "absent"
    said = (content.final_digest, content.contributions_root, content.total_samples)
    return "same" if (held.final_digest, held.contributions_root, held.total_samples) == said else "other"


def _hash(digits: str) -> bytes:
    return bytes.fromhex(digits) if digits else bytes(HASH_BYTES)
