"""The options that commands of `cotrain sessions` have in common, and what runs their requests."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from node.sessions.completion import session_ids

if TYPE_CHECKING:
    from node.sessions.api import SessionsApi
    from node.sessions.target import Target

_Answer = TypeVar("_Answer")

Coordinator = Annotated[
    str,
    typer.Option(
        "--coordinator", metavar="URL", show_default=False,
        help="The coordinator's address; else COTRAIN_COORDINATOR, else the one that was signed in to last.",
    ),
]  # fmt: skip
Session = Annotated[
    str,
    typer.Argument(
        metavar="SESSION", autocompletion=session_ids,
        help="Id of a session, or its address, which names its coordinator.",
    ),
]  # fmt: skip
Invitation = Annotated[
    str,
    typer.Option(metavar="TOKEN", show_default=False, help="Token of an invitation, for a private session."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print what the API answers, one JSON object a line.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Most = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="How many at most.")]


def target_of(coordinator: str, session: str | None = None, invitation: str = "") -> Target:
    """Whom to ask about what; see node.sessions.target."""
    from cotrain.paths import home_dir
    from node.sessions.target import find_target

    return find_target(home_dir(), coordinator, session, invitation)


def ask(
    target: Target, work: Callable[[SessionsApi], Awaitable[_Answer]], *, notice: Callable[[str], None] | None = None
) -> _Answer:
    """What `work` gets from the target's coordinator; `notice` (stderr, if left out) is told when it has to wait."""
    import asyncio

    from node.sessions.api import SessionsApi

    async def run() -> _Answer:
        api = SessionsApi(
            target.base_url, token=target.token, invitation=target.invitation, on_wait=notice or _to_stderr
        )
        async with api:
            return await work(api)

    return asyncio.run(run())


def print_all(
    views: Iterable[Mapping[str, Any]], lines: Callable[[list[Mapping[str, Any]]], list[str]], *, as_json: bool
) -> None:
    """What the API has answered: an object a line, or lines for people."""
    found = list(views)
    for line in [json.dumps(view) for view in found] if as_json else lines(found):
        typer.echo(line)


def print_one(view: Mapping[str, Any], lines: Callable[[Mapping[str, Any]], list[str]], *, as_json: bool) -> None:
    """The same for one object."""
    print_all([view], lambda views: lines(views[0]), as_json=as_json)


def _to_stderr(line: str) -> None:
    typer.echo(line, err=True)
