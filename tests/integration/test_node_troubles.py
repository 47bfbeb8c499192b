"""What goes wrong on volunteers' machines, brought about for real, against the table in docs/troubleshooting.md."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple, TypeVar

import psutil
import pytest
from aiohttp import web

from tests.integration.agent_process import AgentProcess
from tests.integration.coordinator_fixtures import (
    Client,
    coordinator_client,
    get_json,
    post_json,
    settings_for,
    waiting_session,
)
from tests.integration.coordinator_fixtures import until as until_there
from tests.integration.node_fixtures import running_coordinator, until
from tests.integration.test_node_doctor import base_of, free_port
from tests.unit.test_coordinator_operations import make_certificate

TABLE = Path(__file__).resolve().parents[2] / "docs" / "troubleshooting.md"
SHIFTED_CLOCK = Path(__file__).with_name("shifted_clock.py")
LIMIT_S = 60.0
GPU_ANSWER = "#!/bin/sh\necho '550.54.15, 81559, NVIDIA H100 80GB HBM3'\n"
GPU_IS_LOST = "#!/bin/sh\necho 'GPU is lost. Reboot the system to recover this GPU'\nexit 15\n"

Test = TypeVar("Test", bound=Callable[..., object])


class Row(NamedTuple):
    """A row of the table; `hint` is None where nothing is to be done, `code` where the node goes on."""

    message: re.Pattern[str]
    hint: re.Pattern[str] | None
    code: int | None


def rows() -> dict[str, Row]:
    found = {}
    for line in TABLE.read_text(encoding="utf-8").partition("\n| Trouble |")[2].splitlines()[2:]:
        if not line.startswith("|"):
            break
        trouble, message, hint, code = [cell.strip() for cell in line.strip("|").split("|")]
        hinted = as_pattern(hint) if hint.startswith("`") else None
        found[trouble] = Row(as_pattern(message), hinted, int(code) if code else None)
    return found


def as_pattern(cell: str) -> re.Pattern[str]:
    return re.compile(".+".join(re.escape(piece) for piece in cell.strip("`").split("…")))


ROWS = rows()
PRODUCED: set[str] = set()


def produces(trouble: str) -> Callable[[Test], Test]:
    """Marks the test that brings this row's trouble about."""
    PRODUCED.add(trouble)
    return lambda test: test


def assert_told(trouble: str, output: str, code: int | None) -> None:
    """Whether a line of the output says what the row has, with its hint on the next line or in brackets behind it."""
    row = ROWS[trouble]
    assert code == row.code, output
    told = [line for line in output.splitlines() if row.message.search(line)]
    assert told, output
    assert code is None or any(line.startswith("error: ") for line in told)
    if row.hint is not None:
        whole = rf"{row.message.pattern}[^\n]*(\nhint: {row.hint.pattern}|\({row.hint.pattern}\))$"
        assert re.search(whole, output, re.MULTILINE), output
    assert "Traceback" not in output


# ---------------------------------------------------------------------------------------------- machines
def why_no_mounts() -> str:
    """Why this process cannot have mounts of its own; empty if it can."""
    if shutil.which("unshare") is None or shutil.which("mount") is None:
        return "there is no unshare or no mount"
    tried = subprocess.run(["unshare", "-m", "true"], capture_output=True, text=True, check=False, timeout=LIMIT_S)
    return "" if tried.returncode == 0 else f"mounts of one's own are not allowed here: {tried.stderr.strip()}"


WHY_NO_MOUNTS = why_no_mounts()
needs_mounts = pytest.mark.skipif(bool(WHY_NO_MOUNTS), reason=WHY_NO_MOUNTS)


