"""A coordinator behind the proxies of docs/operations.md: the very examples, in real servers."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from coordinator.config import CoordinatorConfig, ServerSection
from tests.integration.coordinator_fixtures import (
    AUTH,
    LIMIT_S,
    REPOSITORY,
    WALLET,
    ask_challenge,
    bearer,
    coordinator_client,
    create_session,
    free_port,
    post_json,
    receive,
    register,
    settings_for,
    sign_in,
    signature_of,
    status_message,
    until,
    uplink,
    welcomed,
)
from tests.integration.test_coordinator_restart import SESSIONS
from tests.integration.test_coordinator_tls import trusting
from tests.unit.test_coordinator_operations import TlsFiles, make_certificate

AT_ONCE_S = 5.0
"""A proxy that buffers would hold an event back until the next sign of life, 15 s and more."""
DOCUMENT = REPOSITORY / "docs" / "operations.md"


def documented(beginning: str) -> str:
    """The example of the document that begins with these words."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    return next(block for block in blocks if block.startswith(beginning))


def replaced(text: str, changes: dict[str, str]) -> str:
    """The text with other names in it; each must be there."""
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return text


def nginx(folder: Path, files: TlsFiles, port: int, behind: int) -> list[str]:
    """The command line of an nginx that serves on `port` what the coordinator serves on the port `behind`."""
    server = replaced(documented("map $http_upgrade"), {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl", "train.example;": "127.0.0.1;",
        "/etc/ssl/train.example.pem": str(files.certificate), "/etc/ssl/train.example.key": str(files.key),
        "127.0.0.1:8000": f"127.0.0.1:{behind}",
    })  # fmt: skip
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off;\npid {folder}/nginx.pid;\nerror_log stderr;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temporary}{server}}}\n"
    )
    return ["/usr/sbin/nginx", "-c", str(config), "-e", "stderr"]


def caddy(folder: Path, files: TlsFiles, port: int, behind: int) -> list[str]:
    """As `nginx`."""
    site = replaced(documented("train.example {"), {
        "train.example {": f"https://127.0.0.1:{port} {{\n    bind 127.0.0.1\n    tls {files.certificate} {files.key}",
        "127.0.0.1:8000": f"127.0.0.1:{behind}",
    })  # fmt: skip
    config = folder / "Caddyfile"
    config.write_text(f"{{\n    admin off\n    auto_https off\n    storage file_system {folder}\n}}\n{site}")
    return ["/usr/bin/caddy", "run", "--adapter", "caddyfile", "--config", str(config)]


@contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(LIMIT_S)


async def until_open(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    def opened() -> bool:
        assert process.poll() is None, log.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    await until(opened)


@pytest.fixture(params=[nginx, caddy], ids=["nginx", "caddy"])
async def proxied(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """A client, signed in, that sees the coordinator through the proxy alone."""
    files, port, behind, log = make_certificate(tmp_path / "tls"), free_port(), free_port(), tmp_path / "proxy.log"
    command = request.param(tmp_path, files, port, behind)
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed; .ci/run installs it")
    url = f"https://127.0.0.1:{port}"
    config = CoordinatorConfig(server=ServerSection(behind_proxy=True))
    with running(command, log) as process:
        async with (
            coordinator_client(settings_for(tmp_path, public_url=url, config=config), behind),
            aiohttp.ClientSession(
                url, connector=aiohttp.TCPConnector(ssl=trusting(files.certificate)),
                cookie_jar=aiohttp.DummyCookieJar(),
            ) as http,
        ):  # fmt: skip
            await until_open(port, process, log)
            http.headers["Authorization"] = bearer(await sign_in(http, WALLET))
            yield http


async def test_events_pass_at_once_in_both_forms_and_nodes_report(proxied: Any) -> None:
    session = await create_session(proxied)
    events = f"{SESSIONS}/{session}/events"
    async with (
        proxied.get(events, headers={"Accept": "text/event-stream"}) as stream,
        proxied.ws_connect(events) as listener,
    ):
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        assert (await listener.receive_json(timeout=LIMIT_S))["type"] == "snapshot"
        await _line(stream, "snapshot")
        await post_json(proxied, f"{SESSIONS}/{session}/start")
        await _line(stream, '"waiting"')
        async with asyncio.timeout(AT_ONCE_S):
            while '"waiting"' not in await listener.receive_str():
                pass
    answer = await register(proxied, session, coordinator=str(proxied._base_url).rstrip("/"))
    async with uplink(proxied, answer) as socket:
        await welcomed(socket)
        await socket.send_str(status_message(session, 1))
        assert (await receive(socket, "ack"))["seq"] == 1


async def test_a_page_signs_in_and_measures_and_large_bodies_are_refused(proxied: Any) -> None:
    url = str(proxied._base_url).rstrip("/")
    challenge = await ask_challenge(proxied)
    body = {"nonce": challenge["nonce"], "signature": signature_of(WALLET, challenge["message"])}
    assert f"URI: {url}" in challenge["message"]
    async with proxied.post(f"{AUTH}/login", json=body) as response:
        cookie = response.headers["Set-Cookie"].partition(";")[0]
    assert cookie.startswith("__Host-")
    del proxied.headers["Authorization"]
    for origin, status in ((url, 201), ("https://other.example", 403)):
        headers = {"Cookie": cookie, "Origin": origin}
        async with proxied.post(SESSIONS, json={"name": "x"}, headers=headers) as response:
            assert response.status == status, await response.text()
    async with proxied.get("/metrics") as response:
        assert response.status == 404
    async with proxied.post(f"{AUTH}/challenge", json={"address": "x" * 100_000}) as response:
        assert response.status == 413
        assert response.content_type == "application/problem+json"


async def _line(stream: aiohttp.ClientResponse, wanted: str) -> None:
    """Read on until a line has this in it; fails if it does not come at once."""
    async with asyncio.timeout(AT_ONCE_S):
        async for line in stream.content:
            if wanted in line.decode():
                return
    raise AssertionError(f"the stream has ended before {wanted}")
