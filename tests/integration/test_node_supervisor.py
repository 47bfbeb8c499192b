"""The supervisor with real processes."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from cotrain.backoff import Backoff
from cotrain.errors import ConfigError
from cotrain.paths import CONTROL_FILE, STATUS_FILE
from cotrain.status import Control, read_status, write_control
from node.job import Job, write_job
from node.limits import Limits
from node.supervisor import STANDBY, CrashLoopError, Supervisor, worker_command
from tests.integration.node_fixtures import LIMIT_S, PEER, SESSION, until, worker_argv
from tests.system import own_children

LOADED_WITHIN_S = 60.0
QUICK = Backoff(first_s=0.02, most_s=0.05)


def make_supervisor(
    folder: Path, mode: str, *, backoff: Backoff = QUICK, on_exit: Callable[[], None] = lambda: None
) -> Supervisor:
    for name in ("train.safetensors", "session.toml"):
        (folder / name).touch()
    job = Job(
        session=SESSION, peer_id=PEER, identity_path=folder / "peer.key", config_path=folder / "session.toml",
        shared=folder, membership_path=folder / "membership.json", run_dir=folder,
        initial_peers=[], dataset_path=folder / "train.safetensors",
    )  # fmt: skip
    write_job(folder / "job.json", job)
    return Supervisor(worker_argv(mode, folder / "job.json"), folder, threads=1, backoff=backoff, on_exit=on_exit)


@asynccontextmanager
async def running(supervisor: Supervisor) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(supervisor.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def worker_pid(folder: Path) -> int:
    """The pid of the worker that has written a snapshot, 0 if there is none yet."""
    path = folder / "worker.pid"
    return int(path.read_text()) if path.exists() and (folder / STATUS_FILE).exists() else 0


async def prepared_by(supervisor: Supervisor) -> psutil.Process:
    """The process that it starts."""
    before = own_children()
    await supervisor.prepare(Limits())
    (prepared,) = own_children() - before
    return prepared


def run_of(folder: Path) -> str:
    return read_status(folder / STATUS_FILE).run


async def test_killed_worker_is_restarted(tmp_path: Path) -> None:
    async with running(make_supervisor(tmp_path, "endless")) as task:
        await until(lambda: worker_pid(tmp_path), what="the first worker")
        first, run = worker_pid(tmp_path), read_status(tmp_path / STATUS_FILE).run
        os.kill(first, signal.SIGKILL)
        await until(lambda: read_status(tmp_path / STATUS_FILE).run != run, what="the second worker")
        assert worker_pid(tmp_path) != first
        write_control(tmp_path / CONTROL_FILE, Control(wish="stop"))
        await asyncio.wait_for(task, LIMIT_S)
    assert read_status(tmp_path / STATUS_FILE).status == "stopped"


async def test_what_a_killed_worker_wrote_last_is_read_before_another_writes(tmp_path: Path) -> None:
    left: list[str] = []
    supervisor = make_supervisor(tmp_path, "endless", on_exit=lambda: left.append(run_of(tmp_path)))
    async with running(supervisor):
        await until(lambda: worker_pid(tmp_path), what="the first worker")
        first = run_of(tmp_path)
        os.kill(worker_pid(tmp_path), signal.SIGKILL)
        await until(lambda: run_of(tmp_path) != first, what="the second worker")
        assert left == [first]


async def test_crash_loop_ends_with_the_reason(tmp_path: Path) -> None:
    supervisor = make_supervisor(tmp_path, "crash")
    with pytest.raises(CrashLoopError, match=r"5 times within 120 s: RuntimeError: the disk caught fire") as caught:
        await asyncio.wait_for(supervisor.run(), LIMIT_S)
    assert str(supervisor.log_path) in caught.value.hint
    assert supervisor.log_path.read_text().count("starting\n") == 5


async def test_final_failure_is_not_restarted_and_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size does not fit into memory"):
        await asyncio.wait_for(make_supervisor(tmp_path, "bad-config").run(), LIMIT_S)


async def test_cancelling_ends_the_worker(tmp_path: Path) -> None:
    async with running(make_supervisor(tmp_path, "endless")):
        await until(lambda: worker_pid(tmp_path), what="the worker")
    assert not psutil.pid_exists(worker_pid(tmp_path))


async def test_stop_wish_cuts_the_wait_for_a_restart_short(tmp_path: Path) -> None:
    supervisor = make_supervisor(tmp_path, "endless", backoff=Backoff(first_s=600, most_s=600))
    async with running(supervisor) as task:
        await until(lambda: worker_pid(tmp_path), what="the worker")
        pid, run = worker_pid(tmp_path), run_of(tmp_path)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not psutil.pid_exists(pid), what="the worker's end")
        supervisor.wish_stop(True)
        await asyncio.wait_for(task, LIMIT_S)
    assert (worker_pid(tmp_path), run_of(tmp_path)) == (pid, run)


async def test_a_process_that_was_prepared_begins_with_its_job_and_is_restarted_like_any_other(tmp_path: Path) -> None:
    supervisor = make_supervisor(tmp_path, "endless")
    job = (tmp_path / "job.json").rename(tmp_path / "later.json")
    prepared = await prepared_by(supervisor)
    job.rename(tmp_path / "job.json")
    assert not (tmp_path / STATUS_FILE).exists()
    async with running(supervisor):
        await until(lambda: worker_pid(tmp_path), what="the worker")
        assert worker_pid(tmp_path) == prepared.pid
        run = run_of(tmp_path)
        prepared.kill()
        await until(lambda: run_of(tmp_path) != run, what="the second worker")
    await supervisor.dismiss()


async def test_a_process_that_was_prepared_in_vain_is_ended(tmp_path: Path) -> None:
    supervisor = make_supervisor(tmp_path, "endless")
    prepared = await prepared_by(supervisor)
    await supervisor.dismiss()
    assert not prepared.is_running()


async def test_a_prepared_process_that_has_died_is_replaced(tmp_path: Path) -> None:
    supervisor = make_supervisor(tmp_path, "complete")
    prepared = await prepared_by(supervisor)
    prepared.kill()
    await asyncio.wait_for(supervisor.run(), LIMIT_S)
    assert read_status(tmp_path / STATUS_FILE).status == "completed"


async def test_the_training_process_loads_and_ends_where_no_job_comes(tmp_path: Path) -> None:
    command = [*worker_command(tmp_path / "no-job.json"), STANDBY, "{}"]
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stderr=PIPE)
    _, said = await asyncio.wait_for(process.communicate(b""), LOADED_WITHIN_S)
    assert process.returncode == 0, said
    assert not (tmp_path / STATUS_FILE).exists()


async def test_worker_gets_its_number_of_threads(tmp_path: Path) -> None:
    async with running(make_supervisor(tmp_path, "endless")):
        await until(lambda: worker_pid(tmp_path), what="the worker")
        process = psutil.Process(worker_pid(tmp_path))
        assert process.environ()["OMP_NUM_THREADS"] == "1"
        assert os.getpgid(process.pid) == process.pid
