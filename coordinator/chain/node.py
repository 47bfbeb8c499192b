"""What the coordinator asks of a chain, and what it believes of the answers. Loaded where a chain is configured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from coordinator.chain.content import Content, standing_of
from coordinator.chain.errors import ChainNodeError, RefusedTransactionError
from coordinator.chain.machine import Block, Fees, Receipt, Standing
from coordinator.chain.rpc import (
    ANSWER_TIMEOUT_S,
    Rpc,
    RpcFaultError,
    as_bytes,
    as_count,
    as_hash,
    as_object,
    as_quantity,
)
from cotrain.chain.registry import is_registry, read_session, session_call
from cotrain.errors import ProtocolError

_REVERTED = 3
"""JSON-RPC's code where a contract refuses."""
_BASE_FEE_ROOM = 2
"""The base fee can double while a transaction waits, and it is still taken."""
_OLD_TIP_WEI = 10**9
"""Where the node does not say what tips are usual."""
_KNOWN = ("already known", "alreadyknown", "known transaction")
_REASONS = {
    "insufficient funds": "the account cannot pay for it",
    "underpriced": "its fee is too low to take the place of another transaction",
    "nonce too low": "its nonce is used",
    "nonce too high": "its nonce is too far ahead",
    "intrinsic gas": "its gas is too little",
    "gas limit": "its gas is more than a block has",
    "chain id": "the node is of another chain",
}


@dataclass(frozen=True)
class Head:
    """The newest block that the node has. `base_fee_wei`: for a unit of gas."""

    block: Block
    base_fee_wei: int


