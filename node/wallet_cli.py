"""`cotrain node wallet`: make, show, import and export the wallet that this node signs with."""

from __future__ import annotations

import json
import os
import sys
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node.confirm import confirm

if TYPE_CHECKING:
    from cotrain.identity.account import Account
    from cotrain.identity.password import Ask
    from cotrain.identity.wallet import EthereumWallet

app = typer.Typer(
    help="The wallet that this node signs with.", add_completion=False,
    rich_markup_mode=None, pretty_exceptions_enable=False,
)  # fmt: skip

_MAX_KEY_LINE = 256

File = Annotated[
    Path | None,
    typer.Option("--file", help="The keystore; wallet.json in COTRAIN_HOME if left out.", show_default=False),
]
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        "--password-file",
        help="Its first line is the keystore's password. Without it COTRAIN_WALLET_PASSWORD counts, then a prompt.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@app.command()
def new(file: File = None, password_file: PasswordFile = None, as_json: AsJson = False) -> None:
    """Make a wallet; none is ever written over. The one in COTRAIN_HOME keeps a random password beside it."""
    from cotrain.identity.wallet import EthereumWallet

    path = _free_place(file)
    wallet = EthereumWallet.create()
    _keep(wallet, file, password_file)
    _print_wallet(wallet.account, path, as_json=as_json)


@app.command()
def show(file: File = None, password_file: PasswordFile = None, as_json: AsJson = False) -> None:
    """Print a wallet's address, chain and place. The password is needed only where the keystore hides its address."""
    from cotrain.identity.account import Account
    from cotrain.identity.keystore import read_keystore
    from cotrain.identity.wallet import DEFAULT_CHAIN

    path = _existing(file)
    address = read_keystore(path).address
    if address is None:
        account = _open(path, password_file).account
    else:
        account = Account.of(DEFAULT_CHAIN, "0x" + address.removeprefix("0x").lower())
    _print_wallet(account, path, as_json=as_json)


@app.command()
def token(
    url: Annotated[str, typer.Argument(help="The coordinator's address: https://<coordinator>")],
    file: File = None,
    password_file: PasswordFile = None,
) -> None:
    """Sign in at a coordinator and print the token: `curl -H "Authorization: Bearer $(cotrain node wallet token URL)"`.

    It acts for the wallet's account until it expires, or until POST /api/v1/auth/logout.
    """
    import asyncio

    from cotrain.identity.wallet import WalletOptions, open_wallet
    from cotrain.paths import home_dir
    from node.client import CoordinatorClient, parse_coordinator_url

    base_url = parse_coordinator_url(url)
    wallet = open_wallet(home_dir(), WalletOptions(file, password_file), ask=terminal_ask())

    async def sign_in() -> str:
        async with CoordinatorClient(base_url, on_wait=lambda line: typer.echo(line, err=True)) as client:
            return await client.sign_in(wallet)

    typer.echo(asyncio.run(sign_in()))


@app.command("import")
def import_wallet(
    keystore: Annotated[
        Path | None,
        typer.Argument(
            help="A keystore; if left out, a private key from standard input or a prompt.", show_default=False
        ),
    ] = None,
    file: File = None,
    password_file: PasswordFile = None,
    as_json: AsJson = False,
) -> None:
    """Take over a wallet from elsewhere. A private key is never an argument: others could read it there."""
    from cotrain.identity.wallet import EthereumWallet, parse_private_key, refuse_key_as_name

    refuse_key_as_name(str(keystore), field="the keystore's name")
    path = _free_place(file)
    if keystore is None:
        wallet = EthereumWallet(parse_private_key(_read_key_line(), field="the private key"))
        _keep(wallet, file, password_file)
    else:
        wallet = _take_over(keystore, file, password_file)
    _print_wallet(wallet.account, path, as_json=as_json)


@app.command()
def export(
    target: Annotated[
        Path | None, typer.Argument(help="Write a keystore with another password here.", show_default=False)
    ] = None,
    private_key: Annotated[
        bool, typer.Option("--private-key", help="Print the private key itself instead, to standard output.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether to print the key.")] = False,
    new_password_file: Annotated[
        Path | None,
        typer.Option(
            "--new-password-file", help="Its first line is the password of the copy; else a prompt.", show_default=False
        ),
    ] = None,
    file: File = None,
    password_file: PasswordFile = None,
) -> None:
    """Copy a wallet: into another keystore, or as a bare private key."""
    from cotrain.errors import InvalidRequestError
    from cotrain.identity.keystore import write_keystore

    if target is not None:
        _free_place(target)
    path = _existing(file)
    if (target is None) == (not private_key):
        raise InvalidRequestError(
            "needs either a file to write or --private-key", hint="see: cotrain node wallet export --help"
        )
    if target is None:
        confirm("Who sees the private key has the wallet for good. Print it?", yes=yes, field="--private-key")
        typer.echo("0x" + _open(path, password_file).private_key().hex())
        return
    wallet = _open(path, password_file)
    write_keystore(target, wallet.private_key(), _password_of_copy(target, new_password_file))
    _print_wallet(wallet.account, target, as_json=False)


