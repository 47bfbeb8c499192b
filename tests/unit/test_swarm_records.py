"""DHT records: nobody but the owner can write one, move it, keep it alive or make it huge."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
from hivemind.dht.validation import DHTRecord
from hivemind.p2p import PeerID
from hivemind.utils import MSGPackSerializer, get_dht_time
from hypothesis import given
from hypothesis import strategies as st

from cotrain.peer_key import PeerSigner, load_or_create_peer_key
from cotrain.swarm.records import MAX_EXPIRY_S, MAX_RECORD_BYTES, OwnedRecords, Quota, owner_of

KEY = b"k" * 20


def signer(folder: Path, name: str) -> PeerSigner:
    load_or_create_peer_key(folder / name)
    return PeerSigner(folder / name)


@pytest.fixture
def mine(tmp_path: Path) -> PeerSigner:
    return signer(tmp_path, "mine")


@pytest.fixture
def theirs(tmp_path: Path) -> PeerSigner:
    return signer(tmp_path, "theirs")


def record(owner: Any, value: Any = "a record", *, expires_in_s: float = 30.0) -> DHTRecord:
    return DHTRecord(KEY, MSGPackSerializer.dumps(owner), MSGPackSerializer.dumps(value), get_dht_time() + expires_in_s)


def signed(by: PeerSigner, unsigned: DHTRecord) -> DHTRecord:
    return dataclasses.replace(unsigned, value=OwnedRecords(by).sign_value(unsigned))


def test_a_record_of_its_owner_is_taken_and_handed_on_as_it_was(mine: PeerSigner, theirs: PeerSigner) -> None:
    ours = OwnedRecords(mine)
    as_hivemind_names_it = PeerID.from_base58(theirs.peer_id).to_bytes()
    for owner in (theirs.peer_id, f"{theirs.peer_id}#3", as_hivemind_names_it):
        unsigned = record(owner)
        whole = signed(theirs, unsigned)
        assert whole.value != unsigned.value
        assert ours.validate(whole)
        assert ours.strip_value(whole) == unsigned.value


def test_what_somebody_else_writes_under_a_peers_name_is_refused(mine: PeerSigner, theirs: PeerSigner) -> None:
    unsigned = record(theirs.peer_id)
    assert OwnedRecords(mine).sign_value(unsigned) == unsigned.value  # nobody signs for others
    assert not OwnedRecords(mine).validate(unsigned)
    forged = dataclasses.replace(unsigned, value=unsigned.value + mine.sign("record", b"anything"))
    assert not OwnedRecords(mine).validate(forged)


@pytest.mark.parametrize("field", ["key", "subkey", "value", "expiration_time"])
def test_a_record_cannot_be_moved_changed_or_kept_alive_by_others(
    mine: PeerSigner, theirs: PeerSigner, field: str
) -> None:
    whole = signed(theirs, record(theirs.peer_id))
    other: dict[str, Any] = {
        "key": b"j" * 20, "subkey": MSGPackSerializer.dumps(f"{theirs.peer_id}#1"), "value": b"\xa1b" + whole.value,
        "expiration_time": whole.expiration_time + 1e-3,
    }  # fmt: skip
    assert not OwnedRecords(mine).validate(dataclasses.replace(whole, **{field: other[field]}))


@pytest.mark.parametrize("expires_in_s", [MAX_EXPIRY_S + 5, math.inf, math.nan, -math.inf])
def test_a_record_that_is_made_to_last_is_refused(mine: PeerSigner, expires_in_s: float) -> None:
    assert not OwnedRecords(mine).validate(signed(mine, record(mine.peer_id, expires_in_s=expires_in_s)))


def test_a_record_may_be_so_large_and_no_larger(mine: PeerSigner) -> None:
    fits = record(mine.peer_id, b"x" * (MAX_RECORD_BYTES - 3))
    assert len(fits.value) == MAX_RECORD_BYTES
    assert OwnedRecords(mine).validate(signed(mine, fits))
    assert not OwnedRecords(mine).validate(signed(mine, record(mine.peer_id, b"x" * (MAX_RECORD_BYTES - 2))))


@pytest.mark.parametrize("owner", ["", "nobody", 7, None, b"", b"\x00\x01", ["a"], 2.5])
def test_a_record_without_a_peer_for_its_owner_is_refused(mine: PeerSigner, owner: Any) -> None:
    assert not OwnedRecords(mine).validate(signed(mine, record(owner)))


def test_an_owner_may_keep_so_many_records_until_some_expire(mine: PeerSigner, theirs: PeerSigner) -> None:
    clock = get_dht_time()
    guard = OwnedRecords(mine, Quota(of_an_owner=2, clock=lambda: clock))
    pages = [signed(theirs, record(f"{theirs.peer_id}#{page}", expires_in_s=30 + page)) for page in range(4)]
    assert [guard.validate(page) for page in pages] == [True, True, False, False]
    assert guard.validate(signed(theirs, record(f"{theirs.peer_id}#1", "a newer one", expires_in_s=40)))
    assert guard.validate(signed(mine, record(mine.peer_id)))  # everybody has a quota of his own
    clock += 31.0
    assert guard.validate(pages[2])
    assert not guard.validate(pages[3])


def test_what_is_not_signed_uses_up_no_quota(mine: PeerSigner, theirs: PeerSigner) -> None:
    guard = OwnedRecords(mine, Quota(of_an_owner=1))
    assert not guard.validate(record(theirs.peer_id))
    assert guard.validate(signed(theirs, record(theirs.peer_id)))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 4), st.integers(1, 20)), max_size=60))
def test_no_sequence_of_records_passes_the_limits(steps: list[tuple[str, int, int]]) -> None:
    now = 0.0
    quota = Quota(of_an_owner=2, in_all=4, clock=lambda: now)
    kept: dict[tuple[str, int], float] = {}
    for number, (owner, name, life_s) in enumerate(steps):
        now = float(number)
        alive = {key for key, expires_at in kept.items() if expires_at > now}
        room = len(alive) < 4 and sum(key[0] == owner for key in alive) < 2
        taken = quota.take(owner, name, now + life_s)
        assert taken or not room  # nobody is refused for records that have expired
        if taken:
            kept[(owner, name)] = now + life_s
        assert sum(expires_at > now for expires_at in kept.values()) <= 4


@given(st.binary(max_size=60), st.binary(max_size=200))
def test_no_bytes_of_a_stranger_raise(subkey: bytes, value: bytes) -> None:
    assert owner_of(subkey) is None or isinstance(owner_of(subkey), str)
    guard = OwnedRecords.__new__(OwnedRecords)  # needs no key to refuse
    assert not guard.validate(DHTRecord(KEY, subkey, value, get_dht_time() + 1))
