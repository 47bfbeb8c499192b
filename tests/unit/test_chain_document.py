"""Share documents: what they hold is what is read again, and nothing that is wrong in them is taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cotrain.chain.document import (
    LARGEST_FILE_BYTES,
    CreditDocument,
    ShareDocument,
    find_share,
    read_document,
    write_document,
)
from cotrain.chain.merkle import LONGEST_PROOF, Share, ShareError, contributions_root
from cotrain.chain.proof import check_document, check_opener
from cotrain.errors import InvalidRequestError

ALICE, BOB = "eip155:1:0x8ba1f109551bD432803012645Ac136ddd64DBA72", "aptos:1:0x" + "b" * 64
ALICE_ELSEWHERE = ALICE.replace(":1:", ":10:")
SHARES = [Share(ALICE, 700), Share(BOB, 300)]
OPENER = "0x" + "1" * 40

Change = Callable[[dict[str, Any]], object]


def credit_document(**changes: Any) -> CreditDocument:
    record = {
        "chain": "eip155:1", "contract": "0x" + "c" * 40, "opener": OPENER, "session": "tales",
        "configHash": "0x" + "1" * 64, "finalDigest": "0x" + "2" * 64,
        "contributionsRoot": "0x" + contributions_root(SHARES).hex(), "totalSamples": 1000, "closeTx": "0x" + "3" * 64,
    } | changes  # fmt: skip
    items = [{"account": share.account, "samples": share.samples} for share in SHARES]
    return CreditDocument.model_validate({"kind": "cotrain-credit", "version": 1, "record": record, "items": items})


def saved(document: ShareDocument | CreditDocument, folder: Path, change: Change = lambda found: None) -> Path:
    """A document's file, after somebody has changed it."""
    path = folder / "document.json"
    write_document(path, document)
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))
    return path


def test_documents_are_read_as_they_were_written(tmp_path: Path) -> None:
    credit = credit_document()
    assert read_document(saved(credit, tmp_path)) == credit
    share = credit.document_of(ALICE)
    assert read_document(saved(share, tmp_path)) == share
    assert (share.account, share.samples, share.record) == (ALICE, 700, credit.record)
    check_document(share)


def test_whoever_has_all_shares_makes_the_root_and_every_proof() -> None:
    credit = credit_document()
    assert credit.tree().root == contributions_root(SHARES)
    for share in SHARES:
        check_document(credit.document_of(share.account))


def test_a_wallet_is_found_by_its_name_or_its_address() -> None:
    shares = [*SHARES, Share("eip155:10:0x" + "5" * 40, 1)]
    assert find_share(shares, ALICE) == SHARES[0]
    assert find_share(shares, ALICE.rpartition(":")[2].lower()) == SHARES[0]
    assert find_share(shares, "0x" + "B" * 64) == SHARES[1]
    for stranger in ("0x" + "e" * 40, ALICE_ELSEWHERE, "", "0x", "eip155"):
        with pytest.raises(ShareError, match="has no share"):
            find_share(shares, stranger)


def test_an_address_on_two_chains_has_to_be_named_in_full() -> None:
    shares = [*SHARES, Share(ALICE_ELSEWHERE, 1)]
    with pytest.raises(ShareError, match="several") as refused:
        find_share(shares, ALICE.rpartition(":")[2])
    assert ALICE in refused.value.hint
    assert find_share(shares, ALICE_ELSEWHERE) == shares[2]