def small_disk(folder: Path, size: str, *, options: str = "") -> list[str]:
    """The beginning of a command line: what follows sees a disk of this size there, and nobody else does.

    Args:
        options: text of the node.toml on it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    script = (
        'mount -t tmpfs -o "size=$1,mode=700" tmpfs "$0" && printf %s "$2" > "$0/node.toml" && shift 2 && exec "$@"'
    )
    return ["unshare", "-m", "sh", "-c", script, str(folder), size, options]


def read_only(folder: Path) -> list[str]:
    """The same for a folder that nothing can be written to."""
    folder.mkdir(parents=True, exist_ok=True)
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    return ["unshare", "-m", "sh", "-c", script, str(folder)]


class Volunteer:
    """Folders of one's own, and the command line."""

    def __init__(self, folder: Path):
        self.home, self.shared = folder / "home", folder / "shared"

    async def join(
        self, url: str, *options: str, within: list[str] | None = None, program: Sequence[str] = ("-m", "cotrain.cli")
    ) -> tuple[int, str]:
        """Exit code and output of `cotrain node join`; `within`: the beginning of its command line."""
        process = await asyncio.create_subprocess_exec(
            *(within or []), sys.executable, *program, "node", "join", url, *options,
            env={**os.environ, "COTRAIN_HOME": str(self.home), "COTRAIN_SHARED": str(self.shared)},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            output, _ = await asyncio.wait_for(process.communicate(), LIMIT_S)
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode is not None
        return process.returncode, output.decode()


@pytest.fixture
def volunteer(tmp_path: Path) -> Volunteer:
    return Volunteer(tmp_path)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """A real coordinator whose public URL is the one that nodes use."""
    port = free_port()
    settings = settings_for(tmp_path / "coordinator", public_url=f"http://127.0.0.1:{port}")
    async with coordinator_client(settings, port) as client:
        yield client


# ---------------------------------------------------------------------------------------------- disks
@needs_mounts
@produces("The disk has too little room")
async def test_a_disk_with_too_little_room_is_found_before_anything_is_fetched(volunteer: Volunteer) -> None:
    async with running_coordinator() as coordinator:
        code, output = await volunteer.join(coordinator.session_url, within=small_disk(volunteer.shared, "1m"))
        assert_told("The disk has too little room", output, code)
        assert "COTRAIN_SHARED" in output
        assert "asset" not in coordinator.requests
        assert coordinator.left == ["p1"]


@needs_mounts
@produces("The disk is full while the session's data are fetched")
async def test_a_disk_that_is_full_during_the_download_ends_the_join(volunteer: Volunteer) -> None:
    async with running_coordinator({"train.safetensors": bytes(3 * 2**20)}) as coordinator:
        code, output = await volunteer.join(
            coordinator.session_url, "--skip-preflight", within=small_disk(volunteer.shared, "1m")
        )
        assert_told("The disk is full while the session's data are fetched", output, code)
        assert "training all the same: --skip-preflight" in output


@needs_mounts
@produces("The disk is full while the node trains")
async def test_a_disk_that_is_full_while_the_node_trains_costs_no_event(tmp_path: Path) -> None:
    async with running_coordinator() as coordinator:
        small = small_disk(tmp_path / "home", "64k", options="[node]\nskip_preflight = true\n")
        async with AgentProcess(tmp_path, coordinator.session_url, "complete", within=small) as agent:
            assert await agent.wait() == 0, agent.output
        assert_told("The disk is full while the node trains", agent.output.decode(), None)
        assert coordinator.record_numbers() == set(range(1, 42))


@needs_mounts
@produces("The home folder is read-only")
async def test_a_home_folder_that_is_read_only_ends_the_join(volunteer: Volunteer) -> None:
    code, output = await volunteer.join(f"http://127.0.0.1:{free_port()}/s/tales", within=read_only(volunteer.home))
    assert_told("The home folder is read-only", output, code)
    assert str(volunteer.home) in output


# ---------------------------------------------------------------------------------------------- the coordinator
@produces("The clock is wrong")
async def test_a_clock_that_is_not_the_coordinators_ends_the_join(volunteer: Volunteer) -> None:
    async with running_coordinator() as coordinator:
        coordinator.clock_off_s = 90.0
        code, output = await volunteer.join(coordinator.session_url)
        assert_told("The clock is wrong", output, code)
        assert "behind the coordinator's" in output
        assert coordinator.requests == []


@pytest.mark.parametrize(("off_s", "word"), [(7200, "ahead of"), (-40 * 86400, "behind")])
async def test_a_clock_that_is_far_off_is_named_where_the_coordinator_would_refuse_what_is_signed(
    client: Client, volunteer: Volunteer, off_s: int, word: str
) -> None:
    session = await waiting_session(client)
    url = f"{base_of(client)}/s/{session}"
    code, output = await volunteer.join(url, program=[str(SHIFTED_CLOCK), str(off_s)])
    assert_told("The clock is wrong", output, code)
    assert f" s {word} the coordinator's" in output
    assert (await get_json(client, f"/api/v1/sessions/{session}/participants"))["items"] == []


@produces("The clock is so wrong that there is no secure connection")
async def test_a_clock_by_which_the_certificate_does_not_hold_yet_is_named(
    volunteer: Volunteer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = make_certificate(tmp_path / "tls", valid_from=datetime.now(UTC) + timedelta(days=2))
    monkeypatch.setenv("SSL_CERT_FILE", str(files.certificate))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.certificate, files.key)
    runner = web.AppRunner(web.Application())
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        code, output = await volunteer.join(f"https://127.0.0.1:{runner.addresses[0][1]}/s/tales")
    finally:
        await runner.cleanup()
    assert_told("The clock is so wrong that there is no secure connection", output, code)


@produces("The coordinator does not answer at first contact")
async def test_a_coordinator_that_does_not_answer_is_asked_five_times(volunteer: Volunteer) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    code, output = await volunteer.join(f"{url}/s/tales")
    assert_told("The coordinator does not answer at first contact", output, code)
    assert output.count(f"{url} does not answer (") == 4
    assert f"error: {url}: the coordinator did not answer in 5 tries: " in output


@produces("The coordinator goes away later")
async def test_a_coordinator_that_goes_away_is_told_and_the_training_goes_on(tmp_path: Path) -> None:
    async with running_coordinator() as coordinator:
        async with AgentProcess(tmp_path, coordinator.session_url, "complete") as agent:
            await until(lambda: len(coordinator.stored) >= 2, what="two events")
            await coordinator.stop()
            pid = agent.worker_pid()
            await until(lambda: pid is None or not psutil.pid_exists(pid), what="the end of the training")
            await coordinator.start()
            assert await agent.wait() == 0
        assert_told("The coordinator goes away later", agent.output.decode(), None)
        assert coordinator.final_states() == ["completed"]


@produces("The session has ended meanwhile")
async def test_a_session_that_has_ended_meanwhile_takes_nobody(client: Client, volunteer: Volunteer) -> None:
    session = await waiting_session(client)
    await post_json(client, f"/api/v1/sessions/{session}/cancel")
    code, output = await volunteer.join(f"{base_of(client)}/s/{session}")
    assert_told("The session has ended meanwhile", output, code)


@produces("The coordinator has no session for this machine")
async def test_where_nothing_is_open_the_join_says_what_it_asked_for(client: Client, volunteer: Volunteer) -> None:
    code, output = await volunteer.join(base_of(client))
    assert_told("The coordinator has no session for this machine", output, code)
    assert " of memory, " in output


@produces("The node's certificate is revoked")
async def test_a_node_that_was_put_out_of_its_session_ends(client: Client, tmp_path: Path) -> None:
    session = await waiting_session(client)
    participants = f"/api/v1/sessions/{session}/participants"

    async def is_online() -> bool:
        return [item["state"] for item in (await get_json(client, participants))["items"]] == ["online"]

    async with AgentProcess(tmp_path, f"{base_of(client)}/s/{session}", "endless") as agent:
        await until_there(is_online, 2 * LIMIT_S)
        (node,) = (await get_json(client, participants))["items"]
        async with client.delete(f"{participants}/{node['id']}") as answer:
            assert answer.status == 204
        code = await agent.wait(limit_s=LIMIT_S)
    assert_told("The node's certificate is revoked", agent.output.decode(), code)


# ---------------------------------------------------------------------------------------------- the machine
def fake_driver(folder: Path, says: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the node finds in the place of nvidia-smi."""
    driver = folder / "bin" / "nvidia-smi"
    driver.parent.mkdir()
    driver.write_text(says)
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{driver.parent}:{os.environ['PATH']}")
    return driver


@produces("A GPU's memory is to be bounded, and none trains")
async def test_a_bound_for_a_gpu_that_is_not_there_is_refused_before_anybody_is_asked(
    volunteer: Volunteer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_driver(tmp_path, GPU_IS_LOST, monkeypatch)
    async with running_coordinator() as coordinator:
        code, output = await volunteer.join(coordinator.session_url, "--max-gpu-memory", "50%")
        assert_told("A GPU's memory is to be bounded, and none trains", output, code)
        assert coordinator.requests == []


@produces("A GPU vanishes")
async def test_a_gpu_that_vanishes_ends_the_join_with_what_the_driver_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = fake_driver(tmp_path, GPU_ANSWER, monkeypatch)
    async with (
        running_coordinator() as coordinator,
        AgentProcess(tmp_path, coordinator.session_url, "endless") as agent,
    ):
        await until(lambda: coordinator.stored, limit_s=LIMIT_S, what="an event")
        driver.write_text(GPU_IS_LOST)
        pid = agent.worker_pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)  # as a training process dies whose GPU is gone
        code = await agent.wait()
        assert_told("A GPU vanishes", agent.output.decode(), code)
        assert b"the driver shows 0: GPU is lost. Reboot the system" in agent.output
        assert agent.worker_pid() is None


# ---------------------------------------------------------------------------------------------- the document
def test_every_row_of_the_table_is_brought_about_here() -> None:
    assert set(ROWS) == PRODUCED
    assert {row.code for row in ROWS.values()} == {None, 2, 69, 74, 75, 77, 78}
