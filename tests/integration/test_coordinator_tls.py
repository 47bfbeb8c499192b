"""A coordinator with a certificate, as a process."""

from __future__ import annotations

import signal
import ssl
from pathlib import Path

import aiohttp
import pytest

from cotrain.cli import execute
from tests.integration.coordinator_fixtures import (
    AUTH,
    LIMIT_S,
    WALLET,
    ask_challenge,
    bearer,
    signature_of,
    until,
)
from tests.integration.test_coordinator_restart import SESSIONS, serving
from tests.unit.test_coordinator_operations import make_certificate


def trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate))


async def test_it_serves_https_and_reads_a_new_certificate_on_sighup(tmp_path: Path) -> None:
    files = make_certificate(tmp_path / "tls")
    options = ("--tls-certificate", str(files.certificate), "--tls-key", str(files.key))
    with (tmp_path / "log").open("w") as log, serving(tmp_path, *options, log=log) as (process, url):
        assert url.startswith("https://127.0.0.1:")
        first = trusting(files.certificate)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=first)) as http:
            challenge = await ask_challenge(http, base=url)
            body = {"nonce": challenge["nonce"], "signature": signature_of(WALLET, challenge["message"])}
            async with http.post(f"{url}{AUTH}/login", json=body) as response:
                cookie = response.headers["Set-Cookie"]
                token = (await response.json())["token"]
            assert cookie.startswith("__Host-")
            assert "Secure" in cookie
            headers = {"Authorization": bearer(token)}
            async with http.post(f"{url}{SESSIONS}", json={"name": "x"}, headers=headers) as response:
                session = (await response.json())["id"]
            async with http.ws_connect(f"{url}{SESSIONS}/{session}/events") as listener:
                assert (await listener.receive_json(timeout=LIMIT_S))["type"] == "snapshot"
        make_certificate(tmp_path / "tls")
        second = trusting(files.certificate)
        assert not await is_served(url, second)
        process.send_signal(signal.SIGHUP)

        async def renewed() -> bool:
            return await is_served(url, second)

        await until(renewed)
        files.certificate.write_text("broken")
        process.send_signal(signal.SIGHUP)
        await until(lambda: "the certificate stays as it is" in (tmp_path / "log").read_text())
        assert await is_served(url, second)
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0


async def is_served(url: str, context: ssl.SSLContext) -> bool:
    """Whether a new connection shows a certificate that the context trusts."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as http:
        try:
            async with http.get(f"{url}/healthz") as response:
                return response.status == 200
        except aiohttp.ClientConnectorCertificateError:
            return False


def test_a_wrong_certificate_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COTRAIN_SHARED", str(tmp_path / "data"))
    files = make_certificate(tmp_path)
    serve = ["coordinator", "serve", "--port", "0", "--tls-certificate", str(files.certificate)]
    assert execute(serve) == 2
    assert "error: --tls-key: is missing" in capsys.readouterr().err
    assert execute([*serve, "--tls-key", str(tmp_path / "none")]) == 2
    assert f"error: {tmp_path / 'none'}: cannot be read: No such file" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
