"""One member's signing and checking of parts during a reduction, and the inputs that it keeps for an audit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hivemind.utils import get_logger
from torch import Tensor

from cotrain.swarm.claims import (
    SIGNATURE_BYTES,
    Input,
    is_claim_of_reducer,
    is_contribution_of,
    make_claim,
    seal,
    sign_contribution,
    unseal,
)
from cotrain.swarm.parts import Part, digest_of
from cotrain.swarm.terms import GroupTerms
from cotrain.swarm.votes import Signer

logger = get_logger(__name__)


@dataclass(frozen=True)
class PartInputs:
    """What the average of a part was made of.

    Attributes:
        contributions: by member: encoded; the reducer's own as little-endian float32.
        residual: added before encoding, little-endian float32; None for zeros.
    """

    contributions: Mapping[str, bytes]
    residual: bytes | None


class Notary:
    """Signs what this member sends, checks what it is sent. Its methods run in the reduction's threads."""

    contribution_overhead = SIGNATURE_BYTES
    """Bytes that a signature adds to an encoded contribution."""

    def __init__(self, terms: GroupTerms, signer: Signer, *, vector: Tensor, added: Mapping[Part, Tensor]):
        """`vector` [n] float32: this member's contribution, used as it is in its own parts.

        `added`: what the averages of these parts get added; absent: nothing. Neither is written to from now on.
        """
        self._terms, self._signer, self._vector, self._added = terms, signer, vector, added
        self._genuine: dict[int, dict[str, Input]] = {}
        self._received: dict[int, dict[str, bytes]] = {}

    def sign(self, index: int, encoded: bytes) -> bytes:
        """A contribution as it travels: the encoded values, then the signature."""
        return encoded + sign_contribution(self._terms, index, encoded, self._signer)

    def genuine(self, index: int, member: str, signed: bytes) -> bytes:
        """The encoded contribution that a member sent. Raises ValueError if it has not signed it."""
        encoded, signature = signed[:-SIGNATURE_BYTES], signed[-SIGNATURE_BYTES:]
        digest = digest_of(encoded)
        if not is_contribution_of(self._terms, index, member, digest, signature):
            raise ValueError("it is not signed by its sender for this group")
        self._genuine.setdefault(index, {})[member] = Input(digest=digest, signature=signature.hex())
        self._received.setdefault(index, {})[member] = encoded
        return encoded

    def seal(self, index: int, encoded: bytes) -> bytes:
        """The average of one of this member's parts as it travels: made of its own values and all genuine ones."""
        inputs: dict[str, Input] = dict(self._genuine.get(index, {}))
        inputs[self._signer.peer_id] = Input(digest=digest_of(float32_view(self._own(index))), signature=None)
        added = self._added.get(self._terms.parts[index])
        claim = make_claim(
            self._terms, index, encoded, [inputs.get(member) for member in self._terms.members],
            None if added is None else digest_of(float32_view(added)), self._signer,
        )  # fmt: skip
        return seal(encoded, claim)

    def unseal(self, index: int, sealed: bytes) -> bytes:
        """The encoded average of a part. Raises ValueError if its reducer has not signed for it."""
        encoded, claim = unseal(self._terms, index, sealed)
        if not is_claim_of_reducer(self._terms, claim):
            raise ValueError("the average is not signed by its reducer for this group")
        mine = claim.inputs[self._terms.members.index(self._signer.peer_id)]
        if mine is None:
            logger.info(f"the average of part {index} was made without this peer's contribution")
        return encoded

    def inputs_of(self, index: int) -> PartInputs:
        """What this member made the average of its part `index` of."""
        added = self._added.get(self._terms.parts[index])
        contributions = {**self._received.get(index, {}), self._signer.peer_id: bytes(float32_view(self._own(index)))}
        return PartInputs(contributions, None if added is None else bytes(float32_view(added)))

    def _own(self, index: int) -> Tensor:
        part = self._terms.parts[index]
        return self._vector[part.start : part.stop]


def float32_view(values: Tensor) -> memoryview:
    """[n] float32 as little-endian bytes, not copied where the machine has them so."""
    return values.contiguous().numpy().astype("<f4", copy=False).data.cast("B")
