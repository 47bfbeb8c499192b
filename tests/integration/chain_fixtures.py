"""A registry on a chain of this process, and a coordinator's settings to record on it."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from coordinator.chain.config import ChainSection
from coordinator.chain.entries import entry_of
from coordinator.chain.notes import Notes
from coordinator.chain.recorder import Recorder
from coordinator.chain.rows import ChainEntryRow
from coordinator.models import SessionRow
from coordinator.store import Store
from cotrain.chain.merkle import session_key
from cotrain.chain.registry import Record
from cotrain.identity.keystore import write_keystore
from tests.evm import Body, Call, EvmNode, Interfere
from tests.registry_client import RegistryClient

if TYPE_CHECKING:  # loaded here, it would raise the recursion limit
    from eth_account.signers.local import LocalAccount

PASSWORD = "of-the-keystore"
CHEAP_SCRYPT_N = 2**12
CONFIRMATIONS = 3
STUCK_AFTER_S = 600.0
HANG_LIMIT_S = 30.0
DIGEST = "d1" * 32


@dataclass
class Stage:
    """A node, the registry on it, and the account that records there; it is the second of the node's accounts."""

    node: EvmNode
    registry: RegistryClient
    folder: Path

    @property
    def opener(self) -> LocalAccount:
        return self.node.accounts[1]

    def section(self, **changes: Any) -> ChainSection:
        """`[chain]` of a coordinator's file; the keystore is made when it is first asked for."""
        keystore, password = self.folder / "chain.json", self.folder / "chain.password"
        if not keystore.exists():
            write_keystore(keystore, bytes(self.opener.key), PASSWORD, scrypt_n=CHEAP_SCRYPT_N)
            password.touch(mode=0o600)
            password.write_text(PASSWORD)
        fields: dict[str, Any] = {
            "rpc_url": self.node.url, "chain": self.node.chain, "contract": self.registry.address,
            "key_file": str(keystore), "password_file": str(password), "confirmations": CONFIRMATIONS,
            "stuck_after_s": STUCK_AFTER_S, "poll_interval_s": 0.05,
        }  # fmt: skip
        return ChainSection(**{**fields, **changes})

    def recorded(self, session: str) -> Record:
        """What the contract holds of a session."""
        return Record(*self.registry.session(self.opener, session_key(session)))

    def transactions(self) -> int:
        """How many of the opener's are in the chain."""
        return int(self.registry.web3.eth.get_transaction_count(self.opener.address))


@contextmanager
def chain_stage(folder: Path) -> Iterator[Stage]:
    """A new chain with a registry, and some blocks on top of it, so that it has been there for long."""
    with EvmNode() as node:
        registry, _ = RegistryClient.deploy(node)
        node.evm.mine(2 * CONFIRMATIONS)
        node.evm.mines_at_once = False
        yield Stage(node, registry, folder)


@dataclass
class Clock:
    """Unix seconds that a test moves on."""

    at: float = 1_000_000.0

    def __call__(self) -> float:
        return self.at


@dataclass
class Desk:
    """A recorder whose rounds a test asks for, on a database of its own."""

    stage: Stage
    store: Store
    recorder: Recorder
    notes: Notes
    clock: Clock = field(default_factory=Clock)

    async def open(self, session: str) -> None:
        """A session is open for training."""
        async with self.store.write() as transaction:
            row = session_row(session)
            transaction.rows.add(row)
            await transaction.rows.flush()
            self.notes.note_opening(transaction, row)

    async def end(self, session: str) -> None:
        """It has ended."""
        async with self.store.write() as transaction:
            row = await transaction.rows.get_one(SessionRow, session)
            row.state, row.checkpointer_status = "completed", {"digest": DIGEST}
            await self.notes.note_end(transaction, row)

    async def entry(self, session: str, kind: str = "open") -> ChainEntryRow:
        """As it is stored."""
        async with self.store.read() as rows:
            row = await entry_of(rows, session, kind)
            assert row is not None
            return row

    async def state(self, session: str, kind: str = "open") -> str:
        return (await self.entry(session, kind)).state

    async def rounds(self, count: int = 1) -> None:
        """So many rounds, with a new block and the time of one before each but the first."""
        for number in range(count):
            if number:
                self.pass_block()
            await self.recorder.tick()

    def pass_block(self, blocks: int = 1) -> None:
        """Blocks come, and time passes."""
        self.stage.node.evm.mine(blocks)
        self.clock.at += 12.0 * blocks


@asynccontextmanager
async def desk_at(stage: Stage, database_url: str, clock: Clock | None = None, **changes: Any) -> AsyncIterator[Desk]:
    """A desk; another one at the same database is the coordinator after a restart."""
    clock = clock or Clock()
    store = Store(database_url, lambda _session, _events: None)
    await store.migrate()
    section = stage.section(**changes)
    recorder = Recorder(store, section, clock=clock)
    await recorder.start()
    try:
        yield Desk(stage, store, recorder, Notes(section, lambda: recorder.opener, clock=clock), clock)
    finally:
        await recorder.close()
        await store.close()


def session_row(session: str, **changes: Any) -> SessionRow:
    """A session that is open."""
    fields: dict[str, Any] = {
        "id": session, "name": session, "description": "", "state": "waiting", "config": f"# {session}\n",
        "error_msg": "", "model_path": "", "asset_folder": "", "assets": [], "owner": "", "visibility": "public",
        "created_at": 1.0, "updated_at": 1.0,
    }  # fmt: skip
    return SessionRow(**{**fields, **changes})


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with chain_stage(tmp_path) as stage:
        yield stage


@pytest.fixture
async def desk(stage: Stage, database_url: str) -> AsyncIterator[Desk]:
    async with desk_at(stage, database_url) as desk:
        yield desk


async def until_confirmed(desk: Desk, session: str, kind: str = "open", rounds: int = 8) -> None:
    """Rounds and blocks until an entry is there to stay; fails after so many."""
    for _ in range(rounds):
        await desk.recorder.tick()
        if await desk.state(session, kind) == "confirmed":
            return
        desk.pass_block()
    row = await desk.entry(session, kind)
    raise AssertionError(f"{kind} is {row.state}: {row.message}")


def lie(**answers: Any) -> Interfere:
    """Answers by method without `eth_`, or for `everything`: a body, bytes, None (hang up), or what makes one."""

    def answer(call: Call, honest: Callable[[], Body]) -> Body | bytes | None:
        name = call["method"].removeprefix("eth_")
        said = answers.get(name, answers.get("everything", honest))
        return said() if callable(said) else said

    return answer


def hang(until: threading.Event) -> Interfere:
    """Holds each call until then, or for HANG_LIMIT_S, and ends it without an answer."""

    def wait(_call: Call, _honest: Callable[[], Body]) -> None:
        until.wait(HANG_LIMIT_S)

    return wait
