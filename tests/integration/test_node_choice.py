"""`cotrain node join COORDINATOR`: a real coordinator, and agents with the small worker that choose a session."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cotrain.identity.wallet import EthereumWallet
from cotrain.reachability import role_for
from node.choice import REFUSALS, TurnedAwayError, take_part_in_best
from node.client import CoordinatorClient
from node.offers import NothingOpenError
from node.registration import Applicant, register
from tests.integration.agent_process import AgentProcess
from tests.integration.coordinator_fixtures import (
    Client,
    coordinator_client,
    get_json,
    post_json,
    settings_for,
    waiting_session,
)
from tests.integration.node_fixtures import make_peer
from tests.integration.test_node_agent import cotrain
from tests.integration.test_node_doctor import base_of, free_port


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """A coordinator whose public URL is the one that nodes use."""
    port = free_port()
    settings = settings_for(tmp_path / "coordinator", public_url=f"http://127.0.0.1:{port}")
    async with coordinator_client(settings, port) as client:
        yield client


async def participants_of(client: Client, session: str) -> int:
    return len((await get_json(client, f"/api/v1/sessions/{session}/participants"))["items"])


async def test_the_best_open_session_is_joined_and_the_choice_is_told(client: Client, tmp_path: Path) -> None:
    older, newer = await waiting_session(client, "Older"), await waiting_session(client, "Newer")
    async with AgentProcess(tmp_path, base_of(client), "complete") as agent:
        assert await agent.wait() == 0, agent.output
    told = agent.output.decode()
    assert f"chosen: session {older} (Older): " in told
    assert f"also open: {newer} (Newer" in told
    assert f"joining session {older} as peer " in told
    assert (await participants_of(client, older), await participants_of(client, newer)) == (1, 0)


async def test_a_session_that_turns_the_node_away_is_told_and_the_next_one_taken(
    client: Client, tmp_path: Path
) -> None:  # fmt: skip
    older, newer = await waiting_session(client, "Older"), await waiting_session(client, "Newer")
    agent = AgentProcess(tmp_path, f"{base_of(client)}/", "complete")
    agent.home.mkdir()
    applicant, wallet = Applicant(make_peer(agent.home), role=role_for("direct")), EthereumWallet.create()
    async with CoordinatorClient(base_of(client)) as other:  # another wallet has used this peer there
        await register(other, older, applicant, wallet, notice=print)
    async with agent:
        assert await agent.wait() == 0, agent.output
    told = agent.output.decode()
    assert f"session {older} does not take this node: this peer is registered by another account" in told
    assert f"chosen: session {newer} (Newer): " in told
    assert await participants_of(client, newer) == 1


async def test_with_a_sessions_own_address_the_refusal_ends_the_join(client: Client, tmp_path: Path) -> None:
    ended, other = await waiting_session(client, "Ended"), await waiting_session(client, "Other")
    await post_json(client, f"/api/v1/sessions/{ended}/cancel")
    async with AgentProcess(tmp_path, f"{base_of(client)}/s/{ended}", "complete") as agent:
        assert await agent.wait() == 75
    assert b"a session that is cancelled cannot be joined" in agent.output
    assert await participants_of(client, other) == 0


async def test_sessions_that_end_between_the_question_and_the_join_are_all_told(
    client: Client, tmp_path: Path
) -> None:  # fmt: skip
    offered = [await waiting_session(client, "One"), await waiting_session(client, "Two")]
    applicant, wallet = Applicant(make_peer(tmp_path), role=role_for("direct")), EthereumWallet.create()

    async def ended_meanwhile(session: str) -> int:
        await post_json(client, f"/api/v1/sessions/{session}/cancel")
        async with CoordinatorClient(base_of(client)) as node:
            try:
                await register(node, session, applicant, wallet, notice=print)
            except REFUSALS as error:
                raise TurnedAwayError(error) from error
        raise AssertionError("it was let in")

    with pytest.raises(NothingOpenError) as caught:
        await take_part_in_best(base_of(client), ended_meanwhile, print)
    assert caught.value.message.count("a session that is cancelled cannot be joined") == 2
    assert all(session in caught.value.message for session in offered)


async def test_where_nothing_is_open_the_command_says_so_and_ends_with_69(client: Client, tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path, base_of(client), "complete")
    code, output = await cotrain(agent, "node", "join", base_of(client))
    assert code == 69
    assert f"error: {base_of(client)}: nothing open for this machine: the coordinator was asked for sessions" in output
    assert (
        f"hint: try again later; see all of its sessions with: cotrain sessions list --coordinator {base_of(client)}"
        in output
    )
    assert not (agent.home / "agent.json").exists()


async def test_an_invitation_needs_the_sessions_own_address(client: Client, tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path, base_of(client), "complete")
    code, output = await cotrain(agent, "node", "join", base_of(client), "--invitation", "secret-word")
    assert code == 2
    assert "an invitation is for one session" in output
    assert "secret-word" not in output
