"""kill -9 of one process of a running session: the others go on, nothing is lost, nothing is left behind."""

from __future__ import annotations

import urllib.parse
from pathlib import Path
from typing import Any

import pytest

from cotrain.demo_summary import digests_are_equal
from tests.system import Process, System, assert_gone, daemons_among, running_system, tiny_request
from tests.waiting import wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(280)]


def _round(node: Process) -> int:
    status = node.status()
    return -1 if status is None or status.status != "training" else status.round


def _await_round(node: Process, round_: int, limit_s: float = 90) -> None:
    wait_until(lambda: _round(node) >= round_, limit_s=limit_s, what=f"{node.name} in round {round_}: {node.output()}")


def _start_two(system: System, max_steps: int) -> tuple[dict[str, Any], list[Process], Process]:
    coordinator = system.start_coordinator()
    session = system.open_session(tiny_request(2, max_steps=max_steps))
    nodes = [system.start_node(name, session["url"]) for name in ("one", "two")]
    for node in nodes:
        _await_round(node, 2)
    return session, nodes, coordinator


def test_nodes_train_on_while_the_coordinator_is_dead_and_it_learns_all_of_it_later(tmp_path: Path) -> None:
    with running_system(tmp_path) as system:
        session, nodes, coordinator = _start_two(system, max_steps=600)
        port = urllib.parse.urlsplit(system.url).port
        assert port is not None
        known = len(system.logs(session["id"]))

        assert_gone(coordinator.kill())  # its checkpointer and p2pd die with it
        killed_at = max(_round(node) for node in nodes)
        for node in nodes:
            _await_round(node, killed_at + 5)
            assert node.popen.poll() is None

        system.start_coordinator(port)
        path = f"/api/v1/sessions/{session['id']}"
        wait_until(
            lambda: system.get(path)["status"] == "completed", limit_s=150,
            what=f"the session completed: {coordinator.shared}",
        )  # fmt: skip
        for node in nodes:
            assert node.popen.wait(40) == 0, node.output()

        logs = system.logs(session["id"])
        assert len(logs) > known
        assert digests_are_equal([log for log in logs if log["kind"] == "round"])
        for source in {peer["id"] for peer in system.get(f"{path}/participants")["items"]}:
            own = [log["data"]["round"] for log in logs if log["source"] == source and log["kind"] == "round"]
            # every round that was closed while the coordinator was away is here, once and in order
            assert own == list(range(1, own[-1] + 1))


def test_a_node_goes_on_alone_when_the_other_is_killed_and_the_other_comes_back(tmp_path: Path) -> None:
    with running_system(tmp_path) as system:
        session, (one, two), _ = _start_two(system, max_steps=5000)
        path = f"/api/v1/sessions/{session['id']}"

        assert_gone(two.kill())
        killed_at = _round(one)
        _await_round(one, killed_at + 4)
        alone = [log["data"] for log in system.logs(session["id"]) if "members" in log["data"]]
        assert len(alone[-1]["members"]) == 1

        back = system.start_node("two", session["url"])  # the same home: the same identity
        back_at = _round(one)

        def together_again() -> bool:
            rounds = [log["data"] for log in system.logs(session["id"]) if "members" in log["data"]]
            return any(len(data["members"]) == 2 and data["round"] > back_at for data in rounds)

        wait_until(together_again, limit_s=90, what=f"a round of both after the return: {back.output()}")
        system.post(f"{path}/stop")
        wait_until(lambda: system.get(path)["status"] == "stopped", limit_s=60, what="the session stopped")
        assert Path(system.get(path)["modelPath"]).is_dir()
        assert one.popen.wait(40) == 0
        assert back.popen.wait(40) == 0
        rounds = [log for log in system.logs(session["id"]) if log["kind"] == "round"]
        assert digests_are_equal(rounds)
        assert len(system.get(f"{path}/participants")["items"]) == 2


def test_the_state_outlives_all_volunteers(tmp_path: Path) -> None:
    with running_system(tmp_path) as system:
        session, nodes, _ = _start_two(system, max_steps=5000)
        path = f"/api/v1/sessions/{session['id']}"
        for node in nodes:
            assert_gone(node.kill())
        reached = wait_until(lambda: system.get(f"{path}/progress")["round"], limit_s=30, what="a round is known")
        new = system.start_node("new", session["url"])
        _await_round(new, reached + 1)

        def rounds_of_newcomer() -> list[int]:
            names = {peer["id"]: peer["name"] for peer in system.get(f"{path}/participants")["items"]}
            own = [log for log in system.logs(session["id"]) if names.get(log["source"]) == "new"]
            return [log["data"]["round"] for log in own if log["kind"] == "round"]

        first = wait_until(rounds_of_newcomer, limit_s=30, what="a round of the newcomer is in the log")[0]
        assert first > reached - 1 > 0, "the newcomer did not continue from the state that was kept"


@pytest.mark.long
@pytest.mark.parametrize("whose", ["node", "checkpointer"])
def test_whoever_loses_its_daemon_starts_again(whose: str, tmp_path: Path) -> None:
    with running_system(tmp_path) as system:
        session, nodes, coordinator = _start_two(system, max_steps=5000)
        path = f"/api/v1/sessions/{session['id']}"
        victim = nodes[0] if whose == "node" else coordinator
        (daemon,) = daemons_among(victim.tree())
        daemon.kill()
        lost_at = max(_round(node) for node in nodes)

        def is_back() -> bool:
            logs = [log["data"] for log in system.logs(session["id"]) if log["kind"] == "round"]
            if whose == "checkpointer":
                return any("followedBy" in data and data["round"] > lost_at + 1 for data in logs)
            return any(len(data.get("members", ())) == 2 and data["round"] > lost_at + 1 for data in logs)

        wait_until(is_back, limit_s=150, what=f"the {whose} back in a round: {victim.output()[-4000:]}")
        assert victim.popen.poll() is None
        assert all(node.popen.poll() is None for node in nodes)
        logs = system.logs(session["id"])
        assert digests_are_equal([log for log in logs if log["kind"] == "round"])
        assert system.get(path)["status"] == "training"
