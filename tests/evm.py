"""An Ethereum node for tests: JSON-RPC on 127.0.0.1 over a chain of py-evm, in a thread of this process.

Tests decide when there is a block and which transactions get in, take blocks back, let the node go away and come back,
and step between a question and its answer.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import TYPE_CHECKING, Any

from cotrain.identity.ethereum import EthereumSigner
from tests.evm_chain import GWEI, BlockNotFound, EvmChain, RefusedError, TransactionNotFound

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

Call = dict[str, Any]
Body = dict[str, Any]
Interfere = Callable[[Call, Callable[[], Body]], Body | bytes | None]
"""Gets a call and what asks the chain for the answer. What it returns is sent instead: a JSON-RPC body, any bytes, or
None: the connection ends without an answer. It runs in the call's thread, so it may wait."""

_BLOOM_BYTES = 256
_TAGS = ("latest", "safe", "finalized", "earliest", "pending")


class EvmNode:
    """A node with funded accounts. `with EvmNode() as node:` serves it at `node.url` until the end.

    Attributes:
        evm: the chain: mining, the pool, reorganizations (tests/evm_chain.py).
        accounts: ten that have a million ether each, with their keys (`account.key`, `account.address`).
        calls: the methods that were asked for, in this order.
        interfere: what steps between questions and answers; None for an honest node.
    """

    def __init__(self) -> None:
        self.evm = EvmChain()
        self.accounts: list[LocalAccount] = [
            EthereumSigner.from_key(key.to_bytes()) for key in self.evm.backend.account_keys
        ]
        self.calls: list[str] = []
        self.interfere: Interfere | None = None
        self._server: _Server | None = None
        self._port = 0

    @property
    def chain(self) -> str:
        """CAIP-2."""
        return f"eip155:{self.evm.chain_id}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/"

    def up(self) -> None:
        """Serve; after `down`, at the same port as before."""
        assert self._server is None, "the node is up"
        self._server = _Server(self, self._port)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def down(self) -> None:
        """End all connections, and take no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.end_connections()
            self._server = None

    def __enter__(self) -> EvmNode:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def answer(self, call: Call) -> Body:
        """The honest answer to a call."""
        try:
            with self.evm.lock:
                return {"result": _encoded(self._result(call["method"], call.get("params") or []))}
        except RefusedError as error:
            data = {} if error.data is None else {"data": error.data}
            return {"error": {"code": error.code, "message": error.message, **data}}
        except (BlockNotFound, TransactionNotFound):
            return {"result": None}

    def _result(self, method: str, given: list[Any]) -> Any:
        asked = _METHODS.get(method)
        if asked is None:
            raise RefusedError(f"the method {method} does not exist/is not available", code=-32601)
        return asked(self.evm, *given)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, node: EvmNode, port: int):
        self.node = node
        self._connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def end_connections(self) -> None:
        for connection in list(self._connections):
            self.shutdown_request(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients of tests go away in the middle of an answer; anything else is shown."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        call = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if isinstance(call, list):
            self._send(json.dumps([self._with_id(one, self._honest(one)) for one in call]).encode())
            return
        node = self.server.node
        node.calls.append(call["method"])
        if node.interfere is None:
            said: Body | bytes | None = node.answer(call)
        else:
            said = node.interfere(call, lambda: node.answer(call))
        if said is None:
            self.close_connection = True
            return
        self._send(said if isinstance(said, bytes) else json.dumps(self._with_id(call, said)).encode())

    def _honest(self, call: Call) -> Body:
        self.server.node.calls.append(call["method"])
        return self.server.node.answer(call)

    def _with_id(self, call: Call, body: Body) -> Body:
        return {"jsonrpc": "2.0", "id": call.get("id"), **body}

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the terminal of the tests."""


def _encoded(value: Any) -> Any:
    """Python values in JSON-RPC's form: quantities and bytes as hexadecimal, names in camel case."""
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, int):
        return hex(value)
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, dict):
        return {_camel(name): _encoded(one) for name, one in value.items()}
    if isinstance(value, float):
        return value
    return [_encoded(one) for one in value]


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(other.capitalize() for other in others)


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def _block(named: Any) -> str | int:
    return named if named in _TAGS else int(named, 16)


def _request(evm: EvmChain, call: dict[str, Any]) -> dict[str, Any]:
    """A call's or an estimate's transaction in py-evm's form; a sender that is not named is a funded one."""
    found: dict[str, Any] = {
        "from": _bytes(call["from"]) if "from" in call else evm.backend.get_accounts()[0],
        "data": _bytes(call.get("data") or call.get("input") or "0x"),
    }
    if call.get("to"):
        found["to"] = _bytes(call["to"])
    if "gas" in call:
        found["gas"] = int(call["gas"], 16)
    if "value" in call:
        found["value"] = int(call["value"], 16)
    return found


