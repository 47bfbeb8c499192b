"""`cotrain sessions`: see, watch and steer a coordinator's sessions. Heavy imports wait until a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from node.sessions import create_cli, steer_cli
from node.sessions.options import AsJson, Coordinator, Invitation, Most, Session, ask, print_all, print_one, target_of

app = typer.Typer(
    help="Open, watch and steer a coordinator's sessions.", add_completion=False,
    rich_markup_mode=None, pretty_exceptions_enable=False,
)  # fmt: skip


@app.command()
def login(
    url: Annotated[str, typer.Argument(metavar="URL", help="The coordinator's address: https://<coordinator>")],
    wallet: Annotated[
        Path | None,
        typer.Option(help="Keystore of the wallet; this machine's own if left out.", show_default=False),
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(help="File whose first line is the keystore's password.", show_default=False),
    ] = None,
) -> None:
    """Sign in with this machine's wallet, and keep the token in COTRAIN_HOME for the other commands."""
    from cotrain.identity.wallet import WalletOptions, open_wallet
    from cotrain.paths import home_dir
    from node.client import parse_coordinator_url
    from node.sessions.sign_ins import read_sign_ins, remember
    from node.sessions.target import Target
    from node.wallet_cli import terminal_ask

    base_url = parse_coordinator_url(url)
    read_sign_ins(home_dir())  # what is wrong with the file is said before there is a token to be lost
    signer = open_wallet(home_dir(), WalletOptions(wallet, password_file), ask=terminal_ask())
    remember(home_dir(), base_url, ask(Target(base_url), lambda api: api.sign_in(signer)))
    typer.echo(f"signed in to {base_url} as {signer.account}")


@app.command()
def logout(coordinator: Coordinator = "") -> None:
    """End the token of a coordinator, and forget it."""
    from cotrain.errors import NotAuthorizedError
    from cotrain.paths import home_dir
    from node.sessions.sign_ins import forget

    target = target_of(coordinator)
    if target.token:
        try:
            ask(target, lambda api: api.sign_out(target.token))
        except NotAuthorizedError:
            typer.echo("the token had ended already", err=True)
    forget(home_dir(), target.base_url)
    typer.echo(f"signed out of {target.base_url}")


@app.command("list")
def list_sessions(coordinator: Coordinator = "", limit: Most = 50, as_json: AsJson = False) -> None:
    """The sessions that you may see, newest first."""
    from node.sessions.text import sessions_table

    print_all(
        ask(target_of(coordinator), lambda api: api.items("sessions", most=limit)), sessions_table, as_json=as_json
    )


@app.command("open")
def list_open(coordinator: Coordinator = "", limit: Most = 50, as_json: AsJson = False) -> None:
    """The sessions that a node on this machine can join, the best one first."""
    from node.hardware import detect_hardware
    from node.sessions.text import offers_table

    hardware = detect_hardware()
    offers = ask(target_of(coordinator), lambda api: api.open_to(hardware, most=limit))
    print_all(offers, offers_table, as_json=as_json)
    if offers and not as_json:
        typer.echo(f"\njoin the best one with: {offers[0]['joinCommand']}")


@app.command()
def show(session: Session, coordinator: Coordinator = "", invitation: Invitation = "", as_json: AsJson = False) -> None:
    """One session: state, progress, what it waits for, how to join it, its record on a chain."""
    from node.sessions.text import session_lines

    target = target_of(coordinator, session, invitation)
    print_one(ask(target, lambda api: api.session_with_record(target.session)), session_lines, as_json=as_json)


@app.command()
def watch(
    session: Session,
    coordinator: Coordinator = "",
    invitation: Invitation = "",
    after: Annotated[
        int | None,
        typer.Option(min=0, show_default=False, help="Number of the last event that is known: those after it too."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What happens in a session, live until it ends; Ctrl-C leaves it alone. 70 if it fails."""
    from node.sessions.follow import watch as watch_session
    from node.sessions.views import make_view

    target = target_of(coordinator, session, invitation)
    with make_view(as_json=as_json) as view:
        ask(target, lambda api: watch_session(api, target.session, view, after), notice=view.notice)


@app.command()
def logs(
    session: Session,
    coordinator: Coordinator = "",
    invitation: Invitation = "",
    last: Annotated[int, typer.Option("--last", "-n", min=0, max=10_000, help="How many of the newest records.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with those to come, until it ends.")] = False,
    as_json: AsJson = False,
) -> None:
    """The training log of all peers, the oldest record first."""
    from node.sessions.follow import show_log
    from node.sessions.text import log_line

    target = target_of(coordinator, session, invitation)

    def show_record(record: dict[str, object]) -> None:
        print_one(record, lambda one: [log_line(one)], as_json=as_json)

    ask(target, lambda api: show_log(api, target.session, show_record, last=last, follow=follow))


@app.command()
def participants(
    session: Session, coordinator: Coordinator = "", invitation: Invitation = "", limit: Most = 200,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Who takes part in a session, and what they gave."""
    from node.sessions.text import participants_table

    target = target_of(coordinator, session, invitation)
    found = ask(target, lambda api: api.items(f"sessions/{target.session}/participants", most=limit))
    print_all(found, participants_table, as_json=as_json)


@app.command()
def credit(
    session: Session, coordinator: Coordinator = "", invitation: Invitation = "", limit: Most = 200,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Which wallets are credited with how much of a session: only what verified rounds bear out counts."""
    from node.sessions.text import credit_table

    target = target_of(coordinator, session, invitation)
    found = ask(target, lambda api: api.items("contributors", most=limit, session=target.session))
    print_all(found, credit_table, as_json=as_json)


@app.command()
def models(coordinator: Coordinator = "", limit: Most = 50, as_json: AsJson = False) -> None:
    """The models that sessions have made, newest first."""
    from node.sessions.text import models_table

    print_all(ask(target_of(coordinator), lambda api: api.items("models", most=limit)), models_table, as_json=as_json)


create_cli.add_to(app)
steer_cli.add_to(app)