class ChainNode:
    """A node, as one signer of one registry asks it.

    Args:
        contract: the registry's address.
        account: address of the signer.
    """

    def __init__(self, url: str, *, chain_id: int, contract: str, account: str, timeout_s: float = ANSWER_TIMEOUT_S):
        self._rpc = Rpc(url, timeout_s=timeout_s)
        self._chain_id, self._contract, self._account = chain_id, contract, account

    async def check(self) -> None:
        """Raises ChainNodeError unless it is a node of this chain."""
        found = await self._asked("eth_chainId")
        if as_quantity(found, "eth_chainId") != self._chain_id:
            raise ChainNodeError("the node is of another chain", field="chain.rpc_url", hint="chain.chain says which")

    async def check_contract(self, address: str | None = None) -> None:
        """Raises ChainNodeError unless the registry stands at its address, or at this one."""
        code = as_bytes(await self._asked("eth_getCode", address or self._contract, "latest"), "eth_getCode")
        if not is_registry(code):
            raise ChainNodeError(
                "no registry stands at this address of the chain", field="chain.contract",
                hint="cotrain coordinator chain deploy makes one",
            )  # fmt: skip

    async def head(self) -> Head:
        """The newest block."""
        found = as_object(await self._asked("eth_getBlockByNumber", "latest", False), "eth_getBlockByNumber")
        if "baseFeePerGas" not in found:
            raise ChainNodeError("the chain has no base fee: transactions of type 2 (EIP-1559) are not known there")
        number, hash_ = as_count(found.get("number"), "a block"), as_hash(found.get("hash"), "a block")
        return Head(Block(number, hash_), as_quantity(found["baseFeePerGas"], "a block"))

    async def fees(self, head: Head) -> Fees:
        """What a transaction should offer to be in one of the next blocks."""
        try:
            tip = await self._rpc.quantity("eth_maxPriorityFeePerGas")
        except RpcFaultError:
            tip = _OLD_TIP_WEI
        return Fees(_BASE_FEE_ROOM * head.base_fee_wei + tip, tip)

    async def nonce(self, number: int) -> int:
        """How many transactions of the account there are up to this block."""
        said = await self._asked("eth_getTransactionCount", self._account, hex(number))
        return as_count(said, "eth_getTransactionCount")

    async def balance(self) -> int:
        """Of the account, in wei."""
        return as_quantity(await self._asked("eth_getBalance", self._account, "latest"), "eth_getBalance")

    async def standing(self, content: Content, number: int) -> Standing:
        """What the contract says of an entry, as of this block."""
        call = {"to": self._contract, "data": _hex(session_call(self._account, content.key))}
        answer = as_bytes(await self._asked("eth_call", call, hex(number)), "eth_call")
        try:
            return standing_of(content, read_session(answer) if answer else None)
        except ProtocolError as error:
            raise ChainNodeError(error.message, field="chain.contract", hint=error.hint) from None

    async def receipt(self, tx_hashes: Sequence[str], head: Head) -> Receipt | None:
        """Of whichever of these transactions the chain holds at this head."""
        for tx_hash in tx_hashes:
            said = await self._asked("eth_getTransactionReceipt", tx_hash)
            if said is not None and (found := await self._checked(said, tx_hash, head)) is not None:
                return found
        return None

    async def _checked(self, said: object, tx_hash: str, head: Head) -> Receipt | None:
        """Raises ChainNodeError for the receipt of another transaction; None where its block is not of the chain."""
        found = as_object(said, "eth_getTransactionReceipt")
        sides = (str(found.get("from")).lower(), str(found.get("to")).lower())
        if (
            as_hash(found.get("transactionHash"), "a receipt") != tx_hash
            or sides != (self._account.lower(), self._contract.lower())
        ):  # fmt: skip
            raise ChainNodeError("the chain's node answers with the receipt of another transaction")
        number = as_count(found.get("blockNumber"), "a receipt")
        block = Block(number, as_hash(found.get("blockHash"), "a receipt"))
        if number > head.block.number or await self._hash_at(number) != block.hash:
            return None
        return Receipt(tx_hash, block, succeeded=as_quantity(found.get("status"), "a receipt") == 1)

    async def _hash_at(self, number: int) -> str | None:
        said = await self._asked("eth_getBlockByNumber", hex(number), False)
        return None if said is None else as_hash(as_object(said, "a block").get("hash"), "a block")

    async def gas(self, calldata: bytes) -> int | None:
        """What a call of the contract would use, with a quarter more; None where the contract would refuse it."""
        call = {"from": self._account, "to": self._contract, "data": _hex(calldata)}
        return await self._estimate(call)

    async def deployment_gas(self, code: bytes) -> int | None:
        """The same of a new contract."""
        return await self._estimate({"from": self._account, "data": _hex(code)})

    async def _estimate(self, call: dict[str, str]) -> int | None:
        try:
            used = as_count(await self._rpc.ask("eth_estimateGas", call), "eth_estimateGas")
        except RpcFaultError as fault:
            if fault.code == _REVERTED or "revert" in fault.words:
                return None
            raise _unexpected("eth_estimateGas", fault) from None
        return used * 5 // 4

    async def send(self, raw: str) -> None:
        """Hand over a signed transaction, perhaps again. Raises RefusedTransactionError, ChainNodeError."""
        try:
            await self._rpc.ask("eth_sendRawTransaction", raw)
        except RpcFaultError as fault:
            if any(words in fault.words for words in _KNOWN):
                return
            reason = next((said for words, said in _REASONS.items() if words in fault.words), f"code {fault.code}")
            raise RefusedTransactionError(f"the chain's node does not take the transaction: {reason}") from None

    async def created(self, tx_hash: str) -> str | None:
        """Address of the contract that a transaction has made; None while it is not mined. Raises ChainNodeError."""
        said = await self._asked("eth_getTransactionReceipt", tx_hash)
        if said is None:
            return None
        found = as_object(said, "eth_getTransactionReceipt")
        if as_hash(found.get("transactionHash"), "a receipt") != tx_hash:
            raise ChainNodeError("the chain's node answers with the receipt of another transaction")
        if as_quantity(found.get("status"), "a receipt") != 1:
            raise ChainNodeError("the contract could not be made: the transaction failed")
        return _hex(as_bytes(found.get("contractAddress"), "a receipt"))

    async def close(self) -> None:
        """Let go of the connections."""
        await self._rpc.close()

    async def _asked(self, method: str, *parameters: Any) -> Any:
        """A call that no honest node answers with an error."""
        try:
            return await self._rpc.ask(method, *parameters)
        except RpcFaultError as fault:
            raise _unexpected(method, fault) from None


def _unexpected(method: str, fault: RpcFaultError) -> ChainNodeError:
    return ChainNodeError(f"the chain's node answers {method} with the error {fault.code}")


def _hex(raw: bytes) -> str:
    return "0x" + raw.hex()
