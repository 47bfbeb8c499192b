"""Who gave how many samples, as one hash, and proofs that a share is under it. Pure.

The tree is the one that OpenZeppelin's StandardMerkleTree makes over ("bytes32", "uint256"), so that others' tools make
the same root and the same proofs. A leaf is the account's key and its samples, each 32 bytes, hashed twice: 64 bytes
hashed once are an inner node, so nothing inner can be passed off as a leaf. An inner node hashes its two children, the
smaller first. The leaves, sorted by their hashes, are the end of an array in which the children of node i are the
nodes 2i + 1 and 2i + 2; node 0 is the root. All hashes are keccak256.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cotrain.errors import CotrainError, InvalidRequestError, NotFoundError
from cotrain.identity.account import Account
from cotrain.sections import LARGEST_INTEGER

HASH_BYTES = 32
EMPTY_ROOT = bytes(HASH_BYTES)
"""The root over no shares at all. Nothing hashes to it, so nothing is proved by it."""
LONGEST_PROOF = 64
MAX_ACCOUNT_CHARS = 128
"""What CAIP-10 allows, rounded up."""


class ShareError(CotrainError):
    """A share, or a list of them, that says two things or was not recorded as it says."""

    code = "share"
    http_status = 422
    exit_code = 1


@dataclass(frozen=True)
class Share:
    """How many samples an account gave to a session. Raises InvalidRequestError for what is no account or number.

    Attributes:
        account: CAIP-10, in the one spelling that an account has here (`cotrain/identity/account.py`).
        samples: 0 to LARGEST_INTEGER.
    """

    account: str
    samples: int

    def __post_init__(self) -> None:
        if len(self.account) > MAX_ACCOUNT_CHARS or (known := str(Account.parse(self.account))) != self.account:
            hint = "" if len(self.account) > MAX_ACCOUNT_CHARS else f"it is {known}"
            raise InvalidRequestError("is not spelt as accounts are", field="account", hint=hint)
        if isinstance(self.samples, bool) or not 0 <= self.samples <= LARGEST_INTEGER:
            raise InvalidRequestError(f"is not between 0 and {LARGEST_INTEGER}", field="samples")


class ShareTree:
    """The tree over a session's shares, in whichever order they come. Raises ShareError if an account is there twice.

    Attributes:
        root: 32 bytes.
    """

    def __init__(self, shares: Iterable[Share]):
        leaves: dict[str, bytes] = {}
        for share in shares:
            if share.account in leaves:
                raise ShareError("has two shares in one session", field=share.account, hint="add them up")
            leaves[share.account] = leaf(share)
        ordered = sorted(leaves.values())
        self._nodes = [EMPTY_ROOT] * (len(ordered) - 1) + ordered[::-1]
        for node in range(len(ordered) - 2, -1, -1):
            self._nodes[node] = _parent(self._nodes[2 * node + 1], self._nodes[2 * node + 2])
        # two accounts cannot have one leaf: the account is in what is hashed
        places = {hash_: len(self._nodes) - 1 - place for place, hash_ in enumerate(ordered)}
        self._places = {account: places[hash_] for account, hash_ in leaves.items()}
        self.root = self._nodes[0] if self._nodes else EMPTY_ROOT

    def proof(self, account: str) -> list[bytes]:
        """From the sibling of an account's leaf to the child of the root. Raises NotFoundError."""
        node = self._places.get(account)
        if node is None:
            raise NotFoundError("has no share in this session", field=account)
        siblings = []
        while node > 0:
            siblings.append(self._nodes[node + 1 if node % 2 else node - 1])
            node = (node - 1) // 2
        return siblings


def contributions_root(shares: Iterable[Share]) -> bytes:
    """The root over a session's shares (32 bytes), EMPTY_ROOT for none. Raises ShareError."""
    return ShareTree(shares).root


def prove(shares: Iterable[Share], account: str) -> list[bytes]:
    """The proof for one account's share among a session's. Raises NotFoundError, ShareError."""
    return ShareTree(shares).proof(account)


def verify(root: bytes, share: Share, proof: Sequence[bytes]) -> bool:
    """Whether the proof leads from this share to the root, as the contract computes it."""
    if len(proof) > LONGEST_PROOF or any(len(sibling) != HASH_BYTES for sibling in proof):
        return False
    node = leaf(share)
    for sibling in proof:
        node = _parent(node, sibling)
    return node == root


def leaf(share: Share) -> bytes:
    """What stands for a share in the tree (32 bytes)."""
    return keccak(keccak(account_key(share.account) + share.samples.to_bytes(HASH_BYTES)))


def account_key(account: str) -> bytes:
    """An account of whichever chain, as the contract knows it: keccak256 of its CAIP-10 name (32 bytes)."""
    return keccak(account.encode())


def session_key(session: str) -> bytes:
    """A session, as the contract knows it: keccak256 of its id (32 bytes)."""
    return keccak(session.encode())


def keccak(data: bytes) -> bytes:
    """keccak256, as Ethereum uses it (before NIST's padding)."""
    # a coordinator without a chain does without what this loads
    from eth_utils.crypto import keccak as hash_

    return bytes(hash_(data))


def _parent(one: bytes, other: bytes) -> bytes:
    return keccak(min(one, other) + max(one, other))
