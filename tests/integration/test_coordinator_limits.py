"""What wrong input gets from a coordinator, and how often and how much somebody may send: one row for each case."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType

from coordinator.api.requests import MAX_BODY_BYTES
from coordinator.config import CoordinatorConfig, LimitsSection
from cotrain.identity.ethereum import EthereumSigner
from cotrain.protocol import MAX_MESSAGE_BYTES
from tests.integration.coordinator_fixtures import (
    AUTH,
    LIMIT_S,
    STRANGER,
    WALLET,
    Client,
    acting_as,
    ask_challenge,
    client,
    coordinator_client,
    create_session,
    post_json,
    receive,
    register,
    settings_for,
    sign_in,
    signature_of,
    uplink,
    waiting_session,
    welcomed,
)
from tests.integration.test_coordinator_events import read_sse

__all__ = ["client"]

SESSIONS = "/api/v1/sessions"
JSON = {"Content-Type": "application/json"}
ECHO = "a-word-that-must-not-come-back"


# ------------------------------------------------------------------------------------------------- REST
@dataclass(frozen=True)
class Row:
    """One request, and what it gets. `{session}` in the path is a draft of somebody else's."""

    name: str
    status: int
    method: str = "POST"
    path: str = SESSIONS
    options: dict[str, Any] = field(default_factory=dict)
    where: str = ""
    """The problem's `field`."""


def body(text: str) -> dict[str, Any]:
    return {"data": text, "headers": JSON}


def training(setting: str) -> dict[str, Any]:
    return body(f'{{"name": "x", "training": {{{setting}}}}}')


ROWS = (
    Row("malformed JSON", 422, options=body('{"name": ')),
    Row("JSON nested deeply", 422, options=body("[" * 30_000)),
    Row("JSON that is no object", 422, options=body("[]")),
    Row("bytes that are no UTF-8", 422, options=body("\udcff")),
    Row("NaN", 422, options=training('"learningRate": NaN'), where="training.learningRate"),
    Row("infinity", 422, options=training('"learningRate": 1e999'), where="training.learningRate"),
    Row("wrong type", 422, options=training('"batchSize": "32"'), where="training.batchSize"),
    Row("unknown field", 422, options=training(f'"batchsize": "{ECHO}"'), where="training.batchsize"),
    Row("not an allowed value", 422, where="model.type",
        options=body(f'{{"name": "x", "model": {{"type": "{ECHO}"}}}}')),
    Row("wrong content type", 415, options={"data": "{}", "headers": {"Content-Type": "text/plain"}},
        where="Content-Type"),
    Row("no content type", 415, options={"data": b"{}", "skip_auto_headers": ["Content-Type"]}, where="Content-Type"),
    Row("body too large", 413, options=body(" " * (MAX_BODY_BYTES + 1))),
    Row("body of unknown length too large", 413, options={"headers": JSON, "data": "endless"}),
    Row("wrong method", 405, method="PUT"),
    Row("a method that nothing has", 405, method="PROPFIND"),
    Row("page too long", 422, method="GET", path=f"{SESSIONS}?limit=201", where="limit"),
    Row("no cursor", 422, method="GET", path=f"{SESSIONS}?cursor={ECHO}", where="cursor"),
    Row("no sign-in", 401, options={"json": {"name": "x"}, "headers": {"Authorization": "Basic abc"}},
        where="Authorization"),
    Row("unknown token", 401, options={"json": {"name": "x"}, "headers": {"Authorization": f"Bearer {ECHO}"}},
        where="Authorization"),
    Row("not the owner", 403, path=f"{SESSIONS}/{{session}}/start"),
    Row("a page of another host", 403, options={"json": {"name": "x"}, "headers": {"Origin": "http://evil.test"}},
        where="Origin"),
    Row("no such session", 404, method="GET", path=f"{SESSIONS}/{ECHO}", where="id"),
    Row("no such address", 404, method="GET", path=f"/{ECHO}"),
    Row("a challenge for no chain", 422, path=f"{AUTH}/challenge", where="chain",
        options={"json": {"address": WALLET.address, "chain": "bitcoin:1"}}),
    Row("an unknown nonce", 401, path=f"{AUTH}/login", options={"json": {"nonce": "0" * 32, "signature": "0x00"}}),
    Row("no nonce at all", 401, path=f"{AUTH}/login", options={"json": {"nonce": "?", "signature": ECHO}}),
)  # fmt: skip


