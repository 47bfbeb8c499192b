"""What operators do with a coordinator: measure it, read its log, give it a certificate and tokens, stop it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from coordinator.database import URL_VARIABLE
from cotrain.cli import execute
from tests.databases import BOTH
from tests.integration.coordinator_fixtures import (
    AUTH,
    LIMIT_S,
    STRANGER,
    WALLET,
    Client,
    ask_challenge,
    bearer,
    client,
    create_session,
    get_json,
    register,
    registration,
    services,
    sign_in,
    signature_of,
    slow_websocket,
    status_message,
    until,
    uplink,
    waiting_session,
    welcomed,
)
from tests.integration.test_coordinator_restart import SESSIONS, log_numbers, serving, wait_for_status

__all__ = ["client"]

STOP_LIMIT_S = 5.0
LISTENERS = 20
SECRET = "a-secret-word-that-no-log-may-hold"


# ------------------------------------------------------------------------------------------------- measures
async def sample(client: Client, name: str, **labels: str) -> float | None:
    """The value of one sample at `/metrics`; None where there is none."""
    async with client.get("/metrics") as response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        families = text_string_to_metric_families(await response.text())
        for family in families:
            for found in family.samples:
                if found.name == name and found.labels == labels:
                    return found.value
    return None


@BOTH
async def test_measures_tell_what_happened(client: Client) -> None:
    session = await waiting_session(client)
    route = "/api/v1/sessions/{id}"
    await get_json(client, f"{SESSIONS}/{session}")
    await get_json(client, f"{SESSIONS}/none", status=404)
    await get_json(client, "/a-path-of-its-own", status=404)
    requests = "cotrain_http_requests_total"
    assert await sample(client, requests, method="GET", route=route, status="404") == 1.0
    assert await sample(client, requests, method="GET", route="other", status="404") == 1.0
    assert await sample(client, requests, method="POST", route="/api/v1/sessions", status="201") == 1.0
    assert await sample(client, "cotrain_http_request_duration_seconds_count", method="GET", route=route) >= 2.0
    assert await sample(client, "cotrain_sessions", state="waiting") == 1.0
    assert await sample(client, "cotrain_sessions", state="training") == 0.0
    assert await sample(client, "cotrain_events_stored_total", type="session.state") == 3.0
    assert await sample(client, "cotrain_database_write_seconds_count") >= 3.0
    assert await sample(client, "cotrain_checkpointer_up") == 1.0
    assert await sample(client, "process_resident_memory_bytes") > 1e6


async def test_streams_are_measured_while_they_are_open(client: Client) -> None:
    session = await waiting_session(client)
    answer = await register(client, session)
    async with uplink(client, answer) as socket, client.ws_connect(f"{SESSIONS}/{session}/events") as listener:
        await welcomed(socket)
        await listener.receive_json(timeout=LIMIT_S)
        assert await sample(client, "cotrain_open_streams", kind="uplink") == 1.0
        assert await sample(client, "cotrain_open_streams", kind="listener") == 1.0
        assert await sample(client, "cotrain_participants_connected") == 1.0
    for kind in ("uplink", "listener"):

        async def closed(kind: str = kind) -> bool:
            return await sample(client, "cotrain_open_streams", kind=kind) == 0.0

        await until(closed)
    closed_with = [await sample(client, "cotrain_uplinks_closed_total", code=code) for code in ("1000", "1006")]
    assert sorted(map(bool, closed_with)) == [False, True]
    assert await sample(client, "cotrain_participants_connected") == 0.0


async def test_no_label_is_made_of_what_clients_send(client: Client) -> None:
    session = await create_session(client)
    paths = [f"{SESSIONS}/{session}", f"/s/{session}", f"{SESSIONS}/made-up", "/made-up", "/static/made-up"]
    for path in paths:
        async with client.request("PROPFIND", path) as response:
            assert response.status in (404, 405)
        async with client.get(path, allow_redirects=False) as response:
            await response.read()
    async with client.get("/metrics") as response:
        told = await response.text()
    for word in (session, WALLET.address, "made-up", "PROPFIND"):
        assert word not in told


async def test_a_dropped_listener_is_counted(client: Client) -> None:
    session = await create_session(client)
    async with client.ws_connect(f"{SESSIONS}/{session}/events") as listener:
        await listener.receive_json(timeout=LIMIT_S)
        [queued] = services(client).hub._handed_out[session]
        queued.end(1013)
        assert (await listener.receive(timeout=LIMIT_S)).data == 1013

    async def counted() -> bool:
        return await sample(client, "cotrain_listeners_dropped_total") == 1.0

    await until(counted)


# ------------------------------------------------------------------------------------------------- readiness
async def test_readiness_names_the_checkpointer_while_it_is_away(client: Client) -> None:
    assert (await get_json(client, "/readyz"))["missing"] == []
    services(client).checkpointer.ready = None
    found = await get_json(client, "/readyz", status=503)
    assert (found["status"], found["database"], found["checkpointer"]) == ("starting", True, False)
    assert "checkpointer.log" in found["missing"][0]
    assert (await get_json(client, "/healthz"))["status"] == "ok"


@BOTH
async def test_readiness_names_the_database_where_it_does_not_answer(client: Client) -> None:
    async with services(client).store.write() as transaction:
        await transaction.rows.execute(text("ALTER TABLE sessions RENAME TO elsewhere"))
    found = await get_json(client, "/readyz", status=503)
    assert (found["database"], found["checkpointer"]) == (False, True)
    assert "database does not answer" in found["missing"][0]
    assert await sample(client, "cotrain_database_up") == 0.0
    assert await sample(client, "cotrain_sessions", state="draft") is None


# ------------------------------------------------------------------------------------------------- the log
async def test_the_log_is_json_with_request_ids_and_without_secrets(tmp_path: Path) -> None:
    secrets = [SECRET]
    with (tmp_path / "log").open("w") as log, serving(tmp_path, "--log-format", "json", log=log) as (process, url):
        async with aiohttp.ClientSession() as http:
            token = await sign_in(http, WALLET, base=url)
            challenge = await ask_challenge(http, STRANGER.address, base=url)
            wrong = signature_of(WALLET, challenge["message"])
            secrets += [token, wrong[2:], signature_of(STRANGER, challenge["message"])[2:]]
            body = {"nonce": challenge["nonce"], "signature": wrong}
            named = {"X-Request-Id": "request-of-mine"}
            async with http.post(f"{url}{AUTH}/login", json=body, headers=named) as response:
                assert (response.status, response.headers["X-Request-Id"]) == (401, "request-of-mine")
            forged = {"X-Request-Id": "not an id", "Authorization": bearer(SECRET)}
            async with http.get(f"{url}{AUTH}/me?token={SECRET}", headers=forged) as response:
                assert response.status == 401
                assert response.headers["X-Request-Id"] != "not an id"
            registered = registration("none", coordinator=url)
            secrets.append(registered["bond"]["signature"][2:])
            async with http.post(
                f"{url}{SESSIONS}/none/participants", json=registered, headers={"Authorization": bearer(token)}
            ) as response:
                assert response.status == 404
        assert b" 400 " in await send_raw(url, f"GET / HTTP/1.1\r\nAuthorization: Bearer {SECRET}\x00\r\n\r\n".encode())
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0
    lines = (tmp_path / "log").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    refused = [entry for entry in entries if "sign-in refused" in entry["message"]]
    assert [entry["requestId"] for entry in refused] == ["request-of-mine"]
    logged = [entry for entry in entries if entry.get("route") == f"{AUTH}/login"]
    assert [(entry["method"], entry["status"]) for entry in logged] == [("POST", "200"), ("POST", "401")]
    assert any("cannot be read" in entry["message"] for entry in entries)
    for secret in secrets:
        assert secret not in "\n".join(lines)


async def send_raw(url: str, request: bytes) -> bytes:
    """What is answered to these bytes."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), LIMIT_S)
    writer.close()
    return answer


