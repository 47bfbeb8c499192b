"""A whole session over home routers: the commands that people run, on machines that are far from each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from cotrain.demo_summary import digests_are_equal
from tests import natnet
from tests.netns import Host
from tests.system import Process, System, _ready_line, running_system, tiny_request
from tests.waiting import wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.long, pytest.mark.timeout(280)]

if (reason := natnet.why_unavailable()) is not None:
    pytest.skip(reason, allow_module_level=True)


class PublicSystem(System):
    """Its coordinator is on a public host; so is whoever asks it something."""

    def start_public_coordinator(self, host: Host) -> Process:
        with host.inside():
            url = f"http://{host.address}:8000"
            process = self._start(
                "coordinator",
                ["coordinator", "serve", "--host", host.address, "--port", "8000", "--public-url", url, "--json",
                 "--swarm-host", host.address, "--swarm-port", "31330"],
            )  # fmt: skip
            wait_until(lambda: _ready_line(process), limit_s=60, what=f"coordinator ready: {process.log}")
            self.url = url
            self.token = self._sign_in()
        return process


def run_session(folder: Path, coordinator: Host, places: dict[str, tuple[Host, list[str]]]) -> dict[str, str]:
    """A session of nodes at these places (host, options), from opening to its end; what each node has printed."""
    with running_system(folder) as plain:
        system = PublicSystem(folder, processes=plain.processes)
        system.start_public_coordinator(coordinator)
        with coordinator.inside():
            session = system.open_session(tiny_request(len(places), max_steps=100))
        nodes = {}
        for name, (host, options) in places.items():
            with host.inside():
                nodes[name] = system.start_node(name, session["url"], *options)
        for name, node in nodes.items():
            assert node.popen.wait(150) == 0, f"{name}: {node.output()}"
        with coordinator.inside():
            wait_until(
                lambda: system.get(f"/api/v1/sessions/{session['id']}")["status"] == "completed", limit_s=60,
                what="the session is completed",
            )  # fmt: skip
            rounds = [entry for entry in system.logs(session["id"]) if entry["kind"] == "round"]
        assert max(len(entry["data"].get("members", [])) for entry in rounds) == len(nodes)
        assert digests_are_equal(rounds)
        return {name: node.output() for name, node in nodes.items()}


def test_nodes_behind_routers_train_with_a_public_one(tmp_path: Path) -> None:
    with natnet.internet(hosts=2, homes=2) as net:
        net.homes[1].forward(4001)  # as the advice has it
        told = run_session(
            tmp_path, net.hosts[0],
            {"public": (net.hosts[1], []), "home": (net.homes[0].machine, []),
             "open": (net.homes[1].machine, ["--port", "4001"])},
        )  # fmt: skip
    advised = {name: "other peers cannot open a connection" in output for name, output in told.items()}
    assert advised == {"public": False, "home": True, "open": False}
    assert "through the coordinator's machine" in told["home"]


def test_a_node_that_nobody_reaches_registers_as_a_contributor(tmp_path: Path) -> None:
    with natnet.internet(hosts=2, homes=1, prefix=natnet.PRIVATE) as net:
        told = run_session(
            tmp_path, net.hosts[0], {"open": (net.hosts[1], []), "hidden": (net.homes[0].machine, [])}
        )  # fmt: skip
    assert "only contributes" in told["hidden"]
    assert "only contributes" not in told["open"]
