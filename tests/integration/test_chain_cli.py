"""`cotrain chain`: shares that are proved by a real registry on a chain of py-evm, and all that is not."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cotrain.chain.merkle import Share, contributions_root, session_key
from cotrain.chain.reader import LARGEST_ANSWER_BYTES, ChainReader
from cotrain.errors import UnreachableError
from tests.evm import Body, Call, EvmNode, Interfere
from tests.integration.recorded_session import (
    ALICE,
    BOB,
    SHARES,
    Told,
    coordinator_double,
    items_of,
    record_session,
    yes_sayer,
)
from tests.integration.test_sessions_cli import Ended, Shell
from tests.registry_client import RegistryClient

NOT_PROVED = 1
MORE = [Share(ALICE, 70_000), *SHARES[1:]]


@pytest.fixture(scope="module")
def registry() -> Iterator[RegistryClient]:
    with EvmNode() as node:
        yield RegistryClient.deploy(node)[0]


@pytest.fixture(scope="module")
def record(registry: RegistryClient) -> dict[str, Any]:
    return record_session(registry, registry.node.accounts[0], "tales")


@pytest.fixture
def told(record: dict[str, Any]) -> Told:
    return Told(dict(record), SHARES)


@pytest.fixture
def coordinator(told: Told) -> Iterator[str]:
    with coordinator_double(told) as url:
        yield url


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path / "home", "")


def saved_share(shell: Shell, coordinator: str, folder: Path, **changes: Any) -> Path:
    """Alice's share as `share` saves it, with fields that somebody has changed; `record` has those of the record."""
    path = folder / "share.json"
    ended = shell.execute("chain", "share", f"{coordinator}/s/tales", ALICE, "--out", str(path))
    assert ended.code == 0, ended.err
    document = json.loads(path.read_text())
    record = document["record"] | changes.pop("record", {})
    path.write_text(json.dumps(document | changes | {"record": record}))
    return path


def assert_not_proved(ended: Ended, reason: str) -> None:
    assert ended.code == NOT_PROVED, ended.err or ended.out
    assert reason in ended.err
    assert ended.out == ""


# ------------------------------------------------------------------------------------------------- proved
@pytest.mark.parametrize("wallet", [ALICE, ALICE.rpartition(":")[2], ALICE.rpartition(":")[2].lower(), BOB])
def test_the_chain_proves_a_share(shell: Shell, coordinator: str, registry: RegistryClient, wallet: str) -> None:
    ended = shell.execute("chain", "verify", f"{coordinator}/s/tales", wallet, "--rpc", registry.node.url)
    assert (ended.code, ended.err) == (0, "")
    samples = 299 if wallet == BOB else 700
    assert f"gave {samples} of 1000 samples to session tales" in ended.out
    assert registry.node.accounts[0].address in ended.out
    assert registry.address in ended.out
    assert "Proved by the chain." in ended.out


def test_without_a_chain_it_says_whose_word_was_checked(shell: Shell, coordinator: str) -> None:
    ended = shell.execute("chain", "verify", f"{coordinator}/s/tales", ALICE)
    assert (ended.code, ended.err) == (0, "")
    assert "Not proved, since the chain was not asked" in ended.out
    assert "Proved by the chain." not in ended.out


def test_a_saved_share_is_proved_when_the_coordinator_is_gone(
    shell: Shell, told: Told, registry: RegistryClient, tmp_path: Path
) -> None:
    with coordinator_double(told) as url:
        path = saved_share(shell, url, tmp_path)
    ended = shell.execute("chain", "verify", str(path), ALICE, "--rpc", registry.node.url, "--json")
    facts = ended.json()
    assert (facts["provedBy"], facts["samples"], facts["account"]) == ("chain", 700, ALICE)
    opener = registry.node.accounts[0]
    assert facts["closedAt"] == registry.session(opener, session_key("tales"))[5]
    assert facts["record"]["closeTx"] == told.record["closeTx"]


def test_all_shares_are_saved_and_each_is_proved_from_them(
    shell: Shell, told: Told, registry: RegistryClient, tmp_path: Path
) -> None:
    path = tmp_path / "credit.json"
    with coordinator_double(told) as url:
        ended = shell.execute("chain", "credit", f"{url}/s/tales", "--out", str(path))
    assert (ended.code, ended.out) == (0, f"3 accounts gave 1000 samples: {path}\n")
    for share in SHARES:
        proved = shell.execute("chain", "verify", str(path), share.account, "--rpc", registry.node.url, "--json")
        assert proved.json()["samples"] == share.samples


