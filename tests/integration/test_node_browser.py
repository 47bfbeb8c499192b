"""A node that takes part by a wallet in a browser elsewhere, at a real coordinator."""

from __future__ import annotations

import asyncio
import json
import os
import re
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cotrain.errors import CotrainError, NotAuthorizedError, NotFoundError
from cotrain.identity.secret_files import SecretFileError
from cotrain.membership.bond import LONGEST_BOND_S
from cotrain.membership.certificate import Role
from cotrain.membership.document import certificate_of, write_membership
from cotrain.paths import MEMBERSHIP_FILE, STATUS_FILE
from cotrain.peer_key import PeerSigner
from cotrain.protocol import LinkAnswer, LinkRequest, RegisterAnswer
from cotrain.status import now, write_status
from node.admission import PEER_KEY
from node.browser import FOLDER, BrowserWallet, Kept, statement_end
from node.client import CoordinatorClient
from node.job import JOB_FILE, Job, write_job
from node.lock import agent_lock
from node.registration import Applicant
from tests.integration.coordinator_fixtures import (
    STRANGER,
    WALLET,
    Client,
    anonymous,
    coordinator_for_nodes,
    get_json,
    services,
    sign_link,
    until,
    waiting_session,
)
from tests.integration.node_fixtures import make_peer, make_status

LIMIT_S = 60.0
CODE = re.compile(r"type ([A-Z]{4}-[A-Z]{4}) there")


class Coordinator(CoordinatorClient):
    """The node's client, which notes the codes that it was given.

    Attributes:
        links: what it was given, in order.
        lifetime_s: how long the node is told that a code holds; None: what the coordinator says.
    """

    def __init__(self, base_url: str):
        super().__init__(base_url)
        self.links: list[LinkAnswer] = []
        self.lifetime_s: float | None = None

    async def start_link(self, request: LinkRequest) -> LinkAnswer:
        self.links.append(await super().start_link(request))
        shorter = {} if self.lifetime_s is None else {"expires_in_s": self.lifetime_s}
        return self.links[-1].model_copy(update=shorter)


@dataclass
class Node:
    """One node in one session."""

    client: Coordinator
    session: str
    home: Path
    peer: PeerSigner
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """A new agent with the same folder."""
        self.wallet = BrowserWallet(self.client, self.session, self.home, notice=self.lines.append)

    @property
    def kept(self) -> Path:
        return self.home / FOLDER / f"{self.session}.json"

    @property
    def codes(self) -> list[str]:
        """The short codes that its person has been shown."""
        return [found[1] for line in self.lines if (found := CODE.search(line))]

    async def register(self, role: Role = "reduce") -> RegisterAnswer:
        return await self.wallet.register(Applicant(self.peer, role=role, name="attic"))

    async def shows_codes(self, count: int) -> None:
        await until(lambda: len(self.codes) == count)


@asynccontextmanager
async def asking(node: Node) -> AsyncIterator[asyncio.Task[RegisterAnswer]]:
    """The node registers, and is ended with the context if it has not ended."""
    task = asyncio.create_task(node.register())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with coordinator_for_nodes(tmp_path / "coordinator", link_interval_s=0.02) as client:
        yield client


@pytest.fixture
async def node(client: Client, tmp_path: Path) -> AsyncIterator[Node]:
    session = await waiting_session(client)
    async with Coordinator(f"http://127.0.0.1:{client.port}") as coordinator:
        yield Node(coordinator, session, tmp_path / "home", make_peer(tmp_path))


async def let_in(client: Client, node: Node) -> RegisterAnswer:
    async with asyncio.timeout(15), asking(node) as task:
        await node.shows_codes(1)
        await sign_link(client, node.codes[0])
        return await task


async def ended_with(task: asyncio.Task[RegisterAnswer]) -> CotrainError:
    """What the node fails with."""
    with pytest.raises(CotrainError) as caught:
        await asyncio.wait_for(task, LIMIT_S)
    return caught.value


async def test_the_wallet_is_asked_once_and_the_node_comes_back_by_itself(client: Client, node: Node) -> None:
    answer = await let_in(client, node)
    assert node.lines[0] == (
        f"open {node.client.base_url}/link on a machine that has your wallet, and type {node.codes[0]} there "
        f"(or follow {node.client.base_url}/link#{node.codes[0]}); this waits for 10 minutes"
    )
    account = f"eip155:1:{WALLET.address}"
    assert node.lines[1] == f"{account} has signed: this node takes part for it"
    assert certificate_of(answer.membership).account == account
    assert stat.S_IMODE(node.kept.stat().st_mode) == 0o600
    assert statement_end(node.home, node.session) == pytest.approx(now() + LONGEST_BOND_S, abs=60.0)
    for secret in (answer.token, node.client.links[0].device_code):
        assert secret not in repr(node.lines)

    node.restart()
    again = await node.register("contribute")
    assert (again.participant, again.token) == (answer.participant, answer.token)
    assert certificate_of(again.membership).role == "contribute"
    assert len(node.lines) == 2


async def test_a_token_that_has_ended_takes_the_wallet_again_and_a_new_code(client: Client, node: Node) -> None:
    answer = await let_in(client, node)
    await node.client.leave(node.session, answer.participant, answer.token)
    async with asking(node) as task:
        await node.shows_codes(2)
        assert any(line.startswith("the wallet is needed again: ") for line in node.lines)
        await sign_link(client, node.codes[1])
        again = await asyncio.wait_for(task, LIMIT_S)
    assert again.participant == answer.participant
    assert again.token != answer.token


async def test_of_two_that_register_at_once_one_asks_the_person(client: Client, node: Node) -> None:
    async with asking(node) as first, asking(node) as second:
        await node.shows_codes(1)
        await sign_link(client, node.codes[0])
        answers = await asyncio.wait_for(asyncio.gather(first, second), LIMIT_S)
    assert answers[0].token == answers[1].token
    assert len(node.codes) == 1


