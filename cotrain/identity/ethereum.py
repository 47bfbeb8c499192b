"""The only place that loads eth-account: whoever needs it takes it from here.

py_ecc, which it loads, sets the interpreter's recursion limit to 100,000. Deeply nested JSON from a stranger would then
overflow the stack and kill the process where it should raise RecursionError. So the limit is put back.
"""

from __future__ import annotations

import sys

_LIMIT = sys.getrecursionlimit()

from eth_account import Account as EthereumSigner  # noqa: E402 - the limit must be read before
from eth_account.messages import defunct_hash_message, encode_defunct  # noqa: E402

sys.setrecursionlimit(_LIMIT)

__all__ = ["EthereumSigner", "defunct_hash_message", "encode_defunct"]
