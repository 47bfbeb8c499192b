"""Membership in a real swarm: a removed volunteer is out, a new key is followed, and the others train on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cotrain.process import child_environment
from tests.system import System, assert_gone, running_system, tiny_request
from tests.waiting import wait_until

pytestmark = pytest.mark.e2e


def members_of_rounds(system: System, session: str) -> dict[int, int]:
    """How many peers closed each round."""
    rounds = [log["data"] for log in system.logs(session) if log["kind"] == "round"]
    return {data["round"]: len(data["members"]) for data in rounds if "members" in data}


def wait_for_members(system: System, session: str, count: int, *, after: int = 0) -> int:
    """Wait until a round after `after` has been closed by so many peers; that round."""

    def found() -> int:
        rounds = members_of_rounds(system, session)
        return next((number for number, size in sorted(rounds.items()) if number > after and size == count), 0)

    return wait_until(found, limit_s=90, what=f"a round of {count} peers after round {after}")


def rotate_key(system: System, shared: Path) -> None:
    command = [sys.executable, "-m", "cotrain.cli", "coordinator", "rotate-key"]
    result = subprocess.run(
        command, env=child_environment(COTRAIN_SHARED=str(shared)), capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "signs certificates from now on" in result.stdout


def participant(system: System, session: str, name: str) -> dict[str, Any]:
    items = system.get(f"/api/v1/sessions/{session}/participants")["items"]
    return next(dict(item) for item in items if item["name"] == name)


def test_a_removed_volunteer_is_out_and_a_newcomer_by_a_new_key_is_let_in(tmp_path: Path) -> None:
    with running_system(tmp_path) as system:
        coordinator = system.start_coordinator()
        session = system.open_session(tiny_request(2, max_steps=100_000))
        name, path = session["id"], f"/api/v1/sessions/{session['id']}"
        stays, goes = (system.start_node(node, session["url"]) for node in ("stays", "goes"))
        together = wait_for_members(system, name, 2)

        trees = goes.tree()
        removed = participant(system, name, "goes")
        system.delete(f"{path}/participants/{removed['id']}")
        assert goes.popen.wait(30) == 77, goes.output()
        assert "the session's owner has removed this account" in goes.output()
        assert_gone(trees)
        alone = wait_for_members(system, name, 1, after=together)

        rotate_key(system, coordinator.shared)
        system.start_node("newcomer", session["url"])
        wait_for_members(system, name, 2, after=alone)
        assert stays.popen.poll() is None

        again = system.start_node("goes", session["url"])
        assert again.popen.wait(30) == 77, again.output()
        assert "the session's owner has removed this account" in again.output()
        system.post(f"{path}/cancel")
        assert stays.popen.wait(30) == 0, stays.output()
