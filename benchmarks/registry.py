"""What the registry costs: gas on a chain of py-evm, and the time that a session's root takes.

python -m benchmarks.registry
"""

from __future__ import annotations

import time

from cotrain.chain.merkle import Share, ShareTree, account_key, session_key
from cotrain.chain.registry import verify_call
from tests.evm import EvmNode
from tests.registry_client import RegistryClient

WALLETS = (1, 10, 100, 1000, 10_000)
CONFIG_HASH, DIGEST = b"\1" * 32, b"\2" * 32


def shares(count: int) -> list[Share]:
    """So many wallets with different samples."""
    return [Share(f"aptos:1:0x{number:064x}", 1000 + number) for number in range(count)]


def main() -> None:
    """Print the gas of each call, by how many wallets gave something."""
    with EvmNode() as node:
        registry, deployed = RegistryClient.deploy(node)
        opener = node.accounts[1]
        print(f"deploy {deployed:,} gas")
        print("wallets      open     close   verify (as a call: free)   proof   root")
        for count in WALLETS:
            session, given = session_key(f"of-{count}"), shares(count)
            started = time.perf_counter()
            tree = ShareTree(given)
            took_s = time.perf_counter() - started
            opened = registry.open(opener, session, CONFIG_HASH)["gasUsed"]
            total = sum(share.samples for share in given)
            closed = registry.close(opener, session, DIGEST, tree.root, total)["gasUsed"]
            proof = tree.proof(given[0].account)
            assert registry.verify(opener, session, account_key(given[0].account), given[0].samples, proof)
            data = verify_call(opener.address, session, given[0], proof)
            asked = {"to": registry.address, "data": "0x" + data.hex()}
            verified = int(node.answer({"method": "eth_estimateGas", "params": [asked]})["result"], 16)
            print(f"{count:>7,} {opened:>9,} {closed:>9,} {verified:>27,} {len(proof):>7} {took_s:>6.2f} s")


if __name__ == "__main__":
    main()
