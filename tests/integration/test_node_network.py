"""The agent asks a process how its machine is reached: answers, refusals, and what is left when either is killed."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cotrain.errors import UnreachableError
from cotrain.membership.document import write_membership
from cotrain.peer_key import load_or_create_peer_key
from cotrain.process import child_environment, python_command
from cotrain.reachability import Attachment
from node.network import Question, find_attachment
from tests.integration.node_fixtures import until
from tests.membership_fixtures import membership_of
from tests.system import assert_gone

ANYWHERE = "0.0.0.0"


@pytest.fixture
def question(tmp_path: Path) -> Question:
    peer = load_or_create_peer_key(tmp_path / "peer.key")
    write_membership(tmp_path / "membership.json", membership_of(tmp_path / "keys", "test", peer))
    return Question(
        session="test", host="127.0.0.1", port=0, initial_peers=[], identity_path=tmp_path / "peer.key",
        membership_path=tmp_path / "membership.json",
    )  # fmt: skip


def saying(code: str) -> list[str]:
    return [sys.executable, "-c", code]


async def test_with_a_coordinator_on_this_machine_no_process_is_started(question: Question) -> None:
    found = await find_attachment(question, command=["/nowhere"])
    assert found == Attachment(connection="direct", port=0)


async def test_the_answer_of_the_process_is_taken(question: Question) -> None:
    answer = Attachment(connection="relayed", port=4001, notice="forward it")
    code = f"import sys; sys.stdin.read(); print({answer.model_dump_json()!r})"
    assert await find_attachment(question.model_copy(update={"host": ANYWHERE}), command=saying(code)) == answer


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("print('no way in'); raise SystemExit(75)", "no way in"),
        ("raise RuntimeError('it broke')", "RuntimeError: it broke"),
    ],
)
async def test_why_there_is_no_way_in_is_passed_on(question: Question, code: str, reason: str) -> None:
    with pytest.raises(UnreachableError, match=reason):
        await find_attachment(question.model_copy(update={"host": ANYWHERE}), command=saying(code))


async def test_a_search_that_is_cancelled_leaves_no_process(question: Question, tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    code = f"import os, time; open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    search = asyncio.create_task(find_attachment(question.model_copy(update={"host": ANYWHERE}), command=saying(code)))
    await until(lambda: mark.exists() and mark.read_text(), what="the process runs")
    process = psutil.Process(int(mark.read_text()))
    search.cancel()
    with pytest.raises(asyncio.CancelledError):
        await search
    assert_gone([process])


def test_no_daemon_is_left_when_the_process_is_killed(question: Question) -> None:
    """It hangs at a checkpointer that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        nobody = load_or_create_peer_key(question.identity_path.with_name("nobody.key"))
        address = f"/ip4/127.0.0.1/tcp/{silent.getsockname()[1]}/p2p/{nobody}"
        asked = question.model_copy(update={"initial_peers": [address]})
        with subprocess.Popen(
            python_command("node.probe"), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=child_environment(),
        ) as process:  # fmt: skip
            assert process.stdin is not None
            process.stdin.write(asked.model_dump_json().encode())
            process.stdin.close()
            silent.settimeout(60.0)
            connection, _ = silent.accept()  # its daemon is there
            daemons = psutil.Process(process.pid).children(recursive=True)
            process.kill()
        connection.close()
    assert daemons
    assert_gone(daemons)
