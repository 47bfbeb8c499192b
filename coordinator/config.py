"""The coordinator's own TOML file (`cotrain coordinator serve --config FILE`): who may sign in, limits, queue, the
proxy, what volunteers install."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, IPvAnyNetwork, ValidationError, model_validator

from coordinator.auth.addresses import LOOPBACK, Network
from coordinator.chain.config import ChainName, ChainSection
from cotrain.config import MAX_CONFIG_BYTES, explain_problem
from cotrain.errors import ConfigError, InvalidRequestError
from cotrain.identity.account import Account
from cotrain.request import DEFAULT_PRIORITY, Priority
from cotrain.sections import Section


def _normal_account(name: str) -> str:
    try:
        return str(Account.parse(name))
    except InvalidRequestError as error:
        raise ValueError(f"is no account such as eip155:1:0x…; {error}") from error


Chain = Annotated[str, Field(pattern=r"^(eip155|aptos):[1-9][0-9]{0,17}$")]
RpcUrl = Annotated[str, Field(pattern=r"^https?://[^\s/]+", max_length=2000)]
AccountName = Annotated[str, Field(max_length=128), AfterValidator(_normal_account)]
Count = Annotated[int, Field(ge=1, le=10_000)]
BytesPerSecond = Annotated[int, Field(ge=1024, le=2**40)]
Requirement = Annotated[str, Field(pattern=r"^[A-Za-z0-9./][^\x00-\x1f\x7f]{0,999}$")]
"""What pip installs; not an option of it."""


class SignInSection(Section):
    """Who may sign in, and for how long."""

    chains: Annotated[tuple[Chain, ...], Field(min_length=1)] = ("eip155:1", "aptos:1")
    """CAIP-2 chains whose wallets are let in."""
    operators: tuple[AccountName, ...] = ()
    """Accounts (CAIP-10) that may steer and delete every session."""
    rpc_urls: Annotated[dict[ChainName, RpcUrl], Field(repr=False)] = {}  # noqa: RUF012 - the model is frozen
    """JSON-RPC URL of a node, by chain: with one, contract wallets of the chain can sign in (EIP-1271)."""
    challenge_lifetime_s: Annotated[float, Field(ge=10, le=3600)] = 300.0
    """How long a text can be signed."""
    token_lifetime_s: Annotated[float, Field(ge=60, le=90 * 86400)] = 7 * 86400.0
    """How long a sign-in lasts."""


class LimitsSection(Section):
    """How often somebody may do something."""

    challenges_per_minute: Count = 10
    """For each client address: an IPv4 address, or the /64 of an IPv6 address."""
    previews_per_minute: Count = 60
    """For each client address, as above."""
    new_accounts_per_hour: Count = 30
    """For each address block: the /24 of an IPv4 address, the /48 of an IPv6 address."""
    logins_per_minute: Count = 30
    """Signatures to verify, for each client address."""
    links_per_minute: Count = 10
    """Nodes that ask for a wallet in a browser, for each client address."""
    link_codes_per_minute: Count = 30
    """Uses of such a code on the page, for each client address; signing takes three."""
    chats_per_minute: Count = 30
    """Of one account, and from each client address."""
    writes_per_minute: Count = 60
    """Changes by one account."""
    open_sessions_per_account: Count = 16
    """Sessions of one account that have not ended."""
    participants_per_account: Count = 32
    """Peers of one account in one session."""
    catalog_entries_per_account: Count = 64
    """Models and datasets, both together, that one account has added to the catalog."""
    asset_bytes_per_s: BytesPerSecond = 32 * 2**20
    """How fast each participant (of others: each account, or client address) is sent files, by all its downloads."""
    listeners_per_address: Count = 50
    """Event streams that a client address has open at the same time; many people may share one address."""
    on_loopback: bool = False
    """Whether the limits hold where only this machine can reach the coordinator, too."""


class QueueSection(Section):
    """How many sessions may be under way at a time; the others wait in the queue."""

    under_way: Count = 64
    """In all: the checkpointer keeps the outer state of each."""
    under_way_per_account: Count = 8
    """Of one account; `limits.on_loopback` says whether it holds where only this machine can reach the coordinator."""
    highest_priority: Priority = DEFAULT_PRIORITY
    """That an account may give a session, operators apart; it holds where `under_way_per_account` does."""


class ServerSection(Section):
    """What stands between the coordinator and those who call it."""

    behind_proxy: bool = False
    """Whether a reverse proxy on this machine stands in front: then `X-Forwarded-For` ends with who called it."""
    trusted_proxies: tuple[IPvAnyNetwork, ...] = ()
    """Addresses or networks of reverse proxies on other machines; what others say in `X-Forwarded-For` is ignored."""

    @property
    def proxies(self) -> tuple[Network, ...]:
        """All proxies that are believed."""
        return (*self.trusted_proxies, *LOOPBACK) if self.behind_proxy else self.trusted_proxies


class ModelsSection(Section):
    """What is kept of the models that sessions have made."""

    versions_kept: Count = 10
    """Versions of a model that keep their files at least; pinned ones stay besides, and those that a session started
    from."""
    evaluation_limit_s: Annotated[float, Field(ge=1, le=7 * 86400)] = 3600.0
    """How long an evaluation that somebody asks for may take."""


class ChatSection(Section):
    """Chats with the models that sessions have made."""

    enabled: bool = True
    """Whether there are any; they cost nothing before somebody begins one."""
    loaded: Annotated[int, Field(ge=1, le=64)] = 1
    """Versions of models in memory at a time; for a moment one more, while another takes over."""
    concurrent: Annotated[int, Field(ge=1, le=256)] = 8
    """Answers of one version under way at a time; they share its steps."""
    waiting: Annotated[int, Field(ge=0, le=4096)] = 32
    """Chats that may wait for one of those, or for their version to be loaded."""
    threads: Annotated[int, Field(ge=1, le=4096)] = 1
    """Processor threads of each version's process; the others are the participants'."""
    start_limit_s: Annotated[float, Field(ge=1, le=3600)] = 120.0
    """How long loading a version may take."""
    kept: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    """Chats in the log, of those whose people allow learning from them."""


class JoinSection(Section):
    """What `join.sh` does on volunteers' machines."""

    package: Requirement = "cotrain"
    """What it installs: a name and version on the package index, a URL, or a path on the volunteer's machine."""


