"""The parts of a round's vector: who reduces which, and which encoded averages this peer holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from blake3 import blake3

PART_VALUES = 2**20
"""Values in a part: parts of a million are twice as fast as parts of 64 thousand."""

Manifest = tuple[str | None, ...]
"""BLAKE3 (hexadecimal) of each part's encoded average; None where nobody holds it: that part counts as zero."""


@dataclass(frozen=True)
class Part:
    """Values `start` to `stop` of the vector, averaged by the member `reducer`."""

    start: int
    stop: int
    reducer: str

    @property
    def numel(self) -> int:
        return self.stop - self.start


def partition(
    numel: int, members: Sequence[str], shares: Sequence[int], block: int, part_values: int = PART_VALUES
) -> list[Part]:
    """Divide `numel` values among the members in proportion to integer shares.

    Integer arithmetic only, so that every member computes the same. Boundaries are multiples of the codec's block; a
    member with share 0 reduces nothing. At least one share must be positive.
    """
    total, parts, begin, cumulated = sum(shares), [], 0, 0
    for member, share in zip(members, shares, strict=True):
        cumulated += share
        end = numel if cumulated == total else numel * cumulated // total // block * block
        parts += [Part(at, min(at + part_values, end), member) for at in range(begin, end, part_values)]
        begin = max(begin, end)
    return parts


@dataclass
class PartLedger:
    """The encoded averages that this peer holds, by part.

    Attributes:
        displaced: what it held, or was brought, of parts that it now holds with other bytes.
    """

    parts: Sequence[Part]
    displaced: dict[int, bytes] = field(default_factory=dict)
    _encoded: dict[int, bytes] = field(default_factory=dict)
    _digests: dict[int, str] = field(default_factory=dict)

    def put(self, index: int, encoded: bytes) -> None:
        """Hold an average; a part that is already held stays as it is."""
        if index not in self._encoded:
            self._encoded[index], self._digests[index] = encoded, digest_of(encoded)
        elif encoded != self._encoded[index]:
            self.displaced[index] = encoded

    def replace(self, index: int, encoded: bytes) -> None:
        """Hold the bytes that the group decided on, in place of others."""
        if index in self._encoded and encoded != self._encoded[index]:
            self.displaced[index] = self._encoded[index]
        self._encoded[index], self._digests[index] = encoded, digest_of(encoded)

    def encoded(self, index: int) -> bytes | None:
        return self._encoded.get(index)

    @property
    def manifest(self) -> Manifest:
        """Digests of what is held."""
        return tuple(self._digests.get(index) for index in range(len(self.parts)))

    def missing(self, manifest: Manifest) -> list[int]:
        """Parts of `manifest` that are not held with the same bytes."""
        return [i for i, digest in enumerate(manifest) if digest is not None and self._digests.get(i) != digest]


def digest_of(encoded: bytes | memoryview) -> str:
    """BLAKE3, 256 bits, hexadecimal. SHA-256 takes several times as long, more where processors do not help with it."""
    return blake3(encoded).hexdigest()
