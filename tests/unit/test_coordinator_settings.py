"""What an operator may set, and how what is wrong in it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.config import CoordinatorConfig, SignInSection, load_coordinator_config
from coordinator.serve import warnings_at_start
from coordinator.settings import Settings, check_public_url
from cotrain.errors import ConfigError
from cotrain.paths import SharedPaths


def test_a_config_file(tmp_path: Path) -> None:
    path = tmp_path / "coordinator.toml"
    path.write_text(
        "[sign_in]\n"
        'chains = ["eip155:10"]\n'
        'operators = ["eip155:1:0x8ba1f109551bd432803012645ac136ddd64dba72"]\n'
        'rpc_urls = { "eip155:10" = "https://rpc.example/secret-key" }\n'
        "[limits]\nwrites_per_minute = 5\n"
        "[server]\nbehind_proxy = true\n"
    )
    config = load_coordinator_config(path)
    assert config.sign_in.chains == ("eip155:10",)
    assert config.sign_in.operators == ("eip155:1:0x8ba1f109551bD432803012645Ac136ddd64DBA72",)
    assert config.limits.writes_per_minute == 5
    assert config.limits.challenges_per_minute == 10
    assert config.server.behind_proxy
    assert "secret-key" not in repr(config)


@pytest.mark.parametrize(
    ("content", "field", "said"),
    [
        (b"[sign_in]\nchain = 3\n", "sign_in.chain", "did you mean 'chains'"),
        (b"[signin]\n", "signin", "did you mean 'sign_in'"),
        (b'[sign_in]\nchains = ["bitcoin:1"]\n', "sign_in.chains.0", ""),
        (b'[sign_in]\noperators = ["eip155:1:0x12"]\n', "sign_in.operators.0", "40 hexadecimal digits"),
        (b"[limits]\nwrites_per_minute = 0\nchallenges_per_minute = 0\n", "challenges_per_minute", "and 1 more"),
        (b'[sign_in.rpc_urls]\n"eip155:1" = "ftp://key-of-mine"\n', "sign_in.rpc_urls.eip155:1", ""),
        (b"[limits]\nasset_bytes_per_s = 100\n", "limits.asset_bytes_per_s", ""),
        (b'[join]\npackage = "--index-url=http://evil.example"\n', "join.package", ""),
        (b'[server]\ntrusted_proxies = ["10.0.0.5/8"]\n', "server.trusted_proxies.0", "network"),
        (b'[server]\ntrusted_proxies = ["my-proxy"]\n', "server.trusted_proxies.0", "network"),
        (b"[limits\n", "", "not valid TOML"),
        (b"\xff", "", "not UTF-8"),
        (b"a = " + b"[" * 5000, "", "nested too deeply"),
        (b"#" * 300_000, "", "more than"),
        (None, "", "cannot be read"),
    ],
)
def test_a_wrong_config_file_is_explained(tmp_path: Path, content: bytes | None, field: str, said: str) -> None:
    path = tmp_path / "coordinator.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        load_coordinator_config(path)
    assert raised.value.field.startswith(str(path))
    assert field in raised.value.field
    assert said in str(raised.value)
    assert "key-of-mine" not in f"{raised.value} {raised.value.details}"
    assert raised.value.exit_code == 2


def settings(public_url: str, host: str = "127.0.0.1") -> Settings:
    return Settings(shared=SharedPaths(Path("unused")), public_url=public_url, host=host)


@pytest.mark.parametrize(
    ("public_url", "host", "only_this_machine", "warnings"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1", True, []),
        ("http://localhost:8000", "::1", True, []),
        ("https://train.example", "127.0.0.1", False, []),
        ("https://train.example", "0.0.0.0", False, []),
        ("http://train.example", "127.0.0.1", False, ["is not https"]),
        ("http://127.0.0.1:8000", "0.0.0.0", False, ["is not https", "--public-url"]),
    ],
)
def test_warnings_at_start(public_url: str, host: str, only_this_machine: bool, warnings: list[str]) -> None:
    told = settings(public_url, host)
    assert told.only_this_machine is only_this_machine
    found = warnings_at_start(told)
    assert len(found) == len(warnings)
    assert all(part in line for part, line in zip(warnings, found, strict=True))


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "https://train.example/", "http://[::1]:80", "https://a.b/c"])
def test_public_urls(url: str) -> None:
    check_public_url(url)


@pytest.mark.parametrize(
    "url",
    ["train.example", "ftp://train.example", "https://", "https://me:secret@host", "https://a?b=c", "https://ü.example",
     "https://host:port", "https://a b"],
)  # fmt: skip
def test_what_is_no_public_url(url: str) -> None:
    with pytest.raises(ConfigError) as raised:
        check_public_url(url)
    assert raised.value.field == "--public-url"


def test_defaults_are_the_documented_ones() -> None:
    assert CoordinatorConfig().sign_in == SignInSection(
        chains=("eip155:1", "aptos:1"), operators=(), rpc_urls={}, challenge_lifetime_s=300, token_lifetime_s=604_800
    )
