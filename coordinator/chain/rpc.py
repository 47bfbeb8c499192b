"""JSON-RPC to a node that may hang, lie or talk without end. Loaded only where a chain is configured: web3 is large."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

import aiohttp

import cotrain.identity.ethereum  # noqa: F401 - before anything else loads eth-account, as web3 does

# isort: split
from web3 import AsyncWeb3
from web3.exceptions import Web3RPCError
from web3.providers.async_base import AsyncJSONBaseProvider
from web3.types import RPCEndpoint, RPCResponse

from coordinator.chain.errors import ChainNodeError
from cotrain.sections import LARGEST_INTEGER

MAX_ANSWER_BYTES = 4 * 2**20
"""Of one answer: a block's header with the hashes of all its transactions is far below."""
ANSWER_TIMEOUT_S = 10.0

_QUANTITY = re.compile(r"0x[0-9a-fA-F]{1,64}", re.ASCII)
_HASH = re.compile(r"0x[0-9a-f]{64}", re.ASCII)
_CHUNK_BYTES = 64 * 1024
_HEADERS = {"Content-Type": "application/json", "Accept-Encoding": "identity"}


class RpcFaultError(Exception):
    """The node has answered with an error. Its words may hold anything, a key of the URL among it: they are not shown.

    Attributes:
        code: JSON-RPC's.
        words: what it said, to look for known phrases in.
    """

    def __init__(self, code: int, words: str):
        super().__init__(f"JSON-RPC error {code}")
        self.code, self.words = code, words


class BoundedProvider(AsyncJSONBaseProvider):
    """web3's way to a node, over HTTP: no redirects, no compression, no answer above MAX_ANSWER_BYTES."""

    def __init__(self, url: str):
        super().__init__()
        self._url = url
        self._http: aiohttp.ClientSession | None = None

    async def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """The answer to this call, whatever it says. Raises ChainNodeError where it is none."""
        asked = self.form_request(method, params)
        if self._http is None:
            self._http = aiohttp.ClientSession(headers=_HEADERS)
        body = self.encode_rpc_dict(asked)
        async with self._http.post(self._url, data=body, allow_redirects=False) as response:
            content = await _bounded(response.content)
            if response.status != 200:
                raise ChainNodeError(f"the chain's node answers with HTTP status {response.status}")
        answer = self.decode_rpc_response(content)
        if not isinstance(answer, dict) or answer.get("id") not in _ids(asked["id"], answer):
            raise ChainNodeError("the chain's node answers something that was not asked")
        return answer

    async def disconnect(self) -> None:
        """Let go of the connections."""
        if self._http is not None:
            await self._http.close()
            self._http = None


class Rpc:
    """One node.

    Args:
        url: it may hold a key, so it is never logged or shown.
    """

    def __init__(self, url: str, *, timeout_s: float = ANSWER_TIMEOUT_S):
        self._provider = BoundedProvider(url)
        self._web3 = AsyncWeb3(self._provider, middleware=[])
        self._timeout_s = timeout_s

    async def ask(self, method: str, *parameters: Any) -> Any:
        """The result of a call, as the node said it. Raises RpcFaultError, ChainNodeError."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._web3.manager.coro_request(RPCEndpoint(method), list(parameters))
        except Web3RPCError as error:
            raise _fault(error) from None
        except ChainNodeError:
            raise
        except TimeoutError:
            raise ChainNodeError(f"the chain's node did not answer within {self._timeout_s:g} s") from None
        except Exception as error:
            # aiohttp, web3 and what a node makes of JSON raise anything; their messages may hold the URL
            raise ChainNodeError(f"the chain's node cannot be asked ({type(error).__name__})") from None

    async def quantity(self, method: str, *parameters: Any) -> int:
        """A call whose result is a number. Errors as `ask`."""
        return as_quantity(await self.ask(method, *parameters), method)

    async def close(self) -> None:
        """Let go of the connections."""
        await self._provider.disconnect()


def as_quantity(said: object, what: str) -> int:
    """A number in JSON-RPC's form, below 2**256. Raises ChainNodeError."""
    if not isinstance(said, str) or _QUANTITY.fullmatch(said) is None:
        raise _nonsense(what)
    return int(said, 16)


def as_count(said: object, what: str) -> int:
    """A number of blocks or transactions, or the like. Raises ChainNodeError."""
    found = as_quantity(said, what)
    if found > LARGEST_INTEGER:
        raise _nonsense(what)
    return found


def as_hash(said: object, what: str) -> str:
    """A hash of 32 bytes, 0x-hex. Raises ChainNodeError."""
    if not isinstance(said, str) or _HASH.fullmatch(said.lower()) is None:
        raise _nonsense(what)
    return said.lower()


def as_bytes(said: object, what: str) -> bytes:
    """Bytes in JSON-RPC's form. Raises ChainNodeError."""
    try:
        if isinstance(said, str) and said.startswith("0x"):
            return bytes.fromhex(said[2:])
    except ValueError:
        raise _nonsense(what) from None
    raise _nonsense(what)


def as_object(said: object, what: str) -> Mapping[str, Any]:
    """An object. Raises ChainNodeError."""
    if not isinstance(said, Mapping):
        raise _nonsense(what)
    return said


def _nonsense(what: str) -> ChainNodeError:
    return ChainNodeError(f"the chain's node answers nonsense to {what}")


async def _bounded(stream: aiohttp.StreamReader) -> bytes:
    content = bytearray()
    async for chunk in stream.iter_chunked(_CHUNK_BYTES):
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            raise ChainNodeError(f"the chain's node answers with more than {MAX_ANSWER_BYTES} bytes")
    return bytes(content)


def _ids(asked: int | str | None, answer: Mapping[str, Any]) -> tuple[int | str | None, ...]:
    """With which ids an answer may come: an error may come without."""
    return (asked, None) if "error" in answer else (asked,)


def _fault(error: Web3RPCError) -> RpcFaultError | ChainNodeError:
    said = (error.rpc_response or {}).get("error")
    if not isinstance(said, Mapping) or not isinstance(said.get("code"), int):
        return ChainNodeError("the chain's node answers with an error that is none")
    return RpcFaultError(said["code"], str(said.get("message", ""))[:2000].lower())