def _found_block(found: dict[str, Any]) -> dict[str, Any]:
    bloom = found.pop("logs_bloom").to_bytes(_BLOOM_BYTES)
    return {**found, "logs_bloom": bloom, "miner": found.pop("coinbase")}


def _transaction(evm: EvmChain, hash_: str) -> dict[str, Any]:
    waiting = evm.waiting_transaction(_bytes(hash_))
    if waiting is None:
        found = evm.backend.get_transaction_by_hash(_bytes(hash_))
        return {**found, "to": found["to"] or None, "input": found.pop("data")}
    return {
        "hash": waiting.hash, "nonce": waiting.nonce, "block_hash": None, "block_number": None,
        "transaction_index": None, "from": waiting.sender, "to": waiting.to or None, "value": waiting.value,
        "gas": waiting.gas, "input": waiting.data, "type": getattr(waiting, "type_id", 0),
        "gas_price": waiting.max_fee_per_gas, "max_fee_per_gas": waiting.max_fee_per_gas,
        "max_priority_fee_per_gas": waiting.max_priority_fee_per_gas, "chain_id": waiting.chain_id,
        "v": getattr(waiting, "y_parity", 0), "r": waiting.r, "s": waiting.s,
    }  # fmt: skip


def _receipt(evm: EvmChain, hash_: str) -> dict[str, Any]:
    found = evm.backend.get_transaction_receipt(_bytes(hash_))
    logs = [{**log, "removed": False} for log in found["logs"]]
    kept = {name: value for name, value in found.items() if name != "state_root"}
    # the block's bloom is over all of its transactions; a test's block has one, or its clients do not look at it
    block = evm.backend.get_block_by_number(found["block_number"])
    bloom = block["logs_bloom"].to_bytes(_BLOOM_BYTES)
    return {**kept, "to": found["to"] or None, "logs": logs, "logs_bloom": bloom}


def _fee_history(evm: EvmChain, count: str, newest: str, percentiles: list[float] | None = None) -> dict[str, Any]:
    last = evm.backend.get_block_by_number(_block(newest))["number"]
    first = max(0, last + 1 - int(count, 16))
    blocks = [evm.backend.get_block_by_number(number) for number in range(first, last + 1)]
    return {
        "oldest_block": first,
        "base_fee_per_gas": [*(one["base_fee_per_gas"] for one in blocks), _base_fee(evm)],
        "gas_used_ratio": [one["gas_used"] / one["gas_limit"] for one in blocks],
        "reward": [[GWEI for _ in percentiles or []] for _ in blocks],
    }


def _base_fee(evm: EvmChain) -> int:
    """Of the next block, in wei per gas."""
    return int(evm.backend.chain.get_block().header.base_fee_per_gas)


def _nonce(evm: EvmChain, account: str, block: str = "latest") -> int:
    if block == "pending":
        return evm.pending_nonce(_bytes(account))
    return int(evm.backend.get_nonce(_bytes(account), _block(block)))


_METHODS: dict[str, Callable[..., Any]] = {
    "web3_clientVersion": lambda evm: "py-evm",
    "net_version": lambda evm: str(evm.chain_id),
    "eth_chainId": lambda evm: evm.chain_id,
    "eth_syncing": lambda evm: False,
    "eth_blockNumber": lambda evm: evm.height,
    "eth_gasPrice": lambda evm: _base_fee(evm) + GWEI,
    "eth_maxPriorityFeePerGas": lambda evm: GWEI,
    "eth_feeHistory": _fee_history,
    "eth_getBalance": lambda evm, account, block="latest": evm.backend.get_balance(_bytes(account), _block(block)),
    "eth_getCode": lambda evm, account, block="latest": evm.backend.get_code(_bytes(account), _block(block)),
    "eth_getTransactionCount": _nonce,
    "eth_call": lambda evm, call, block="latest": evm.call(_request(evm, call), _block(block)),
    "eth_estimateGas": lambda evm, call, block="latest": evm.estimate_gas(_request(evm, call)),
    "eth_sendRawTransaction": lambda evm, raw: evm.submit(_bytes(raw)),
    "eth_getTransactionByHash": _transaction,
    "eth_getTransactionReceipt": _receipt,
    "eth_getBlockByNumber": lambda evm, number, full=False: _found_block(
        evm.backend.get_block_by_number(_block(number), full)
    ),
    "eth_getBlockByHash": lambda evm, hash_, full=False: _found_block(
        evm.backend.get_block_by_hash(_bytes(hash_), full)
    ),
}
