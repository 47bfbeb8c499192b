"""The uplink: in order, once, whatever the coordinator does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from cotrain.backoff import Backoff
from cotrain.identity.wallet import EthereumWallet
from cotrain.protocol import StatusMessage
from cotrain.status import WishName
from node.client import CoordinatorClient
from node.spool_file import SpoolFile
from node.uplink import Uplink
from tests.integration.node_fixtures import (
    SESSION,
    SmallCoordinator,
    make_peer,
    make_status,
    registration,
    running_coordinator,
    until,
)

WALLET = EthereumWallet(b"\x11" * 32)
QUICK = Backoff(first_s=0.02, most_s=0.05)


@asynccontextmanager
async def running_uplink(
    coordinator: SmallCoordinator, spool: SpoolFile, wishes: list[WishName] | None = None
) -> AsyncIterator[Uplink]:
    """An uplink that has registered; ended on leaving."""
    taken: list[WishName] = [] if wishes is None else wishes
    peer = make_peer(Path(coordinator.folder))
    async with CoordinatorClient(coordinator.url) as client:

        async def register() -> tuple[str, str]:
            request = registration(coordinator.url, peer, WALLET)
            answer = await client.register(SESSION, request, await client.sign_in(WALLET))
            return answer.participant, answer.token

        uplink = Uplink(
            client, SESSION, await register(), spool, on_wish=lambda wish, reason: taken.append(wish),
            reauthorize=register, backoff=QUICK,
        )  # fmt: skip
        task = asyncio.create_task(uplink.run())
        try:
            yield uplink
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            spool.close()


def stored_numbers(coordinator: SmallCoordinator) -> list[int]:
    return [message.seq for message in coordinator.stored]


async def test_what_happened_while_the_coordinator_was_away_arrives_in_order_once(tmp_path: Path) -> None:
    spool = SpoolFile(tmp_path / "spool.jsonl")
    async with running_coordinator() as coordinator, running_uplink(coordinator, spool):
        spool.add_status(make_status(0, records=[1]))
        await until(lambda: spool.is_empty, what="the first acknowledgement")
        await coordinator.stop()
        for number in range(1, 20):
            spool.add_status(make_status(number, records=[number + 1]))
        assert len(spool) == 19
        await coordinator.start()
        await until(lambda: spool.is_empty, what="the delivery")
        assert stored_numbers(coordinator) == list(range(1, 21))
        assert coordinator.record_numbers() == set(range(1, 21))


async def test_lost_acknowledgements_do_not_double_events(tmp_path: Path) -> None:
    spool = SpoolFile(tmp_path / "spool.jsonl")
    async with running_coordinator() as coordinator:
        coordinator.lose_acks = 3
        async with running_uplink(coordinator, spool):
            for number in range(6):
                spool.add_status(make_status(number))
            await until(lambda: spool.is_empty, what="the delivery")
        assert stored_numbers(coordinator) == [1, 2, 3, 4, 5, 6]


async def test_refused_token_is_renewed(tmp_path: Path) -> None:
    spool = SpoolFile(tmp_path / "spool.jsonl")
    async with running_coordinator() as coordinator, running_uplink(coordinator, spool) as uplink:
        await until(lambda: coordinator.is_connected, what="the connection")
        await coordinator.stop()
        coordinator.tokens.append("another one")
        spool.add_status(make_status(0))
        await coordinator.start()
        await until(lambda: spool.is_empty, what="the delivery")
        assert uplink.credentials == ("p1", "token-2")


async def test_wishes_come_down(tmp_path: Path) -> None:
    wishes: list[WishName] = []
    spool = SpoolFile(tmp_path / "spool.jsonl")
    async with running_coordinator() as coordinator, running_uplink(coordinator, spool, wishes):
        await until(lambda: wishes == ["run"], what="the welcome's wish")
        await coordinator.send_wish("pause")
        await until(lambda: wishes == ["run", "pause"], what="the wish")
        await coordinator.stop()
        await coordinator.start()
        await until(lambda: len(wishes) == 3, what="the wish after the reconnection")
    assert wishes == ["run", "pause", "pause"]


async def test_spool_of_a_dead_agent_is_sent_by_the_next_one(tmp_path: Path) -> None:
    first = SpoolFile(tmp_path / "spool.jsonl")
    for number in range(3):
        first.add_status(make_status(number))
    second = SpoolFile(tmp_path / "spool.jsonl")
    async with running_coordinator() as coordinator, running_uplink(coordinator, second):
        second.add_status(make_status(3))
        await until(lambda: second.is_empty, what="the delivery")
        messages = [m for m in coordinator.stored if isinstance(m, StatusMessage)]
        assert [(m.seq, m.status.sequence) for m in messages] == [(1, 0), (2, 1), (3, 2), (4, 3)]
    first.close()
