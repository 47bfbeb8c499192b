"""Wallets that are contracts, and JSON-RPC nodes of a few lines that do not do their part."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.evm import EvmNode
from tests.evm_contracts import deploy

CONTRACTS = json.loads((Path(__file__).with_name("contracts") / "wallets.json").read_text())

Answer = Callable[[dict[str, Any]], Awaitable[web.StreamResponse]]


def deploy_wallet(node: EvmNode, contract: str, *arguments: Any) -> str:
    """Address of a new contract of `contracts/Wallets.sol`."""
    return str(deploy(node, CONTRACTS[contract], *arguments)["contractAddress"])


def rpc_response(call: dict[str, Any], body: dict[str, Any]) -> web.Response:
    """A JSON-RPC answer to `call`."""
    return web.json_response({"jsonrpc": "2.0", "id": call["id"], **body})


@asynccontextmanager
async def rpc_server(answer: Answer) -> AsyncIterator[str]:
    """The URL of a JSON-RPC node that answers as `answer` does."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return await answer(await request.json())

    app = web.Application()
    app.router.add_post("/", handle)
    async with TestServer(app, host="127.0.0.1") as server:
        yield str(server.make_url("/"))
