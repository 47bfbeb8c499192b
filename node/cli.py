"""`cotrain node`: join a session, and steer the agent that runs."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.wallet_cli import app as wallet_app

if TYPE_CHECKING:
    from cotrain.identity.wallet import WalletOptions
    from cotrain.status import WishName
    from node.lock import AgentRecord
    from node.options import JoinOptions

app = typer.Typer(
    help="Take part in a session as a volunteer.", add_completion=False,
    rich_markup_mode=None, pretty_exceptions_enable=False,
)  # fmt: skip

app.add_typer(wallet_app, name="wallet")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON lines instead of text.")]
Url = Annotated[
    str,
    typer.Argument(
        help="The session's address, https://<coordinator>/s/<session>; or the coordinator's alone: then the best "
        "session that is open for this machine."
    ),
]
Name = Annotated[str | None, typer.Option(help="What others see of this node.")]
Host = Annotated[
    str | None, typer.Option(help="Address to listen on for other peers; every one of this machine if left out.")
]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on; any free one if left out, or 0.")]
Threads = Annotated[
    int | None, typer.Option(min=1, max=4096, help="Arithmetic threads; the physical cores if left out.")
]
Processes = Annotated[
    int | None, typer.Option(min=1, max=64, help="Processes that train together; one for each GPU if left out.")
]
Wallet = Annotated[
    Path | None, typer.Option(help="Keystore file of the wallet that takes part; one of its own if left out.")
]
PasswordFile = Annotated[Path | None, typer.Option(help="File whose first line is the keystore's password.")]
PrivateKeyEnv = Annotated[
    str | None, typer.Option(help="Name of the variable that holds a private key, in place of a keystore.")
]
Browser = Annotated[
    bool | None,
    typer.Option("--browser", help="Sign with a wallet in a browser, on any machine, by a short code."),
]
Invitation = Annotated[
    str | None,
    typer.Option(help="Token of an invitation to a private session; the URL may hold it: #invitation=TOKEN"),
]
Windows = Annotated[
    list[str] | None,
    typer.Option(
        metavar="WINDOW",
        help="When to train, by this machine's clock: 22:00-07:00, or Mon-Fri 18:00-08:00; may be given again.",
    ),
]
WhenIdle = Annotated[
    int | None,
    typer.Option(min=1, max=1440, metavar="MINUTES", help="Train only while nobody has used this machine for so long."),
]
Nice = Annotated[
    int | None, typer.Option(min=0, max=19, help="Niceness of the training process; 19 gives way to all others.")
]
MaxCpu = Annotated[
    int | None, typer.Option(min=1, max=100, metavar="PERCENT", help="Share of the processors to train on.")
]
MaxUpload = Annotated[
    str | None, typer.Option(metavar="RATE", help="Most bytes a second to send to other peers: 500kB, 2MB.")
]

SkipPreflight = Annotated[
    bool | None,
    typer.Option(
        "--skip-preflight", help="Train whatever the checks of this machine find; they are told all the same."
    ),
]


@app.command()
def join(
    url: Url, name: Name = None, as_json: AsJson = False, host: Host = None, port: Port = None,
    threads: Threads = None, processes: Processes = None, wallet: Wallet = None, password_file: PasswordFile = None,
    private_key_env: PrivateKeyEnv = None, browser: Browser = None, invitation: Invitation = None,
    schedule: Windows = None, when_idle: WhenIdle = None, nice: Nice = None, max_cpu: MaxCpu = None,
    max_upload: MaxUpload = None, skip_preflight: SkipPreflight = None,
) -> None:  # fmt: skip
    """Take part in a session until it ends; Ctrl-C leaves politely, twice at once.

    Every option but --json may stand in node.toml, too, under [node]; the command line wins.
    """
    from cotrain.identity.wallet import WalletOptions
    from cotrain.paths import home_dir
    from node.options import join_options, over, read_node_file

    given = {
        "name": name, "host": host, "port": port, "threads": threads, "processes": processes, "wallet": wallet,
        "password_file": password_file, "private_key_env": private_key_env, "browser": browser,
        "invitation": invitation, "schedule": schedule, "when_idle": when_idle, "nice": nice, "max_cpu": max_cpu,
        "max_upload": max_upload, "skip_preflight": skip_preflight,
    }  # fmt: skip
    options = over(given, read_node_file(home_dir()))
    joining = join_options(url, options)
    source = WalletOptions(options.wallet, options.password_file, options.private_key_env)
    raise typer.Exit(_join(joining, None if options.browser else source, as_json=as_json))


def _join(options: JoinOptions, wallet: WalletOptions | None, *, as_json: bool) -> int:
    """`wallet`: None for one in a browser elsewhere."""
    import asyncio
    import logging

    from cotrain.display import NoticeHandler, make_display
    from cotrain.identity.wallet import open_wallet
    from cotrain.paths import SharedPaths, home_dir
    from node.join import Place, join
    from node.wallet_cli import terminal_ask

    signer = None if wallet is None else open_wallet(home_dir(), wallet, ask=terminal_ask())
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
    os.kill(agent.pid, signal.SIGINT)  # not SIGTERM: a service that is left does not start again
    typer.echo(f"process {agent.pid} leaves session {agent.session}")


@app.command()
def status(as_json: AsJson = False) -> None:
    """What the running agent's training process does, and who wants it to rest."""
    import json

    from cotrain.display import plain_line
    from cotrain.errors import NotFoundError
    from cotrain.figures import figures_of
    from cotrain.paths import STATUS_FILE
    from cotrain.status import read_status
    from node.wishes import read_standing

    agent = _agent()
    try:
        snapshot = read_status(agent.run_dir / STATUS_FILE)
    except (OSError, ValueError) as error:
        raise NotFoundError(
            f"process {agent.pid} takes part in session {agent.session}, but there is no snapshot yet",
            field=str(agent.run_dir / STATUS_FILE), hint="try again in a few seconds",
        ) from error  # fmt: skip
    wishes, figures = read_standing(agent.run_dir), figures_of(snapshot)
    if as_json:
        facts = snapshot.model_dump(mode="json", by_alias=True) | {"figures": figures.model_dump(by_alias=True)}
        typer.echo(json.dumps(facts | {"wishes": [wish.model_dump(mode="json", by_alias=True) for wish in wishes]}))
        return
    typer.echo(f"session {agent.session}, process {agent.pid}: {plain_line(snapshot, figures)}")
    for wish in wishes:
        typer.echo(f"wanted: {wish}")


