"""DHT records that only their owner can write: signed by the peer that the subkey names, checked before they are kept.

Every node of the DHT checks every record that it is asked to keep or that it is given, so one that is forged, too
large or made to last is not passed on. Whether the owner is a member is the reader's business (`gate.py`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Hashable

from hivemind.dht.validation import DHTRecord, RecordValidatorBase
from hivemind.p2p import PeerID
from hivemind.utils import MSGPackSerializer, get_dht_time, get_logger

from cotrain.peer_key import PeerSigner, signed_by_peer

logger = get_logger(__name__)

MAX_RECORD_BYTES = 4096
MAX_EXPIRY_S = 600.0
RECORDS_OF_AN_OWNER = 1024
"""A checkpointer has a few for each session that it follows; a stranger must not fill everybody's memory."""
MOST_RECORDS = 100_000
PAGE_MARK = "#"
"""`<peer id>#<page>`: further records of one owner under the same key."""

_PURPOSE = "record"
_SIGNATURE_BYTES = 64


class Quota:
    """How many records each owner has that have not expired. Only records that are signed are counted.

    Args:
        of_an_owner, in_all: the most there may be.
        clock: DHT time, seconds.
    """

    def __init__(
        self, of_an_owner: int = RECORDS_OF_AN_OWNER, in_all: int = MOST_RECORDS,
        clock: Callable[[], float] = get_dht_time,
    ):  # fmt: skip
        self._of_an_owner, self._in_all, self._clock = of_an_owner, in_all, clock
        self._expirations: dict[str, dict[Hashable, float]] = {}
        self._count = 0

    def take(self, owner: str, name: Hashable, expires_at: float) -> bool:
        """Whether the record may be kept; one that replaces another of the same name always may."""
        known = self._expirations.setdefault(owner, {})
        if name not in known:
            if len(known) >= self._of_an_owner:
                self._forget_expired(owner)
            if self._count >= self._in_all:
                for each in list(self._expirations):
                    self._forget_expired(each)
            known = self._expirations.setdefault(owner, {})
            if len(known) >= self._of_an_owner or self._count >= self._in_all:
                return False
            self._count += 1
        known[name] = expires_at
        return True

    def _forget_expired(self, owner: str) -> None:
        now, known = self._clock(), self._expirations[owner]
        kept = {name: expires_at for name, expires_at in known.items() if expires_at > now}
        self._count -= len(known) - len(kept)
        if kept:
            self._expirations[owner] = kept
        else:
            del self._expirations[owner]


class OwnedRecords(RecordValidatorBase):
    """Signs this peer's records and refuses others' that their owner has not signed.

    The signature covers key, subkey, value and expiry: a record can be neither moved nor kept alive by somebody else.
    """

    def __init__(self, signer: PeerSigner, quota: Quota | None = None):
        self._signer = signer
        self._quota = quota or Quota()

    def validate(self, record: DHTRecord) -> bool:
        """Whether the record may be stored or believed."""
        reason = self._refusal(record)
        if reason:
            logger.info(f"a DHT record {reason}: refused")
        return not reason

    def _refusal(self, record: DHTRecord) -> str:
        if len(record.value) > MAX_RECORD_BYTES + _SIGNATURE_BYTES:
            return "is too large"
        if not math.isfinite(record.expiration_time) or record.expiration_time > get_dht_time() + MAX_EXPIRY_S:
            return "expires too far ahead"
        owner = owner_of(record.subkey)
        if owner is None:
            return "has no owner"
        content, signature = record.value[:-_SIGNATURE_BYTES], record.value[-_SIGNATURE_BYTES:]
        signed = _signed_content(dataclasses.replace(record, value=content))
        if not signed_by_peer(owner, _PURPOSE, signed, signature):
            return "is not signed by its owner"
        return "" if self._quota.take(owner, (record.key, record.subkey), record.expiration_time) else "is one too many"

    def sign_value(self, record: DHTRecord) -> bytes:
        """The value with this peer's signature, if the record is its own."""
        if owner_of(record.subkey) != self._signer.peer_id:
            return record.value
        return record.value + self._signer.sign(_PURPOSE, _signed_content(record))

    def strip_value(self, record: DHTRecord) -> bytes:
        return record.value[:-_SIGNATURE_BYTES]

    @property
    def priority(self) -> int:
        """Before validators that read the value."""
        return 10


def owner_of(subkey: bytes) -> str | None:
    """The peer that a serialized subkey names: its id as text, with a page perhaps, or hivemind's own bytes of it."""
    try:
        named = MSGPackSerializer.loads(subkey)
        if isinstance(named, bytes):
            return str(PeerID(named).to_base58())
    except Exception:  # whatever a stranger sends: the decoder raises what it likes
        return None
    return named.partition(PAGE_MARK)[0] if isinstance(named, str) else None


def _signed_content(record: DHTRecord) -> bytes:
    return bytes(MSGPackSerializer.dumps([record.key, record.subkey, record.value, record.expiration_time]))