class LearningSection(Section):
    """What is made of chats without anybody's hand: data, and from these the next version of a model."""

    model: Annotated[str, Field(max_length=120)] = ""
    """Id or name of the model that learns; its sessions are opened for its owner's account. Empty: none does."""
    automatic: bool = False
    """Whether the coordinator runs cycles by itself, one after another; else they are asked for."""
    interval_s: Annotated[float, Field(ge=1, le=366 * 86400)] = 3600.0
    """From the end of a cycle to the next one."""
    min_chats: Annotated[int, Field(ge=1, le=1000)] = 20
    """Chats that must have come since the last cycle."""
    max_size: Annotated[int, Field(ge=10, le=1_000_000)] = 5000
    """Samples in the data; beyond that the lowest scores leave."""
    threshold: Annotated[float, Field(ge=0, le=10)] = 5.0
    """Score, 0 to 10, that a chat must have to be taken."""
    perplexity: bool = False
    """Whether the version that is served judges, too: an answer that it finds absurd loses up to two points. Loads the
    model, which then computes for each answer."""
    variations_per_sample: Annotated[int, Field(ge=0, le=10)] = 2
    """That are made of a chat at most."""
    held_out_share: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    """Of the good chats, kept for evaluation alone."""
    significant_share: Annotated[float, Field(gt=0, le=1)] = 0.01
    """New samples since the last training, as a share of the data, with which a session is opened ..."""
    significant_samples: Annotated[int, Field(ge=1, le=1_000_000)] = 50
    """... or as a number, whichever is reached first."""
    session_limit_s: Annotated[float, Field(ge=10, le=366 * 86400)] = 7 * 86400.0
    """How long such a session may take; then it is stopped, and what it has learnt is evaluated."""
    url: Annotated[str, Field(max_length=2000, pattern=r"^(https?://[^\s/]+)?$")] = ""
    """Where the coordinator's own REST API is reached from its machine; empty: at its public URL."""
    request: dict[str, Any] = {}  # noqa: RUF012 - the model is frozen
    """Of the sessions that are opened: what a request may hold (training, distributed, diloco and so on), as JSON would
    have it; name, model and data are filled in."""

    @model_validator(mode="after")
    def _automatic_needs_a_model(self) -> LearningSection:
        if self.automatic and not self.model:
            raise ValueError("automatic cycles need a model: name one in learning.model")
        return self


class CoordinatorConfig(Section):
    """The whole file; every key has a default."""

    sign_in: SignInSection = SignInSection()
    limits: LimitsSection = LimitsSection()
    queue: QueueSection = QueueSection()
    server: ServerSection = ServerSection()
    models: ModelsSection = ModelsSection()
    chat: ChatSection = ChatSection()
    join: JoinSection = JoinSection()
    chain: ChainSection = ChainSection()
    learning: LearningSection = LearningSection()


def load_coordinator_config(path: Path) -> CoordinatorConfig:
    """Read and check a file. Raises ConfigError that names the file, the key and the way out."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", field=str(path)) from error
    if len(content) > MAX_CONFIG_BYTES:
        raise ConfigError(
            f"the file has more than {MAX_CONFIG_BYTES} bytes", field=str(path),
            hint="a config is small: is this the right file?",
        )  # fmt: skip
    try:
        return CoordinatorConfig.model_validate(tomllib.loads(content.decode()))
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8 text", field=str(path)) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"is not valid TOML: {error}", field=str(path)) from error
    except RecursionError:
        raise ConfigError("is nested too deeply", field=str(path), hint="it has tables of plain values") from None
    except ValidationError as error:
        raise _explain(error, path) from error


def _explain(error: ValidationError, path: Path) -> ConfigError:
    """The first problem as the error itself, all of them in its details; never the values, which may hold a key."""
    found = error.errors(include_url=False, include_input=False)
    problems = [explain_problem(dict(item), CoordinatorConfig) for item in found]
    first = problems[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return ConfigError(
        first["message"] + more, field=f"{path}: {first['field']}", hint=first["hint"], details={"problems": problems}
    )
