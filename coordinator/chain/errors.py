"""What can go wrong with a chain. None of it reaches whoever trains: records wait."""

from __future__ import annotations

from cotrain.errors import CotrainError


class ChainNodeError(CotrainError):
    """The node does not do its part: it is not there, answers too late, too much, or what cannot be."""

    code = "chain-node"
    http_status = 503
    exit_code = 69


class RefusedTransactionError(ChainNodeError):
    """The node did not take a transaction. The message is the reason as far as it is a known one."""

    code = "chain-refused"
