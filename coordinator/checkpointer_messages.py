"""What the coordinator and its checkpointer process say to each other: JSON lines on the child's stdin and stdout.

Progress does not travel here: the checkpointer writes a `status.json` per session like any other peer, and the
coordinator's StatusWatcher reads it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from cotrain.peer_key import PeerIdText
from cotrain.protocol import Asset
from cotrain.request import CamelModel


class Follow(CamelModel):
    """Prepare the session's data and initial state, bootstrap its swarm, and follow every round."""

    op: Literal["follow"] = "follow"
    session: str
    config_path: str


class Finish(CamelModel):
    """Save the newest outer state as the final model and let the session go."""

    op: Literal["finish"] = "finish"
    session: str


class Release(CamelModel):
    """Let the session go without saving."""

    op: Literal["release"] = "release"
    session: str


class Save(CamelModel):
    """Save the newest outer state as a model, and go on following. Told twice, it is done once."""

    op: Literal["save"] = "save"
    session: str
    job: str


Order = Follow | Finish | Release | Save
COMMAND: TypeAdapter[Order] = TypeAdapter(Annotated[Order, Field(discriminator="op")])


class Ready(CamelModel):
    """The DHT is up; these are its addresses."""

    event: Literal["ready"] = "ready"
    peer_id: str
    addresses: list[str]


class Following(CamelModel):
    """The session's swarm can be joined; these files are what its nodes need."""

    event: Literal["following"] = "following"
    session: str
    assets: list[Asset]
    asset_folder: str
    """Where the files lie, each under its own name."""
    data_key: str = ""
    """Of the prepared data: the folder's name below `datasets/processed`; the same key, the same samples."""


class Saved(CamelModel):
    """The final model is on disk and loads with `from_pretrained`; the session has been let go."""

    event: Literal["saved"] = "saved"
    session: str
    path: str
    round: int | None = None
    """Whose outer parameters it has: after early stopping not the newest. None: not known."""


class Exported(CamelModel):
    """What a Save asked for is on disk and loads with `from_pretrained`; the session goes on."""

    event: Literal["exported"] = "exported"
    session: str
    job: str
    path: str
    round: int
    """Whose outer parameters it has."""
    evaluation: dict[str, float]
    """Data of the evaluation record of that round."""


class SaveFailed(CamelModel):
    """What a Save asked for cannot be had; the session goes on."""

    event: Literal["save-failed"] = "save-failed"
    session: str
    job: str
    message: str
    hint: str = ""


class Failed(CamelModel):
    """The session cannot be followed any further."""

    event: Literal["failed"] = "failed"
    session: str
    message: str
    hint: str = ""


class Judged(CamelModel):
    """Evidence against a peer has been checked and holds. It may be reported again after a restart."""

    event: Literal["judged"] = "judged"
    session: str
    accused: PeerIdText
    witness: PeerIdText
    verdict: Literal["proof", "testimony"]
    round: Annotated[int, Field(ge=1)]
    what: Annotated[str, Field(max_length=300)]
    """What the accused did, in words that go on from its name."""


SessionReport = Following | Saved | Exported | SaveFailed | Failed | Judged
REPORT: TypeAdapter[Ready | SessionReport] = TypeAdapter(Annotated[Ready | SessionReport, Field(discriminator="event")])