def test_shares_that_are_not_the_recorded_ones_are_refused() -> None:
    with pytest.raises(ShareError, match="do not hash"):
        credit_document(contributionsRoot="0x" + "9" * 64).tree()
    with pytest.raises(ShareError, match="do not add up"):
        credit_document(totalSamples=1001).tree()
    twice = credit_document()
    twice.items.append(twice.items[0])
    with pytest.raises(ShareError, match="two shares"):
        twice.tree()


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found.update(samples=701),
        lambda found: found.update(account=BOB),
        lambda found: found.update(account=ALICE_ELSEWHERE),
        lambda found: found["proof"].pop(),
        lambda found: found["proof"].append("0x" + "4" * 64),
        lambda found: found["record"].update(contributionsRoot="0x" + "4" * 64),
    ],
    ids=["more", "another's", "another chain's", "shorter", "longer", "another root"],
)
def test_forged_documents_prove_nothing(tmp_path: Path, change: Change) -> None:
    forged = read_document(saved(credit_document().document_of(ALICE), tmp_path, change))
    assert isinstance(forged, ShareDocument)
    with pytest.raises(ShareError, match="does not lead"):
        check_document(forged)


def test_a_share_is_no_more_than_the_whole() -> None:
    with pytest.raises(ShareError, match="more samples than the session"):
        check_document(credit_document().document_of(ALICE).model_copy(
            update={"record": credit_document(totalSamples=699).record}
        ))  # fmt: skip


def test_a_record_of_somebody_else_is_refused() -> None:
    record = credit_document().record
    check_opener(record, OPENER)
    with pytest.raises(ShareError, match="was recorded by"):
        check_opener(record, "0x" + "2" * 40)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda found: found.update(kind="cotrain-else"), "kind"),
        (lambda found: found.pop("kind"), "kind"),
        (lambda found: found.update(version=2), "version"),
        (lambda found: found.update(more=1), "more"),
        (lambda found: found.update({"\x1b[2J": 1}), r"\x1b[2J"),
        (lambda found: found.update(samples=-1), "samples"),
        (lambda found: found.update(samples=2**63), "samples"),
        (lambda found: found.update(samples="many"), "samples"),
        (lambda found: found.update(account="a" * 200), "account"),
        (lambda found: found.update(proof=["0x" + "4" * 64] * (LONGEST_PROOF + 1)), "proof"),
        (lambda found: found.update(proof=["0x" + "4" * 63]), "proof.0"),
        (lambda found: found.update(proof="0x"), "proof"),
        (lambda found: found["record"].update(chain="aptos:1"), "record.chain"),
        (lambda found: found["record"].update(contract="0x12"), "record.contract"),
        (lambda found: found["record"].update(opener=None), "record.opener"),
        (lambda found: found["record"].update(session="../x"), "record.session"),
        (lambda found: found["record"].update(openTx="x"), "record.openTx"),
        (lambda found: found.pop("record"), "record"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_document_is_named(tmp_path: Path, change: Change, field: str) -> None:
    path = saved(credit_document().document_of(ALICE), tmp_path, change)
    with pytest.raises(InvalidRequestError) as refused:
        read_document(path)
    assert refused.value.field == f"{path}: {field}"


def test_a_document_for_a_name_that_steers_a_terminal_is_refused_without_it(tmp_path: Path) -> None:
    share = credit_document().document_of(ALICE)
    path = saved(share, tmp_path, lambda found: found.update(account="\x1b[2J"))
    with pytest.raises(InvalidRequestError) as refused:
        read_document(path)
    assert "\x1b" not in str(refused.value)


@pytest.mark.parametrize("account", ["eip155:1:0x12", ALICE.lower(), ""])
def test_an_account_that_is_none_is_named(tmp_path: Path, account: str) -> None:
    path = saved(credit_document(), tmp_path, lambda found: found["items"][1].update(account=account))
    with pytest.raises(InvalidRequestError) as refused:
        read_document(path)
    assert refused.value.field == f"{path}: items.1"


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b'{"kind": NaN}', b" " * (LARGEST_FILE_BYTES + 1)],
    ids=["empty", "a list", "broken", "no text", "deep", "NaN", "too large"],
)  # fmt: skip
def test_a_file_that_is_no_document_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "document.json"
    path.write_bytes(content)
    with pytest.raises(InvalidRequestError, match=r"document\.json"):
        read_document(path)
