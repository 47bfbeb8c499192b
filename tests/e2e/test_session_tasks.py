"""A session that learns a task from rows, and one that goes on from its model, with that model as its teacher."""

from __future__ import annotations

import json
import urllib.error
from pathlib import Path
from typing import Any

import pytest
from transformers import pipeline

from tests.system import System, running_system, tiny_request
from tests.train_fixtures import write_rows
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def request_for(**changes: Any) -> dict[str, Any]:
    request = tiny_request(1, max_steps=80, inner_steps=20)
    request["training"] |= {"task": "text-classification", "learningRate": 0.001, "batchSize": 16}
    request["data"] = {"dataPath": "raw/rows.jsonl", "seqLength": 40}
    return request | changes


def train(system: System, name: str, request: dict[str, Any], *options: str) -> dict[str, Any]:
    """Run a session with one node to its end; its progress."""
    session = system.open_session(request)
    node = system.start_node(name, session["url"], *options)
    path = f"/api/v1/sessions/{session['id']}"
    wait_until(lambda: system.get(path)["status"] in ("completed", "failed"), limit_s=120, what=f"the end of {name}")
    assert system.get(path)["status"] == "completed", system.get(path)
    assert node.popen.wait(30) == 0, node.output()
    return dict(system.get(f"{path}/progress"))


def test_a_task_is_learnt_in_a_swarm_and_its_model_is_gone_on_from(tmp_path: Path) -> None:
    with running_system(tmp_path) as system:
        coordinator = system.start_coordinator()
        raw = coordinator.shared / "datasets" / "raw"
        write_rows(raw / "rows.jsonl", "text-classification")
        first = train(system, "first", request_for(model={"type": "bert"}))
        assert first["validationLoss"] < first["baselines"]["unigrams"] / 2
        name = Path(first["modelPath"]).relative_to(coordinator.shared / "models")
        second = request_for(
            model={"source": str(name)}, distillation={"teacher": str(name), "temperature": 1.0},
            training=request_for()["training"] | {"enableDistillation": True, "maxSteps": 20, "learningRate": 1e-4},
        )  # fmt: skip
        further = train(system, "second", second, "--processes", "2")
        (device,) = {p["device"] for p in system.get(f"/api/v1/sessions/{further['sessionId']}/participants")["items"]}
        assert "cpu" in device
        evaluations = [log["data"] for log in system.logs(further["sessionId"]) if log["kind"] == "evaluation"]
        assert evaluations[0]["validationLoss"] == pytest.approx(first["validationLoss"]), "it begins where that ended"
        assert further["accuracy"] == 1.0
        assert list((coordinator.shared / "models" / "temp").iterdir()) == [], "what the nodes fetched is cleaned up"
    classify = pipeline("text-classification", model=further["modelPath"])
    assert [answer["label"] for answer in classify(["Roya saw kind Yazd", "Omid left rude Rasht"])] == ["good", "bad"]


def test_a_session_whose_validation_loss_stands_still_stops_early(tmp_path: Path) -> None:
    request = tiny_request(1, max_steps=5000, inner_steps=2)
    request["training"] |= {
        "learningRate": 1e-20,
        "weightDecay": 0.0,
        "enableEarlyStopping": True,
        "earlyStoppingPatience": 3,
    }
    request["monitoring"]["evaluationRounds"] = 1
    with running_system(tmp_path) as system:
        shared = system.start_coordinator().shared
        progress = train(system, "node", request)
        assert progress["samplesCommitted"] < progress["samplesWanted"] / 2
        assert any("stopped early" in log["message"] for log in system.logs(progress["sessionId"]))
        assert Path(progress["modelPath"], "model.safetensors").is_file()
        logs = system.logs(progress["sessionId"])
        losses = {log["data"]["round"]: log["data"]["validationLoss"] for log in logs if log["kind"] == "evaluation"}
        (version,) = system.get("/api/v1/models/Test%20session")["items"]
        assert version["evaluation"]["round"] == version["round"]
        assert version["evaluation"]["metrics"]["validationLoss"] == losses[version["round"]] == min(losses.values())
        assert (shared / "datasets" / "processed" / version["dataFingerprint"]).is_dir()
        assert (version["available"], version["parameters"] > 0) == (True, True)


ELSEWHERE: list[tuple[dict[str, Any], str, str]] = [
    ({"model": {"source": "../../secrets"}}, "model.source", "leads out of the coordinator's models"),
    ({"model": {"source": "gpt2-farsi"}}, "model.source", "there is no model 'gpt2-farsi' did you mean gpt2-fa"),
    ({"data": {"dataPath": "/etc", "seqLength": 40}}, "data.dataPath", "leads out of the coordinator's datasets"),
]


def test_a_session_cannot_read_what_lies_elsewhere(tmp_path: Path) -> None:
    with running_system(tmp_path) as system:
        system.start_coordinator()
        for changes, field, message in ELSEWHERE:
            with pytest.raises(urllib.error.HTTPError) as refused:
                system.post("/api/v1/sessions", request_for(**changes))
            problem = json.loads(refused.value.read())
            assert (refused.value.code, problem["field"]) == (422, field)
            assert message in f"{problem['detail']} {problem['hint']}"


def test_a_session_whose_data_is_not_there_at_its_start_fails(tmp_path: Path) -> None:
    with running_system(tmp_path) as system:
        system.start_coordinator()
        missing = {"data": {"dataPath": "raw/nothing.jsonl", "seqLength": 40}}
        session = system.post("/api/v1/sessions", request_for(**missing))
        system.post(f"/api/v1/sessions/{session['id']}/start")
        path = f"/api/v1/sessions/{session['id']}/progress"
        wait_until(lambda: system.get(path)["status"] == "failed", limit_s=60, what="it has failed")
        assert "nothing.jsonl" in system.get(path)["errorMsg"]
