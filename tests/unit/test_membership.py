"""Certificates, revocations, keys of a coordinator: what holds, and every way in which something does not."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotrain.errors import ConfigError
from cotrain.membership.certificate import (
    CLOCK_TOLERANCE_S,
    GRACE_S,
    LIFETIME_S,
    SERIALS_IN_LIST,
    UNREACHABLE_AFTER_S,
    Certificate,
    split_serials,
)
from cotrain.membership.document import (
    Credential,
    HeldMembership,
    MembershipDocument,
    MembershipFile,
    Trust,
    certificate_of,
    read_membership,
    write_membership,
)
from cotrain.membership.issuer import Issuer
from cotrain.membership.sealed import IssuerKey, MembershipError, key_id, keys_by_id, open_sealed
from tests.membership_fixtures import ACCOUNT, membership_of

NOW = 1_800_000_000.0
PEER = "12D3KooWGRUacYwXCQnm3fTWJaXuXnb1UcSgbBcqCmVQN9jXFu5a"
OTHER_PEER = "12D3KooWQYV9dGMFoRzNStwpXztXaBUjtPqi6aU76ZgUriHhKust"
DAY_S = 24 * 3600
DHT_RECORD_BYTES = 4096


def issued(issuer: Issuer, *, session: str = "s", peer_id: str = PEER, now: float = NOW) -> Credential:
    return issuer.issue(
        session=session, peer_id=peer_id, account=ACCOUNT, role="reduce", now=now, until=now + 2 * LIFETIME_S
    )[1]


def check(trust: Trust, credential: Credential, *, now: float = NOW, seen_at: float | None = None) -> Certificate:
    return trust.check(
        credential, peer_id=PEER, session="s", now=now, coordinator_seen_at=now if seen_at is None else seen_at
    )


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path / "keys", now=NOW)


@pytest.fixture
def trust(issuer: Issuer) -> Trust:
    return Trust(issuer.public_keys(NOW))


# ---------------------------------------------------------------------------------------------- certificates
def test_a_certificate_binds_peer_wallet_session_and_role(issuer: Issuer, trust: Trust) -> None:
    certificate = check(trust, issued(issuer))
    assert (certificate.peer_id, certificate.account, certificate.session, certificate.role) == (
        PEER, ACCOUNT, "s", "reduce"
    )  # fmt: skip
    assert certificate.expires_at - certificate.issued_at == LIFETIME_S


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"peer_id": OTHER_PEER}, "certificate of another peer"),
        ({"session": "t"}, "is for session 't'"),
        ({"now": NOW + 10 * DAY_S}, "not valid yet"),
    ],
)
def test_it_holds_for_no_other_peer_session_or_earlier_time(
    issuer: Issuer, trust: Trust, change: dict[str, object], reason: str
) -> None:
    with pytest.raises(MembershipError, match=reason):
        check(trust, issued(issuer, **change))  # type: ignore[arg-type]


def test_it_expires_and_has_a_grace_only_while_the_coordinator_cannot_be_reached(issuer: Issuer, trust: Trust) -> None:
    credential, end = issued(issuer), NOW + LIFETIME_S
    check(trust, credential, now=end - 1)
    with pytest.raises(MembershipError, match="expired"):
        check(trust, credential, now=end)
    with pytest.raises(MembershipError, match="expired"):
        check(trust, credential, now=end, seen_at=end - UNREACHABLE_AFTER_S)
    silent_since = end - UNREACHABLE_AFTER_S - 1
    check(trust, credential, now=end, seen_at=silent_since)
    check(trust, credential, now=end + GRACE_S - 1, seen_at=silent_since)
    with pytest.raises(MembershipError, match="expired"):
        check(trust, credential, now=end + GRACE_S, seen_at=silent_since)
    check(trust, credential, now=NOW - CLOCK_TOLERANCE_S)  # clocks differ a little


def test_it_ends_with_the_wallets_statement_if_that_ends_first(issuer: Issuer) -> None:
    certificate, _ = issuer.issue(session="s", peer_id=PEER, account=ACCOUNT, role="reduce", now=NOW, until=NOW + 100)
    assert certificate.expires_at == NOW + 100


def test_a_revoked_certificate_holds_no_more_and_an_old_list_takes_nothing_back(issuer: Issuer, trust: Trust) -> None:
    mine, others = issued(issuer), issued(issuer, peer_id=OTHER_PEER)
    serial = check(trust, mine).serial
    old_list = issuer.revoke("s", [], now=NOW)
    assert trust.learn_revocations(issuer.revoke("s", [serial], now=NOW), "s").serials == [serial]
    trust.learn_revocations(old_list, "s")
    with pytest.raises(MembershipError, match="revoked"):
        check(trust, mine)
    trust.check(others, peer_id=OTHER_PEER, session="s", now=NOW, coordinator_seen_at=NOW)
    check(trust, issued(issuer))  # a new certificate of the same peer


def test_revocations_of_another_session_or_coordinator_are_not_taken(
    issuer: Issuer, trust: Trust, tmp_path: Path
) -> None:
    with pytest.raises(MembershipError, match="those of session 't'"):
        trust.learn_revocations(issuer.revoke("t", [], now=NOW), "s")
    stranger = Issuer(tmp_path / "other", now=NOW)
    with pytest.raises(MembershipError, match="not the coordinator's"):
        trust.learn_revocations(stranger.revoke("s", ["0" * 16], now=NOW), "s")
    assert trust.revoked == set()


def test_a_list_of_revocations_fits_into_a_record_of_the_dht(issuer: Issuer, trust: Trust) -> None:
    serials = [f"{number:016x}" for number in range(3 * SERIALS_IN_LIST + 1)]
    pages = split_serials(serials)
    assert [serial for page in pages for serial in page] == serials
    assert split_serials([]) == [[]]
    for page in pages:
        sealed = issuer.revoke("a-session-of-63-characters" + "x" * 37, list(page), now=NOW)
        assert len(sealed) <= DHT_RECORD_BYTES


# ---------------------------------------------------------------------------------------------- seals
def test_a_document_of_one_kind_is_none_of_another(issuer: Issuer, trust: Trust) -> None:
    revocations = issuer.revoke("s", [], now=NOW)
    with pytest.raises(MembershipError, match="signature of the certificate is wrong"):
        check(trust, Credential(certificate=revocations))


@given(st.data())
@settings(max_examples=200)
def test_a_text_with_any_character_changed_is_refused(data: st.DataObject) -> None:
    key = IssuerKey.from_seed(b"\x07" * 32)
    sealed = key.seal("certificate", b'{"a": 1}')
    keys = keys_by_id([key.public])
    assert open_sealed("certificate", sealed, keys) == b'{"a": 1}'
    place = data.draw(st.integers(0, len(sealed) - 1))
    character = data.draw(st.characters(max_codepoint=0x7F).filter(lambda c: c != sealed[place]))
    with pytest.raises(MembershipError):
        open_sealed("certificate", sealed[:place] + character + sealed[place + 1 :], keys)


@pytest.mark.parametrize("text", ["", "a.b", "a.b.c.d", "é.b.c", "!.b.c", "a.b." + "c" * 9000, "YQ.b.YR"])
def test_what_is_no_sealed_document_is_refused(text: str) -> None:
    with pytest.raises(MembershipError, match="is not a signed"):
        open_sealed("revocations", text, {})


def test_a_signed_payload_that_cannot_be_read_asks_for_an_upgrade(issuer: Issuer, trust: Trust, tmp_path: Path) -> None:
    seed = json.loads(next((tmp_path / "keys").glob("*.json")).read_text())["seed"]
    newer = IssuerKey.from_seed(bytes.fromhex(seed)).seal("certificate", b'{"version": 2}')
    with pytest.raises(MembershipError, match="upgrade this peer"):
        check(trust, Credential(certificate=newer))


@pytest.mark.parametrize("public", ["", "00", "zz" * 32, "00" * 33])
def test_what_is_no_public_key_is_not_trusted(public: str) -> None:
    with pytest.raises(MembershipError, match="64 hexadecimal digits"):
        Trust([public])


def test_the_signing_key_shows_in_no_text(issuer: Issuer, tmp_path: Path) -> None:
    seed = json.loads(next((tmp_path / "keys").glob("*.json")).read_text())["seed"]
    shown = repr(IssuerKey.from_seed(bytes.fromhex(seed))) + repr(issuer) + repr(vars(issuer))
    assert seed not in shown


# ---------------------------------------------------------------------------------------------- the coordinator's keys
def test_the_keys_are_for_the_coordinators_eyes_only_and_outlive_it(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    first = Issuer(folder, now=NOW)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (file,) = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = Issuer(folder, now=NOW + 5)
    assert again.public_keys(NOW) == first.public_keys(NOW)
    check(Trust(again.public_keys(NOW)), issued(first))


def test_after_a_rotation_peers_that_know_only_the_old_key_accept_the_new_one(issuer: Issuer, trust: Trust) -> None:
    before = issued(issuer)
    new_key = issuer.rotate(now=NOW + 1)
    third_key = issuer.rotate(now=NOW + 2)
    after = issued(issuer, now=NOW + 3)
    assert after.certificate.split(".")[1] == key_id(third_key) != key_id(new_key)
    check(trust, after, now=NOW + 3)
    knows_only_new_ones = Trust(issuer.public_keys(NOW + 3))
    check(knows_only_new_ones, before)
    check(knows_only_new_ones, after, now=NOW + 3)
    check(Trust([third_key]), after, now=NOW + 3)  # endorsements of keys unknown to it harm nobody


def test_an_old_key_is_trusted_until_what_it_signed_has_expired(issuer: Issuer) -> None:
    old = issuer.public_keys(NOW)[0]
    new = issuer.rotate(now=NOW + 1)
    end = NOW + 1 + LIFETIME_S + GRACE_S
    assert issuer.public_keys(end - 1) == [old, new]
    assert issuer.public_keys(end) == [new]


def test_a_stolen_key_endorses_nothing_and_is_trusted_no_more(issuer: Issuer, trust: Trust) -> None:
    issuer.rotate(now=NOW + 1)
    by_stolen_key = issued(issuer)
    clean = issuer.rotate(now=NOW + 2, stolen=True)
    assert issuer.public_keys(NOW + 3) == [clean]
    with pytest.raises(MembershipError, match="not the coordinator's"):
        check(trust, issued(issuer))
    with pytest.raises(MembershipError, match="not the coordinator's"):
        check(Trust(issuer.public_keys(NOW + 3)), by_stolen_key)
    next_one = issuer.rotate(now=NOW + 4)
    assert issuer.public_keys(NOW + 5) == [clean, next_one]


def test_a_rotation_by_another_process_is_noticed_and_two_in_a_second_both_count(tmp_path: Path) -> None:
    running = Issuer(tmp_path / "keys", now=NOW)
    command = Issuer(tmp_path / "keys", now=NOW)
    keys = [command.rotate(now=NOW), command.rotate(now=NOW)]
    assert running.public_keys(NOW + 9)[1:] == keys


@pytest.mark.parametrize("content", ["", "{}", '{"seed": "00", "created_at": 1, "endorsement": ""}'])
def test_a_damaged_key_file_is_named_and_not_shown(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    path = folder / "000000000001.issuer.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match="restore it from a backup") as caught:
        Issuer(folder, now=NOW)
    assert caught.value.field == str(path)
    assert caught.value.__cause__ is None


# ---------------------------------------------------------------------------------------------- documents
def test_a_document_survives_its_file_and_a_newer_one_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "membership.json"
    first = membership_of(tmp_path / "keys", "s", PEER, now=NOW)
    write_membership(path, first)
    source = MembershipFile(path)
    assert source.current() == first
    assert source.current() is source.current()
    newer = first.model_copy(update={"coordinator_seen_at": NOW + 7})
    write_membership(path, newer)
    source._looked_at = -10.0
    assert source.current() == newer
    source._looked_at = -10.0
    assert source.current() is source.current()  # looked at, and the same as before
    path.write_text("half a docu")
    source._looked_at = -10.0
    assert source.current() == newer  # what is in hand serves on
    assert certificate_of(newer).peer_id == PEER


def test_without_any_document_it_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(MembershipError, match="join again"):
        MembershipFile(tmp_path / "absent.json").current()
    broken = tmp_path / "broken.json"
    broken.write_bytes(b"[" * 400_000)
    with pytest.raises(MembershipError, match="is not a membership document"):
        read_membership(broken)


def test_a_document_in_memory_is_replaced(tmp_path: Path) -> None:
    first = membership_of(tmp_path / "keys", "s", PEER)
    held = HeldMembership(first)
    second = MembershipDocument.model_validate_json(first.model_dump_json(by_alias=True))
    held.replace(second)
    assert held.current() is second


def test_the_text_form_is_ascii_and_has_no_padding(issuer: Issuer) -> None:
    payload, key, signature = issued(issuer).certificate.split(".")
    assert "=" not in payload + signature
    assert len(base64.urlsafe_b64decode(signature + "==")) == 64
    assert len(key) == 16
