"""Strangers' clients: wallets of viem and of Aptos' SDK sign in and register a peer; viem checks a share on a chain.

The scripts are in tests/clients and share no code with the coordinator. npm installs the versions of its
package-lock.json into a temporary folder.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
import pytest_asyncio

from cotrain.identity.account import Account
from cotrain.membership.document import MembershipDocument, Trust
from cotrain.membership.sealed import MembershipError
from cotrain.peer_key import peer_id_of
from cotrain.process import child_environment
from cotrain.status import now
from tests.e2e.page_fixtures import Api, coordinator_process, eventually
from tests.e2e.wallet_fixtures import KeyWallet, sign_in
from tests.evm import EvmNode
from tests.integration.recorded_session import ALICE, BOB, SHARES, Told, coordinator_double, record_session
from tests.integration.test_sessions_cli import Shell
from tests.registry_client import RegistryClient

CLIENTS = Path(__file__).resolve().parents[1] / "clients"
LIMIT_S = 120.0
CHAIN_IDS = {"ethereum": ("eip155:1", "1"), "aptos": ("aptos:1", "aptos:mainnet")}

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(
        shutil.which("npm") is None or shutil.which("node") is None,
        reason="needs node 18 or newer and npm: apt-get install nodejs npm",
    ),
]


@dataclass
class Venue:
    """A coordinator with a session that can be joined."""

    api: Api
    session: str


async def run(*command: str, folder: Path) -> str:
    """What a command prints; fails the test with what it says if it fails."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=child_environment(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        printed, said = await asyncio.wait_for(process.communicate(), LIMIT_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, f"{command}: {said.decode()}"
    return printed.decode()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the scripts beside the libraries that they use."""
    folder = tmp_path_factory.mktemp("clients")
    installed_by_hand = shutil.ignore_patterns("node_modules")
    await asyncio.to_thread(shutil.copytree, CLIENTS, folder, ignore=installed_by_hand, dirs_exist_ok=True)
    await run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", folder=folder)
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def venue(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Venue]:
    shared = tmp_path_factory.mktemp("coordinator") / "shared"
    async with coordinator_process(shared) as url, aiohttp.ClientSession() as http:
        api = Api(http, url, await sign_in(http, url, KeyWallet()))
        created = await api.post("/sessions", {"name": "For strangers", "training": {"maxSteps": 80}})
        path = f"/sessions/{created['id']}"
        await api.post(f"{path}/start")

        async def is_open() -> bool:
            return bool((await api.get(path))["status"] == "waiting")

        await eventually(is_open, "the session can be joined", limit_s=LIMIT_S)
        yield Venue(api, created["id"])


@pytest.mark.parametrize("kind", CHAIN_IDS)
async def test_a_client_of_other_libraries_signs_in_and_registers_a_peer(
    venue: Venue, clients: Path, kind: str
) -> None:
    started_at = now()
    found = json.loads(await run("node", "join.mjs", kind, venue.api.url, venue.session, folder=clients))

    chain, chain_id = CHAIN_IDS[kind]
    assert found["account"] == found["me"] == str(Account.of(chain, found["address"]))
    check_text(found, url=venue.api.url, chain_id=chain_id, started_at=started_at)
    assert found["secondLogin"] == {"status": 401, "code": "not-authorized"}
    assert found["secondRegistration"] == 401
    assert found["logout"] == 204
    assert found["afterLogout"] == 401

    people = (await venue.api.get(f"/sessions/{venue.session}/participants"))["items"]
    stored = next(person for person in people if person["id"] == found["participant"])
    assert stored["peerId"] == found["peerId"]
    assert stored["account"] == found["account"]
    assert stored["name"] == f"{kind} client"
    check_membership(found, session=venue.session)


def check_text(found: dict[str, Any], *, url: str, chain_id: str, started_at: float) -> None:
    """The library that the client used has read these fields in the text, and would have written the same text."""
    fields = found["fields"]
    assert fields["isStandard"]
    assert fields["domain"] == urlsplit(url).netloc
    assert fields["address"] == found["address"]
    assert fields["uri"] == url
    assert fields["version"] == "1"
    assert fields["chainId"] == chain_id
    assert fields["nonce"] == found["nonce"]
    assert len(bytes.fromhex(found["nonce"])) == 16
    issued, expires = (datetime.fromisoformat(fields[name]).timestamp() for name in ("issuedAt", "expirationTime"))
    assert started_at - 1 < issued <= now()
    assert expires - issued == pytest.approx(300.0)
    assert datetime.fromisoformat(found["challengeExpiresAt"]).timestamp() == expires


def check_membership(found: dict[str, Any], *, session: str) -> None:
    """The certificate that the client was given holds for its peer and its account, and for no other peer."""
    document = MembershipDocument.model_validate(found["membership"])
    check = partial(
        Trust(document.issuers).check, document.credential, session=session, now=now(), coordinator_seen_at=now()
    )
    certificate = check(peer_id=found["peerId"])
    assert certificate.account == found["account"]
    assert certificate.role == "reduce"
    with pytest.raises(MembershipError, match="certificate of another peer"):
        check(peer_id=peer_id_of(bytes(32)))


@pytest.mark.parametrize("wallet", [ALICE, BOB])
async def test_strangers_tools_prove_a_saved_share(clients: Path, tmp_path: Path, wallet: str) -> None:
    """OpenZeppelin's tree makes the same root and the same proof, and the registry says yes to viem."""
    shell = Shell(tmp_path / "home", "")
    with EvmNode() as node:
        registry, _ = RegistryClient.deploy(node)
        opener = node.accounts[0]
        with coordinator_double(Told(record_session(registry, opener, "tales"), SHARES)) as url:
            for command in (("share", f"{url}/s/tales", wallet), ("credit", f"{url}/s/tales")):
                file = str(tmp_path / f"{command[0]}.json")
                saved = await asyncio.to_thread(shell.execute, "chain", *command, "--out", file)
                assert saved.code == 0, saved.err
        files = [str(tmp_path / name) for name in ("share.json", "credit.json")]
        found = json.loads(await run("node", "share.mjs", *files, node.url, folder=clients))

    share = json.loads((tmp_path / "share.json").read_text())
    assert f"eip155:{found['chainId']}" == share["record"]["chain"]
    assert found["root"] == found["recordedRoot"] == share["record"]["contributionsRoot"]
    assert found["proof"] == share["proof"]
    assert found["recordedTotal"] == sum(one.samples for one in SHARES)
    assert (found["treeTakes"], found["chainTakes"], found["chainTakesOneMore"]) == (True, True, False)
    assert found["closedBy"] == opener.address.lower()
    assert found["closedFor"] == registry.address.lower()
