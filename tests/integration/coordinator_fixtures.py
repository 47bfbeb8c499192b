"""A real coordinator on a free port, in this process, with a checkpointer that trains nothing."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from sqlalchemy import func, select

from coordinator.app import create_app
from coordinator.context import COORDINATOR, Coordinator
from coordinator.models import Base
from coordinator.settings import Settings
from cotrain.identity.account import Account
from cotrain.identity.ethereum import EthereumSigner, encode_defunct
from cotrain.membership.bond import make_bond
from cotrain.paths import SharedPaths
from cotrain.peer_key import PeerSigner, load_or_create_peer_key
from cotrain.protocol import Hardware, RegisterRequest, StatusMessage
from cotrain.status import Record, Status, now, write_status

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

DOUBLE = Path(__file__).with_name("checkpointer_double.py")
REPOSITORY = Path(__file__).resolve().parents[2]
PUBLIC_URL = "http://coordinator.test"
_KEYS = tempfile.TemporaryDirectory(prefix="cotrain-test-peers-")


def make_peer(name: str) -> PeerSigner:
    """A peer with a key of its own."""
    path = Path(_KEYS.name) / name
    load_or_create_peer_key(path)
    return PeerSigner(path)


PEER = make_peer("peer")
PEER_ID = PEER.peer_id
LIMIT_S = 60.0
AUTH = "/api/v1/auth"
WALLET: LocalAccount = EthereumSigner.from_key("0x" + "a1" * 32)
"""Whose sessions the tests' are."""
STRANGER: LocalAccount = EthereumSigner.from_key("0x" + "b2" * 32)

Client = TestClient[web.Request, web.Application]


def double_command() -> tuple[str, ...]:
    """The command line of the checkpointer's stand-in."""
    return (sys.executable, str(DOUBLE))


def settings_for(root: Path, **changes: Any) -> Settings:
    settings = Settings(
        shared=SharedPaths(root), public_url=PUBLIC_URL, checkpointer_command=double_command(),
        stop_grace_s=1.0, restart_delay_s=0.05,
    )  # fmt: skip
    return dataclasses.replace(settings, **changes)


@asynccontextmanager
async def coordinator_client(settings: Settings, port: int | None = None) -> AsyncIterator[Client]:
    """A running coordinator and a client of it, signed in with WALLET by a bearer token; it keeps no cookies.

    A real node wants the public URL to be the one that it uses, and so a `port` that is known beforehand.
    """
    # the child finds the packages of this checkout
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    server = TestServer(create_app(settings), host="127.0.0.1", port=port)
    async with TestClient(server, cookie_jar=aiohttp.DummyCookieJar()) as client:
        await until(lambda: services(client).checkpointer.ready is not None)
        client.session.headers["Authorization"] = bearer(await sign_in(client, WALLET))
        yield client


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@asynccontextmanager
async def coordinator_for_nodes(root: Path, **changes: Any) -> AsyncIterator[Client]:
    """As `coordinator_client`, under the public URL that real nodes use."""
    port = free_port()
    settings = settings_for(root, public_url=f"http://127.0.0.1:{port}", **changes)
    async with coordinator_client(settings, port) as client:
        yield client


@pytest.fixture
async def client(tmp_path: Path, database_url: str) -> AsyncIterator[Client]:
    async with coordinator_client(settings_for(tmp_path, database_url=database_url)) as client:
        yield client


def bearer(token: str) -> str:
    """The value of an `Authorization` header."""
    return f"Bearer {token}"


def signature_of(wallet: LocalAccount, text: str) -> str:
    """A wallet's personal message signature (EIP-191), 0x-hex."""
    return str(wallet.sign_message(encode_defunct(text=text)).signature.to_0x_hex())


async def ask_challenge(
    client: Client | aiohttp.ClientSession, address: str = WALLET.address, chain: str = "eip155:1", *, base: str = ""
) -> dict[str, Any]:
    """A new challenge for this address."""
    body = {"address": address, "chain": chain}
    async with client.post(f"{base}{AUTH}/challenge", json=body) as response:
        assert response.status == 200, await response.text()
        return dict(await response.json())


async def sign_in(client: Client | aiohttp.ClientSession, wallet: LocalAccount, *, base: str = "") -> str:
    """A token of this wallet's account; `base` is the coordinator's URL for a session that knows none."""
    challenge = await ask_challenge(client, wallet.address, base=base)
    body = {"nonce": challenge["nonce"], "signature": signature_of(wallet, challenge["message"])}
    async with client.post(f"{base}{AUTH}/login", json=body) as response:
        assert response.status == 200, await response.text()
        return str((await response.json())["token"])


@contextlib.contextmanager
def acting_as(client: Client, token: str | None) -> Iterator[Client]:
    """The client with another token by default, or with none."""
    headers = client.session.headers
    own = headers.pop("Authorization")
    if token is not None:
        headers["Authorization"] = bearer(token)
    try:
        yield client
    finally:
        headers["Authorization"] = own


def anonymous(client: Client) -> contextlib.AbstractContextManager[Client]:
    """The client as somebody who has not signed in."""
    return acting_as(client, None)


def services(client: Client) -> Coordinator:
    return client.app[COORDINATOR]  # type: ignore[index]


async def until(condition: Callable[[], bool | Awaitable[bool]], limit_s: float = LIMIT_S) -> None:
    """Wait for a condition; fails once the limit has passed."""
    give_up = time.monotonic() + limit_s
    while time.monotonic() < give_up:
        result = condition()
        if await result if isinstance(result, Awaitable) else result:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"did not happen within {limit_s} s")


async def get_json(client: Client, path: str, status: int = 200) -> dict[str, Any]:
    async with client.get(path) as response:
        assert response.status == status, await response.text()
        return await response.json()