def test_proving_loads_neither_web3_nor_eth_account(
    shell: Shell, coordinator: str, registry: RegistryClient, tmp_path: Path
) -> None:
    """The latter would raise the recursion limit, and a node's deep nesting then end the process."""
    path = saved_share(shell, coordinator, tmp_path)
    script = (
        "import sys\n"
        "from cotrain.cli import execute\n"
        "code = execute(sys.argv[1:])\n"
        "heavy = {'web3', 'eth_account', 'torch', 'hivemind', 'coordinator'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    command = [sys.executable, "-c", script, "chain", "verify", str(path), ALICE, "--rpc", registry.node.url]
    ended = subprocess.run(command, env=shell.environment, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "[]\n")
    assert "Proved by the chain." in ended.stdout


def test_json_without_a_chain_says_that_nothing_is_proved(shell: Shell, coordinator: str) -> None:
    facts = shell.execute("chain", "verify", f"{coordinator}/s/tales", ALICE, "--json").json()
    assert (facts["provedBy"], facts["closedAt"]) == (None, None)


# ------------------------------------------------------------------------------------------------- not proved
def test_a_coordinator_that_credits_more_is_found_out_by_the_chain(
    shell: Shell, coordinator: str, told: Told, registry: RegistryClient
) -> None:
    told.items = items_of(MORE)
    assert_not_proved(shell.execute("chain", "verify", f"{coordinator}/s/tales", ALICE), "do not hash")

    told.record |= {"contributionsRoot": "0x" + contributions_root(MORE).hex(), "totalSamples": 70_300}
    believed = shell.execute("chain", "verify", f"{coordinator}/s/tales", ALICE)
    assert believed.code == 0
    assert "Not proved, since the chain was not asked" in believed.out
    asked = shell.execute("chain", "verify", f"{coordinator}/s/tales", ALICE, "--rpc", registry.node.url)
    assert_not_proved(asked, "the contributions' root is 0x")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"samples": 701}, "does not lead"),
        ({"proof": []}, "does not lead"),
        ({"record": {"totalSamples": 999}}, "has 1000 samples in all"),
        ({"record": {"configHash": "0x" + "9" * 64}}, "the config's hash is 0x0101"),
        ({"record": {"finalDigest": "0x" + "9" * 64}}, "the model's digest is 0x0202"),
        ({"record": {"session": "poems"}}, "has recorded no such session"),
        ({"record": {"opener": "0x" + "5" * 40}}, "has recorded no such session"),
        ({"record": {"chain": "eip155:1"}}, "is recorded on eip155:1, but the node answers for"),
        ({"record": {"contract": "0x" + "5" * 40}}, "there is no registry"),
    ],
)
def test_a_forged_document_is_not_proved(
    shell: Shell, coordinator: str, registry: RegistryClient, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    path = saved_share(shell, coordinator, tmp_path, **changes)
    assert_not_proved(shell.execute("chain", "verify", str(path), ALICE, "--rpc", registry.node.url), reason)


def test_a_contract_that_says_yes_to_everything_proves_nothing(
    shell: Shell, coordinator: str, registry: RegistryClient, tmp_path: Path
) -> None:
    path = saved_share(shell, coordinator, tmp_path, record={"contract": yes_sayer(registry.node)})
    ended = shell.execute("chain", "verify", str(path), ALICE, "--rpc", registry.node.url)
    assert_not_proved(ended, "there is no registry")


def test_anybody_can_record_anything_in_his_own_name_and_no_other(
    shell: Shell, registry: RegistryClient, tmp_path: Path
) -> None:
    forger, opener = registry.node.accounts[4], registry.node.accounts[0]
    with coordinator_double(Told(record_session(registry, forger, "tales", MORE), MORE)) as url:
        path = saved_share(shell, url, tmp_path)
    arguments = ("chain", "verify", str(path), ALICE, "--rpc", registry.node.url)
    by_anybody = shell.execute(*arguments)
    assert by_anybody.code == 0
    assert forger.address in by_anybody.out
    assert_not_proved(shell.execute(*arguments, "--opener", opener.address), f"was recorded by {forger.address}")
    assert shell.execute(*arguments, "--opener", forger.address.lower()).code == 0


def test_a_wallet_that_gave_nothing_has_no_share(shell: Shell, coordinator: str, tmp_path: Path) -> None:
    ended = shell.execute("chain", "verify", f"{coordinator}/s/tales", "0x" + "7" * 40)
    assert_not_proved(ended, "has no share in this session")
    ended = shell.execute("chain", "verify", str(saved_share(shell, coordinator, tmp_path)), BOB)
    assert_not_proved(ended, f"is the share of {ALICE}")


@pytest.mark.parametrize(
    ("status", "reason"),
    [("off", "is not recorded on a chain"), ("waiting", "is not closed on its chain: waiting"), ("opened", "opened"),
     ("failed", "no funds")],
)  # fmt: skip
def test_a_session_that_is_not_closed_proves_nothing(
    shell: Shell, coordinator: str, told: Told, status: str, reason: str
) -> None:
    message = "no funds\x1b[2J" if status == "failed" else ""
    told.record = {"sessionId": "tales", "status": status, "message": message}
    ended = shell.execute("chain", "verify", f"{coordinator}/s/tales", ALICE)
    assert_not_proved(ended, reason)
    assert "\x1b" not in ended.err


def test_nothing_is_saved_of_shares_that_are_not_the_recorded_ones(
    shell: Shell, coordinator: str, told: Told, tmp_path: Path
) -> None:
    told.items = items_of(MORE)
    for command in (("share", f"{coordinator}/s/tales", ALICE), ("credit", f"{coordinator}/s/tales")):
        ended = shell.execute("chain", *command, "--out", str(tmp_path / "out.json"))
        assert_not_proved(ended, "do not hash")
    assert not (tmp_path / "out.json").exists()


# ------------------------------------------------------------------------------------------------- bad answers
@pytest.mark.parametrize(
    "change",
    [{"contributionsRoot": "nonsense"}, {"chain": "aptos:1"}, {"totalSamples": -1}, {"opener": None},
     {"configHash": ["0x"]}],
)  # fmt: skip
def test_a_record_that_cannot_be_read_is_said_to_be_one(
    shell: Shell, coordinator: str, told: Told, change: dict[str, Any]
) -> None:
    told.record |= change
    ended = shell.execute("chain", "verify", f"{coordinator}/s/tales", ALICE)
    assert (ended.code, ended.out) == (76, "")
    assert "the coordinator's record cannot be read" in ended.err


@pytest.mark.parametrize("items", [None, {}, [1], [{"account": ALICE}], [{"account": ALICE.lower(), "samples": 1}]])
def test_shares_that_cannot_be_read_are_said_to_be_some(shell: Shell, coordinator: str, told: Told, items: Any) -> None:
    told.items = items
    ended = shell.execute("chain", "verify", f"{coordinator}/s/tales", ALICE)
    assert (ended.code, ended.out) == (76, "")
    assert "items" in ended.err


def _nonsense(call: Call, honest: Any) -> bytes:
    return b"<html>busy</html>"


def _huge(call: Call, honest: Any) -> bytes:
    return b'"' + b"0" * (LARGEST_ANSWER_BYTES + 1) + b'"'


def _deep(call: Call, honest: Any) -> bytes:
    return b"[" * 200_000


def _refusing(call: Call, honest: Any) -> Body:
    return {"error": {"code": -32000, "message": "pay first: https://node.example/secret-key"}}


def _no_hex(call: Call, honest: Any) -> Body:
    return {"result": "0xzz"}


def _short(call: Call, honest: Any) -> Body:
    return {"result": "0x01"} if call["method"] == "eth_call" else honest()


def _silent(call: Call, honest: Any) -> None:
    return None


@pytest.mark.parametrize(
    ("interfere", "code", "reason"),
    [
        (_nonsense, 76, "is not what a chain's node answers"),
        (_huge, 76, "more than"),
        (_deep, 76, "is not what a chain's node answers"),
        (_refusing, 76, "refuses eth_chainId"),
        (_no_hex, 76, "is not what a chain's node answers"),
        (_short, 76, "not what the registry answers"),
        (_silent, 69, "does not answer"),
    ],
)
def test_a_node_that_does_not_do_its_part_proves_nothing(
    shell: Shell, coordinator: str, registry: RegistryClient, interfere: Interfere, code: int, reason: str
) -> None:
    registry.node.interfere = interfere
    try:
        url = f"{registry.node.url}v3/secret-key"
        ended = shell.execute("chain", "verify", f"{coordinator}/s/tales", ALICE, "--rpc", url)
    finally:
        registry.node.interfere = None
    assert (ended.code, ended.out) == (code, "")
    assert reason in ended.err
    assert "secret-key" not in ended.err


@pytest.mark.parametrize("url", ["file:///etc/passwd", "localhost:8545", "http://", "http://host:99999/", "ws://host/"])
def test_what_is_no_nodes_address_is_refused(shell: Shell, coordinator: str, url: str) -> None:
    ended = shell.execute("chain", "verify", f"{coordinator}/s/tales", ALICE, "--rpc", url)
    assert (ended.code, ended.out) == (2, "")
    assert "is not the address of a chain's node" in ended.err


async def test_a_node_that_takes_for_ever_is_given_up() -> None:
    over = threading.Event()
    with EvmNode() as node:
        node.interfere = lambda call, honest: honest() if over.wait(20.0) else None
        try:
            async with ChainReader(node.url, limit_s=0.2) as reader:
                with pytest.raises(UnreachableError, match="TimeoutError"):
                    await reader.chain()
        finally:
            over.set()
        async with ChainReader(node.url) as reader:
            assert await reader.chain() == node.chain
