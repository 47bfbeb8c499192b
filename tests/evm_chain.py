"""A chain of py-evm with a pool of transactions that wait, as nodes keep one: only this process has it."""

from __future__ import annotations

import ast
import sys
import threading
from dataclasses import dataclass
from typing import Any

import cotrain.identity.ethereum  # noqa: F401 - before eth-tester, so that the recursion limit stays as it is

_LIMIT = sys.getrecursionlimit()

# isort: split
from eth_tester import PyEVMBackend  # noqa: E402 - the limit must be read before
from eth_tester.exceptions import BlockNotFound, TransactionFailed, TransactionNotFound  # noqa: E402

sys.setrecursionlimit(_LIMIT)

__all__ = ["GWEI", "BlockNotFound", "EvmChain", "RefusedError", "TransactionNotFound"]

GWEI = 10**9
LEAST_BUMP_PERCENT = 10
"""By how much a transaction must raise both fees to take another's place, as go-ethereum asks."""


class RefusedError(Exception):
    """What a node answers instead of a result: JSON-RPC's code, message and data."""

    def __init__(self, message: str, *, code: int = -32000, data: str | None = None):
        super().__init__(message)
        self.message, self.code, self.data = message, code, data


@dataclass(frozen=True)
class Waiting:
    """A transaction in the pool: its bytes as they were sent, and what py-evm reads in them."""

    raw: bytes
    transaction: Any


class EvmChain:
    """Blocks, and the transactions that wait for one. Its methods may be called from any thread.

    Attributes:
        mines_at_once: whether each transaction that comes in gets a block.
        least_priority_fee_wei: transactions that offer less per gas stay in the pool.
    """

    def __init__(self) -> None:
        self.backend = PyEVMBackend()
        sys.setrecursionlimit(_LIMIT)  # py-evm raises it for deep contracts
        self.lock = threading.RLock()
        self.mines_at_once = True
        self.least_priority_fee_wei = 0
        self._pool: dict[tuple[bytes, int], Waiting] = {}
        self._mined: dict[bytes, tuple[int, Waiting]] = {}
        """Hash -> number of its block, and the transaction."""

    @property
    def chain_id(self) -> int:
        return int(self.backend.chain.chain_id)

    @property
    def height(self) -> int:
        """Number of the last block."""
        with self.lock:
            return int(self.backend.get_block_by_number("latest")["number"])

    def waiting(self) -> list[Any]:
        """The pool's transactions, in py-evm's form."""
        with self.lock:
            return [one.transaction for one in self._pool.values()]

    def waiting_transaction(self, hash_: bytes) -> Any | None:
        """One of the pool's transactions; None if it is not there."""
        return next((one for one in self.waiting() if one.hash == hash_), None)

    def submit(self, raw: bytes) -> bytes:
        """Take a signed transaction into the pool; its hash. Raises RefusedError with go-ethereum's words."""
        with self.lock:
            transaction = self._decode(raw)
            sender, nonce = transaction.sender, transaction.nonce
            next_nonce = self.backend.get_nonce(sender)
            if transaction.hash in self._mined:
                raise RefusedError("already known")
            if nonce < next_nonce:
                raise RefusedError(f"nonce too low: next nonce {next_nonce}, tx nonce {nonce}")
            held = self._pool.get((sender, nonce))
            if held is not None:
                _refuse_replacement(held.transaction, transaction)
            if self.backend.get_balance(sender) < transaction.gas * transaction.max_fee_per_gas + transaction.value:
                raise RefusedError("insufficient funds for gas * price + value")
            self._pool[sender, nonce] = Waiting(raw, transaction)
            if self.mines_at_once:
                self.mine()
            return bytes(transaction.hash)

    def mine(self, blocks: int = 1) -> None:
        """Make blocks; the first has all transactions of the pool that can be executed and offer enough."""
        with self.lock:
            while (one := self._executable()) is not None:
                del self._pool[one.transaction.sender, one.transaction.nonce]
                self.backend.send_raw_transaction(one.raw)
                self._mined[one.transaction.hash] = (self.height + 1, one)
            self.backend.mine_blocks(blocks)

    def drop_waiting(self) -> None:
        """Forget the pool, as a node does that starts again."""
        with self.lock:
            self._pool.clear()

    def reorganize(self, depth: int, *, lose: bool = False) -> None:
        """Put `depth` + 1 empty blocks in the place of the last `depth`.

        Args:
            lose: forget the transactions that were in those; else they wait again.
        """
        with self.lock:
            back_to = self.backend.get_block_by_number(self.height - depth)
            undone = [one for number, one in self._mined.values() if number > back_to["number"]]
            for one in undone:
                del self._mined[one.transaction.hash]
            self.backend.revert_to_snapshot(back_to["hash"])
            self.backend.mine_blocks(depth + 1)
            if not lose:
                self._pool |= {(one.transaction.sender, one.transaction.nonce): one for one in undone}

    def pending_nonce(self, account: bytes) -> int:
        """The nonce behind those of the pool that follow on one another."""
        with self.lock:
            nonce = int(self.backend.get_nonce(account))
            while (account, nonce) in self._pool:
                nonce += 1
            return nonce

    def call(self, transaction: dict[str, Any], block: str | int) -> bytes:
        """What a call returns. Raises RefusedError with the data that the contract reverts with."""
        with self.lock:
            try:
                return bytes(self.backend.call(transaction, block))
            except TransactionFailed as error:
                raise _reverted(error) from error

    def estimate_gas(self, transaction: dict[str, Any]) -> int:
        """What a transaction would use. Raises RefusedError if it would revert."""
        with self.lock:
            try:
                return int(self.backend.estimate_gas(transaction))
            except TransactionFailed as error:
                raise _reverted(error) from error

    def _executable(self) -> Waiting | None:
        base_fee = self.backend.chain.get_block().header.base_fee_per_gas
        for (sender, nonce), one in sorted(self._pool.items()):
            offered = one.transaction
            tip = min(offered.max_priority_fee_per_gas, offered.max_fee_per_gas - base_fee)
            is_next = nonce == self.backend.chain.get_vm().state.get_nonce(sender)
            if is_next and tip >= self.least_priority_fee_wei:
                return one
        return None

    def _decode(self, raw: bytes) -> Any:
        try:
            transaction = self.backend.chain.get_transaction_builder().decode(raw)
            transaction.validate()
        except Exception as error:  # py-evm, rlp and eth-keys raise anything
            raise RefusedError(f"rlp: cannot be decoded: {type(error).__name__}") from error
        if transaction.chain_id != self.chain_id:
            raise RefusedError("invalid chain id for signer")
        if transaction.gas < transaction.intrinsic_gas:
            raise RefusedError("intrinsic gas too low")
        return transaction


def _refuse_replacement(held: Any, offered: Any) -> None:
    if held.hash == offered.hash:
        raise RefusedError("already known")
    raised = all(
        100 * getattr(offered, fee) >= (100 + LEAST_BUMP_PERCENT) * getattr(held, fee)
        for fee in ("max_fee_per_gas", "max_priority_fee_per_gas")
    )
    if not raised:
        raise RefusedError("replacement transaction underpriced")


def _reverted(error: TransactionFailed) -> RefusedError:
    said = str(error.args[0])
    data = ast.literal_eval(said) if said.startswith(("b'", 'b"')) else b""  # eth-tester passes it on as a literal
    return RefusedError("execution reverted", code=3, data="0x" + data.hex())
