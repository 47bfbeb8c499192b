"""A session that is recorded on a chain of this process, and a double of the coordinator that tells of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from json import dumps
from typing import TYPE_CHECKING, Any

from cotrain.chain.merkle import Share, contributions_root, session_key
from tests.evm import EvmNode
from tests.registry_client import RegistryClient

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

ALICE, BOB = "eip155:1:0x8ba1f109551bD432803012645Ac136ddd64DBA72", "aptos:1:0x" + "b" * 64
CAROL = "eip155:1:0x" + "3" * 40
SHARES = [Share(ALICE, 700), Share(BOB, 299), Share(CAROL, 1)]
CONFIG_HASH, DIGEST = b"\1" * 32, b"\2" * 32


def record_session(
    registry: RegistryClient, opener: LocalAccount, session: str, shares: list[Share] = SHARES
) -> dict[str, Any]:
    """Open and close a session on the chain; the view of it that a coordinator gives."""
    key, root, total = session_key(session), contributions_root(shares), sum(share.samples for share in shares)
    opened = registry.open(opener, key, CONFIG_HASH)
    closed = registry.close(opener, key, DIGEST, root, total)
    return {
        "sessionId": session, "status": "closed", "chain": registry.node.chain, "contract": registry.address,
        "opener": opener.address, "openTx": opened["transactionHash"].to_0x_hex(),
        "closeTx": closed["transactionHash"].to_0x_hex(), "configHash": "0x" + CONFIG_HASH.hex(),
        "finalDigest": "0x" + DIGEST.hex(), "contributionsRoot": "0x" + root.hex(), "totalSamples": total,
        "message": "",
    }  # fmt: skip


def items_of(shares: list[Share]) -> list[dict[str, Any]]:
    """Shares as a coordinator lists them."""
    return [{"account": share.account, "samples": share.samples} for share in shares]


def yes_sayer(node: EvmNode) -> str:
    """Address of a contract that answers every question with 1."""
    runtime = bytes.fromhex("600160005260206000f3")  # mstore(0, 1); return(0, 32)
    copy_and_return = bytes.fromhex("600a600c600039600a6000f3")
    deployer = node.accounts[9]
    nonce = int(node.answer({"method": "eth_getTransactionCount", "params": [deployer.address]})["result"], 16)
    signed = deployer.sign_transaction(
        {
            "nonce": nonce, "gas": 200_000, "maxFeePerGas": 10**10, "maxPriorityFeePerGas": 10**9, "value": 0,
            "chainId": node.evm.chain_id, "data": copy_and_return + runtime,
        }
    )  # fmt: skip
    receipt = node.answer({"method": "eth_getTransactionReceipt", "params": [_send(node, signed.raw_transaction)]})
    return str(receipt["result"]["contractAddress"])


def _send(node: EvmNode, raw: bytes) -> str:
    return str(node.answer({"method": "eth_sendRawTransaction", "params": ["0x" + raw.hex()]})["result"])


class Told:
    """What the double answers under /api/v1/sessions/<id>: a record and the shares; both may be changed."""

    def __init__(self, record: dict[str, Any], shares: list[Share]):
        self.record = record
        self.items = items_of(shares)


@contextmanager
def coordinator_double(told: Told) -> Iterator[str]:
    """The URL of a coordinator that knows one session."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            prefix = f"/api/v1/sessions/{told.record['sessionId']}/record"
            if self.path == prefix:
                self._answer(200, told.record)
            elif self.path == f"{prefix}/shares":
                self._answer(200, {"items": told.items})
            else:
                self._answer(404, {"code": "not-found", "detail": "no such session"})

        def _answer(self, status: int, body: dict[str, Any]) -> None:
            raw = dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing on the terminal of the tests."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
