"""Asks a chain by somebody's JSON-RPC, within bounds of time and size. What the node says of its chain is believed.

Without web3, which takes a second to load: three calls are all that a proof needs.
"""

from __future__ import annotations

import asyncio
import json
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp

from cotrain.errors import InvalidRequestError, ProtocolError, UnreachableError

CALL_LIMIT_S = 20.0
LARGEST_ANSWER_BYTES = 256 * 1024
"""A contract's code has 24 KiB at most (EIP-170), twice that in hexadecimal."""


class ChainReader:
    """One JSON-RPC node. Use it as an asynchronous context manager.

    Every call raises UnreachableError or ProtocolError; none of them tells more of the URL than its host, since the
    rest may be a key.

    Args:
        rpc_url: http or https. Raises InvalidRequestError for anything else.
        limit_s: how long a call may take.
    """

    def __init__(self, rpc_url: str, *, limit_s: float = CALL_LIMIT_S):
        self._url = rpc_url
        self._host = _host_in(rpc_url)
        self._limit_s = limit_s
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._http is not None
        await self._http.close()

    async def chain(self) -> str:
        """CAIP-2 of the chain that the node answers for."""
        answer = await self._ask("eth_chainId")
        try:
            return f"eip155:{int(str(answer), 16)}"
        except ValueError as error:
            raise self._nonsense() from error

    async def code(self, address: str) -> bytes:
        """What stands at an address; empty where no contract does."""
        return self._bytes(await self._ask("eth_getCode", address, "latest"))

    async def call(self, address: str, data: bytes) -> bytes:
        """What a contract answers; nothing on the chain changes."""
        return self._bytes(await self._ask("eth_call", {"to": address, "data": "0x" + data.hex()}, "latest"))

    async def _ask(self, method: str, *parameters: Any) -> Any:
        question = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
        try:
            async with asyncio.timeout(self._limit_s):
                answer = json.loads(await self._post(question))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:  # their messages may hold the URL
            raise UnreachableError(
                f"the chain's node does not answer ({type(error).__name__})", field=self._host, hint="try another one"
            ) from None
        except (ValueError, RecursionError):
            raise self._nonsense() from None
        if not isinstance(answer, dict) or answer.get("id") != 1:
            raise self._nonsense()
        if "result" not in answer:
            raise ProtocolError(f"the chain's node refuses {method}", field=self._host, hint="try another one")
        return answer["result"]

    async def _post(self, body: dict[str, Any]) -> bytes:
        assert self._http is not None, "ChainReader is used outside `async with`"
        found = bytearray()
        async with self._http.post(self._url, json=body, allow_redirects=False) as response:
            async for piece in response.content.iter_chunked(64 * 1024):
                found += piece
                if len(found) > LARGEST_ANSWER_BYTES:
                    raise ProtocolError(
                        f"the chain's node answers with more than {LARGEST_ANSWER_BYTES} bytes", field=self._host
                    )
        return bytes(found)

    def _bytes(self, answer: Any) -> bytes:
        if not isinstance(answer, str) or not answer.startswith("0x"):
            raise self._nonsense()
        try:
            return bytes.fromhex(answer[2:])
        except ValueError as error:
            raise self._nonsense() from error

    def _nonsense(self) -> ProtocolError:
        return ProtocolError("is not what a chain's node answers", field=self._host, hint="try another one")


def _host_in(url: str) -> str:
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        fits = False
    if not fits:
        raise InvalidRequestError(
            "is not the address of a chain's node", field="--rpc", hint="it begins with http:// or https://"
        )
    return str(parts.hostname)
