"""CoordinatorClient against a real server."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiohttp import web

from cotrain.backoff import Backoff
from cotrain.errors import NotAuthorizedError, NotFoundError, ProtocolError, UnreachableError
from cotrain.identity.wallet import EthereumWallet
from cotrain.membership.document import certificate_of
from cotrain.protocol import RegisterRequest
from node.client import FIRST_CONTACT_TRIES, CoordinatorClient
from tests.integration.node_fixtures import SESSION, SmallCoordinator, make_peer, registration, running_coordinator

RequestOf = Callable[[str], RegisterRequest]
QUICK = Backoff(first_s=0.01, most_s=0.01)
WALLET = EthereumWallet(b"\x11" * 32)


@pytest.fixture
async def coordinator() -> AsyncIterator[SmallCoordinator]:
    async with running_coordinator() as running:
        yield running


@pytest.fixture
def request_of(tmp_path: Path) -> RequestOf:
    peer = make_peer(tmp_path)
    return lambda coordinator: registration(coordinator, peer, WALLET)


async def test_register_answers_what_a_node_needs(coordinator: SmallCoordinator, request_of: RequestOf) -> None:
    async with CoordinatorClient(coordinator.url) as client:
        assert (await client.get_session(SESSION))["id"] == SESSION
        token = await client.sign_in(WALLET)
        answer = await client.register(SESSION, request_of(coordinator.url), token)
        assert answer.assets == coordinator.assets
        await client.leave(SESSION, answer.participant, answer.token)
        assert coordinator.left == [answer.participant]
        renewed = await client.renew(SESSION, answer.participant, answer.token)
        assert certificate_of(renewed).serial != certificate_of(answer.membership).serial
        await client.sign_out(token)
        assert coordinator.signed_in == {}


async def test_problem_becomes_its_error(coordinator: SmallCoordinator, request_of: RequestOf) -> None:
    async with CoordinatorClient(coordinator.url) as client:
        token = await client.sign_in(WALLET)
        with pytest.raises(NotFoundError, match="no such session") as caught:
            await client.register("other", request_of(coordinator.url), token)
        assert caught.value.hint == "ask for its address"
        with pytest.raises(NotAuthorizedError):
            await client.leave(SESSION, "p1", "wrong")
        with pytest.raises(NotAuthorizedError):
            await client.register(SESSION, request_of(coordinator.url), "wrong")


async def test_preparing_session_is_waited_for(coordinator: SmallCoordinator, request_of: RequestOf) -> None:
    coordinator.preparing = 2
    lines: list[str] = []
    async with CoordinatorClient(coordinator.url, on_wait=lines.append) as client:
        await client.register(SESSION, request_of(coordinator.url), await client.sign_in(WALLET))
    assert lines == ["waiting for the session's data"] * 2


async def test_nobody_there_is_unreachable_after_bounded_tries() -> None:
    with socket.socket() as taken:  # bound, but not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        lines: list[str] = []
        async with CoordinatorClient(url, on_wait=lines.append, backoff=QUICK) as client:
            with pytest.raises(UnreachableError, match="in 5 tries") as caught:
                await client.get_session(SESSION)
    assert caught.value.exit_code == 69
    assert caught.value.field == url
    assert len(lines) == FIRST_CONTACT_TRIES - 1


@pytest.mark.parametrize("body", ["<html>hello</html>", "[1]", '{"protocol": 1}'])
async def test_answer_of_something_else_is_a_protocol_error(body: str, request_of: RequestOf) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=body, content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with CoordinatorClient(url) as client:
            with pytest.raises(ProtocolError, match="not what a coordinator sends"):
                await client.register(SESSION, request_of(url), "token")
            with pytest.raises(ProtocolError, match="not what a coordinator sends"):
                await client.sign_in(WALLET)
    finally:
        await runner.cleanup()
