"""Facts about this very machine, gathered: folders, ports, versions, the driver, clocks, processes; and the limits."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotrain.config import RunConfig, dump_config
from cotrain.errors import ConfigError, UnreachableError
from cotrain.paths import SharedPaths
from cotrain.process import child_environment
from cotrain.protocol import Asset, RegisterAnswer
from cotrain.sections import ModelSection, SessionSection, TrainSection
from node.checks import Check, Estimate, memory
from node.doctor import Measured, children_of, measure_training, state_bytes
from node.greeting import compare_clocks
from node.hardware import ask_driver, cuda_gpus
from node.lock import AGENT_FILE, AgentRecord, last_agent, read_agent
from node.preflight import (
    Subject,
    bytes_to_fetch,
    look_at_disk,
    look_at_packages,
    look_at_port,
    look_at_python,
    look_at_shared_memory,
    memory_needed,
    parse_torch_cuda,
    preflight,
    refusal,
    torch_build,
    within,
)
from node.supervisor import MachineError
from tests.membership_fixtures import membership_of

NANO = RunConfig(session=SessionSection(id="tales"))
TRAIN = Asset(name="train.safetensors", sha256="a" * 64, size_bytes=10**6)


def subject_of(tmp_path: Path, config: str | None = None, assets: list[Asset] | None = None) -> Subject:
    answer = None
    if config is not None:
        answer = RegisterAnswer(
            participant="p", token="t", session="tales", initial_peers=[], config=config, assets=assets or [],
            membership=membership_of(tmp_path / "keys", "tales", "12D3KooWPeer"),
        )  # fmt: skip
    return Subject(tmp_path / "home", SharedPaths(tmp_path / "shared"), "127.0.0.1", 0, answer=answer)


# ---------------------------------------------------------------------------------------------- all of them
async def test_all_quick_looks_are_taken_side_by_side(tmp_path: Path) -> None:
    found = await preflight(subject_of(tmp_path, dump_config(NANO), [TRAIN]))
    assert [check.name for check in found] == [
        "python", "packages", "torch", "disk", "memory", "shared-memory", "gpu", "port",
    ]  # fmt: skip
    assert {check.name for check in found if check.state == "failed"} == set()
    assert not (tmp_path / "home").exists()  # looking changes nothing
    assert not (tmp_path / "shared").exists()


async def test_a_config_that_cannot_be_read_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_sise"):
        await preflight(subject_of(tmp_path, "schema_version = 1\n[train]\nbatch_sise = 3\n"))


async def test_a_look_that_takes_too_long_is_given_up() -> None:
    async def forever() -> Check:
        await asyncio.Event().wait()
        raise AssertionError

    found = await within("disk", forever(), limit_s=0.05)
    assert (found.name, found.state) == ("disk", "warning")


def test_the_first_failure_ends_a_join_with_its_remedy() -> None:
    fine, unfit = Check("gpu", "ok", "none"), Check("disk", "failed", "it is full", "make room")
    away = Check("coordinator", "failed", "no answer", "is it up?")
    assert refusal([fine, Check("clock", "warning", "3 s off", "set it")]) is None
    error = refusal([fine, unfit, Check("port", "failed", "taken", "another")])
    assert isinstance(error, MachineError)
    assert (error.message, error.field, error.hint, error.exit_code) == ("it is full", "disk", "make room", 78)
    assert isinstance(refusal([away]), UnreachableError)
    assert isinstance(refusal([away, unfit]), MachineError)


def test_the_way_past_is_named_where_estimates_alone_have_failed() -> None:
    estimate, fact = (
        Estimate("disk", "failed", "too little room", "make room"),
        Check("port", "failed", "taken", "move"),
    )
    alone, both = (
        refusal([estimate, Estimate("memory", "failed", "too small", "a larger one")]),
        refusal([estimate, fact]),
    )
    assert alone is not None
    assert both is not None
    assert alone.hint == "make room; or, if this estimate is wrong: --skip-preflight"
    assert both.hint == "make room"


def test_room_and_memory_that_a_session_needs_are_estimates_and_a_folder_that_takes_no_file_is_none(
    tmp_path: Path,
) -> None:  # fmt: skip
    subject = subject_of(tmp_path, dump_config(NANO), [TRAIN.model_copy(update={"size_bytes": 10**18})])
    need, _ = memory_needed(subject.answer, 0)
    assert isinstance(look_at_disk(subject), Estimate)
    assert isinstance(memory(need, 2**20, 2**20), Estimate)
    nowhere = Subject(Path("/proc/cotrain"), subject.shared, "127.0.0.1", 0)
    assert look_at_disk(nowhere).state == "failed"
    assert not isinstance(look_at_disk(nowhere), Estimate)


# ---------------------------------------------------------------------------------------------- what is installed
def test_what_these_tests_run_on_is_fit() -> None:
    assert look_at_python().state == "ok"
    assert look_at_packages().state == "ok"


def test_torchs_build_is_read_without_loading_it() -> None:
    script = (
        "from node.preflight import torch_build; print(*torch_build()); import sys; assert 'torch' not in sys.modules"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.split() == [str(part) for part in torch_build()]
    import torch

    assert torch_build() == (torch.__version__, torch.version.cuda)


@pytest.mark.parametrize(
    ("text", "cuda"),
    [
        ("__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = None\n", None),
        ("__version__ = '2.13.0'\ncuda: Optional[str] = '12.6'\nhip = None\n", "12.6"),
        ("cuda = '11.8'\n", "11.8"),
        ("", None),
    ],
)
def test_the_version_of_cuda_is_found_in_torchs_file(text: str, cuda: str | None) -> None:
    assert parse_torch_cuda(text) == cuda


# ---------------------------------------------------------------------------------------------- the machine
def test_a_folder_that_does_not_take_a_file_fails(tmp_path: Path) -> None:
    subject = subject_of(tmp_path)
    assert look_at_disk(subject).state != "failed"
    nowhere = Subject(Path("/proc/cotrain"), subject.shared, "127.0.0.1", 0)  # root may not write there either
    found = look_at_disk(nowhere)
    assert found.state == "failed"
    assert "/proc/cotrain cannot be written" in found.detail
    assert "COTRAIN_HOME" in found.remedy


def test_the_disk_must_hold_what_is_not_here_yet(tmp_path: Path) -> None:
    huge = TRAIN.model_copy(update={"size_bytes": 10**18})
    subject = subject_of(tmp_path, dump_config(NANO), [huge, TRAIN.model_copy(update={"name": "small"})])
    assert subject.answer is not None
    assert bytes_to_fetch(subject.shared, subject.answer.assets) == 10**18 + 10**6
    found = look_at_disk(subject)
    assert found.state == "failed"
    assert "COTRAIN_SHARED" in found.remedy
    here = subject.shared.processed_datasets / huge.sha256 / huge.name
    here.parent.mkdir(parents=True)
    here.touch()
    assert bytes_to_fetch(subject.shared, subject.answer.assets) == 10**6


def test_the_memory_that_a_session_needs_depends_on_the_gpus(tmp_path: Path) -> None:
    assert memory_needed(None, 0) == (None, "")
    answer = subject_of(tmp_path, dump_config(NANO)).answer
    (alone, _), (with_gpu, _) = memory_needed(answer, 0), memory_needed(answer, 2)
    assert alone is not None
    assert with_gpu is not None
    assert (alone.devices, with_gpu.devices) == (0, 2)
    assert alone.gpu_bytes == 0 < with_gpu.gpu_bytes


def test_of_a_model_that_nobody_knows_the_reason_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COTRAIN_CONFIGS", str(tmp_path))  # without a catalog, as on a volunteer's machine
    config = RunConfig(model=ModelSection(source="org/name"), train=TrainSection(task="causal-lm"))
    need, unknown = memory_needed(subject_of(tmp_path, dump_config(config)).answer, 0)
    assert need is None
    assert "model.source" in unknown
    assert state_bytes(subject_of(tmp_path, dump_config(NANO)).answer) > 10**6  # type: ignore[arg-type]


def test_shared_memory_is_looked_at_where_there_is_some(tmp_path: Path) -> None:
    subject = subject_of(tmp_path, dump_config(NANO))
    assert "are needed" in look_at_shared_memory(subject, tmp_path).detail
    assert look_at_shared_memory(subject, tmp_path / "none").state == "ok"


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
def test_a_port_that_another_program_has_fails(kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET, kind) as other:
        other.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            other.listen()
        port = other.getsockname()[1]
        found = look_at_port("127.0.0.1", port)
        assert (found.state, found.detail) == (
            "failed", f"port {port} on 127.0.0.1 cannot be had: another program has it",
        )  # fmt: skip
    assert look_at_port("127.0.0.1", port).state == "ok"
    assert look_at_port("::1", 0).state == "ok"


def test_an_address_that_is_not_this_machines_fails() -> None:
    found = look_at_port("192.0.2.1", 4001)
    assert found.state == "failed"
    assert "another program" not in found.detail


# ---------------------------------------------------------------------------------------------- the driver
@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in place of the driver's own, which the tests write."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return program


def test_gpus_and_driver_are_asked_for_at_once(driver: Path) -> None:
    driver.write_text("#!/bin/sh\necho '550.54.15, 81559, NVIDIA H100 80GB HBM3'\necho '550.54.15, [N/A], Jetson'\n")
    driver.chmod(0o755)
    found = ask_driver()
    assert found.gpus == cuda_gpus() == [("NVIDIA H100 80GB HBM3", 81559 * 2**20), ("Jetson", 0)]
    assert (found.version, found.trouble) == ("550.54.15", "")


@pytest.mark.parametrize(
    ("script", "trouble"),
    [
        ("echo 'No devices were found'; exit 6", "No devices were found"),
        ("echo 'Driver/library version mismatch' >&2; exit 18", "Driver/library version mismatch"),
        ("exit 9", "exit code 9"),
    ],
)
def test_a_driver_that_fails_is_quoted(driver: Path, script: str, trouble: str) -> None:
    driver.write_text(f"#!/bin/sh\n{script}\n")
    driver.chmod(0o755)
    assert (ask_driver().gpus, ask_driver().trouble) == ([], trouble)


def test_without_a_driver_there_is_no_gpu_and_no_trouble(driver: Path) -> None:
    driver.write_text("not a program")  # not executable
    assert (ask_driver().gpus, ask_driver().trouble) == ([], "")


# ---------------------------------------------------------------------------------------------- clocks
@given(true=st.floats(1e9, 2e9), ahead=st.floats(-1e5, 1e5), there=st.floats(0, 2), back=st.floats(0, 2))
def test_the_clocks_difference_is_found_within_its_doubt(true: float, ahead: float, there: float, back: float) -> None:
    from email.utils import formatdate

    answered = true + there
    date = formatdate(int(answered), usegmt=True)  # whole seconds, cut off
    found = compare_clocks(date, true + ahead, answered + back + ahead)
    assert abs(found.ahead_s - ahead) <= found.doubt_s + 1e-3
    assert found.answer_s == pytest.approx(there + back, abs=1e-3)


def test_what_is_no_date_is_refused() -> None:
    with pytest.raises(ValueError, match="date"):
        compare_clocks("", 0.0, 1.0)


# ---------------------------------------------------------------------------------------------- earlier agents
@pytest.fixture
def children() -> Iterator[subprocess.Popen[bytes]]:
    """A process that this one has started as an agent starts its own."""
    code = "from cotrain.process import bind_to_parent; bind_to_parent(); print('bound', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=child_environment()
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"bound\n"
        yield process
        process.kill()


def test_what_an_agent_has_started_is_found_by_its_id(children: subprocess.Popen[bytes]) -> None:
    started = psutil.Process().create_time()
    assert children.pid in children_of(os.getpid(), started)
    assert children_of(os.getpid(), time.time() + 60) == []  # an id that is used again
    assert children.pid not in children_of(1, 0.0)


def test_the_record_of_a_dead_agent_is_read_but_does_not_count_as_one(tmp_path: Path) -> None:
    assert last_agent(tmp_path) is None
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        record = AgentRecord(
            pid=process.pid, start_time=psutil.Process(process.pid).create_time(), session="s", run_dir=tmp_path
        )
        (tmp_path / AGENT_FILE).write_text(record.model_dump_json(by_alias=True))
        assert read_agent(tmp_path) == record
        process.kill()
        process.wait()
    assert (last_agent(tmp_path), read_agent(tmp_path)) == (record, None)


# ---------------------------------------------------------------------------------------------- the benchmark
async def test_what_the_benchmark_prints_is_taken() -> None:
    code = 'print(\'{"device": "cpu", "tokens_per_s": 12.5}\')'
    assert await measure_training([sys.executable, "-c", code]) == Measured(device="cpu", tokens_per_s=12.5)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise RuntimeError('no kernel image')", "RuntimeError: no kernel image"),
        ("raise SystemExit(3)", "exit code 3"),
    ],
)
async def test_why_the_benchmark_failed_is_told(code: str, reason: str) -> None:
    found = await measure_training([sys.executable, "-c", code])
    assert isinstance(found, str)
    assert reason in found


async def test_a_benchmark_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    code = f"import os, time; open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    found = await measure_training([sys.executable, "-c", code], limit_s=2.0)
    assert found == "it was not done within 2 s"
    assert not mark.exists() or not psutil.pid_exists(int(mark.read_text()))
