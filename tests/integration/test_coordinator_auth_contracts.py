"""Contract wallets: EIP-1271 on a real EVM, and nodes that hang, lie or talk nonsense."""

from __future__ import annotations

import asyncio
import importlib
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from coordinator.auth.contract_wallets import ContractWalletError, ContractWallets
from coordinator.config import CoordinatorConfig, SignInSection
from cotrain.identity.account import Account
from cotrain.identity.ethereum import encode_defunct
from tests.evm import EvmNode
from tests.integration.coordinator_fixtures import (
    AUTH,
    STRANGER,
    WALLET,
    Client,
    anonymous,
    ask_challenge,
    coordinator_client,
    settings_for,
    signature_of,
    until,
)
from tests.integration.evm_fixtures import Answer, deploy_wallet, rpc_response, rpc_server

MAGIC = bytes.fromhex("1626ba7e")
YES = MAGIC.ljust(32, b"\0")
CONTRACT = "0x" + "42" * 20


@pytest.fixture(scope="module")
def honest() -> Iterator[EvmNode]:
    with EvmNode() as node:
        yield node


@asynccontextmanager
async def coordinator_on(root: Path, url: str, chain: str) -> AsyncIterator[Client]:
    """A coordinator that asks the node at this URL about contracts of this chain."""
    sign_in = SignInSection(chains=("eip155:1", chain), rpc_urls={chain: url})
    async with coordinator_client(settings_for(root, config=CoordinatorConfig(sign_in=sign_in))) as client:
        yield client


async def log_in(client: Client, address: str, chain: str, signature: str | None = None) -> tuple[int, dict[str, Any]]:
    """Status and body of a login with this address, by default signed with WALLET's key."""
    challenge = await ask_challenge(client, address, chain)
    body = {"nonce": challenge["nonce"], "signature": signature or signature_of(WALLET, challenge["message"])}
    with anonymous(client):
        async with client.post(f"{AUTH}/login", json=body) as response:
            answer = dict(await response.json(content_type=None))
    answer.pop("requestId", None)
    return response.status, answer


async def expect_refused(client: Client, address: str, chain: str, signature: str | None = None) -> None:
    status, answer = await log_in(client, address, chain, signature)
    assert status == 401
    with anonymous(client):
        async with client.post(f"{AUTH}/login", json={"nonce": "0" * 32, "signature": "0x"}) as response:
            unknown = dict(await response.json(content_type=None))
    unknown.pop("requestId")
    assert answer == unknown


# ------------------------------------------------------------------------------------------------- on the EVM
async def test_a_contract_wallet_signs_in_by_its_owners_key(honest: EvmNode, tmp_path: Path) -> None:
    address = deploy_wallet(honest, "OwnedWallet", WALLET.address)
    async with coordinator_on(tmp_path, honest.url, honest.chain) as client:
        status, answer = await log_in(client, address, honest.chain)
        assert (status, answer["account"]) == (200, f"{honest.chain}:{address}")
        challenge = await ask_challenge(client, address, honest.chain)
        await expect_refused(client, address, honest.chain, signature_of(STRANGER, challenge["message"]))
        await expect_refused(client, address, honest.chain, signature_of(WALLET, "another text"))
        await expect_refused(client, address, honest.chain, "0x")
        await expect_refused(client, address, honest.chain, "0xnonsense")


async def test_an_ordinary_wallet_needs_no_node(honest: EvmNode, tmp_path: Path) -> None:
    honest.calls.clear()
    async with coordinator_on(tmp_path, honest.url, honest.chain) as client:
        assert (await log_in(client, WALLET.address, honest.chain))[0] == 200
    assert honest.calls == []


async def test_an_address_without_code_is_no_contract_wallet(honest: EvmNode, tmp_path: Path) -> None:
    honest.calls.clear()
    async with coordinator_on(tmp_path, honest.url, honest.chain) as client:
        await expect_refused(client, STRANGER.address, honest.chain)
    assert honest.calls == ["eth_chainId", "eth_getCode"]


