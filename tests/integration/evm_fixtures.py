"""An Ethereum chain in this process (py-evm) behind JSON-RPC on 127.0.0.1, and nodes that do not do their part."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

import cotrain.identity.ethereum  # noqa: F401 - before web3, so that the recursion limit stays as it is

# isort: split
from web3 import EthereumTesterProvider, Web3
from web3.exceptions import ContractLogicError

CONTRACTS = json.loads((Path(__file__).with_name("contracts") / "wallets.json").read_text())

Answer = Callable[[dict[str, Any]], Awaitable[web.StreamResponse]]


class Chain:
    """A chain with a JSON-RPC node that knows the three methods which a verifier of EIP-1271 needs."""

    def __init__(self) -> None:
        limit = sys.getrecursionlimit()
        self.web3 = Web3(EthereumTesterProvider())
        # py-evm raises it for deep contracts; nested JSON would then overflow the stack in tests that come later
        sys.setrecursionlimit(limit)
        self.name = f"eip155:{self.web3.eth.chain_id}"
        self.calls: list[str] = []

    def deploy(self, contract: str, *arguments: Any) -> str:
        """Address of a new contract of `contracts/Wallets.sol`."""
        compiled = CONTRACTS[contract]
        factory = self.web3.eth.contract(abi=compiled["abi"], bytecode=compiled["bytecode"])
        sent = factory.constructor(*arguments).transact({"from": self.web3.eth.accounts[0]})
        address = self.web3.eth.wait_for_transaction_receipt(sent)["contractAddress"]
        assert address is not None
        return address

    async def answer(self, call: dict[str, Any]) -> web.Response:
        """What a node answers to this JSON-RPC call."""
        self.calls.append(call["method"])
        try:
            body = {"result": self._result(call["method"], call["params"])}
        except ContractLogicError as error:
            body = {"error": {"code": 3, "message": "execution reverted", "data": error.data}}
        return rpc_response(call, body)

    def _result(self, method: str, parameters: list[Any]) -> str:
        if method == "eth_chainId":
            return hex(self.web3.eth.chain_id)
        if method == "eth_getCode":
            return self.web3.eth.get_code(parameters[0]).to_0x_hex()
        assert method == "eth_call", method
        asked = parameters[0]
        return self.web3.eth.call({"to": asked["to"], "data": asked["data"]}).to_0x_hex()


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
