"""A small real coordinator that speaks cotrain.protocol, and helpers for the node's tests."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

from cotrain.config import RunConfig, dump_config
from cotrain.identity.account import Account
from cotrain.identity.signature import verify_signature
from cotrain.identity.text import sign_in_text
from cotrain.identity.wallet import EthereumWallet
from cotrain.membership.bond import check_bond, make_bond
from cotrain.membership.document import MembershipDocument
from cotrain.membership.issuer import Issuer
from cotrain.peer_key import PeerSigner, load_or_create_peer_key
from cotrain.protocol import (
    UPLINK_MESSAGE,
    Ack,
    Asset,
    ChallengeAnswer,
    ChallengeRequest,
    Goodbye,
    Hello,
    LoginAnswer,
    LoginRequest,
    RegisterAnswer,
    RegisterRequest,
    RenewAnswer,
    StatusMessage,
    Welcome,
    WishMessage,
)
from cotrain.sections import SessionSection
from cotrain.status import Record, Status, now

LIMIT_S = 60.0
SESSION = "small-session"
PEER = "12D3KooWSmaLLpeer"
WORKER = Path(__file__).with_name("node_small_worker.py")


async def until(condition: Callable[[], Any], *, limit_s: float = LIMIT_S, what: str = "the condition") -> None:
    """Wait until `condition()` holds; fails the test after the limit."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true within {limit_s} s"
        await asyncio.sleep(0.02)


def make_asset(name: str, content: bytes) -> Asset:
    return Asset(name=name, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))


def make_status(sequence: int, *, run: str = "run-1", records: list[int] | None = None, **more: Any) -> Status:
    """A snapshot whose records have the given numbers."""
    logged = [Record(number=n, time=float(n), kind="log", message=f"record {n}") for n in records or []]
    facts: dict[str, Any] = {"status": "training", "phase": "training", **more}
    return Status(session=SESSION, peer=PEER, run=run, sequence=sequence, updated_at=now(), records=logged, **facts)


