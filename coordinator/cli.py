"""`cotrain coordinator …`. Heavy imports wait until a command runs."""

from __future__ import annotations

import asyncio
import gc
import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from coordinator.chain.cli import chain_app

app = typer.Typer(help="Run a coordinator: sessions, participants and live progress.", no_args_is_help=True)
token_app = typer.Typer(
    help="Tokens for operators and scripts, made on the coordinator's machine.", no_args_is_help=True
)
app.add_typer(token_app, name="token")
app.add_typer(chain_app, name="chain")


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")] = 8000,
    public_url: Annotated[str, typer.Option(help="What nodes and browsers call this coordinator.")] = "",
    config: Annotated[Path | None, typer.Option(help="TOML file: sign-in, operators, limits, proxy.")] = None,
    swarm_host: Annotated[str, typer.Option(help="Address of the checkpointer's peer.")] = "127.0.0.1",
    swarm_port: Annotated[int, typer.Option(min=0, max=65535, help="Its port; 0 picks one and keeps it.")] = 0,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="PEM file of a certificate: serve https. SIGHUP reads it again.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of its key, without a password.")] = None,
    log_format: Annotated[Literal["text", "json"], typer.Option(help="Form of the log on stderr.")] = "text",
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON line when ready.")] = False,
) -> None:
    """Serve until SIGTERM (exit code 0) or Ctrl-C (130)."""
    gc.disable()  # nothing of what is loaded now is garbage; the server looks for it once it serves
    try:
        from coordinator.serve import run_server
        from coordinator.tls import tls_files

        code = run_server(
            host=host, port=port, public_url=public_url, swarm_host=swarm_host, swarm_port=swarm_port,
            json_output=json_output, config_file=config, tls=tls_files(tls_certificate, tls_key), log_format=log_format,
        )  # fmt: skip
    finally:
        gc.enable()
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

    size_bytes = back_up(_database_url(), file)
    typer.echo(f"{file}: {size_bytes} bytes")


@app.command()
def migrate() -> None:
    """Bring the database up to this version of cotrain. `serve` does so, too, when it starts."""
    from coordinator.store import migrate_database

    done = asyncio.run(migrate_database(_database_url()))
    if done.before == done.after:
        typer.echo(f"the database is at revision {done.after} already")
    else:
        typer.echo(f"the database has gone from {done.before or 'nothing'} to revision {done.after}")


# ------------------------------------------------------------------------------------------------- tokens
@token_app.command("new")
def new_token(
    account: Annotated[str, typer.Argument(help="The account that it acts for, such as eip155:1:0x…")],
    days: Annotated[int, typer.Option(min=1, max=366, help="How long it is good for.")] = 30,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the token alone.")] = False,
) -> None:
    """Print a new token. Whoever has it acts for the account; an operator's stands in the config file."""
    from coordinator.auth.issued_tokens import issue_token
    from coordinator.views import iso_time
    from cotrain.identity.account import Account

    made = asyncio.run(issue_token(_database_url(), Account.parse(account), days * 86400.0))
    facts = {"token": made.token, "account": made.account, "expiresAt": iso_time(made.expires_at)}
    typer.echo(json.dumps(facts) if as_json else made.token)


@token_app.command("list")
def list_tokens(
    account: Annotated[str | None, typer.Option(help="Only those of this account.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """List the tokens that are alive, the newest first, by their ids; those of browsers are among them."""
    from coordinator.auth.issued_tokens import issued_tokens
    from coordinator.views import iso_time
    from cotrain.identity.account import Account

    wanted = None if account is None else Account.parse(account)
    for token in asyncio.run(issued_tokens(_database_url(), wanted)):
        made, ends = iso_time(token.created_at), iso_time(token.expires_at)
        facts = {"id": token.id, "account": token.account, "createdAt": made, "expiresAt": ends}
        typer.echo(json.dumps(facts) if as_json else f"{token.id}  {token.account}  made {made}  ends {ends}")


@token_app.command("revoke")
def revoke(
    token_id: Annotated[str | None, typer.Argument(metavar="ID", help="As `list` shows it.")] = None,
    account: Annotated[str | None, typer.Option(help="End all tokens of this account.")] = None,
) -> None:
    """End a token, or all of an account: a coordinator that runs refuses them at once."""
    from coordinator.auth.issued_tokens import revoke_token, revoke_tokens_of
    from cotrain.errors import InvalidRequestError
    from cotrain.identity.account import Account

    if (token_id is None) == (account is None):
        raise InvalidRequestError("name the ID of a token, or an account with --account", field="ID")
    if account is not None:
        ended = asyncio.run(revoke_tokens_of(_database_url(), Account.parse(account)))
        typer.echo(f"{ended} tokens have ended")
    elif token_id is not None:
        typer.echo(f"a token of {asyncio.run(revoke_token(_database_url(), token_id))} has ended")


def _database_url() -> str:
    from coordinator.settings import database_url_from_env
    from cotrain.paths import SharedPaths

    return database_url_from_env(SharedPaths.from_env())