async def post_json(client: Client, path: str, body: Any = None, status: int = 200) -> dict[str, Any]:
    async with client.post(path, json=body) as response:
        assert response.status == status, await response.text()
        return await response.json(content_type=None)


async def create_session(client: Client, name: str = "A Test", **fields: Any) -> str:
    view = await post_json(client, "/api/v1/sessions", {"name": name, **fields}, status=201)
    return str(view["id"])


async def state_of(client: Client, session: str) -> str:
    return str((await get_json(client, f"/api/v1/sessions/{session}"))["status"])


async def until_state(client: Client, session: str, wanted: str) -> None:
    async def reached() -> bool:
        return await state_of(client, session) == wanted

    await until(reached)


async def waiting_session(client: Client, name: str = "A Test") -> str:
    """A session that can be joined."""
    session = await create_session(client, name)
    await post_json(client, f"/api/v1/sessions/{session}/start")
    await until_state(client, session, "waiting")
    return session


async def sign_link(
    client: Client, code: str, wallet: LocalAccount = WALLET, *, status: int = 204, by: LocalAccount | None = None
) -> dict[str, Any]:
    """What the page does for a wallet, and the problem if there is one; `by`: who signs in its place."""
    links = "/api/v1/links"
    chosen = {"userCode": code, "address": wallet.address, "chain": "eip155:1"}
    with anonymous(client):
        message = (await post_json(client, f"{links}/statement", chosen))["message"]
        body = {**chosen, "signature": signature_of(by or wallet, message)}
        async with client.post(f"{links}/sign", json=body) as response:
            assert response.status == status, await response.text()
            return {} if status == 204 else dict(await response.json(content_type=None))


class TestWallet:
    """A wallet as the bond wants it."""

    __test__ = False

    def __init__(self, signer: LocalAccount):
        self._signer = signer
        self.account = Account.of("eip155:1", signer.address)

    def sign(self, text: str) -> str:
        return signature_of(self._signer, text)


def registration(
    session: str, *, peer: PeerSigner = PEER, wallet: LocalAccount = WALLET, **bond: Any
) -> dict[str, Any]:
    """The body that registers `peer` for `wallet`; `bond`: facts of the statement that are other ones."""
    facts: dict[str, Any] = {"session": session, "coordinator": PUBLIC_URL, "now": now()} | bond
    request = RegisterRequest(
        peer_id=peer.peer_id, bond=make_bond(TestWallet(wallet), peer, **facts), name="volunteer",
        hardware=Hardware(device="cpu", cpu_count=2),
    )  # fmt: skip
    return request.model_dump(mode="json", by_alias=True)


async def register(client: Client, session: str, **facts: Any) -> dict[str, Any]:
    body = registration(session, **facts)
    return await post_json(client, f"/api/v1/sessions/{session}/participants", body, status=201)


@asynccontextmanager
async def uplink(client: Client, answer: dict[str, Any]) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """An uplink with a registration's credentials."""
    path = f"/api/v1/sessions/{answer['session']}/participants/{answer['participant']}/stream"
    headers = {"Authorization": f"Bearer {answer['token']}"}
    async with client.ws_connect(path, headers=headers, autoclose=False) as socket:
        yield socket


async def slow_websocket(host: str, port: int, path: str, header: str = "") -> socket.socket:
    """An upgraded connection with a small receive buffer, of which nobody reads. `header` ends with CR and LF."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(raw, (host, port))
    request = (
        f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n{header}"
        "Upgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    await loop.sock_sendall(raw, request.encode())
    return raw


async def welcomed(socket: aiohttp.ClientWebSocketResponse) -> dict[str, Any]:
    await socket.send_json({"type": "hello"})
    return await receive(socket, "welcome")


async def receive(socket: aiohttp.ClientWebSocketResponse, kind: str) -> dict[str, Any]:
    """The next message of this type; others before it are passed over."""
    while True:
        message = await socket.receive_json(timeout=LIMIT_S)
        if message["type"] == kind:
            return dict(message)


def status_of(session: str, peer: str, **changes: Any) -> Status:
    fields: dict[str, Any] = {
        "session": session, "peer": peer, "run": "run-1", "sequence": 1, "updated_at": now(),
        "status": "training", "phase": "training", "step": 10, "loss": 2.5, "tokens_per_second": 100.0,
    }  # fmt: skip
    return Status(**{**fields, **changes})


def status_message(session: str, seq: int, *, records: int = 0, **changes: Any) -> str:
    """A StatusMessage of the test's peer; `records` log records, numbered from 1."""
    listed = [Record(number=n, time=now(), kind="phase", message=f"record {n}") for n in range(1, records + 1)]
    status = status_of(session, PEER_ID, sequence=seq, records=listed, **changes)
    return StatusMessage(run=status.run, seq=seq, status=status).model_dump_json(by_alias=True)


def write_checkpointer_status(root: Path, session: str, **changes: Any) -> None:
    """What the checkpointer would put on disk."""
    folder = SharedPaths(root).run_dir(session, "checkpointer")
    folder.mkdir(parents=True, exist_ok=True)
    write_status(folder / "status.json", status_of(session, "checkpointer", **{"loss": None, **changes}))


def commands(root: Path) -> list[tuple[str, str]]:
    """What the checkpointer has been told: (operation, session)."""
    lines = (root / "commands.jsonl").read_text().splitlines() if (root / "commands.jsonl").exists() else []
    return [(entry["op"], entry["session"]) for entry in map(json.loads, lines)]


async def count(client: Client, table: type[Base]) -> int:
    """Rows of a table."""
    async with services(client).store.read() as rows:
        return int(await rows.scalar(select(func.count()).select_from(table)) or 0)