async def test_a_contract_that_reverts(honest: EvmNode, tmp_path: Path) -> None:
    address = deploy_wallet(honest, "RevertingWallet")
    honest.calls.clear()
    async with coordinator_on(tmp_path, honest.url, honest.chain) as client:
        await expect_refused(client, address, honest.chain)
    assert "eth_call" in honest.calls


@pytest.mark.parametrize(
    "said",
    [
        b"", MAGIC, YES[:31], YES + b"\0", YES * 2, MAGIC.ljust(31, b"\0") + b"\1", MAGIC.rjust(32, b"\0"),
        b"\xff" * 32, (1).to_bytes(32, "big"), bytes(32),
    ],
    ids=lambda said: said.hex()[:72] or "nothing",
)  # fmt: skip
async def test_a_contract_that_answers_anything_but_yes(honest: EvmNode, said: bytes) -> None:
    address = deploy_wallet(honest, "EchoingWallet", said)
    wallets = ContractWallets({honest.chain: honest.url})
    with pytest.raises(ContractWalletError, match="does not say"):
        await wallets.verify(Account.of(honest.chain, address), "text", "0x12")
    await wallets.close()


async def test_the_answer_yes_is_yes(honest: EvmNode) -> None:
    address = deploy_wallet(honest, "EchoingWallet", YES)
    wallets = ContractWallets({honest.chain: honest.url})
    honest.calls.clear()
    await wallets.verify(Account.of(honest.chain, address), "text", "0x")
    await wallets.close()
    assert "eth_call" in honest.calls


async def test_what_is_asked_is_the_personal_message_hash(honest: EvmNode) -> None:
    address = deploy_wallet(honest, "OwnedWallet", WALLET.address)
    account = Account.of(honest.chain, address)
    wallets = ContractWallets({honest.chain: honest.url})
    signature = WALLET.sign_message(encode_defunct(text="متن")).signature.to_0x_hex()
    await wallets.verify(account, "متن", signature)
    with pytest.raises(ContractWalletError):
        await wallets.verify(account, "text", signature)
    await wallets.close()


# ------------------------------------------------------------------------------------------------- nodes
def node(**results: Any) -> Answer:
    """A node for eip155:1 where every address is a contract that says yes, but for these answers."""
    usual = {"eth_chainId": "0x1", "eth_getCode": "0x60", "eth_call": "0x" + YES.hex()}

    async def answer(call: dict[str, Any]) -> web.Response:
        return rpc_response(call, {"result": {**usual, **results}[call["method"]]})

    return answer


async def test_this_node_would_let_anybody_in_were_it_believed(tmp_path: Path) -> None:
    async with rpc_server(node()) as url, coordinator_on(tmp_path, url, "eip155:1") as client:
        assert (await log_in(client, CONTRACT, "eip155:1"))[0] == 200


@pytest.mark.parametrize("chain_id", ["0x2", "0x0", "0x10000000001", "0x", "nonsense", None, 1.5, -1, {}, []])
async def test_rpc_that_lies_about_the_chain_id(tmp_path: Path, chain_id: Any) -> None:
    async with rpc_server(node(eth_chainId=chain_id)) as url, coordinator_on(tmp_path, url, "eip155:1") as client:
        await expect_refused(client, CONTRACT, "eip155:1")


NONSENSE = (None, "0x", "nonsense", {}, [])


@pytest.mark.parametrize(
    ("method", "result"),
    [
        *(("eth_getCode", result) for result in NONSENSE),
        *(("eth_call", result) for result in (*NONSENSE, 7, "0x1", True)),
    ],
)
async def test_rpc_that_answers_nonsense(method: str, result: Any) -> None:
    async with rpc_server(node(**{method: result})) as url:
        wallets = ContractWallets({"eip155:1": url})
        with pytest.raises(ContractWalletError):
            await wallets.verify(Account.of("eip155:1", CONTRACT), "text", "0x12")
        await wallets.close()


