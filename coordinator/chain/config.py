"""The section `[chain]` of the coordinator's file."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from cotrain.sections import Section

ChainName = Annotated[str, Field(pattern=r"^eip155:[1-9][0-9]{0,17}$")]
_Url = Annotated[str, Field(pattern=r"^(https?://[^\s/]+.*)?$", max_length=2000, repr=False)]
_Address = Annotated[str, Field(pattern=r"^(0x[0-9a-fA-F]{40})?$")]
_Path = Annotated[str, Field(pattern=r"^[^\x00]*$", max_length=4096)]
_GWEI = 10**9


class ChainSection(Section):
    """Where sessions are recorded; without `contract` nothing is, and nothing of a chain is loaded."""

    rpc_url: _Url = ""
    """JSON-RPC URL of a node."""
    chain: ChainName = "eip155:1"
    """CAIP-2: what the node must say it is."""
    contract: _Address = ""
    """Of the registry; `cotrain coordinator chain deploy` makes one."""
    key_file: _Path = ""
    """Keystore (version 3) of the account that signs and pays. The account is the coordinator's alone."""
    password_file: _Path = ""
    """Its password, on the first line."""
    confirmations: Annotated[int, Field(ge=1, le=100)] = 12
    """Blocks, its own among them, after which a transaction counts as there to stay."""
    max_fee_gwei: Annotated[float, Field(gt=0, le=1e6)] = 100.0
    """For a unit of gas, tip included; while the chain asks for more, records wait."""
    gas_limit: Annotated[int, Field(ge=50_000, le=10_000_000)] = 500_000
    """That a transaction may need at most."""
    poll_interval_s: Annotated[float, Field(ge=0.05, le=3600)] = 12.0
    """How often the node is asked while something is on its way."""
    stuck_after_s: Annotated[float, Field(ge=0.1, le=7 * 86400)] = 600.0
    """After this long without being mined a transaction is replaced by one with a higher fee."""
    transactions_kept_days: Annotated[float, Field(ge=0, le=36500)] = 30.0
    """How long signed transactions stay in the database once their record is confirmed; the record stays for good."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needed = {"rpc_url": self.rpc_url, "key_file": self.key_file, "password_file": self.password_file}
        missing = [name for name, value in needed.items() if not value]
        if self.contract and missing:
            raise ValueError(f"contract needs {' and '.join(missing)}, too")
        return self

    @property
    def enabled(self) -> bool:
        """Whether sessions are recorded."""
        return self.contract != ""

    @property
    def chain_id(self) -> int:
        """The chain's number."""
        return int(self.chain.partition(":")[2])

    @property
    def most_fee_wei(self) -> int:
        """For a unit of gas."""
        return round(self.max_fee_gwei * _GWEI)
