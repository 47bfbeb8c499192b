"""A coordinator as a real process, its API, and a participant that says what it is told to say."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from cotrain.membership.bond import make_bond
from cotrain.peer_key import PeerSigner, load_or_create_peer_key
from cotrain.process import child_environment, end_process, python_command
from cotrain.protocol import Hello, RegisterRequest, StatusMessage
from cotrain.status import Record, RecordKind, Status, now
from tests.e2e.wallet_fixtures import KeyWallet, sign_in

REPOSITORY = Path(__file__).resolve().parents[2]
LIMIT_S = 60.0

_START_LIMIT_S = 90.0
_POLL_S = 0.02
_GRACE_S = 10.0


async def eventually(question: Callable[[], Any], what: str, *, limit_s: float = LIMIT_S) -> Any:
    """The first truthy answer of an async `question`; fails the test once the limit has passed."""
    deadline = time.monotonic() + limit_s
    while not (found := await question()):
        assert time.monotonic() < deadline, f"{what}: not within {limit_s} s"
        await asyncio.sleep(_POLL_S)
    return found


# ---------------------------------------------------------------------------------------------- the coordinator
@asynccontextmanager
async def coordinator_process(shared: Path, *, port: int = 0, config: str = "") -> AsyncIterator[str]:
    """Runs `cotrain coordinator serve` on its own data folder, with the TOML `config`; yields its URL."""
    settings = shared.parent / f"{shared.name}.toml"
    settings.write_text(config)
    options = ("--port", str(port), "--config", str(settings), "--json")
    path = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    with (shared.parent / f"{shared.name}.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *python_command("cotrain.cli", "coordinator", "serve", *options),
            env=child_environment(PYTHONPATH=path, COTRAIN_SHARED=str(shared), OMP_NUM_THREADS="1"),
            stdout=asyncio.subprocess.PIPE, stderr=log,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), _START_LIMIT_S)
        assert line, f"the coordinator ended before it was ready: see {log.name}"
        yield json.loads(line)["url"]
    finally:
        await end_process(process, grace_s=_GRACE_S)


class Api:
    """The coordinator's REST API; with a token, as the account that holds it."""

    def __init__(self, http: aiohttp.ClientSession, url: str, token: str = ""):
        self._http = http
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.url = url

    async def get(self, path: str) -> dict[str, Any]:
        """The answer to a GET below /api/v1; fails the test on any other status than success."""
        return await self._call("GET", path, None)

    async def post(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer to a POST below /api/v1."""
        return await self._call("POST", path, body)

    async def _call(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        address = f"{self.url}/api/v1{path}"
        async with self._http.request(method, address, json=body, headers=self._headers) as response:
            assert response.ok, f"{method} {path}: {response.status} {await response.text()}"
            answer: dict[str, Any] = await response.json()
            return answer


class Volunteer:
    """A registered participant that trains nothing: it says over a real uplink what it is told to say.

    Args:
        key: where its peer's key is, or will be.
    """

    def __init__(self, http: aiohttp.ClientSession, url: str, session: str, key: Path):
        self._http = http
        self._url = url
        self._base = f"{url}/api/v1/sessions/{session}/participants"
        self._session = session
        self._peer = load_or_create_peer_key(key)
        self._signer = PeerSigner(key)
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._sequence = self._recorded = 0

    async def join(self, name: str) -> None:
        """Sign in, register and open the uplink."""
        wallet = KeyWallet()
        headers = {"Authorization": f"Bearer {await sign_in(self._http, self._url, wallet)}"}
        bond = make_bond(wallet, self._signer, session=self._session, coordinator=self._url, now=now())
        wanted = RegisterRequest(peer_id=self._peer, bond=bond, name=name).model_dump(by_alias=True)
        async with self._http.post(self._base, json=wanted, headers=headers) as response:
            assert response.status == 201, await response.text()
            answer = await response.json()
        self._socket = await self._http.ws_connect(
            f"{self._base}/{answer['participant']}/stream", headers={"Authorization": f"Bearer {answer['token']}"}
        )
        await self._send(Hello())

    async def end_round(self, number: int, digest: str, **facts: Any) -> None:
        """Report a round with the digest of the outer state after it."""
        data: dict[str, Any] = {"round": number, "digest": digest}
        record = self._record("round", f"round {number} closed", data)
        await self._report([record], digest=digest, **facts)

    async def say(self, messages: Sequence[str], **facts: Any) -> None:
        """Report that it trains, with these entries in its log."""
        await self._report([self._record("log", message, {}) for message in messages], **facts)

    def _record(self, kind: RecordKind, message: str, data: dict[str, Any]) -> Record:
        self._recorded += 1
        return Record(number=self._recorded, time=now(), kind=kind, message=message, data=data)

    async def _report(self, records: list[Record], **facts: Any) -> None:
        self._sequence += 1
        status = Status(
            session=self._session, peer=self._peer, run="run-1", sequence=self._sequence, updated_at=now(),
            status="training", phase="training", records=records, **facts,
        )  # fmt: skip
        await self._send(StatusMessage(run="run-1", seq=self._sequence, status=status))

    async def hear(self) -> None:
        """Take in what the coordinator says until the uplink is closed: who reads nothing is given nothing any more."""
        assert self._socket is not None
        async for _ in self._socket:
            pass

    async def leave(self) -> None:
        """Close the uplink."""
        assert self._socket is not None
        await self._socket.close()

    async def _send(self, message: Hello | StatusMessage) -> None:
        assert self._socket is not None
        await self._socket.send_str(message.model_dump_json(by_alias=True))
