"""No process outlives the one that started it, however that ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import psutil
import pytest

from cotrain.process import SHARED_MEMORY, bind_to_parent, child_environment, end_process, python_command

# a parent that starts a child and tells its pid, then waits for its end
BOUND_CHILD = """
import subprocess, sys
from cotrain.process import child_environment
child = subprocess.Popen([sys.executable, "-c", '''
from cotrain.process import bind_to_parent
bind_to_parent()
print("bound", flush=True)
import signal
signal.pause()
'''], env=child_environment(), stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""
FORKED_CHILD = """
import os, signal, subprocess
from cotrain.process import bind_future_children
bind_future_children()
if (pid := os.fork()) == 0:
    # what the child executes later is bound to it, too
    if (grandchild := os.fork()) == 0:
        os.execvp("sleep", ["sleep", "1000"])
    print(os.getpid(), grandchild, flush=True)
    signal.pause()
signal.pause()
"""


@pytest.mark.parametrize("script", [BOUND_CHILD, FORKED_CHILD], ids=["bind_to_parent", "bind_future_children"])
def test_children_die_with_a_parent_that_is_killed(script: str) -> None:
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    children = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
    assert children
    assert all(child.is_running() for child in children)
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(children, timeout=5.0)
    assert [child for child in alive if child.status() != psutil.STATUS_ZOMBIE] == []
    parent.stdout.close()


def test_binding_is_asked_for_by_the_parent_and_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = child_environment(EXTRA="1")
    assert environment["COTRAIN_PARENT_PID"] == str(os.getpid())
    assert environment["EXTRA"] == "1"
    monkeypatch.delenv("COTRAIN_PARENT_PID", raising=False)
    bind_to_parent()  # nobody asked: nothing happens
    assert "COTRAIN_PARENT_PID" not in os.environ


def test_whose_parent_is_gone_already_ends_at_once() -> None:
    environment = {**os.environ, "COTRAIN_PARENT_PID": "1"}
    script = "from cotrain.process import bind_to_parent; bind_to_parent(); print('alive')"
    ended = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert (ended.returncode, ended.stdout) == (1, "")


async def started(script: str) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline()
    return process


async def test_end_process_is_polite_first() -> None:
    process = await started(
        "import signal, sys; signal.signal(15, lambda *_: sys.exit(7)); print('up', flush=True); signal.pause()"
    )
    assert await end_process(process, grace_s=20.0) == 7
    assert await end_process(process, grace_s=0.0) == 7  # again: nothing to do


async def test_end_process_kills_what_does_not_listen_and_its_descendants() -> None:
    process = await started(
        "import signal, subprocess; signal.signal(15, signal.SIG_IGN)\n"
        "subprocess.Popen(['sleep', '1000']); print('up', flush=True)\n"
        "while True: signal.pause()"
    )
    (child,) = psutil.Process(process.pid).children()
    assert await end_process(process, grace_s=0.1) == -signal.SIGKILL
    _, alive = psutil.wait_procs([child], timeout=5.0)
    assert [left for left in alive if left.status() != psutil.STATUS_ZOMBIE] == []


def test_python_command_runs_a_module() -> None:
    assert python_command("node.worker", "--job", "x") == [sys.executable, "-m", "node.worker", "--job", "x"]


SHARING = """
import signal, torch
torch.multiprocessing.set_sharing_strategy("file_system")  # hivemind's
shared = torch.zeros(1000).share_memory_()
print("shared", flush=True)
signal.pause()
"""


async def test_shared_memory_goes_with_the_processes_that_shared_it() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", SHARING, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"shared\n"
    files = list(SHARED_MEMORY.glob(f"torch_{process.pid}_*"))
    assert files
    await end_process(process, grace_s=5.0)
    assert not any(file.exists() for file in files)
