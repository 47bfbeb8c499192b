"""`cotrain coordinator chain` on a real EVM: a registry is put up, and what waits is shown with its reason."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from coordinator.chain.errors import ChainNodeError
from coordinator.cli import app
from coordinator.database import URL_VARIABLE
from cotrain.chain.merkle import session_key
from cotrain.chain.registry import is_registry
from cotrain.errors import ConfigError
from tests.evm import Body, Call
from tests.integration.chain_fixtures import Stage, chain_stage, desk_at
from tests.integration.test_coordinator_chain_kills import config_file
from tests.registry_client import RegistryClient

NODE_FAILED = 69


@pytest.fixture
def stage(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setenv(URL_VARIABLE, database_url)
    monkeypatch.setenv("COTRAIN_SHARED", str(tmp_path / "shared"))
    with chain_stage(tmp_path) as stage:
        yield stage


def chain(command: str, config: Path, *options: str) -> Result:
    """`cotrain coordinator chain COMMAND --config FILE …`; what it raises is in the result."""
    return CliRunner().invoke(app, ["chain", command, "--config", str(config), *options])


def test_a_registry_is_put_up_by_the_key_and_takes_records(stage: Stage) -> None:
    stage.node.evm.mines_at_once = True
    done = chain("deploy", config_file(stage), "--json")
    assert done.exit_code == 0, done.exception
    address = json.loads(done.stdout)["contract"]
    assert done.stderr.startswith("sent as 0x")
    assert stage.opener.key.hex() not in done.output
    made = RegistryClient(stage.node, address)
    assert address == made.address != stage.registry.address
    assert is_registry(bytes(made.web3.eth.get_code(address)))
    assert stage.transactions() == 1
    made.open(stage.opener, session_key("tales"), b"\1" * 32)
    assert made.session(stage.opener, session_key("tales"))[0] == b"\1" * 32


def test_a_registry_that_is_not_mined_in_time_is_told_by_its_transaction(stage: Stage) -> None:
    done = chain("deploy", config_file(stage), "--wait", "1")
    assert isinstance(done.exception, ChainNodeError)
    assert "not mined within 1 s" in str(done.exception)
    (waiting,) = stage.node.evm.waiting()
    assert done.exception.field == "0x" + waiting.hash.hex()


@pytest.mark.parametrize(
    ("method", "result", "words"),
    [
        ("eth_getBalance", "0x1", "the account has 1 wei"), ("eth_chainId", "0x1", "another chain"),
        ("eth_maxPriorityFeePerGas", hex(10**15), "max_fee_gwei"),
    ],
)  # fmt: skip
def test_nothing_is_sent_where_it_cannot_be(stage: Stage, method: str, result: str, words: str) -> None:
    def lie(call: Call, honest: Callable[[], Body]) -> Body:
        return {"result": result} if call["method"] == method else honest()

    stage.node.interfere = lie
    done = chain("deploy", config_file(stage))
    assert isinstance(done.exception, ChainNodeError)
    assert words in str(done.exception)
    assert stage.node.evm.waiting() == []


def test_the_status_shows_what_waits_and_why(stage: Stage, database_url: str) -> None:
    async def queue() -> None:
        async with desk_at(stage, database_url, max_fee_gwei=0.5) as desk:
            await desk.open("tales")
            await desk.rounds()

    asyncio.run(queue())
    config = config_file(stage)
    told = json.loads(chain("status", config, "--json").stdout)
    assert (told["account"], told["nonce"], told["nodeError"]) == (stage.opener.address, 0, "")
    assert told["balanceWei"] == 10**24
    assert told["entries"] == {"waiting": 1}
    assert [(one["sessionId"], one["kind"], one["state"]) for one in told["pending"]] == [("tales", "open", "waiting")]
    assert "max_fee_gwei" in told["pending"][0]["message"]
    lines = chain("status", config).stdout.splitlines()
    assert "balance   1000000" in lines
    assert lines[-1].startswith("tales  open  waiting  -  the chain asks for")


def test_the_status_of_a_node_that_is_away_ends_with_69(stage: Stage) -> None:
    config = config_file(stage)
    stage.node.down()
    done = chain("status", config)
    assert done.exit_code == NODE_FAILED
    assert "node      the chain's node cannot be asked" in done.stdout
    assert stage.node.url not in done.stdout


def test_a_file_without_a_chain_says_what_is_missing(stage: Stage, tmp_path: Path) -> None:
    empty = tmp_path / "empty.toml"
    empty.touch()
    done = chain("deploy", empty)
    assert isinstance(done.exception, ConfigError)
    assert done.exception.field == "chain.rpc_url"
