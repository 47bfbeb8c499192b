"""`cotrain node`: join a session, and steer the agent that runs."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node.wallet_cli import app as wallet_app

if TYPE_CHECKING:
    from cotrain.identity.wallet import WalletOptions
    from cotrain.status import WishName
    from node.join import JoinOptions
    from node.lock import AgentRecord

app = typer.Typer(
    help="Take part in a session as a volunteer.", add_completion=False,
    rich_markup_mode=None, pretty_exceptions_enable=False,
)  # fmt: skip

app.add_typer(wallet_app, name="wallet")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON lines instead of text.")]


@app.command()
def join(
    url: Annotated[str, typer.Argument(help="The session's address: https://<coordinator>/s/<session>")],
    name: Annotated[str, typer.Option(help="What others see of this node.")] = "",
    as_json: AsJson = False,
    host: Annotated[
        str | None,
        typer.Option(help="Address to listen on for other peers; every one of this machine if left out."),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")] = 0,
    threads: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Arithmetic threads; the physical cores if left out.")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, max=64, help="Processes that train together; one for each GPU if left out.")
    ] = None,
    wallet: Annotated[
        Path | None, typer.Option(help="Keystore file of the wallet that takes part; one of its own if left out.")
    ] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="File whose first line is the keystore's password.")
    ] = None,
    private_key_env: Annotated[
        str | None, typer.Option(help="Name of the variable that holds a private key, in place of a keystore.")
    ] = None,
    invitation: Annotated[
        str, typer.Option(help="Token of an invitation to a private session; the URL may hold it: #invitation=TOKEN")
    ] = "",
) -> None:
    """Take part in a session until it ends; Ctrl-C leaves politely, twice at once."""
    from cotrain.identity.wallet import WalletOptions
    from node.join import JoinOptions

    options = JoinOptions(
        url=url, name=name, host=host, port=port, threads=threads, processes=processes, invitation=invitation
    )
    raise typer.Exit(_join(options, WalletOptions(wallet, password_file, private_key_env), as_json=as_json))


def _join(options: JoinOptions, wallet: WalletOptions, *, as_json: bool) -> int:
    import asyncio
    import logging

    from cotrain.display import NoticeHandler, make_display
    from cotrain.identity.wallet import open_wallet
    from cotrain.paths import SharedPaths, home_dir
    from node.join import Place, join
    from node.wallet_cli import terminal_ask

    signer = open_wallet(home_dir(), wallet, ask=terminal_ask())
    display = make_display(as_json=as_json)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[NoticeHandler(display.notice)])
    display.open()
    try:
        return asyncio.run(join(options, Place(home_dir(), SharedPaths.from_env(), signer), display))
    finally:
        display.close()


@app.command()
def pause() -> None:
    """Let the training process rest; it keeps its place."""
    _wish("pause", "the volunteer paused this node")


@app.command()
def resume() -> None:
    """Go on after a pause."""
    _wish("run", "the volunteer resumed this node")


@app.command()
def leave() -> None:
    """Ask the running agent to finish its present step and leave the session."""
    agent = _agent()
    os.kill(agent.pid, signal.SIGTERM)
    typer.echo(f"process {agent.pid} leaves session {agent.session}")


@app.command()
def status(as_json: AsJson = False) -> None:
    """What the running agent's training process does."""
    from cotrain.display import plain_line
    from cotrain.errors import NotFoundError
    from cotrain.paths import STATUS_FILE
    from cotrain.status import read_status

    agent = _agent()
    try:
        snapshot = read_status(agent.run_dir / STATUS_FILE)
    except (OSError, ValueError) as error:
        raise NotFoundError(
            f"process {agent.pid} takes part in session {agent.session}, but there is no snapshot yet",
            field=str(agent.run_dir / STATUS_FILE), hint="try again in a few seconds",
        ) from error  # fmt: skip
    if as_json:
        typer.echo(snapshot.model_dump_json(by_alias=True))
    else:
        typer.echo(f"session {agent.session}, process {agent.pid}: {plain_line(snapshot)}")


def _agent() -> AgentRecord:
    from cotrain.paths import home_dir
    from node.lock import running_agent

    return running_agent(home_dir())


def _wish(wish: WishName, reason: str) -> None:
    """Leave the wish where the agent reads it, and tell it so."""
    from cotrain.status import Control, write_control
    from node.wishes import LOCAL_WISH_FILE

    agent = _agent()
    write_control(Path(agent.run_dir) / LOCAL_WISH_FILE, Control(wish=wish, reason=reason))
    os.kill(agent.pid, signal.SIGUSR1)
    typer.echo(f"process {agent.pid}, session {agent.session}: {wish}")


@app.command()
def doctor(
    url: Annotated[
        str,
        typer.Argument(help="A session's address, or a coordinator's; if left out, this machine alone is looked at."),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on for other peers; every one of this machine if left out.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")] = 0,
    wallet: Annotated[
        Path | None, typer.Option(help="Keystore file of the wallet that takes part; one of its own if left out.")
    ] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="File whose first line is the keystore's password.")
    ] = None,
    private_key_env: Annotated[
        str | None, typer.Option(help="Name of the variable that holds a private key, in place of a keystore.")
    ] = None,
    invitation: Annotated[
        str, typer.Option(help="Token of an invitation to a private session; the URL may hold it: #invitation=TOKEN")
    ] = "",
) -> None:
    """Look for what keeps this machine from training, and say what mends it. A session is joined and left again."""
    import asyncio
    import json
    from dataclasses import asdict

    from cotrain.identity.wallet import WalletOptions, open_wallet
    from cotrain.paths import SharedPaths, home_dir
    from node.checks import exit_code, line_of
    from node.doctor import DoctorOptions, examine
    from node.wallet_cli import terminal_ask

    source = WalletOptions(wallet, password_file, private_key_env)
    found = asyncio.run(
        examine(
            DoctorOptions(url, host, port, invitation), home_dir(), SharedPaths.from_env(),
            wallet=lambda: open_wallet(home_dir(), source, ask=terminal_ask()),
            report=lambda check: None if as_json else typer.echo(line_of(check)),
        )
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps({"checks": [asdict(check) for check in found]}))
    raise typer.Exit(exit_code(found))
