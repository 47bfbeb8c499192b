"""A reducer that lies, in a real session: found out by a witness, put out by the coordinator; the others train on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cotrain.swarm.evidence import Evidence, verify
from tests.e2e.test_members import participant, wait_for_members
from tests.system import System, assert_gone, running_system, tiny_request

pytestmark = pytest.mark.e2e

LYING_NODE = Path(__file__).with_name("lying_node.py")
FOUND_WITHIN_S = 150
"""A reducer of three is audited every third round on average."""


MEMBERS_RECORD = {
    "members", "weights", "samples", "zeroedParts", "suspects", "suspectedFor", "dropped", "evidence", "digest",
    "matchmakingSeconds", "waitedSeconds", "reducingSeconds", "applyingSeconds", "bytesSent", "bytesReceived",
}  # fmt: skip
CHECKPOINTERS_RECORD = {
    "digest", "digestsEqual", "samples", "holders", "followedBy", "donor", "zeroedParts", "bytesReceived",
    "followingSeconds",
}  # fmt: skip


def proofs(system: System, session: str) -> list[dict[str, Any]]:
    """What the coordinator has told of; on a busy machine there may be testimonies besides."""
    return [log for log in system.logs(session) if log["kind"] == "suspicion" and log["data"]["held"] == "proof"]


def test_a_lying_reducer_is_put_out_and_the_others_go_on(tmp_path: Path) -> None:
    with running_system(tmp_path) as system:
        coordinator = system.start_coordinator()
        session = system.open_session(tiny_request(3, max_steps=100_000))
        name = session["id"]
        honest = [system.start_node(node, session["url"]) for node in ("ada", "bea")]
        liar = system.start_node("liar", session["url"], program=[str(LYING_NODE)])
        together = wait_for_members(system, name, 3)
        trees, accused = liar.tree(), participant(system, name, "liar")["peerId"]

        assert liar.popen.wait(FOUND_WITHIN_S) == 77, liar.output()
        assert "this account was put out of the session: in round" in liar.output()
        assert_gone(trees)

        # a later audit may find the same before the revocation has reached everybody: it is told once
        (told,) = proofs(system, name)
        assert (told["source"], told["data"]["accused"]) == ("coordinator", accused)
        assert "liar is put out of the session: in round" in told["message"]
        assert "that its inputs do not give" in told["message"]
        kept = coordinator.shared / "logs" / "training" / name / "checkpointer" / "evidence" / f"proof-{accused}.json"
        assert verify(Evidence.model_validate_json(kept.read_bytes())) == "proof"

        wait_for_members(system, name, 2, after=max(together, told["data"]["round"]))
        assert [node.popen.poll() for node in honest] == [None, None]
        rounds = [log for log in system.logs(name) if log["kind"] == "round"]
        followed = [log["data"] for log in rounds if log["source"] == "checkpointer" and log["data"]["round"] > 0]
        assert all(data["digestsEqual"] for data in followed)
        assert all(set(data) >= CHECKPOINTERS_RECORD for data in followed)
        assert all(set(log["data"]) >= MEMBERS_RECORD for log in rounds if log["source"] != "checkpointer")

        system.post(f"/api/v1/sessions/{name}/cancel")
        assert [node.popen.wait(30) for node in honest] == [0, 0]