@app.command()
def logs(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written, until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")] = 20,
) -> None:
    """What the training process has printed: the running one, or the last one of this node."""
    from cotrain.paths import SharedPaths, home_dir
    from node.log_tail import find_log, follow_log

    for text in follow_log(find_log(home_dir(), SharedPaths.from_env()), lines=lines, forever=follow):
        typer.echo(text, nl=False)


@app.command("install-service", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def install_service(
    context: typer.Context,
    url: Url,
    print_only: Annotated[bool, typer.Option("--print", help="Print the service's file and write nothing.")] = False,
) -> None:
    """Have this user's systemd run join, with what options of join stand here; node.toml is read at each start."""
    from cotrain.paths import SharedPaths, home_dir
    from cotrain.process import python_command
    from node.service import UNIT, unit_text, units_folder, write_unit

    session = _check_service_options([url, *context.args])
    environment = {
        "COTRAIN_HOME": str(home_dir().resolve()), "COTRAIN_SHARED": str(SharedPaths.from_env().root),
    }  # fmt: skip
    command = python_command("cotrain.cli", "node", "join", url, *context.args)
    text = unit_text(command, environment, Path.cwd(), goes_on=session is None)
    if print_only:
        typer.echo(text, nl=False)
        return
    typer.echo(f"written: {write_unit(units_folder(), text)}")
    typer.echo(
        f"start it, now and with every sign-in:  systemctl --user daemon-reload && systemctl --user enable --now {UNIT}"
    )
    typer.echo('let it run while you are not signed in: loginctl enable-linger "$USER"')
    typer.echo(f"what it says:                           journalctl --user -u {UNIT} -f")


def _check_service_options(arguments: list[str]) -> str | None:
    """The session that they name, if any.

    Raises what join raises for these arguments, and InvalidRequestError for what a service cannot have.
    """
    from cotrain.errors import InvalidRequestError
    from node.client import invitation_token, parse_join_url
    from node.options import NODE_FILE, NodeOptions, join_options, over

    command: Any = typer.main.get_command(app)
    said = command.commands["join"].make_context("cotrain node join", list(arguments)).params
    _, session = parse_join_url(said["url"])
    join_options(said["url"], over({key: said[key] for key in NodeOptions.model_fields}, NodeOptions()))
    if invitation_token(said["invitation"] or "", said["url"]) is not None:
        raise InvalidRequestError(
            "everybody on this machine could read the invitation among its processes", field="--invitation",
            hint=f"write invitation = \"TOKEN\" under [node] in {NODE_FILE}",
        )  # fmt: skip
    if said["private_key_env"] is not None:
        raise InvalidRequestError(
            "a service does not have this variable", field="--private-key-env",
            hint="take the key over first: cotrain node wallet import",
        )  # fmt: skip
    return session


@app.command("uninstall-service")
def uninstall_service() -> None:
    """Remove what install-service has written."""
    from node.service import UNIT, remove_unit, units_folder

    typer.echo(f"removed: {remove_unit(units_folder())}")
    typer.echo(f"end it, if it runs: systemctl --user stop {UNIT}; systemctl --user daemon-reload")


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
    host: Host = None,
    port: Port = None,
    wallet: Wallet = None,
    password_file: PasswordFile = None,
    private_key_env: PrivateKeyEnv = None,
    invitation: Invitation = None,
) -> None:
    """Look for what keeps this machine from training, and say what mends it. A session is joined and left again."""
    import asyncio
    import json
    from dataclasses import asdict

    from cotrain.identity.wallet import WalletOptions, open_wallet
    from cotrain.paths import SharedPaths, home_dir
    from node.checks import exit_code, line_of
    from node.doctor import DoctorOptions, examine
    from node.options import over, read_node_file
    from node.wallet_cli import terminal_ask

    given = {
        "host": host, "port": port, "wallet": wallet, "password_file": password_file,
        "private_key_env": private_key_env, "invitation": invitation,
    }  # fmt: skip
    options = over(given, read_node_file(home_dir()))
    source = WalletOptions(options.wallet, options.password_file, options.private_key_env)
    found = asyncio.run(
        examine(
            DoctorOptions(url, options.host, options.port or 0, options.invitation or ""),
            home_dir(), SharedPaths.from_env(),
            wallet=lambda: open_wallet(home_dir(), source, ask=terminal_ask()),
            report=lambda check: None if as_json else typer.echo(line_of(check)),
        )
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps({"checks": [asdict(check) for check in found]}))
    raise typer.Exit(exit_code(found))