# ------------------------------------------------------------------------------------------------- tokens
@BOTH
async def test_an_operators_token_is_made_listed_and_revoked(
    client: Client, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(URL_VARIABLE, database_url)
    account = f"eip155:1:{STRANGER.address}"

    async def command(*words: str, code: int = 0) -> str:
        """What `cotrain coordinator token` says while the coordinator runs."""
        assert await asyncio.to_thread(execute, ["coordinator", "token", *words]) == code
        told = capsys.readouterr()
        return (told.err if code else told.out).strip()

    async def status(token: str) -> int:
        async with client.get(f"{AUTH}/me", headers={"Authorization": bearer(token)}) as response:
            return response.status

    tokens = [await command("new", account, "--days", "1") for _ in range(2)]
    assert [await status(token) for token in tokens] == [200, 200]
    listed = [json.loads(line) for line in (await command("list", "--account", account, "--json")).splitlines()]
    assert [entry["account"] for entry in listed] == [account] * 2
    assert len((await command("list")).splitlines()) == 3  # the client's own is the third
    shown = await command("list")
    assert not any(token in shown for token in tokens)
    assert account in await command("revoke", listed[0]["id"])
    assert sorted([await status(token) for token in tokens]) == [200, 401]
    assert "no such token" in await command("revoke", listed[0]["id"], code=66)
    assert await command("revoke", "--account", account) == "1 tokens have ended"
    assert [await status(token) for token in tokens] == [401, 401]
    assert await command("list", "--account", account) == ""
    assert "is no id of a token" in await command("revoke", "%", code=2)
    assert "name the ID" in await command("revoke", code=2)
    assert "eip155" in await command("new", "nobody", code=2)


# ------------------------------------------------------------------------------------------------- the end
@dataclass
class Audience:
    """Listeners of one session until they are told to go, and what each was told."""

    http: aiohttp.ClientSession
    path: str
    told: list[str] = field(default_factory=list)
    listening: int = 0

    async def websocket(self) -> None:
        async with self.http.ws_connect(self.path) as socket:
            async for message in socket:
                self.listening += json.loads(message.data)["type"] == "snapshot"
            self.told.append(f"close {socket.close_code}")

    async def sse(self) -> None:
        async with self.http.get(self.path) as response:
            last = ""
            async for line in response.content:
                self.listening += line.startswith(b"event: snapshot")
                last = line.decode().strip() or last
            self.told.append(last)


async def test_it_ends_within_five_seconds_and_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    with serving(tmp_path) as (process, url):
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            http.headers["Authorization"] = bearer(await sign_in(http, WALLET, base=url))
            answer = await registered(http, url)
            session = answer["session"]
            audience = Audience(http, f"{url}{SESSIONS}/{session}/events")
            kinds = [audience.websocket, audience.sse] * (LISTENERS // 2)
            async with asyncio.TaskGroup() as group, listener_that_does_not_read(url, session):
                for listen in kinds:
                    group.create_task(listen())
                await until(lambda: audience.listening == LISTENERS)
                acknowledged, stopped_after_s, close_code = await stop_under_load(http, url, answer, process)
    assert sorted(set(audience.told)) == ["close 1001", 'data: {"code": 1001}']
    assert len(audience.told) == LISTENERS
    assert close_code == 1001
    assert stopped_after_s < STOP_LIMIT_S
    assert acknowledged > 0
    with serving(tmp_path) as (_, url):
        async with aiohttp.ClientSession() as http:
            stored = await log_numbers(http, url, session)
    assert stored[:acknowledged] == list(range(1, acknowledged + 1))
    assert stored == list(range(1, len(stored) + 1))


async def registered(http: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    """A session that waits for peers, and the answer to one that has registered."""
    async with http.post(f"{url}{SESSIONS}", json={"name": "x"}) as response:
        session = (await response.json())["id"]
    await (await http.post(f"{url}{SESSIONS}/{session}/start")).read()
    await wait_for_status(http, url, session, "waiting")
    body = registration(session, coordinator=url)
    async with http.post(f"{url}{SESSIONS}/{session}/participants", json=body) as response:
        return dict(await response.json())


@contextlib.asynccontextmanager
async def listener_that_does_not_read(url: str, session: str) -> AsyncIterator[None]:
    """It takes the upgrade, and neither reads on nor answers the close."""
    host, port = url.removeprefix("http://").split(":")
    raw: socket.socket = await slow_websocket(host, int(port), f"{SESSIONS}/{session}/events")
    try:
        yield
    finally:
        raw.close()


async def stop_under_load(
    http: aiohttp.ClientSession, url: str, answer: dict[str, Any], process: subprocess.Popen[str]
) -> tuple[int, float, int | None]:
    """SIGTERM after the first acknowledgement of a stream of records.

    Returns the highest number acknowledged, how long the process then took to end, and the uplink's close code.
    """
    acknowledged, asked_at = 0, 0.0
    path = f"{url}{SESSIONS}/{answer['session']}/participants/{answer['participant']}/stream"
    async with http.ws_connect(path, headers={"Authorization": bearer(answer["token"])}) as socket:
        await socket.send_json({"type": "hello"})
        for seq in range(1, 31):
            await socket.send_str(status_message(answer["session"], seq, records=seq))
        async for message in socket:
            told = json.loads(message.data)
            if told["type"] == "ack":
                acknowledged = told["seq"]
                if not asked_at:
                    asked_at = time.monotonic()
                    process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait, STOP_LIMIT_S * 2) == 0
    return acknowledged, time.monotonic() - asked_at, socket.close_code
