"""The registry against a model of it in Python: whoever opens and closes what in whichever order, and any proof."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotrain.chain.merkle import Share, ShareTree, account_key, session_key, verify
from tests.evm import EvmNode
from tests.registry_client import RegistryClient, RevertedError

NUMBERS = itertools.count()
HASH = st.binary(min_size=32, max_size=32)
OPENERS = st.integers(1, 3)
SESSIONS = st.sampled_from([session_key(name) for name in ("tales", "poems")])


@dataclass
class Call:
    """One transaction: who, about which session, with which values; `closing` is None for an opening."""

    opener: int
    session: bytes
    config_hash: bytes
    closing: tuple[bytes, bytes, int] | None


CALLS = st.builds(Call, OPENERS, SESSIONS, HASH, st.none() | st.tuples(HASH, HASH, st.integers(0, 2**128 - 1)))
SHARES = st.lists(
    st.builds(
        Share, st.integers(0, 2**40).map(lambda number: f"aptos:1:0x{number:064x}"), st.integers(0, 2**62)
    ),
    min_size=1, max_size=20, unique_by=lambda share: share.account,
)  # fmt: skip


class Model:
    """What the contract should hold."""

    def __init__(self) -> None:
        self.records: dict[tuple[int, bytes], tuple[bytes, tuple[bytes, bytes, int] | None]] = {}

    def refusal(self, call: Call) -> str | None:
        """The error that a call should end with; None: it is taken, and counts from now on."""
        key = (call.opener, call.session)
        held = self.records.get(key)
        if call.closing is None:
            if held is not None:
                return "AlreadyOpened"
            self.records[key] = (call.config_hash, None)
            return None
        if held is None:
            return "NotOpened"
        if held[1] is not None:
            return "AlreadyClosed"
        self.records[key] = (held[0], call.closing)
        return None


@pytest.fixture(scope="module")
def node() -> Iterator[EvmNode]:
    with EvmNode() as serving:
        yield serving


@pytest.fixture(scope="module")
def registry(node: EvmNode) -> RegistryClient:
    return RegistryClient.deploy(node)[0]


@settings(max_examples=10)
@given(st.lists(CALLS, max_size=10))
def test_it_does_what_the_model_does_whatever_is_asked(node: EvmNode, calls: list[Call]) -> None:
    registry, model = RegistryClient.deploy(node)[0], Model()
    for call in calls:
        wanted = model.refusal(call)
        assert outcome(registry, call) == wanted
    for opener in (1, 2, 3):
        for session in (session_key("tales"), session_key("poems")):
            config_hash, closing = model.records.get((opener, session), (bytes(32), None))
            held = registry.session(node.accounts[opener], session)
            assert held[:4] == (config_hash, *(closing or (bytes(32), bytes(32), 0)))
            assert (held[4] > 0, held[5] > 0) == ((opener, session) in model.records, closing is not None)


def outcome(registry: RegistryClient, call: Call) -> str | None:
    """The error that the contract ends a call with; None if it takes it."""
    opener = registry.node.accounts[call.opener]
    try:
        if call.closing is None:
            receipt = registry.open(opener, call.session, call.config_hash)
        else:
            receipt = registry.close(opener, call.session, *call.closing)
    except RevertedError as error:
        return error.name
    assert receipt["status"] == 1
    return None


@settings(max_examples=15)
@given(SHARES, st.data())
def test_it_takes_the_proofs_that_python_takes(
    registry: RegistryClient, shares: list[Share], data: st.DataObject
) -> None:
    tree, opener = ShareTree(shares), registry.node.accounts[4]
    session = session_key(f"of-{next(NUMBERS)}")
    registry.open(opener, session, bytes(32))
    registry.close(opener, session, bytes(32), tree.root, sum(share.samples for share in shares), asked_first=False)
    one, other = data.draw(st.sampled_from(shares)), data.draw(st.sampled_from(shares))
    proof = tree.proof(one.account)
    claims = [
        (one, proof),
        (Share(one.account, other.samples), proof),
        (Share(other.account, one.samples), proof),
        (one, proof[: data.draw(st.integers(0, len(proof)))]),
        (one, [*proof, data.draw(HASH)]),
        (one, data.draw(st.permutations(proof))),
    ]
    for share, siblings in claims:
        said = registry.verify(opener, session, account_key(share.account), share.samples, siblings)
        assert said == verify(tree.root, share, siblings)
    assert verify(tree.root, one, proof)
