"""What members sign about the parts: senders their contributions, a reducer what it made an average of.

A contribution goes out with its sender's signature over its digest. An average goes out sealed: after the encoded
values comes the reducer's claim, which names every contribution that it had by digest and with the sender's signature,
and the residual that it added. A manifest holds the digests of sealed averages, so what the group decides on binds the
averages and the commitments of all senders at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from cotrain.peer_key import signed_by_peer
from cotrain.swarm.parts import digest_of
from cotrain.swarm.terms import MOST_MEMBERS, Digest, GroupTerms, Signature, Statement
from cotrain.swarm.votes import Signer

CONTRIBUTION, AVERAGE = "contribution", "average"
SIGNATURE_BYTES = 64
_DIGEST_BYTES = 32
_NO_DIGEST = bytes(_DIGEST_BYTES)
_NO_SIGNATURE = bytes(SIGNATURE_BYTES)


class Input(Statement):
    """A contribution that a reducer had: its digest, and its sender's signature (none for the reducer's own)."""

    digest: Digest
    signature: Signature | None


class Claim(Statement):
    """A reducer's signed word on what it made the average of a part of."""

    part: Annotated[int, Field(ge=0, lt=2**32)]
    average: Digest
    """Of the encoded average."""
    inputs: Annotated[tuple[Input | None, ...], Field(max_length=MOST_MEMBERS)]
    """In the order of the members; None where nothing came, or nothing with a signature that holds."""
    residual: Digest | None
    """Of what was added to the average before it was encoded, as little-endian float32; None for zeros."""
    signature: Signature


def sign_contribution(terms: GroupTerms, part: int, encoded: bytes, signer: Signer) -> bytes:
    """64 bytes of Ed25519."""
    return signer.sign(CONTRIBUTION, _contribution_content(terms, part, digest_of(encoded)))


def is_contribution_of(terms: GroupTerms, part: int, member: str, digest: str, signature: bytes) -> bool:
    """Whether the member has signed for sending an encoded contribution of this digest to this part."""
    return signed_by_peer(member, CONTRIBUTION, _contribution_content(terms, part, digest), signature)


def make_claim(
    terms: GroupTerms, part: int, encoded: bytes, inputs: Sequence[Input | None], residual: str | None, signer: Signer
) -> Claim:
    """Sign, as the reducer of the part, what the encoded average was made of."""
    average = digest_of(encoded)
    signature = signer.sign(AVERAGE, _claim_content(terms, part, average, _pack(inputs, residual)))
    return Claim(part=part, average=average, inputs=tuple(inputs), residual=residual, signature=signature.hex())


def is_claim_of_reducer(terms: GroupTerms, claim: Claim) -> bool:
    """Whether it is signed by the peer that reduces the part, and speaks of every member."""
    if claim.part >= len(terms.parts) or len(claim.inputs) != len(terms.members):
        return False
    content = _claim_content(terms, claim.part, claim.average, _pack(claim.inputs, claim.residual))
    return signed_by_peer(terms.parts[claim.part].reducer, AVERAGE, content, bytes.fromhex(claim.signature))


def seal(encoded: bytes, claim: Claim) -> bytes:
    """An average as it travels: the encoded values, then the claim."""
    return encoded + _pack(claim.inputs, claim.residual) + bytes.fromhex(claim.signature)


def unseal(terms: GroupTerms, part: int, sealed: bytes) -> tuple[bytes, Claim]:
    """The encoded average and the claim, unchecked. Raises ValueError for what is too short to hold one."""
    encoded = encoded_of(terms, sealed)
    packed, signature = sealed[len(encoded) : -SIGNATURE_BYTES], sealed[-SIGNATURE_BYTES:]
    inputs, residual = _unpack(packed, len(terms.members))
    claim = Claim(
        part=part, average=digest_of(encoded), inputs=inputs, residual=residual, signature=signature.hex()
    )  # fmt: skip
    return encoded, claim


def encoded_of(terms: GroupTerms, sealed: bytes) -> bytes:
    """The encoded average alone. Raises ValueError for what is too short to hold one."""
    length = len(sealed) - _packed_bytes(len(terms.members)) - SIGNATURE_BYTES
    if length < 0:
        raise ValueError("is too short for a sealed average")
    return sealed[:length]


def is_in(terms: GroupTerms, sealed: bytes) -> list[bool]:
    """Whether a sealed average names a contribution, for each member in order; the claim is not checked.

    Raises ValueError for what is too short to hold a claim.
    """
    start, width = len(encoded_of(terms, sealed)), _DIGEST_BYTES + SIGNATURE_BYTES
    rows = range(start, start + len(terms.members) * width, width)
    return [sealed[row : row + _DIGEST_BYTES] != _NO_DIGEST for row in rows]


# ---------------------------------------------------------------------------------------------- bytes
def _contribution_content(terms: GroupTerms, part: int, digest: str) -> bytes:
    return bytes.fromhex(terms.digest) + part.to_bytes(4, "big") + bytes.fromhex(digest)


def _claim_content(terms: GroupTerms, part: int, average: str, packed: bytes) -> bytes:
    return bytes.fromhex(terms.digest) + part.to_bytes(4, "big") + bytes.fromhex(average) + packed


def _packed_bytes(members: int) -> int:
    return members * (_DIGEST_BYTES + SIGNATURE_BYTES) + _DIGEST_BYTES


def _pack(inputs: Sequence[Input | None], residual: str | None) -> bytes:
    rows = [
        _NO_DIGEST + _NO_SIGNATURE
        if row is None
        else bytes.fromhex(row.digest) + (_NO_SIGNATURE if row.signature is None else bytes.fromhex(row.signature))
        for row in inputs
    ]
    return b"".join(rows) + (_NO_DIGEST if residual is None else bytes.fromhex(residual))


def _unpack(packed: bytes, members: int) -> tuple[tuple[Input | None, ...], str | None]:
    width = _DIGEST_BYTES + SIGNATURE_BYTES
    inputs: list[Input | None] = []
    for start in range(0, members * width, width):
        digest, signature = packed[start : start + _DIGEST_BYTES], packed[start + _DIGEST_BYTES : start + width]
        if digest == _NO_DIGEST:
            inputs.append(None)
        else:
            inputs.append(
                Input(digest=digest.hex(), signature=None if signature == _NO_SIGNATURE else signature.hex())
            )  # fmt: skip
    residual = packed[-_DIGEST_BYTES:]
    return tuple(inputs), None if residual == _NO_DIGEST else residual.hex()
