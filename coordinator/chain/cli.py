"""`cotrain coordinator chain …`. Heavy imports wait until a command runs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from coordinator.chain.config import ChainSection
    from coordinator.chain.operate import ChainReport

chain_app = typer.Typer(help="Records of sessions on a public chain.", no_args_is_help=True)

_NODE_FAILED = 69
_WEI_DIGITS = 18

Config = Annotated[Path, typer.Option("--config", help="The coordinator's TOML file, with its section [chain].")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@chain_app.command()
def status(config: Config, as_json: AsJson = False) -> None:
    """Show what is on its way to the chain, and the account that pays; 69 if the node does not do its part."""
    from coordinator.chain.operate import chain_report
    from coordinator.settings import database_url_from_env
    from cotrain.paths import SharedPaths

    report = asyncio.run(chain_report(_section(config), database_url_from_env(SharedPaths.from_env())))
    typer.echo(report.model_dump_json(by_alias=True) if as_json else "\n".join(_lines(report)))
    if report.node_error:
        raise typer.Exit(_NODE_FAILED)


@chain_app.command()
def deploy(
    config: Config,
    wait: Annotated[int, typer.Option(min=1, max=86400, help="Seconds to wait until it is mined.")] = 600,
    as_json: AsJson = False,
) -> None:
    """Put up a registry with the key of [chain], and print its address: that is what `contract` is to be."""
    from coordinator.chain.operate import deploy_registry

    def sent(tx_hash: str) -> None:
        typer.echo(f"sent as {tx_hash}; it is mined some blocks later", err=True)

    address = asyncio.run(deploy_registry(_section(config), sent, wait_s=wait))
    typer.echo(json.dumps({"contract": address}) if as_json else address)


def _section(config: Path) -> ChainSection:
    from coordinator.config import load_coordinator_config

    return load_coordinator_config(config).chain


def _lines(report: ChainReport) -> list[str]:
    """The report for people. Pure."""
    entries = ", ".join(f"{number} {state}" for state, number in report.entries.items()) or "none"
    facts = [
        ("chain", report.chain), ("contract", report.contract or "none: nothing is recorded"),
        ("account", report.account), ("node", report.node_error or "does its part"),
        ("balance", _coins(report.balance_wei)),
        ("nonce", "" if report.nonce is None else str(report.nonce)), ("entries", entries),
    ]  # fmt: skip
    waiting = [
        f"{one.session_id}  {one.kind}  {one.state}  {one.tx_hash or '-'}  {one.message}".rstrip()
        for one in report.pending
    ]
    return [*(f"{name:<10}{value}" for name, value in facts if value), *waiting]


def _coins(wei: int | None) -> str:
    """An amount in the chain's coin, exactly."""
    if wei is None:
        return ""
    whole, rest = divmod(wei, 10**_WEI_DIGITS)
    digits = f"{rest:0{_WEI_DIGITS}}".rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)
