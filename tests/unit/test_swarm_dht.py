"""Peers' records as the DHT returns them: the good ones are kept, each bad one is refused with its reason."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hivemind.utils.timed_storage import ValueWithExpiration
from hypothesis import given
from hypothesis import strategies as st

from cotrain.swarm.dht import MAX_EXPIRY_S, MAX_RECORD_BYTES, PROTOCOL, PeerRecord, SwarmView, parse_records

NOW = 1_000_000.0
DIGEST = "d" * 64
GOOD = PeerRecord(round=3, digest=DIGEST, committed=40, steps=2, steps_per_s=1.5, sent_at=NOW)


def stored(value: Any, expires_in_s: float = 15.0) -> Any:
    return ValueWithExpiration(value, NOW + expires_in_s)


def changed(**fields: Any) -> str:
    return json.dumps({**GOOD.model_dump(), **fields})


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (stored(17), "is not a record"),
        (stored(b"{}"), "is not a record"),
        (changed(), "is not a record"),
        (None, "is not a record"),
        (stored(changed(), MAX_EXPIRY_S + 1), "expires too far ahead"),
        (stored(changed(), math.inf), "expires too far ahead"),
        (stored(changed(), math.nan), "expires too far ahead"),
        (stored(changed(digest="d" * MAX_RECORD_BYTES)), "is too large"),
        (stored("{" + " " * MAX_RECORD_BYTES), "is too large"),
        (stored("["), "1 validation error"),
        (stored("[" * 3000), "1 validation error"),
        (stored("[]"), "1 validation error"),
        (stored(changed(round="3")), "1 validation error"),
        (stored(changed(round=-2)), "1 validation error"),
        (stored(changed(digest="xyz")), "1 validation error"),
        (stored(changed(steps_per_s=math.nan)), "1 validation error"),
        (stored(changed(sent_at=math.inf)), "1 validation error"),
        (stored(changed(role="admin")), "1 validation error"),
        (stored(changed(payload="x")), "1 validation error"),
        (stored(changed(protocol=PROTOCOL + 1)), f"speaks protocol {PROTOCOL + 1}"),
    ],
)
def test_a_bad_record_is_refused_and_harms_no_other(entry: Any, reason: str) -> None:
    view = parse_records(
        {"bad": entry, "good": stored(GOOD.model_dump_json()), "me": stored("{}")}, "me", NOW, lambda peer: "train"
    )
    assert view.peers == {"good": GOOD}
    assert view.refused.keys() == {"bad"}
    assert view.refused["bad"].startswith(reason)
    assert "\n" not in view.refused["bad"]


@pytest.mark.parametrize("found", [None, 3, "text", [], b"", {}])
def test_what_is_no_dictionary_holds_nobody(found: Any) -> None:
    view = parse_records(found, "me", NOW, lambda peer: "train")
    assert view.peers == {}
    assert view.refused == {}


def test_a_subkey_of_any_type_and_length_is_only_a_name() -> None:
    view = parse_records({7: stored(GOOD.model_dump_json()), "x" * 9999: stored(0)}, "me", NOW, lambda peer: "train")
    assert view.peers == {"7": GOOD}
    assert list(view.refused) == ["x" * 128]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(list(PeerRecord.model_fields)), anything, max_size=4), st.floats())
def test_nothing_that_a_stranger_stores_raises(fields: dict[str, Any], expires_in_s: float) -> None:
    view = parse_records({"p": stored(changed(**fields), expires_in_s)}, "me", NOW, lambda peer: "train")
    assert len(view.peers) + len(view.refused) == 1
    for record in view.peers.values():
        assert math.isfinite(record.sent_at)
        assert record.round >= -1


# ---------------------------------------------------------------------------------------------- the view
def record(round_: int, digest: str = "a", *, role: Any = "train", committed: int = 10) -> PeerRecord:
    return PeerRecord(role=role, round=round_, digest=digest * 64 if digest else "", committed=committed)


def test_donors_are_the_newest_then_the_majority_then_trainers() -> None:
    view = SwarmView(
        {
            "old": record(4, "e"),
            "lonely": record(5, "f", committed=99),
            "checkpointer": record(5, "a", role="observe"),
            "trainer": record(5, "a"),
            "joining": record(-1, ""),
            "silent": record(6, ""),
        }
    )
    assert [peer for peer, _, _ in view.donors()] == ["trainer", "checkpointer", "lonely", "old"]
    assert view.donors()[0] == ("trainer", 5, "a" * 64)
    assert [peer for peer, _, _ in view.donors(5)] == ["trainer", "checkpointer", "lonely"]
    assert view.donors(6) == []


def test_a_tie_of_digests_goes_to_more_samples_then_to_the_larger_digest() -> None:
    view = SwarmView({"p": record(5, "f"), "q": record(5, "0", committed=11), "r": record(5, "9")})
    assert [peer for peer, _, _ in view.donors()] == ["q", "p", "r"]


def test_a_view_that_comes_late_is_after_a_stall_but_not_the_next_one() -> None:
    """Else two peers that a third has stopped from renewing their records would each go on alone."""
    seen, views = SwarmView(seen_at=100.0), []
    for at in (100.3, 105.4, 105.6, 111.0, 116.2, 121.4, 121.5):
        seen = SwarmView({"p": record(5)}, seen_at=at).following(seen, record_ttl_s=15.0)
        views.append(seen.after_stall)
    assert views == [False, True, False, True, False, True, False]
    assert seen.peers == {"p": record(5)}


def test_only_trainers_with_a_state_count_as_peers() -> None:
    view = SwarmView({"t": record(0), "o": record(0, role="observe"), "j": record(-1, "")})
    assert list(view.trainers()) == ["t"]
    assert [progress.round for progress in view.progress()] == [0]
