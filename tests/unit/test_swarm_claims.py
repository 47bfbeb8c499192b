"""What is signed about parts holds for its signer, part and group only."""

from __future__ import annotations

import asyncio

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cotrain.swarm.claims import Input, is_claim_of_reducer, make_claim, seal, unseal
from cotrain.swarm.notary import Notary, float32_view
from cotrain.swarm.terms import GroupTerms
from tests.swarm_signers import signer
from tests.unit.audited_peers import NUMEL, LyingNotary, Peers, run_all


@settings(max_examples=60, derandomize=True)
@given(st.binary(max_size=300), st.lists(st.booleans(), min_size=3, max_size=3), st.booleans())
def test_a_sealed_average_is_read_as_it_was_signed(encoded: bytes, present: list[bool], has_residual: bool) -> None:
    terms = Peers(3).terms()
    number = next(n for n in range(3) if signer(n).peer_id == terms.parts[0].reducer)
    rows = [Input(digest=f"{n + 1:064x}", signature="ab" * 64) if there else None for n, there in enumerate(present)]
    claim = make_claim(terms, 0, encoded, rows, "d" * 64 if has_residual else None, signer(number))
    assert unseal(terms, 0, seal(encoded, claim)) == (encoded, claim)
    assert is_claim_of_reducer(terms, claim)
    for change in ({"part": 1}, {"average": "0" * 64}, {"inputs": tuple(rows[:2])}, {"residual": "e" * 64}):
        assert not is_claim_of_reducer(terms, claim.model_copy(update=change))
    with pytest.raises(ValueError, match="too short"):
        unseal(terms, 0, seal(b"", claim)[1:])


def test_a_contribution_counts_for_its_sender_part_and_group_only() -> None:
    terms, zeros = Peers(3).terms(), torch.zeros(NUMEL)
    sender = Notary(terms, signer(0), vector=zeros, added={})
    reducer = Notary(terms, signer(1), vector=zeros, added={})
    signed = sender.sign(1, b"values")
    assert reducer.genuine(1, signer(0).peer_id, signed) == b"values"
    elsewhere = Notary(
        GroupTerms.model_validate(terms.model_dump() | {"session": "x"}), signer(1), vector=zeros, added={}
    )
    for notary, part, member, sent in [
        (reducer, 1, signer(2).peer_id, signed),
        (reducer, 0, signer(0).peer_id, signed),
        (reducer, 1, signer(0).peer_id, b"Values" + signed[6:]),
        (reducer, 1, signer(0).peer_id, b""),
        (elsewhere, 1, signer(0).peer_id, signed),
    ]:
        with pytest.raises(ValueError, match="not signed by its sender"):
            notary.genuine(part, member, sent)


def test_an_unsigned_average_is_not_believed_and_its_reducer_is_a_suspect() -> None:
    peers, closed = Peers(3), None

    class Unsigned(LyingNotary):
        def seal(self, index: int, encoded: bytes) -> bytes:
            return Notary.seal(self, index, encoded)[:-1] + b"x"

    terms, exchanges = peers.terms(), {}
    for number, name in enumerate(peers.names):
        exchanges[name], notary = peers._member(number, terms, {}, None, exchanges)
        if number == 1:
            notary.__class__ = Unsigned
    asyncio.run(run_all(list(exchanges.values())))
    assert closed is None
    liar = signer(1).peer_id
    for name in (signer(0).peer_id, signer(2).peer_id):
        assert liar in exchanges[name].suspects
        missing = [terms.parts[i].reducer for i, d in enumerate(exchanges[name].ledger.manifest) if d is None]
        assert missing == [liar]


def test_terms_that_do_not_fit_together_are_refused() -> None:
    whole = Peers(2).terms().model_dump()
    for change in (
        {"weights": (8,)},
        {"steps": (4, 4, 4)},
        {"members": (whole["members"][0],) * 2},
        {"reducers": (signer(5).peer_id,)},
        {"reducers": ()},
        {"reducers": whole["members"][:1]},
        {"shares": (1,)},
        {"shares": (0, 0)},
        {"shares": (2, -1)},
        {"codec": "int2"},
    ):
        with pytest.raises(ValueError, match=r"validation error"):
            GroupTerms.model_validate(whole | change)


def test_float32_view_are_little_endian() -> None:
    assert bytes(float32_view(torch.tensor([1.0, -2.0]))) == bytes.fromhex("0000803f000000c0")
