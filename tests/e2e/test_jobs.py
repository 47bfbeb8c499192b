"""A session that is saved in the middle, by the real checkpointer, and evaluated by a real process afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.system import System, running_system, tiny_request
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

LIMIT_S = 120.0


def _ended(system: System, job: dict[str, Any]) -> dict[str, Any]:
    """The job once it has ended."""
    path = f"/api/v1/jobs/{job['id']}"
    done = wait_until(
        lambda: view if (view := system.get(path))["status"] in ("completed", "failed") else None,
        limit_s=LIMIT_S, what=f"the {job['kind']} has ended",
    )  # fmt: skip
    return dict(done)


def test_a_session_saved_in_the_middle_ends_with_two_versions_that_can_be_evaluated(tmp_path: Path) -> None:
    with running_system(tmp_path) as system:
        coordinator = system.start_coordinator()
        session = system.open_session(tiny_request(1, max_steps=300))
        path = f"/api/v1/sessions/{session['id']}"
        node = system.start_node("one", session["url"])
        wait_until(lambda: system.get(f"{path}/progress")["round"] >= 2, limit_s=LIMIT_S, what="round 2")
        saved = _ended(system, system.post(f"{path}/save"))
        assert saved["status"] == "completed", saved
        assert system.get(path)["status"] == "training"
        wait_until(lambda: system.get(path)["status"] == "completed", limit_s=LIMIT_S, what="the session is completed")
        assert node.popen.wait(30) == 0, node.output()

        final, interim = system.get(f"/api/v1/models/{saved['model']}")["items"]
        assert (interim["version"], interim["round"], final["version"]) == (1, saved["result"]["round"], 2)
        assert 2 <= interim["round"] < final["round"]
        losses = [version["evaluation"]["metrics"]["validationLoss"] for version in (final, interim)]
        assert interim["evaluation"]["round"] == interim["round"]
        assert losses[0] < losses[1]
        _check_loads(coordinator.shared / "models" / "final" / f"{session['id']}.round-{interim['round']}")

        evaluated = _ended(system, system.post(f"/api/v1/models/{saved['model']}/evaluate", {"version": 1}))
        assert evaluated["status"] == "completed", evaluated
        # the same samples by the same code: the file of weights holds what was evaluated in the middle
        assert evaluated["result"]["metrics"]["validationLoss"] == pytest.approx(losses[1], rel=1e-5)
        assert evaluated["result"]["targets"] == interim["evaluation"]["targets"]
        assert evaluated["result"]["dataFingerprint"] == interim["dataFingerprint"]
        versions = system.get(f"/api/v1/models/{saved['model']}")["items"]
        assert [one["lastEvaluation"] for one in versions] == [None, evaluated["result"]]


def _check_loads(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    tokens = AutoTokenizer.from_pretrained(folder, local_files_only=True)("def f", return_tensors="pt")
    assert model(tokens.input_ids).logits.isfinite().all()
