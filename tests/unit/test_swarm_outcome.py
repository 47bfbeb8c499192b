"""What a round leaves in the training log: everything that happened, and nothing that JSON cannot hold."""

from __future__ import annotations

from cotrain.status import Record
from cotrain.swarm.outcome import RoundOutcome
from cotrain.swarm.suspects import NO_ANSWER, Suspects
from cotrain.train.diloco import RoundTotals
from tests.unit.test_swarm_evidence_service import proof


def test_the_first_reason_stays_and_who_only_kept_silent_has_one_too() -> None:
    suspects = Suspects()
    suspects.blame("b", "sent nothing")
    suspects.blame("b", "closed its stream")
    suspects.add("a")
    assert suspects.reasons() == {"a": NO_ANSWER, "b": "sent nothing"}
    assert list(suspects.reasons()) == ["a", "b"]
    assert suspects == {"a", "b"}


def test_a_rounds_record_says_all() -> None:
    outcome = RoundOutcome(
        round=6, members=("a", "b"), weights=(8.0, 16.0), totals=RoundTotals(24, 32), zeroed_parts=1,
        suspects={"b": "sent nothing"}, dropped={"a": "too long"}, matchmaking_s=0.12345, reducing_s=1.5,
        bytes_sent=100, bytes_received=200, reducers=("a", "b"), evidence=(proof(),),
    )  # fmt: skip
    record = Record(number=1, time=0.0, kind="round", message="closed", data=outcome.record())
    assert Record.model_validate_json(record.model_dump_json()).data == {
        "round": 7, "members": ["a", "b"], "weights": ["8", "16"], "samples": 24, "zeroedParts": 1,
        "suspects": ["b"], "suspectedFor": ["b: sent nothing"], "dropped": ["a: too long"],
        "evidence": [f"evidence against {proof().accused}: false-part, wrong average"],
        "matchmakingSeconds": 0.123, "reducingSeconds": 1.5, "bytesSent": 100, "bytesReceived": 200,
    }  # fmt: skip