def terminal_ask() -> Ask | None:
    """What asks for a secret at the terminal without showing it; None where standard input is none."""
    return _prompt if sys.stdin.isatty() else None


def _prompt(question: str) -> str:
    # not typer.prompt: it asks before the echo is off, and what is typed until then is lost
    try:
        return getpass(f"{question}: ", stream=sys.stderr)
    except EOFError:
        raise typer.Abort from None


def _place(file: Path | None) -> Path:
    from cotrain.identity.wallet import HOME_KEYSTORE, refuse_key_as_name
    from cotrain.paths import home_dir

    refuse_key_as_name(str(file), field="the file's name")
    return file or home_dir() / HOME_KEYSTORE


def _free_place(file: Path | None) -> Path:
    """Where a new keystore goes; refused before anybody is asked for anything if something is there."""
    from cotrain.errors import ConflictError

    path = _place(file)
    if os.path.lexists(path):
        raise ConflictError("there is a file already", field=str(path), hint="it is never written over")
    return path


def _existing(file: Path | None) -> Path:
    from cotrain.errors import NotFoundError

    path = _place(file)
    if not os.path.lexists(path):
        raise NotFoundError(
            "there is no wallet", field=str(path),
            hint="make one with: cotrain node wallet new; or join a session, which makes it",
        )  # fmt: skip
    return path


def _open(path: Path, password_file: Path | None) -> EthereumWallet:
    from cotrain.identity.password import PasswordSource
    from cotrain.identity.wallet import open_keystore_file
    from cotrain.paths import home_dir

    return open_keystore_file(home_dir(), path, PasswordSource.take(password_file, ask=terminal_ask()))


def _keep(wallet: EthereumWallet, file: Path | None, password_file: Path | None) -> None:
    """Encrypt into `file` under a password that is given or asked for; into the home folder without asking."""
    from cotrain.identity.keystore import write_keystore
    from cotrain.identity.password import PasswordSource
    from cotrain.identity.wallet import create_home_wallet
    from cotrain.paths import home_dir

    source = PasswordSource.take(password_file, ask=terminal_ask())
    if file is None:
        create_home_wallet(home_dir(), wallet, source)
    else:
        write_keystore(file, wallet.private_key(), source.of_new(file))


def _take_over(keystore: Path, file: Path | None, password_file: Path | None) -> EthereumWallet:
    """The wallet in another keystore, kept in `file` under the same password, or in the home folder."""
    from cotrain.identity.keystore import open_keystore, write_keystore
    from cotrain.identity.password import PasswordSource
    from cotrain.identity.wallet import EthereumWallet, create_home_wallet
    from cotrain.paths import home_dir

    password = PasswordSource.take(password_file, ask=terminal_ask()).of_existing(keystore)
    wallet = EthereumWallet(open_keystore(keystore, password))
    if file is None:
        create_home_wallet(home_dir(), wallet, PasswordSource())
    else:
        write_keystore(file, wallet.private_key(), password)
    return wallet


def _read_key_line() -> str:
    """A private key from the terminal, where it is not shown, or the first line of standard input."""
    ask = terminal_ask()
    return ask("Private key") if ask else sys.stdin.buffer.readline(_MAX_KEY_LINE).decode("ascii", "replace")


def _password_of_copy(target: Path, file: Path | None) -> str:
    from cotrain.errors import NotAuthorizedError
    from cotrain.identity.password import PasswordSource

    ask = terminal_ask()
    if file is None and ask is None:
        raise NotAuthorizedError(
            "needs a password of its own", field=str(target),
            hint="give --new-password-file FILE, or run it in a terminal",
        )  # fmt: skip
    return PasswordSource(file, ask=ask).of_new(target)


def _print_wallet(account: Account, path: Path, *, as_json: bool) -> None:
    if as_json:
        facts = {"account": str(account), "address": account.address, "chain": account.chain, "path": str(path)}
        typer.echo(json.dumps(facts))
    else:
        typer.echo(f"address  {account.address}\nchain    {account.chain}\npath     {path}")