class SmallCoordinator:
    """Registers everybody, serves assets with ranges, stores what comes up the uplinks once and in order."""

    def __init__(self, assets: dict[str, bytes] | None = None):
        content = {"train.safetensors": b"tokens " * 1000} if assets is None else assets
        self.assets = [make_asset(name, data) for name, data in content.items()]
        self.content = {asset.sha256: content[asset.name] for asset in self.assets}
        self.wish = "run"
        self.preparing = 0
        """How many registrations are answered with 503 first."""
        self.cut_after_bytes: list[int] = []
        """For each of the next downloads: after how many bytes the connection is cut."""
        self.corrupt_downloads = 0
        self.lose_acks = 0
        """How many messages are stored, with the socket cut before they are acknowledged."""
        self.requests: list[str] = []
        self.signed_in: dict[str, Account] = {}
        """Tokens that act for an account."""
        self.clock_off_s = 0.0
        """How far its clock is ahead."""
        self.removed = False
        """Whether the session's owner has removed the account."""
        self.certificates_for_s = 3600.0
        self.renewed = 0
        self._challenges: dict[str, tuple[Account, str]] = {}
        self._keys = tempfile.TemporaryDirectory(prefix="cotrain-test-keys-")
        self._peer = ""
        self.folder = self._keys.name
        self.ranges: list[str] = []
        self.tokens: list[str] = []
        self.left: list[str] = []
        self.stored: list[StatusMessage | Goodbye] = []
        self.received = 0
        self.port = 0
        self._sockets: set[web.WebSocketResponse] = set()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def session_url(self) -> str:
        return f"{self.url}/s/{SESSION}"

    async def start(self) -> None:
        """Listen on a free port, or again on the one it had."""
        app = web.Application()
        app.on_response_prepare.append(self._tell_time)
        base = "/api/v1/sessions/{session}"
        app.add_routes(
            [
                web.get(base, self._session),
                web.post("/api/v1/auth/challenge", self._challenge),
                web.post("/api/v1/auth/login", self._login),
                web.post("/api/v1/auth/logout", self._logout),
                web.post(base + "/participants", self._register),
                web.post(base + "/participants/{participant}/renew", self._renew),
                web.delete(base + "/participants/{participant}", self._leave),
                web.get(base + "/participants/{participant}/stream", self._stream),
                web.get(base + "/assets/{sha256}", self._asset),
            ]
        )
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Cut everything and listen no more."""
        for socket in list(self._sockets):
            await socket.close()
        assert self._runner is not None
        await self._runner.cleanup()

    async def send_wish(self, wish: str) -> None:
        self.wish = wish
        for socket in self._sockets:
            await socket.send_str(WishMessage.model_validate({"wish": wish}).model_dump_json(by_alias=True))

    @property
    def is_connected(self) -> bool:
        return bool(self._sockets)

    def acknowledged(self) -> dict[str, int]:
        highest: dict[str, int] = {}
        for message in self.stored:
            highest[message.run] = max(message.seq, highest.get(message.run, 0))
        return highest

    def record_numbers(self) -> set[int]:
        return {r.number for m in self.stored if isinstance(m, StatusMessage) for r in m.status.records}

    def final_states(self) -> list[str]:
        return [m.status.status for m in self.stored if isinstance(m, StatusMessage)][-1:]

    # ------------------------------------------------------------------------------------ handlers
    async def _tell_time(self, _request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Date"] = formatdate(time.time() + self.clock_off_s, usegmt=True)

    async def _session(self, request: web.Request) -> web.Response:
        self.requests.append("session")
        if request.match_info["session"] != SESSION:
            return problem(404, "not-found", "no such session", hint="ask for its address")
        return web.json_response({"id": SESSION, "status": "training"})

    async def _challenge(self, request: web.Request) -> web.Response:
        wanted = ChallengeRequest.model_validate(await request.json())
        account, nonce, issued_at = Account.of(wanted.chain, wanted.address), secrets.token_hex(16), time.time()
        text = sign_in_text(
            account, domain=f"127.0.0.1:{self.port}", uri=self.url, nonce=nonce, issued_at=issued_at,
            expires_at=issued_at + 300,
        )  # fmt: skip
        self._challenges[nonce] = (account, text)
        answer = ChallengeAnswer(nonce=nonce, message=text, expires_at="")
        return web.json_response(answer.model_dump(by_alias=True))

    async def _login(self, request: web.Request) -> web.Response:
        answer = LoginRequest.model_validate(await request.json())
        account, text = self._challenges.pop(answer.nonce)
        verify_signature(account, text, answer.signature, purpose="sign-in")
        token = secrets.token_urlsafe(8)
        self.signed_in[token] = account
        return web.json_response(
            LoginAnswer(token=token, account=str(account), expires_at="").model_dump(by_alias=True)
        )

    async def _logout(self, request: web.Request) -> web.Response:
        del self.signed_in[_token(request)]
        return web.Response(status=204)

    async def _renew(self, request: web.Request) -> web.Response:
        if not self._is_authorized(request):
            return problem(401, "not-authorized", "unknown token")
        self.renewed += 1
        return web.json_response(RenewAnswer(membership=self._membership()).model_dump(by_alias=True))

    def _membership(self) -> MembershipDocument:
        now = time.time()
        issuer = Issuer(Path(self._keys.name), now=now)
        _, credential = issuer.issue(
            session=SESSION, peer_id=self._peer, account="eip155:1:0x0", role="reduce", now=now,
            until=now + self.certificates_for_s,
        )  # fmt: skip
        return MembershipDocument(credential=credential, issuers=issuer.public_keys(now), coordinator_seen_at=now)

    async def _register(self, request: web.Request) -> web.Response:
        self.requests.append("register")
        account = self.signed_in.get(_token(request))
        if account is None:
            return problem(401, "not-authorized", "sign in first")
        if self.removed:
            return problem(403, "forbidden", "the session's owner has removed this account")
        if request.match_info["session"] != SESSION:
            return problem(404, "not-found", "no such session", hint="ask for its address")
        if self.preparing:
            self.preparing -= 1
            return problem(503, "unreachable", "data are being prepared", headers={"Retry-After": "0"})
        peer = RegisterRequest.model_validate(await request.json())
        assert peer.hardware.cpu_count >= 0
        text = check_bond(
            peer.bond, account=account, peer_id=peer.peer_id, session=SESSION, coordinator=self.url, now=time.time()
        )
        verify_signature(account, text, peer.bond.signature, purpose="statement")
        self._peer = peer.peer_id
        self.tokens.append(f"token-{len(self.tokens)}")
        answer = RegisterAnswer(
            participant="p1", token=self.tokens[-1], session=SESSION, initial_peers=[],
            config=dump_config(RunConfig(session=SessionSection(id=SESSION))), assets=self.assets,
            membership=self._membership(),
        )  # fmt: skip
        return web.json_response(answer.model_dump(by_alias=True), status=201)

    async def _leave(self, request: web.Request) -> web.Response:
        if not self._is_authorized(request):
            return problem(401, "not-authorized", "unknown token")
        self.left.append(request.match_info["participant"])
        return web.Response(status=204)

    def _is_authorized(self, request: web.Request) -> bool:
        return bool(self.tokens) and request.headers.get("Authorization") == f"Bearer {self.tokens[-1]}"

    async def _asset(self, request: web.Request) -> web.StreamResponse:
        self.requests.append("asset")
        content = self.content[request.match_info["sha256"]]
        self.ranges.append(request.headers.get("Range", ""))
        start = request.http_range.start or 0
        body = content[start:]
        if self.corrupt_downloads:
            self.corrupt_downloads -= 1
            body = bytes(len(body))
        response = web.StreamResponse(status=206 if start else 200)
        if start:
            response.headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        response.content_length = len(body)
        await response.prepare(request)
        if self.cut_after_bytes:
            await response.write(body[: self.cut_after_bytes.pop(0)])
            assert request.transport is not None
            request.transport.close()
            return response
        await response.write(body)
        return response

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        if not self._is_authorized(request):
            return problem(401, "not-authorized", "unknown token")
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self._sockets.add(socket)
        try:
            await self._converse(socket)
        finally:
            self._sockets.discard(socket)
        return socket

    async def _converse(self, socket: web.WebSocketResponse) -> None:
        async for raw in socket:
            assert raw.type is WSMsgType.TEXT
            message = UPLINK_MESSAGE.validate_json(raw.data)
            if isinstance(message, Hello):
                welcome = Welcome.model_validate({"acknowledged": self.acknowledged(), "wish": self.wish})
                await socket.send_str(welcome.model_dump_json(by_alias=True))
                continue
            self.received += 1
            if message.seq > self.acknowledged().get(message.run, 0):
                self.stored.append(message)
            if self.lose_acks:
                self.lose_acks -= 1
                return
            ack = Ack(run=message.run, seq=self.acknowledged()[message.run])
            await socket.send_str(ack.model_dump_json(by_alias=True))


def _token(request: web.Request) -> str:
    return request.headers.get("Authorization", "").removeprefix("Bearer ")


def registration(coordinator: str, peer: PeerSigner, wallet: EthereumWallet, session: str = SESSION) -> RegisterRequest:
    """What a node sends to be let in."""
    bond = make_bond(wallet, peer, session=session, coordinator=coordinator, now=time.time())
    return RegisterRequest(peer_id=peer.peer_id, bond=bond)


def make_peer(folder: Path) -> PeerSigner:
    load_or_create_peer_key(folder / "peer.key")
    return PeerSigner(folder / "peer.key")


def problem(
    status: int, code: str, detail: str, *, hint: str = "", headers: dict[str, str] | None = None
) -> web.Response:
    body = {
        "type": "about:blank",
        "title": code,
        "status": status,
        "code": code,
        "detail": detail,
        "hint": hint,
    }
    return web.json_response(body, status=status, headers=headers, content_type="application/problem+json")


@asynccontextmanager
async def running_coordinator(assets: dict[str, bytes] | None = None) -> AsyncIterator[SmallCoordinator]:
    coordinator = SmallCoordinator(assets)
    await coordinator.start()
    try:
        yield coordinator
    finally:
        await coordinator.stop()


def worker_argv(mode: str, job: Path) -> list[str]:
    return [sys.executable, str(WORKER), "--job", str(job), "--mode", mode]