async def test_who_declines_in_the_browser_ends_it(client: Client, node: Node) -> None:
    async with asking(node) as task:
        await node.shows_codes(1)
        with anonymous(client):
            async with client.post("/api/v1/links/decline", json={"userCode": node.codes[0]}) as response:
                assert response.status == 204
        error = await ended_with(task)
    assert isinstance(error, NotAuthorizedError)
    assert "declined" in error.message
    assert not node.kept.exists()


async def test_a_code_for_which_nobody_signs_ends_it(node: Node) -> None:
    node.client.lifetime_s = 0.2
    async with asking(node) as task:
        error = await ended_with(task)
    assert isinstance(error, NotAuthorizedError)
    assert error.message == f"no wallet has signed for the code {node.codes[0]}"


async def test_a_coordinator_that_has_forgotten_the_code_is_asked_for_another(client: Client, node: Node) -> None:
    async with asking(node) as task:
        await node.shows_codes(1)
        services(client).links.end(node.client.links[0].device_code)
        await node.shows_codes(2)
        await sign_link(client, node.codes[1])
        await asyncio.wait_for(task, LIMIT_S)
    assert node.codes[0] != node.codes[1]
    assert any("has forgotten the code" in line for line in node.lines)


async def test_what_was_kept_for_another_peer_is_not_used(client: Client, node: Node, tmp_path: Path) -> None:
    await let_in(client, node)
    (tmp_path / "other").mkdir()
    node.peer = make_peer(tmp_path / "other")
    async with asking(node) as task:
        await node.shows_codes(2)
        await sign_link(client, node.codes[1], STRANGER)
        await asyncio.wait_for(task, LIMIT_S)
    listed = (await get_json(client, f"/api/v1/sessions/{node.session}/participants"))["items"]
    assert {item["account"] for item in listed} == {f"eip155:1:{wallet.address}" for wallet in (WALLET, STRANGER)}


async def test_a_damaged_file_is_named_and_not_quoted(client: Client, node: Node) -> None:
    await let_in(client, node)
    node.kept.write_text('{"token": "half of a sec')
    with pytest.raises(SecretFileError, match="is damaged") as caught:
        await node.register()
    assert caught.value.field == str(node.kept)
    assert "half of" not in str(caught.value)


# ---------------------------------------------------------------------------------------------- before it ends
@contextmanager
def agent_of(node: Node, answer: RegisterAnswer, folder: Path) -> Iterator[None]:
    """What the commands find of a running agent, whose process this one is."""
    run_dir = folder / "run"
    run_dir.mkdir()
    (node.home / PEER_KEY).write_bytes((folder / "peer.key").read_bytes())
    write_membership(run_dir / MEMBERSHIP_FILE, answer.membership)
    write_status(run_dir / STATUS_FILE, make_status(1))
    job = Job(
        session=node.session, peer_id=node.peer.peer_id, name="attic", identity_path=node.home / PEER_KEY,
        config_path=folder, shared=folder, membership_path=run_dir / MEMBERSHIP_FILE, run_dir=run_dir,
        initial_peers=[], dataset_path=folder,
    )  # fmt: skip
    write_job(run_dir / JOB_FILE, job)
    with agent_lock(node.home, session=node.session, run_dir=run_dir, asks_browser=True):
        yield


@asynccontextmanager
async def started(home: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`cotrain node ...` with this folder."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cotrain.cli", "node", *arguments, env={**os.environ, "COTRAIN_HOME": str(home)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def output_of(home: Path, *arguments: str, code: int = 0) -> str:
    """What it prints until it ends with this exit code."""
    async with started(home, *arguments) as process:
        output, _ = await asyncio.wait_for(process.communicate(), LIMIT_S)
    assert process.returncode == code, output.decode()
    return output.decode()


async def shown_code(process: asyncio.subprocess.Process) -> str:
    """The short code in what a command prints."""
    assert process.stdout is not None
    async for line in process.stdout:
        if found := CODE.search(line.decode()):
            return found[1]
    raise AssertionError("no code was shown")


async def test_before_the_statement_ends_the_wallet_signs_again_while_the_node_trains_on(
    client: Client, node: Node, tmp_path: Path
) -> None:
    answer = await let_in(client, node)
    soon = Kept.model_validate_json(node.kept.read_bytes()).model_copy(
        update={"statement_expires_at": int(now()) + 3 * 86400 + 60}
    )
    node.kept.write_text(soon.model_dump_json(by_alias=True))
    with agent_of(node, answer, tmp_path):
        assert "warning: the wallet's statement for this node ends in 3 days" in await output_of(node.home, "status")
        async with started(node.home, "sign-again") as process:
            await sign_link(client, await asyncio.wait_for(shown_code(process), LIMIT_S))
            assert await asyncio.wait_for(process.wait(), LIMIT_S) == 0
        assert json.loads(await output_of(node.home, "status", "--json"))["warnings"] == []
    assert statement_end(node.home, node.session) == pytest.approx(now() + LONGEST_BOND_S, abs=120.0)
    again = await node.register()
    assert again.participant == answer.participant
    assert again.token != answer.token
    assert len(node.codes) == 1
    (listed,) = (await get_json(client, f"/api/v1/sessions/{node.session}/participants"))["items"]
    assert listed["name"] == "attic"


async def test_a_node_with_a_wallet_of_its_own_has_nothing_to_sign_again(node: Node) -> None:
    with agent_lock(node.home, session=node.session, run_dir=node.home):
        output = await output_of(node.home, "sign-again", code=NotFoundError.exit_code)
    assert "takes part by no wallet in a browser" in output
