"""Files from which a stranger checks, years later, who gave how much: one account's share, or all of a session's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from cotrain.chain.merkle import LONGEST_PROOF, MAX_ACCOUNT_CHARS, Share, ShareError, ShareTree
from cotrain.errors import InvalidRequestError
from cotrain.request import CamelModel
from cotrain.sections import Count
from cotrain.status import read_json_object, replace_file

MOST_SHARES = 100_000
LARGEST_FILE_BYTES = 32 * 1024 * 1024
FORMAT_VERSION: Literal[1] = 1

Chain = Annotated[str, Field(pattern=r"^eip155:[1-9][0-9]{0,17}$")]
"""CAIP-2 of the chain that the registry is on."""
Address = Annotated[str, Field(pattern=r"^0x[0-9a-fA-F]{40}$")]
Hash = Annotated[str, Field(pattern=r"^0x[0-9a-f]{64}$")]
AccountName = Annotated[str, Field(max_length=MAX_ACCOUNT_CHARS)]
SessionId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]


class ShareItem(CamelModel):
    """An account's samples in a session."""

    account: AccountName
    """CAIP-10."""
    samples: Count

    @model_validator(mode="after")
    def _is_a_share(self) -> Self:
        try:
            self.share()
        except InvalidRequestError as error:
            raise ValueError(str(error)) from error
        return self

    def share(self) -> Share:
        """The same, for the tree."""
        return Share(self.account, self.samples)


class Recorded(CamelModel):
    """Where a session is recorded, and what its record says."""

    chain: Chain
    contract: Address
    """Of the registry."""
    opener: Address
    """Who has recorded the session, and alone can have."""
    session: SessionId
    config_hash: Hash
    final_digest: Hash
    contributions_root: Hash
    total_samples: Count
    open_tx: Hash | None = None
    close_tx: Hash | None = None

    def root(self) -> bytes:
        """The contributions' root (32 bytes)."""
        return _bytes(self.contributions_root)


class ShareDocument(ShareItem):
    """One account's share, with the proof that it is under the recorded root."""

    kind: Literal["cotrain-share"]
    version: Literal[1]
    record: Recorded
    proof: list[Hash] = Field(max_length=LONGEST_PROOF)

    def siblings(self) -> list[bytes]:
        """The proof, 32 bytes each."""
        return [_bytes(one) for one in self.proof]


class CreditDocument(CamelModel):
    """All shares of a session: anybody rebuilds the root from them, and makes each share's proof."""

    kind: Literal["cotrain-credit"]
    version: Literal[1]
    record: Recorded
    items: list[ShareItem] = Field(max_length=MOST_SHARES)

    @field_validator("items")
    @classmethod
    def _in_order(cls, items: list[ShareItem]) -> list[ShareItem]:
        return sorted(items, key=lambda item: item.account)

    def tree(self) -> ShareTree:
        """The tree over the shares.

        Raises:
            ShareError: its root, or the sum of the samples, is not what the record says.
        """
        tree = ShareTree(item.share() for item in self.items)
        if tree.root != self.record.root():
            raise ShareError("the shares do not hash to the recorded root", field=self.record.session)
        if sum(item.samples for item in self.items) != self.record.total_samples:
            raise ShareError("the shares do not add up to the recorded total", field=self.record.session)
        return tree

    def document_of(self, wallet: str) -> ShareDocument:
        """One account's share with its proof. Args: `wallet`, see `find_share`. Raises ShareError."""
        share = find_share([item.share() for item in self.items], wallet)
        return ShareDocument(
            kind="cotrain-share", version=FORMAT_VERSION, record=self.record, account=share.account,
            samples=share.samples, proof=[_hex(one) for one in self.tree().proof(share.account)],
        )  # fmt: skip


def find_share(shares: list[Share], wallet: str) -> Share:
    """The share of a wallet: its CAIP-10 name, or its address if no other chain's account has the same.

    Raises ShareError if it has none.
    """
    named = wallet.lower()
    found = [share for share in shares if named in (share.account.lower(), share.account.lower().rpartition(":")[2])]
    if not found:
        raise ShareError("has no share in this session", field=wallet, hint="see: cotrain sessions credit SESSION")
    if len(found) > 1:
        names = ", ".join(share.account for share in found)
        raise ShareError("is the address of several accounts", field=wallet, hint=f"give one of {names}")
    return found[0]


def read_document(path: Path) -> ShareDocument | CreditDocument:
    """What `write_document` wrote, from anywhere. Raises InvalidRequestError with the field, or OSError."""
    try:
        found = read_json_object(path, limit_bytes=LARGEST_FILE_BYTES)
        if found.get("kind") == "cotrain-credit":
            return CreditDocument.model_validate(found)
        return ShareDocument.model_validate(found)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        # a field that is not known is called what the file's author likes
        where = ascii(".".join(str(part) for part in problem["loc"]))[1:-1]
        raise InvalidRequestError(problem["msg"], field=f"{path}: {where}" if where else str(path)) from error
    except ValueError as error:
        raise InvalidRequestError(f"is no share document: {error}", field=str(path)) from error


def write_document(path: Path, document: ShareDocument | CreditDocument) -> None:
    """Put a document at `path`, in place of what stands there. Raises OSError."""
    replace_file(path, (document.model_dump_json(by_alias=True, indent=2) + "\n").encode())


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def _hex(raw: bytes) -> str:
    return "0x" + raw.hex()
