"""`cotrain coordinator …`. Heavy imports wait until a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Run a coordinator: sessions, participants and live progress.", no_args_is_help=True)


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")] = 8000,
    public_url: Annotated[str, typer.Option(help="What nodes and browsers call this coordinator.")] = "",
    config: Annotated[Path | None, typer.Option(help="TOML file: sign-in, operators, limits, proxy.")] = None,
    swarm_host: Annotated[str, typer.Option(help="Address of the checkpointer's peer.")] = "127.0.0.1",
    swarm_port: Annotated[int, typer.Option(min=0, max=65535, help="Its port; 0 picks one and keeps it.")] = 0,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON line when ready.")] = False,
) -> None:
    """Serve until SIGTERM (exit code 0) or Ctrl-C (130)."""
    from coordinator.serve import run_server

    code = run_server(
        host=host, port=port, public_url=public_url, swarm_host=swarm_host, swarm_port=swarm_port,
        json_output=json_output, config_file=config,
    )  # fmt: skip
    raise typer.Exit(code)


@app.command("rotate-key")
def rotate_key(
    stolen: Annotated[
        bool, typer.Option("--stolen", help="The present key is in other hands: trust it no more.")
    ] = False,
) -> None:
    """Make the next key for certificates in the data folder; a coordinator that runs uses it at once."""
    from cotrain.membership.issuer import Issuer
    from cotrain.paths import SharedPaths
    from cotrain.status import now

    folder = SharedPaths.from_env().issuer_keys
    public = Issuer(folder, now=now()).rotate(now=now(), stolen=stolen)
    typer.echo(f"the key {public} signs certificates from now on; it lies in {folder}")
    if stolen:
        typer.echo("Restart the coordinator: nodes that reconnect then renew their certificates.")


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="A new file; nobody else can read it.")],
) -> None:
    """Copy the records to FILE while the coordinator runs. Keys, configs and models are files: copy them as well."""
    from coordinator.backup import back_up
    from coordinator.settings import database_url_from_env
    from cotrain.paths import SharedPaths

    size_bytes = back_up(database_url_from_env(SharedPaths.from_env()), file)
    typer.echo(f"{file}: {size_bytes} bytes")


@app.command()
def migrate() -> None:
    """Bring the database up to this version of cotrain. `serve` does so, too, when it starts."""
    import asyncio

    from coordinator.settings import database_url_from_env
    from coordinator.store import migrate_database
    from cotrain.paths import SharedPaths

    done = asyncio.run(migrate_database(database_url_from_env(SharedPaths.from_env())))
    if done.before == done.after:
        typer.echo(f"the database is at revision {done.after} already")
    else:
        typer.echo(f"the database has gone from {done.before or 'nothing'} to revision {done.after}")