async def endless_body() -> Any:
    for _ in range(MAX_BODY_BYTES // 1024 + 1):
        yield b" " * 1024


async def test_wrong_requests(client: Client) -> None:
    with acting_as(client, await sign_in(client, STRANGER)):
        session = await create_session(client)
    for row in ROWS:
        await check_row(client, row, session)
    async with client.get(SESSIONS) as response:  # nothing was made, and nothing lost
        assert [item["id"] for item in (await response.json())["items"]] == [session]


async def check_row(client: Client, row: Row, session: str) -> None:
    options = dict(row.options)
    if options.get("data") == "endless":
        options["data"] = endless_body()
    elif isinstance(options.get("data"), str):
        options["data"] = options["data"].encode(errors="surrogateescape")
    async with client.request(row.method, row.path.format(session=session), **options) as response:
        problem = await response.json(content_type=None)
        assert (response.status, problem["status"]) == (row.status, row.status), f"{row.name}: {problem}"
        assert response.content_type == "application/problem+json", row.name
        assert response.headers["X-Request-Id"] == problem["requestId"], row.name
        assert ("Allow" in response.headers) == (row.status == 405), row.name
        assert ("WWW-Authenticate" in response.headers) == (row.status == 401), row.name
    assert problem["field"] == row.where, row.name
    assert problem["detail"], row.name
    assert ECHO not in json.dumps(problem), row.name


async def test_an_illegal_change_says_the_state_and_what_is_possible(client: Client) -> None:
    session = await create_session(client)
    problem = await post_json(client, f"{SESSIONS}/{session}/resume", status=409)
    assert (problem["state"], problem["possible"]) == ("draft", ["start", "cancel"])


async def test_a_refused_login_does_not_say_why(client: Client) -> None:
    challenge = await ask_challenge(client)
    good = signature_of(WALLET, challenge["message"])
    told = []
    for signature in ("0x", "nonsense", signature_of(STRANGER, challenge["message"]), good):
        # the first answer has used the nonce up, so that even the right signature comes too late
        login = {"nonce": challenge["nonce"], "signature": signature}
        problem = await post_json(client, f"{AUTH}/login", login, status=401)
        told.append({key: value for key, value in problem.items() if key != "requestId"})
    assert all(problem == told[0] for problem in told)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS where none is spoken
    ],
    ids=["long-header", "long-address", "two-lengths", "not-HTTP"],
)
async def test_what_cannot_be_read_is_refused_and_closed(client: Client, request_bytes: bytes) -> None:
    reader, writer = await asyncio.open_connection(client.host, client.port)
    try:
        writer.write(request_bytes)
        answer = await asyncio.wait_for(reader.read(), LIMIT_S)
    finally:
        writer.close()
    assert answer.split()[1] == b"400"
    assert b"Traceback" not in answer
    async with client.get("/healthz") as response:
        assert response.status == 200


# ------------------------------------------------------------------------------------------------- how often
Ask = Callable[[Client, str], Awaitable[aiohttp.ClientResponse]]


async def ask_for_challenge(client: Client, _session: str) -> aiohttp.ClientResponse:
    return await client.post(f"{AUTH}/challenge", json={"address": WALLET.address, "chain": "eip155:1"})


async def log_in(client: Client, _session: str) -> aiohttp.ClientResponse:
    return await client.post(f"{AUTH}/login", json={"nonce": "0" * 32, "signature": "0x00"})


async def log_in_as_somebody_new(client: Client, _session: str) -> aiohttp.ClientResponse:
    wallet = EthereumSigner.create()
    challenge = await ask_challenge(client, wallet.address)
    login = {"nonce": challenge["nonce"], "signature": signature_of(wallet, challenge["message"])}
    return await client.post(f"{AUTH}/login", json=login)


async def open_session(client: Client, _session: str) -> aiohttp.ClientResponse:
    return await client.post(SESSIONS, json={"name": "x"})


async def listen(client: Client, session: str) -> aiohttp.ClientResponse:
    return await client.get(f"{SESSIONS}/{session}/events")


@pytest.mark.parametrize(
    ("limit", "most", "ask"),
    [
        ("challenges_per_minute", 10, ask_for_challenge),
        ("logins_per_minute", 30, log_in),
        ("new_accounts_per_hour", 30, log_in_as_somebody_new),
        ("writes_per_minute", 60, open_session),
        ("open_sessions_per_account", 16, open_session),
        ("listeners_per_address", 50, listen),
    ],
)
async def test_too_often_gets_429_and_when_to_come_back(tmp_path: Path, limit: str, most: int, ask: Ask) -> None:
    assert getattr(LimitsSection(), limit) == most
    chosen = CoordinatorConfig(limits=LimitsSection(**{limit: 2}))
    async with coordinator_client(settings_for(tmp_path, config=chosen)) as client:
        session = await create_session(client)
        answers = [await ask(client, session) for _ in range(3)]
        try:
            assert answers[-1].status == 429
            assert all(answer.status in (200, 201, 401, 429) for answer in answers)
            problem = await answers[-1].json(content_type=None)
            assert answers[-1].content_type == "application/problem+json"
            assert problem["code"] == "rate-limited"
            assert int(answers[-1].headers["Retry-After"]) == problem["retryAfterS"] > 0
        finally:
            for answer in answers:
                answer.close()


