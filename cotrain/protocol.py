"""Messages between node, coordinator and browser. Every one is checked with pydantic on arrival.

The uplink is a WebSocket of JSON objects. A node numbers its events from 1 within a run (`run`, `seq`); the
coordinator applies each once and acknowledges the highest one stored. Wishes travel down the same socket.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from cotrain.membership.bond import LONGEST_SIGNATURE, Bond, BondTerms
from cotrain.membership.document import MembershipDocument
from cotrain.peer_key import PeerIdText
from cotrain.request import CamelModel
from cotrain.sections import NO_ZERO, Count, PositiveInt, SessionId
from cotrain.status import Status, WishName

PROTOCOL_VERSION = 5
MAX_MESSAGE_BYTES = 64 * 1024
INVITATION_FORM = r"^[A-Za-z0-9_-]{1,100}$"


# ------------------------------------------------------------------------------------------ registration
class Hardware(CamelModel):
    """What a volunteer's machine can do, as far as it could be found out."""

    device: Annotated[str, Field(max_length=200)] = "cpu"
    memory_bytes: Count = 0
    gpu_memory_bytes: Count = 0
    """Of the smallest GPU; 0 without one, or where it is not known."""
    cpu_count: Annotated[int, Field(ge=0, le=100_000)] = 0
    platform: Annotated[str, Field(max_length=200)] = ""


NodeName = Annotated[str, Field(max_length=80, pattern=NO_ZERO)]


class ResumeRequest(CamelModel):
    """A participant comes back, or takes another role."""

    protocol: int = PROTOCOL_VERSION
    role: Literal["reduce", "contribute"] = "reduce"
    name: NodeName = ""
    hardware: Hardware = Field(default_factory=Hardware)


class RegisterRequest(ResumeRequest):
    """A volunteer asks to take part in a session with this peer."""

    peer_id: PeerIdText
    bond: Bond
    """The wallet's statement that this peer acts for it."""
    invitation: Annotated[str, Field(pattern=INVITATION_FORM)] | None = Field(default=None, repr=False)
    """Token of an invitation, for a private session; secret."""


MODEL_ASSETS = ("config.json", "model.safetensors")
"""Files of a model; as assets each has its role (`source` or `teacher`) and a dot before its name."""


class Asset(CamelModel):
    """A file that every node of the session needs, by content."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size_bytes: Count


class RegisterAnswer(CamelModel):
    """What a node needs to begin."""

    protocol: int = PROTOCOL_VERSION
    participant: str
    token: str
    """Secret of this participant: authorizes its uplink. Kept by the coordinator as a hash only."""
    session: str
    initial_peers: list[str]
    """libp2p addresses of the checkpointer."""
    config: str
    """The session's TOML."""
    assets: list[Asset]
    membership: MembershipDocument


class RenewAnswer(CamelModel):
    """A certificate for the next days, and what else a peer needs to check the others'."""

    membership: MembershipDocument


# ------------------------------------------------------------------------------------------ sign-in
class ChallengeRequest(CamelModel):
    """Somebody wants to prove that a wallet is theirs."""

    address: Annotated[str, Field(max_length=128)]
    chain: Annotated[str, Field(max_length=32)]
    """CAIP-2: `eip155:1` or `aptos:1`."""


class ChallengeAnswer(CamelModel):
    """A text to be signed by the wallet, exactly as it is."""

    nonce: str
    message: str
    expires_at: str


class LoginRequest(CamelModel):
    """The signed challenge."""

    nonce: Annotated[str, Field(max_length=64, pattern=NO_ZERO)]
    signature: Annotated[str, Field(max_length=LONGEST_SIGNATURE)]
    """0x and hexadecimal digits."""
    public_key: Annotated[str | None, Field(max_length=200)] = None
    """Aptos only: 0x and 64 hexadecimal digits."""


class LoginAnswer(CamelModel):
    """A token that acts for the account until it expires, is rotated or is logged out."""

    token: str
    account: str
    """CAIP-10."""
    expires_at: str


# ------------------------------------------------------------------------------------------ signing elsewhere
class LinkRequest(CamelModel):
    """A node without a wallet asks for a statement that a wallet elsewhere is to sign (after RFC 8628)."""

    protocol: int = PROTOCOL_VERSION
    session: SessionId
    peer_id: PeerIdText
    name: NodeName = ""
    terms: BondTerms
    """Of the statement."""
    invitation: Annotated[str, Field(pattern=INVITATION_FORM)] | None = Field(default=None, repr=False)
    """Token of an invitation, for a private session; secret."""


class LinkAnswer(CamelModel):
    """What the node keeps, and what it shows to its person."""

    device_code: str = Field(repr=False)
    """Secret of this node: it asks with it, and registers with it as with a token."""
    user_code: Annotated[str, Field(pattern=r"^[A-Z]{4}-[A-Z]{4}$")]
    """To be typed on the page by whoever has the wallet."""
    verification_uri: Annotated[str, Field(pattern=r"^https?://[!-~]{1,300}$")]
    """The page."""
    verification_uri_complete: Annotated[str, Field(pattern=r"^https?://[!-~]{1,300}$")]
    """The page with the code in its fragment, which is sent to nobody."""
    expires_in_s: Annotated[float, Field(gt=0, le=3600)]
    interval_s: Annotated[float, Field(ge=0, le=60)]
    """Least time between two questions of the node."""


