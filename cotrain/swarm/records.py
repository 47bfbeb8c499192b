"""DHT records that only their owner can write: signed by the peer that the subkey names, checked before they are kept.

Every node of the DHT checks every record that it is asked to keep or that it is given, so one that is forged, too
large or made to last is not passed on. Whether the owner is a member is the reader's business (`gate.py`).
"""

from __future__ import annotations

import dataclasses
import math

from hivemind.dht.validation import DHTRecord, RecordValidatorBase
from hivemind.p2p import PeerID
from hivemind.utils import MSGPackSerializer, get_dht_time, get_logger

from cotrain.peer_key import PeerSigner, signed_by_peer

logger = get_logger(__name__)

MAX_RECORD_BYTES = 4096
MAX_EXPIRY_S = 600.0
PAGE_MARK = "#"
"""`<peer id>#<page>`: further records of one owner under the same key."""

_PURPOSE = "record"
_SIGNATURE_BYTES = 64


class OwnedRecords(RecordValidatorBase):
    """Signs this peer's records and refuses others' that their owner has not signed.

    The signature covers key, subkey, value and expiry: a record can be neither moved nor kept alive by somebody else.
    """

    def __init__(self, signer: PeerSigner):
        self._signer = signer

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
        return "" if signed_by_peer(owner, _PURPOSE, signed, signature) else "is not signed by its owner"

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
