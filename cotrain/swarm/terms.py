"""What a group has agreed on before it averages: whoever signs anything about a round signs these terms along."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cotrain.peer_key import PeerIdText
from cotrain.sections import Aggregation
from cotrain.swarm.parts import PART_VALUES, Part, partition
from cotrain.train.codec import BLOCK

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""256 bits, hexadecimal: SHA-256 of terms and states, BLAKE3 of parts."""
Signature = Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]
"""Ed25519, hexadecimal."""
CodecName = Literal["int4", "int8", "fp32"]
MOST_MEMBERS = 4096


class Statement(BaseModel):
    """Base of what is signed or sent about a round: checked strictly, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class GroupTerms(Statement):
    """A group, and all that the average depends on besides the contributions.

    Members that were told different terms cannot vote together or send each other parts: no signature of one would
    hold for another.
    """

    session: Annotated[str, Field(min_length=1, max_length=128)]
    group: Annotated[str, Field(pattern=r"^[0-9a-f]{1,128}$")]
    round: Annotated[int, Field(ge=0, le=2**40)]
    fragments: Annotated[int, Field(ge=1, le=64)]
    """The same values are averaged again so many rounds later."""
    state: Digest
    """Digest of the outer state that the pseudo-gradients start from."""
    members: Annotated[tuple[PeerIdText, ...], Field(min_length=1, max_length=MOST_MEMBERS)]
    """In the order in which contributions are summed."""
    weights: tuple[Annotated[int, Field(ge=0, le=2**60)], ...]
    """Counted samples of each member."""
    steps: tuple[Annotated[int, Field(ge=0, le=2**40)], ...]
    """Inner steps of each member."""
    reducers: Annotated[tuple[PeerIdText, ...], Field(min_length=1, max_length=MOST_MEMBERS)]
    """The members that average parts and vote, by their certificates."""
    shares: tuple[Annotated[int, Field(ge=0, le=2**80)], ...]
    """Relative share of the vector that each member reduces."""
    numel: Annotated[int, Field(ge=1, le=2**40)]
    codec: CodecName
    aggregation: Aggregation

    @model_validator(mode="after")
    def _fit_together(self) -> GroupTerms:
        if len(set(self.members)) != len(self.members) or len(set(self.reducers)) != len(self.reducers):
            raise ValueError("a peer stands in the group twice")
        if not len(self.weights) == len(self.steps) == len(self.shares) == len(self.members):
            raise ValueError("there must be a weight, a number of steps and a share for each member")
        if any(share and member not in self.reducers for member, share in zip(self.members, self.shares, strict=True)):
            raise ValueError("a member that is no reducer has a share")
        if not any(self.shares):
            raise ValueError("nobody has a share")
        if not set(self.reducers) <= set(self.members):
            raise ValueError("a reducer is no member")
        return self

    def is_followed_by(self, later: GroupTerms) -> bool:
        """Whether `later` is of the next round of this session that averages the same values."""
        return (later.session, later.codec, later.fragments, later.numel, later.round) == (
            self.session, self.codec, self.fragments, self.numel, self.round + self.fragments
        )  # fmt: skip

    @cached_property
    def digest(self) -> str:
        """SHA-256, hexadecimal; covers every field."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def parts(self) -> list[Part]:
        """The vector's parts, by the shares."""
        return partition(self.numel, self.members, self.shares, BLOCK, PART_VALUES)