async def test_a_listener_that_is_gone_counts_no_more(tmp_path: Path) -> None:
    chosen = CoordinatorConfig(limits=LimitsSection(listeners_per_address=1))
    async with coordinator_client(settings_for(tmp_path, config=chosen)) as client:
        session = await create_session(client)
        for _ in range(3):
            async with client.ws_connect(f"{SESSIONS}/{session}/events") as socket:
                await socket.receive_json(timeout=LIMIT_S)


# ------------------------------------------------------------------------------------------------- WebSocket and SSE
@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("events", {"Origin": "http://evil.test"}, 403),
        ("participants/{participant}/stream", {"Origin": "http://evil.test"}, 403),
        ("participants/{participant}/stream", {}, 401),
        ("participants/none/stream", {"Authorization": "Bearer x"}, 401),
    ],
)
async def test_a_socket_is_refused_before_the_upgrade(
    client: Client, path: str, headers: dict[str, str], status: int
) -> None:
    session = await waiting_session(client)
    answer = await register(client, session)
    path = f"{SESSIONS}/{session}/{path.format(participant=answer['participant'])}"
    with acting_as(client, None), pytest.raises(aiohttp.WSServerHandshakeError) as raised:
        await client.ws_connect(path, headers=headers)
    assert raised.value.status == status


@pytest.mark.parametrize(
    "bad",
    ["{", "[" * 30_000, '{"type": "made up"}', '{"type": "hello", "protocol": "4"}', b"bytes"],
    ids=["malformed", "nested", "unknown-type", "wrong-type", "binary"],
)
async def test_bad_messages_get_error_frames_and_the_third_ends_the_uplink(client: Client, bad: str | bytes) -> None:
    session = await waiting_session(client)
    async with uplink(client, await register(client, session)) as socket:
        await welcomed(socket)
        for _ in range(3):
            await (socket.send_bytes(bad) if isinstance(bad, bytes) else socket.send_str(bad))
            assert (await receive(socket, "error"))["code"] == "protocol"
        closed = await socket.receive(timeout=LIMIT_S)
        assert (closed.type, closed.data) == (WSMsgType.CLOSE, 1008)


@pytest.mark.parametrize(("to_listener", "largest"), [(True, 4096), (False, MAX_MESSAGE_BYTES)])
async def test_a_message_that_is_too_large_ends_the_socket(client: Client, to_listener: bool, largest: int) -> None:
    session = await waiting_session(client)
    answer = await register(client, session)
    path = f"{SESSIONS}/{session}/events"
    async with client.ws_connect(path, autoclose=False) if to_listener else uplink(client, answer) as socket:
        await socket.send_str("x" * (largest + 1))
        while (message := await socket.receive(timeout=LIMIT_S)).type is WSMsgType.TEXT:
            pass
        assert (message.type, message.data) == (WSMsgType.CLOSE, 1009)


async def test_a_listener_that_talks_too_much_is_let_go(client: Client) -> None:
    session = await create_session(client)
    async with client.ws_connect(f"{SESSIONS}/{session}/events", autoclose=False) as socket:
        for _ in range(21):
            await socket.send_str("x")
        while (message := await socket.receive(timeout=LIMIT_S)).type is WSMsgType.TEXT:
            pass
        assert (message.type, message.data) == (WSMsgType.CLOSE, 1008)


@pytest.mark.parametrize("last", ["0", "1", "999999"])
async def test_sse_with_a_stale_id_gets_a_snapshot_and_then_differences(client: Client, last: str) -> None:
    session = await waiting_session(client)
    async with client.get(f"{SESSIONS}/{session}/events", headers={"Last-Event-ID": last}) as response:
        assert response.content_type == "text/event-stream"
        missed = max(0, 3 - int(last))
        found = await read_sse(response, 1 + missed)
        await post_json(client, f"{SESSIONS}/{session}/pause")
        found += await read_sse(response, 1)
    assert [kind for _, kind, _ in found] == ["snapshot", *["session.state"] * (missed + 1)]
    assert [number for number, _, _ in found[1:]] == list(range(4 - missed, 5))
