"""Laws of what becomes of an entry on the way to the chain."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from coordinator.chain.machine import (
    PENDING_STATES,
    Action,
    Attempt,
    Block,
    Confirm,
    Entry,
    Facts,
    Fail,
    Fees,
    Mined,
    Receipt,
    Release,
    Reopen,
    Rules,
    Send,
    Sign,
    Unmined,
    Wait,
    decide,
    has_gap,
    next_nonce,
    replaced,
)

GWEI = 10**9
RULES = Rules(confirmations=3, most_fee_wei=100 * GWEI, most_gas=300_000, stuck_after_s=600.0, send_again_s=60.0)
FEES = Fees(most_wei=20 * GWEI, tip_wei=GWEI)
NOW = 10_000.0
FACTS = Facts(
    head=100, nonce=5, settled_nonce=5, standing="absent", settled="absent", fees=FEES, balance_wei=10**18,
    may_sign=True, gas=100_000,
)  # fmt: skip
ATTEMPT = Attempt("0x" + "aa" * 32, FEES, sent_at=NOW - 10)
BLOCK = Block(99, "0x" + "b1" * 32)
RECEIPT = Receipt(ATTEMPT.tx_hash, BLOCK, succeeded=True)
WAITING = Entry("open", "waiting")
SENT = Entry("open", "sent", since=NOW - 10, nonce=5, attempts=(ATTEMPT,))
MINED = replace(SENT, state="mined", block=BLOCK)

standings = st.sampled_from(("absent", "same", "other", "unopened"))
fees = st.builds(Fees, st.integers(1, 10**13), st.integers(0, 10**12))
receipts = st.none() | st.builds(
    Receipt, st.just(ATTEMPT.tx_hash), st.builds(Block, st.integers(0, 120), st.sampled_from(("x", "y"))), st.booleans()
)
facts = st.builds(
    Facts, head=st.integers(0, 120), nonce=st.integers(0, 9), settled_nonce=st.integers(0, 9), standing=standings,
    settled=standings, fees=fees, balance_wei=st.integers(0, 10**20), may_sign=st.booleans(), receipt=receipts,
    gas=st.none() | st.integers(21_000, 10**6), gap=st.booleans(),
)  # fmt: skip
attempts = st.builds(Attempt, st.just(ATTEMPT.tx_hash), fees, st.none() | st.floats(0, NOW))
entries = st.one_of(
    st.just(WAITING),
    st.builds(
        Entry, st.sampled_from(("open", "close")), st.sampled_from(("signed", "sent", "mined")), st.floats(0, NOW),
        st.integers(0, 9),
        st.lists(attempts, min_size=1, max_size=3), st.builds(Block, st.integers(0, 120), st.sampled_from(("x", "y"))),
    ),
)  # fmt: skip


def said(entry: Entry, now: float = NOW, **changes: object) -> Action:
    return decide(entry, replace(FACTS, **changes), RULES, now)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------- laws
@given(entries, facts, st.floats(0, 2 * NOW))
def test_only_what_the_contract_holds_for_good_is_confirmed(entry: Entry, found: Facts, now: float) -> None:
    assert entry.state in PENDING_STATES
    assert isinstance(decide(entry, found, RULES, now), Confirm) == (found.settled == "same")


@given(entries, facts, st.floats(0, 2 * NOW))
def test_nothing_is_signed_above_the_operators_bounds(entry: Entry, found: Facts, now: float) -> None:
    action = decide(entry, found, RULES, now)
    if isinstance(action, Sign):
        assert action.fees.most_wei <= RULES.most_fee_wei
        if action.gas is not None:
            assert action.gas <= RULES.most_gas
            assert action.gas * action.fees.most_wei <= found.balance_wei


@given(entries, facts, st.floats(0, 2 * NOW))
def test_nothing_is_signed_that_the_contract_holds_or_that_comes_too_early(
    entry: Entry, found: Facts, now: float
) -> None:
    if entry.state == "waiting" and (found.standing != "absent" or not found.may_sign):
        assert not isinstance(decide(entry, found, RULES, now), Sign)


@given(entries, facts, st.floats(0, 2 * NOW))
def test_a_nonce_is_given_up_only_where_another_used_it_for_good_or_it_leads_nowhere(
    entry: Entry, found: Facts, now: float
) -> None:
    if isinstance(decide(entry, found, RULES, now), Release):
        assert entry.nonce is not None
        assert found.settled_nonce > entry.nonce or found.gap
        assert found.receipt is None


@given(fees, fees)
def test_a_replacement_offers_more_of_both_than_nodes_ask_for(before: Fees, suggested: Fees) -> None:
    after = replaced(before, suggested)
    assert after.most_wei * 100 >= before.most_wei * 110
    assert after.tip_wei * 100 >= before.tip_wei * 110
    assert after.most_wei >= suggested.most_wei


@given(st.integers(0, 20), st.sets(st.integers(0, 20)))
def test_the_next_nonce_is_the_lowest_that_is_free(used: int, held: set[int]) -> None:
    found = next_nonce(used, held)
    assert found >= used
    assert found not in held
    assert set(range(used, found)) <= held
    assert not has_gap(found, used, held)
    assert has_gap(found + 1, used, held)


# ------------------------------------------------------------------------------------------------- the way
def test_an_entry_is_signed_then_sent_then_mined_then_confirmed() -> None:
    assert said(WAITING) == Sign(FEES, 100_000)
    signed = replace(SENT, state="signed", attempts=(replace(ATTEMPT, sent_at=None),))
    assert said(signed) == Send()
    assert said(SENT) == Wait()
    assert said(SENT, receipt=RECEIPT, nonce=6, standing="same") == Mined(RECEIPT)
    assert said(MINED, receipt=RECEIPT, nonce=6, standing="same") == Wait()
    deep = {"receipt": RECEIPT, "nonce": 6, "settled_nonce": 6, "standing": "same", "settled": "same", "head": 101}
    assert said(MINED, **deep) == Confirm()


def test_a_block_that_is_gone_sends_the_entry_back() -> None:
    assert said(MINED) == Unmined()
    other = replace(RECEIPT, block=Block(100, "0x" + "b2" * 32))
    assert said(MINED, receipt=other) == Mined(other)
    again = replace(ATTEMPT, sent_at=NOW - 60)
    assert said(replace(SENT, attempts=(again,))) == Send()


def test_a_transaction_that_is_stuck_is_replaced_and_the_cap_holds() -> None:
    stuck = replace(SENT, since=NOW - 600)
    assert said(stuck) == Sign(Fees(25 * GWEI, 5 * GWEI // 4), None)
    dear = Attempt(ATTEMPT.tx_hash, Fees(90 * GWEI, GWEI), NOW - 1)
    action = said(replace(SENT, since=NOW - 600, attempts=(dear,)))
    assert isinstance(action, Wait)
    assert "max_fee_gwei" in action.reason


def test_a_nonce_that_another_has_used_is_released_once_that_is_settled() -> None:
    assert said(SENT, nonce=6) == Wait()
    assert isinstance(said(SENT, nonce=6, settled_nonce=6), Release)


def test_a_nonce_that_leads_nowhere_is_released() -> None:
    stuck = replace(SENT, since=NOW - 600)
    assert isinstance(said(stuck, gap=True), Release)
    assert said(SENT, gap=True) == Wait()


def test_what_somebody_else_recorded_is_believed_of_the_contract_only() -> None:
    assert said(WAITING, standing="same") == Wait()
    assert said(WAITING, standing="same", settled="same") == Confirm()
    assert isinstance(said(WAITING, standing="other", settled="other"), Fail)
    assert isinstance(said(replace(WAITING, kind="close"), opening_failed=True), Fail)


def test_what_cannot_be_paid_or_would_be_refused_waits_and_says_why() -> None:
    for changes, words in (
        ({"gas": None}, "refuse"), ({"gas": 300_001}, "gas_limit"), ({"balance_wei": 1}, "wei"),
        ({"fees": Fees(101 * GWEI, 1)}, "max_fee_gwei"),
    ):  # fmt: skip
        action = said(WAITING, **changes)
        assert isinstance(action, Wait)
        assert words in action.reason


def test_a_refused_transaction_fails_once_it_is_there_to_stay() -> None:
    refused = replace(RECEIPT, succeeded=False)
    assert said(MINED, receipt=refused) == Wait()
    assert isinstance(said(MINED, receipt=refused, head=101), Fail)


def test_a_node_that_contradicts_itself_is_not_believed() -> None:
    action = said(MINED, receipt=RECEIPT, head=200)
    assert isinstance(action, Wait)
    assert "contract" in action.reason


def test_an_end_whose_opening_is_lost_asks_for_it_again() -> None:
    assert said(replace(WAITING, kind="close"), standing="unopened", settled="unopened") == Reopen()
    assert said(replace(WAITING, kind="close"), standing="absent", settled="unopened") == Sign(FEES, 100_000)