class LinkPoll(CamelModel):
    """A node asks whether its statement has been signed."""

    device_code: Annotated[str, Field(max_length=100, pattern=NO_ZERO)] = Field(repr=False)


class LinkState(CamelModel):
    """Whether it has, and by whom."""

    state: Literal["pending", "signed"]
    account: str | None = None
    """CAIP-10, once it is signed."""
    signature: str | None = None
    """The wallet's, over the statement with this account in it: 0x and hexadecimal digits."""
    public_key: str | None = None
    """Aptos only."""


class LinkCode(CamelModel):
    """What a person has typed: case, blanks and dashes do not matter."""

    user_code: Annotated[str, Field(pattern=r"^[ -~]{1,40}$")]


class LinkView(CamelModel):
    """What would be signed, for whoever is to sign it."""

    user_code: str
    session: str
    session_name: str
    peer_id: str
    name: str
    """What the node calls itself; may be empty."""
    coordinator: str
    statement_expires_at: str
    """Until when the node may take part without being asked for the wallet again."""


class LinkStatementRequest(LinkCode, ChallengeRequest):
    """With which wallet it is to be signed."""


class LinkStatement(CamelModel):
    """The text to be signed by that wallet, exactly as it is."""

    message: str


class LinkSignature(LinkStatementRequest):
    """The signed statement."""

    signature: Annotated[str, Field(max_length=LONGEST_SIGNATURE)]
    """0x and hexadecimal digits."""
    public_key: Annotated[str | None, Field(max_length=200)] = None
    """Aptos only: 0x and 64 hexadecimal digits."""


# ------------------------------------------------------------------------------------------ uplink, upwards
class Hello(CamelModel):
    """First message on an uplink."""

    type: Literal["hello"] = "hello"
    protocol: int = PROTOCOL_VERSION


class StatusMessage(CamelModel):
    """A snapshot of the training process."""

    type: Literal["status"] = "status"
    run: Annotated[str, Field(min_length=1, max_length=64, pattern=NO_ZERO)]
    seq: PositiveInt
    status: Status


class Goodbye(CamelModel):
    """The agent leaves and will not be back in this run."""

    type: Literal["goodbye"] = "goodbye"
    run: Annotated[str, Field(min_length=1, max_length=64, pattern=NO_ZERO)]
    seq: PositiveInt
    reason: Annotated[str, Field(max_length=500)] = ""


UplinkMessage = Annotated[Hello | StatusMessage | Goodbye, Field(discriminator="type")]
UPLINK_MESSAGE: TypeAdapter[Hello | StatusMessage | Goodbye] = TypeAdapter(UplinkMessage)


# ------------------------------------------------------------------------------------------ uplink, downwards
class Welcome(CamelModel):
    """Answer to Hello: what has been stored so far, and what is wished now."""

    type: Literal["welcome"] = "welcome"
    protocol: int = PROTOCOL_VERSION
    acknowledged: dict[str, int] = Field(default_factory=dict)
    """Highest stored `seq` of each run of this participant."""
    wish: WishName = "run"
    issuer: str = ""
    """The coordinator's newest public key: with a certificate of an older one it is time to renew."""


class Ack(CamelModel):
    """Everything of the run up to `seq` is on the coordinator's disk."""

    type: Literal["ack"] = "ack"
    run: str
    seq: int


class WishMessage(CamelModel):
    """What a person wants of the run."""

    type: Literal["wish"] = "wish"
    wish: WishName
    reason: str = ""


class ErrorMessage(CamelModel):
    """The last message could not be used; the socket is closed after three of these."""

    type: Literal["error"] = "error"
    code: str
    message: str


DownlinkMessage = Annotated[Welcome | Ack | WishMessage | ErrorMessage, Field(discriminator="type")]
DOWNLINK_MESSAGE: TypeAdapter[Welcome | Ack | WishMessage | ErrorMessage] = TypeAdapter(DownlinkMessage)


# ------------------------------------------------------------------------------------------ events, to everybody
EventType = Literal["session.state", "training.progress", "training.log", "participant.state"]


class ProgressMetrics(CamelModel):
    """The metrics of the seed's `training.progress`, and the ones a swarm has besides."""

    accuracy: float | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    validation_loss: float | None = None
    tokens_per_second: float | None = None
    compute_fraction: float | None = None
    round: int = 0
    samples_committed: int = 0
    samples_wanted: int = 0


class Progress(CamelModel):
    """`training.progress` in the seed's form (R3.3)."""

    session_id: str
    progress: float
    loss: float | None = None
    participants: int = 0
    metrics: ProgressMetrics = Field(default_factory=ProgressMetrics)


class Event(CamelModel):
    """One entry of a session's event log; `seq` rises by one within the session."""

    seq: int
    time: float
    type: EventType
    data: dict[str, object]
