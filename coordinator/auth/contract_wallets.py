"""Wallets that are contracts: they say themselves whether a signature is theirs (EIP-1271, over an operator's RPC).

https://eips.ethereum.org/EIPS/eip-1271
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from cotrain.errors import CotrainError
from cotrain.identity.account import Account

if TYPE_CHECKING:
    from eth_typing import ChecksumAddress, HexStr
    from web3 import AsyncWeb3
    from web3.types import TxParams

CALL_TIMEOUT_S = 2.0
_MOST_IN_FLIGHT = 4
_SELECTOR = bytes.fromhex("1626ba7e")
"""Of `isValidSignature(bytes32,bytes)`; the same four bytes are its answer for yes."""
_YES = _SELECTOR.ljust(32, b"\0")

_AnswerT = TypeVar("_AnswerT")


class ContractWalletError(CotrainError):
    """A contract did not confirm a signature. The message is the reason, for the log."""

    code = "contract-wallet"
    http_status = 401
    exit_code = 77


class ContractWallets:
    """Asks contracts, at most four at a time.

    Args:
        rpc_urls: CAIP-2 chain -> JSON-RPC URL. It may hold a key, so it is never logged.
        timeout_s: how long a call may take, and how long a check may wait for its turn.
    """

    def __init__(self, rpc_urls: Mapping[str, str], *, timeout_s: float = CALL_TIMEOUT_S):
        self._rpc_urls = rpc_urls
        self._timeout_s = timeout_s
        self._turns = asyncio.Semaphore(_MOST_IN_FLIGHT)
        self._nodes: dict[str, AsyncWeb3[Any]] = {}

    def can_ask(self, account: Account) -> bool:
        """Whether there is an RPC for the account's chain."""
        return account.namespace == "eip155" and account.chain in self._rpc_urls

    async def verify(self, account: Account, text: str, signature: str) -> None:
        """Ask the contract at the account's address whether it signed this text (as an EIP-191 personal message).

        Args:
            account: one for which `can_ask` is true.
            signature: 0x-hex, of any length; its meaning is the contract's.

        Raises:
            ContractWalletError: with the reason: no contract there, its no, or an RPC that does not do its part.
        """
        try:
            signed = bytes.fromhex(signature.removeprefix("0x"))
        except ValueError as error:
            raise ContractWalletError("the signature is not hexadecimal") from error
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._turns.acquire()
        except TimeoutError as error:
            raise ContractWalletError("too many contracts are being asked") from error
        try:
            await self._ask(account, text, signed)
        finally:
            self._turns.release()

    async def _ask(self, account: Account, text: str, signature: bytes) -> None:
        node = self._nodes.get(account.chain) or await self._connect(account.chain)
        chain_id = await self._bounded(node.eth.chain_id)
        if chain_id != int(account.reference):
            raise ContractWalletError(f"the RPC for {account.chain} answers for another chain")
        address = cast("ChecksumAddress", account.address)
        if not await self._bounded(node.eth.get_code(address)):
            raise ContractWalletError("there is no contract at this address")
        call: TxParams = {"to": address, "data": cast("HexStr", "0x" + _call_data(text, signature).hex())}
        # without CCIP: a contract must not be able to send this machine to a URL of its choice
        if await self._bounded(node.eth.call(call, ccip_read_enabled=False)) != _YES:
            raise ContractWalletError("the contract does not say that it signed this")

    async def _connect(self, chain: str) -> AsyncWeb3[Any]:
        node = await asyncio.to_thread(_web3_for, self._rpc_urls[chain])
        return self._nodes.setdefault(chain, node)

    async def _bounded(self, call: Awaitable[_AnswerT]) -> _AnswerT:
        """The answer of one RPC call. Raises ContractWalletError whatever goes wrong with it."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await call
        except Exception as error:
            # web3, aiohttp and a node that answers nonsense raise anything; their messages may hold the RPC's URL
            raise ContractWalletError(f"the RPC call failed with {type(error).__name__}") from error

    async def close(self) -> None:
        """Let go of the connections."""
        for node in self._nodes.values():
            await node.provider.disconnect()
        self._nodes.clear()


def _web3_for(url: str) -> AsyncWeb3[Any]:
    """A connection to a node. Imported in here, and called in a thread: loading web3 takes a second."""
    import cotrain.identity.ethereum  # noqa: F401, I001 - before anything else loads eth-account, as web3 does
    from web3 import AsyncHTTPProvider, AsyncWeb3

    # it logs the URL when it disconnects
    logging.getLogger("web3").setLevel(logging.WARNING)
    return AsyncWeb3(AsyncHTTPProvider(url, exception_retry_configuration=None))


def _call_data(text: str, signature: bytes) -> bytes:
    """`isValidSignature(hash, signature)` as calldata."""
    from eth_abi.abi import encode

    from cotrain.identity.ethereum import defunct_hash_message

    return _SELECTOR + encode(["bytes32", "bytes"], [bytes(defunct_hash_message(text=text)), signature])
