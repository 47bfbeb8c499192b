"""Asks at the terminal before what cannot be undone; without one, the command line must have said yes."""

from __future__ import annotations

import sys

import typer

from cotrain.errors import InvalidRequestError


def confirm(question: str, *, yes: bool, field: str) -> None:
    """Return if the answer is yes.

    Args:
        yes: said on the command line; then nobody is asked.
        field: the command or option that needs it, for the error.

    Raises typer.Abort for any other answer, InvalidRequestError where there is no terminal to ask at.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidRequestError(
            "needs a confirmation, and there is no terminal to ask at", field=field, hint="add --yes"
        )
    # not typer.confirm: it leaves a blank in standard output, where nothing but the answer belongs
    typer.echo(f"{question} [y/N]: ", nl=False, err=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise typer.Abort