NO_JSON_RPC: dict[str, dict[str, Any]] = {
    "no JSON": {"text": "no JSON"}, "nothing": {"text": ""}, "no text": {"body": b"\xff\xfe"}, "a list": {"text": "[]"},
    "null": {"text": "null"}, "an empty object": {"text": "{}"}, "an error of a wrong form": {"text": '{"error":"no"}'},
    "500": {"status": 500, "text": "down"}, "429": {"status": 429}, "deep nesting": {"text": "[" * 100_000},
}  # fmt: skip


@pytest.mark.parametrize("given", NO_JSON_RPC.values(), ids=NO_JSON_RPC.keys())
async def test_rpc_that_answers_no_json_rpc(given: dict[str, Any]) -> None:
    async def answer(call: dict[str, Any]) -> web.Response:
        return web.Response(**given)

    async with rpc_server(answer) as url:
        wallets = ContractWallets({"eip155:1": url})
        with pytest.raises(ContractWalletError):
            await wallets.verify(Account.of("eip155:1", CONTRACT), "text", "0x12")
        await wallets.close()


async def test_rpc_that_is_not_there(unused_tcp_port: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    wallets = ContractWallets({"eip155:1": f"http://127.0.0.1:{unused_tcp_port}/key-of-the-operator"})
    with pytest.raises(ContractWalletError) as raised:
        await wallets.verify(Account.of("eip155:1", CONTRACT), "text", "0x12")
    await wallets.close()
    assert "key-of-the-operator" not in str(raised.value) + caplog.text


@pytest.mark.parametrize("method", ["eth_chainId", "eth_getCode", "eth_call"])
async def test_rpc_that_hangs(tmp_path: Path, method: str) -> None:
    usual, release = node(), asyncio.Event()
    importlib.import_module("web3")  # takes a second or more, which is no waiting for the node

    async def answer(call: dict[str, Any]) -> web.StreamResponse:
        if call["method"] == method:
            await release.wait()
        return await usual(call)

    async with rpc_server(answer) as url, coordinator_on(tmp_path, url, "eip155:1") as client:
        started = time.monotonic()
        await expect_refused(client, CONTRACT, "eip155:1")
        took_s = time.monotonic() - started
        # meanwhile others come in
        assert (await log_in(client, WALLET.address, "eip155:1"))[0] == 200
        release.set()
    assert 1.9 < took_s < 8.0  # two seconds for the call


async def test_at_most_four_calls_are_in_flight_and_who_waits_too_long_is_refused() -> None:
    in_flight, most, release = 0, 0, asyncio.Event()

    async def answer(call: dict[str, Any]) -> web.StreamResponse:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        await release.wait()
        in_flight -= 1
        return await node()(call)

    async with rpc_server(answer) as url:
        wallets = ContractWallets({"eip155:1": url}, timeout_s=5.0)
        account = Account.of("eip155:1", CONTRACT)
        checks = [asyncio.create_task(wallets.verify(account, "text", "0x12")) for _ in range(6)]
        await until(lambda: in_flight == 4)
        hurried = ContractWallets({"eip155:1": url}, timeout_s=0.1)
        hurried._turns = wallets._turns
        with pytest.raises(ContractWalletError, match="too many"):
            await hurried.verify(account, "text", "0x12")
        release.set()
        await asyncio.gather(*checks)
        await wallets.close()
    assert most == 4


def test_only_ethereum_chains_with_a_node_are_asked() -> None:
    wallets = ContractWallets({"eip155:1": "http://127.0.0.1:1"})
    assert wallets.can_ask(Account.of("eip155:1", CONTRACT))
    assert not wallets.can_ask(Account.of("eip155:10", CONTRACT))
    assert not wallets.can_ask(Account.of("aptos:1", "0x" + "1" * 64))
