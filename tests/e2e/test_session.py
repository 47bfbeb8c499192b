"""The main job from end to end: coordinator, checkpointer, nodes, a model that loads; through public doors only."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cotrain.demo_summary import digests_are_equal
from tests.system import System, assert_gone, running_system, tiny_request
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


async def _listen(url: str, session: str, until: str) -> list[dict[str, Any]]:
    """Events of a session over WebSocket, until its state is `until`."""
    events = []
    async with (
        aiohttp.ClientSession() as client,
        client.ws_connect(f"{url}/api/v1/sessions/{session}/events?after=0") as socket,
    ):
        async for message in socket:
            events.append(json.loads(message.data))
            if events[-1]["type"] == "session.state" and events[-1]["data"].get("status") == until:
                return events
    raise AssertionError(f"the stream of events ended before the session was {until}")


async def _read_stream(url: str, session: str, count: int) -> list[dict[str, Any]]:
    """The first events over SSE."""
    events: list[dict[str, Any]] = []
    async with (
        aiohttp.ClientSession(headers={"Accept": "text/event-stream"}) as client,
        client.get(f"{url}/api/v1/sessions/{session}/events?after=0") as response,
    ):
        assert response.content_type == "text/event-stream"
        async for line in response.content:
            if line.startswith(b"data:"):
                events.append(json.loads(line[5:]))
                if len(events) == count:
                    return events
    return events


async def test_two_nodes_and_a_late_joiner_train_a_model(tmp_path: Path) -> None:
    with running_system(tmp_path) as system:
        coordinator = await asyncio.to_thread(system.start_coordinator)
        session = await asyncio.to_thread(system.open_session, tiny_request(2, max_steps=500))
        path = f"/api/v1/sessions/{session['id']}"
        listener = asyncio.create_task(_listen(system.url, session["id"], "completed"))
        nodes = [system.start_node(name, session["url"]) for name in ("one", "two")]
        await asyncio.to_thread(_wait_for_round, system, path, 1)
        late = system.start_node("late", session["url"])
        events = await asyncio.wait_for(listener, 150)
        for node in (*nodes, late):
            assert await asyncio.to_thread(node.popen.wait, 30) == 0, node.output()

        progress, logs = system.get(f"{path}/progress"), system.logs(session["id"])
        participants = system.get(f"{path}/participants")["items"]
        version = system.get(f"/api/v1/models/{session['id']}")["newest"]
        trees = [process for node in system.processes for process in node.tree()]
        first = await _read_stream(system.url, session["id"], 5)
        await asyncio.to_thread(coordinator.end)
        assert_gone(trees)

    _check_learning(progress, logs)
    _check_rounds(logs, participants)
    _check_credit(logs, participants, version)
    _check_events(events, session["id"])
    assert first[0]["type"] == "snapshot"
    _check_model(Path(progress["modelPath"]))


def _wait_for_round(system: System, path: str, round_: int) -> None:
    wait_until(lambda: system.get(f"{path}/progress")["round"] >= round_, limit_s=90, what=f"round {round_}")


def _check_learning(progress: dict[str, Any], logs: list[dict[str, Any]]) -> None:
    losses = [log["data"]["validationLoss"] for log in logs if log["kind"] == "evaluation"]
    assert losses[0] > 5.0  # nothing learnt yet: ln 256 is 5.55
    assert losses[-1] < progress["baselines"]["unigrams"]  # more than byte frequencies
    assert progress["samplesCommitted"] >= progress["samplesWanted"] == 500 * 4 * 2
    assert progress["processRate"] == 100.0


def _check_rounds(logs: list[dict[str, Any]], participants: list[dict[str, Any]]) -> None:
    rounds = [log for log in logs if log["kind"] == "round"]
    assert digests_are_equal(rounds)
    members = {log["data"]["round"]: len(log["data"]["members"]) for log in rounds if "members" in log["data"]}
    assert max(members.values()) == 3, "the late joiner took part in no round"
    assert sum(count >= 2 for count in members.values()) >= 10
    assert {peer["name"] for peer in participants} == {"one", "two", "late"}
    late = next(peer for peer in participants if peer["name"] == "late")
    own = [log["data"] for log in rounds if log["source"] == late["id"]]
    assert own[0]["round"] > 1
    # its first round carries no weight, for its inner optimizer is cold; the next one does
    weight = [float(data["weights"][data["members"].index(late["peerId"])]) for data in own]
    assert weight[0] == 0.0
    assert all(value > 0 for value in weight[1:])


def _check_credit(logs: list[dict[str, Any]], participants: list[dict[str, Any]], version: dict[str, Any]) -> None:
    """Whatever the checkpointer has followed by its decision is credited as the members recorded it themselves."""
    rounds = [log["data"] for log in logs if log["kind"] == "round"]
    recorded = {
        data["round"]: {
            peer: float(weight) for peer, weight in zip(data["members"], data["weights"], strict=True) if float(weight)
        }
        for data in rounds
        if "members" in data
    }
    credited = {data["round"]: dict(line.split() for line in data["credits"]) for data in rounds if "credits" in data}
    assert len(credited) >= 5
    for round_, credits in credited.items():
        assert {peer: float(samples) for peer, samples in credits.items()} == recorded[round_]
    for one in participants:
        mine = [int(credits[one["peerId"]]) for credits in credited.values() if one["peerId"] in credits]
        assert one["credit"] == {"samples": sum(mine), "rounds": len(mine)}
    assert version["uncreditedRounds"] == version["round"] - len(credited)
    assert sum(who["samples"] for who in version["contributors"]) == sum(
        one["credit"]["samples"] for one in participants
    )


def _check_events(events: list[dict[str, Any]], session: str) -> None:
    assert events[0]["type"] == "snapshot"
    states = [event["data"]["status"] for event in events if event["type"] == "session.state"]
    assert states == ["waiting", "training", "completed"] or states[-2:] == ["training", "completed"]
    numbers = [event["seq"] for event in events[1:]]
    assert numbers == sorted(set(numbers))
    progress = [event["data"] for event in events if event["type"] == "training.progress"]
    assert progress
    assert all(data["sessionId"] == session for data in progress)
    assert {"progress", "loss", "participants", "metrics"} <= progress[-1].keys()
    assert {"accuracy", "learningRate", "batchSize"} <= progress[-1]["metrics"].keys()


def _check_model(path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    encoded = tokenizer("def main():\n    return ", return_tensors="pt")
    output = model.generate(**encoded, max_new_tokens=8, do_sample=False)
    assert output.shape[1] == encoded.input_ids.shape[1] + 8
    assert tokenizer.decode(output[0]).startswith("def main()")
