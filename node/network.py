"""Has a process of its own find out how others can connect to this machine: `node.probe`, which loads hivemind."""

from __future__ import annotations

import asyncio
import ipaddress
from asyncio.subprocess import PIPE
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cotrain.errors import UnreachableError
from cotrain.process import child_environment, end_process, python_command
from cotrain.reachability import Attachment
from node.supervisor import final_error

LIMIT_S = 180.0
"""Longer than all waits of the search together: whoever takes longer hangs."""


class Question(BaseModel):
    """What the process must know; it comes on its standard input.

    Attributes:
        host, port: where the peer will listen; port 0: any free one.
        initial_peers: libp2p addresses of the checkpointer.
        identity_path: libp2p private key of the peer.
        membership_path: the peer's certificate.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    session: str
    host: str
    port: int
    initial_peers: list[str]
    identity_path: Path
    membership_path: Path


async def find_attachment(question: Question, *, command: Sequence[str] = ()) -> Attachment:
    """How this machine is attached to the network. Cancelling it ends the process; loopback needs none.

    Raises UnreachableError, with the reason, if there is no way into the swarm.
    """
    if ipaddress.ip_address(question.host).is_loopback:
        return Attachment(connection="direct", port=question.port)
    process = await asyncio.create_subprocess_exec(
        *(command or python_command("node.probe")), stdin=PIPE, stdout=PIPE, stderr=PIPE,
        env=child_environment(OMP_NUM_THREADS="1"), start_new_session=True,
    )  # fmt: skip
    try:
        async with asyncio.timeout(LIMIT_S):
            answer, log = await process.communicate(question.model_dump_json().encode())
    except TimeoutError as error:
        raise UnreachableError(f"the search for a way into the swarm took more than {LIMIT_S:.0f} s") from error
    finally:
        await end_process(process, grace_s=2.0)
    if process.returncode == 0:
        return Attachment.model_validate_json(answer)
    raise UnreachableError(
        answer.decode().strip() or final_error(log.decode(errors="replace")),
        hint="there is no way into the swarm from here: a firewall may block it",
    )
