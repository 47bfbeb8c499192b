"""`cotrain sessions start`, `pause`, `resume`, `stop`, `cancel`, `save`, `delete`, `invite`: by a session's owner."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from node.confirm import confirm
from node.sessions.options import AsJson, Coordinator, Session, Yes, ask, print_one, target_of


def add_to(app: typer.Typer) -> None:
    """Make them commands of `app`."""
    for command in (start, pause, resume, stop, cancel, save, delete, invite):
        app.command()(command)


def start(session: Session, coordinator: Coordinator = "", as_json: AsJson = False) -> None:
    """Put a draft into the queue; it opens to nodes as soon as there is room."""
    _act("start", session, coordinator, as_json=as_json)


def pause(session: Session, coordinator: Coordinator = "", as_json: AsJson = False) -> None:
    """Let all nodes pause; their work is kept."""
    _act("pause", session, coordinator, as_json=as_json)


def resume(session: Session, coordinator: Coordinator = "", as_json: AsJson = False) -> None:
    """Let a paused session go on."""
    _act("resume", session, coordinator, as_json=as_json)


def stop(session: Session, coordinator: Coordinator = "", yes: Yes = False, as_json: AsJson = False) -> None:
    """End a session for good after its present round, and save the model."""
    _act("stop", session, coordinator, as_json=as_json, question="End it for good and save the model?", yes=yes)


def cancel(session: Session, coordinator: Coordinator = "", yes: Yes = False, as_json: AsJson = False) -> None:
    """End a session for good at once, without a model."""
    _act("cancel", session, coordinator, as_json=as_json, question="End it for good, without a model?", yes=yes)


def save(session: Session, coordinator: Coordinator = "", as_json: AsJson = False) -> None:
    """Make a version of the model from what a session has learnt so far; `models` lists it once it is made."""
    from node.sessions.text import job_line

    target = target_of(coordinator, session)
    job = ask(target, lambda api: api.post(f"sessions/{target.session}/save"))
    print_one(job, lambda view: [job_line(view)], as_json=as_json)


def delete(
    session: Session,
    coordinator: Coordinator = "",
    training: Annotated[
        bool, typer.Option("--training", help="Only its checkpoints, assets and data; the session stays.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Remove a session that is not under way, with all but its final model."""
    target = target_of(coordinator, session)
    what = f"what the training of {target.session} left on disk" if training else f"session {target.session}"
    confirm(f"Remove {what} for good?", yes=yes, field="delete")
    ask(target, lambda api: api.delete(f"sessions/{target.session}" + ("/training" if training else "")))
    typer.echo(f"removed {what}")


def invite(
    session: Session,
    coordinator: Coordinator = "",
    uses: Annotated[
        int | None, typer.Option(help="How many accounts may join with it; 1 if left out.", show_default=False)
    ] = None,
    days: Annotated[
        float | None, typer.Option(min=0, max=366, help="How long it is good for; 7 if left out.", show_default=False)
    ] = None,
    wallet: Annotated[
        str | None,
        typer.Option(
            metavar="ACCOUNT", show_default=False,
            help="Lets in this account, as eip155:1:0x…, for as long as the invitation stands; there is no token then.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Invite to a private session. What is printed lets in whoever has it, and is not shown again."""
    from node.sessions.text import invitation_lines

    target = target_of(coordinator, session)
    until = None if days is None else (datetime.now(UTC) + timedelta(days=days)).isoformat()
    body = {
        name: value for name, value in (("uses", uses), ("expiresAt", until), ("wallet", wallet)) if value is not None
    }
    invitation = ask(target, lambda api: api.post(f"sessions/{target.session}/invitations", body))
    print_one(invitation, invitation_lines, as_json=as_json)


def _act(action: str, session: str, coordinator: str, *, as_json: bool, question: str = "", yes: bool = True) -> None:
    from node.sessions.text import action_line

    target = target_of(coordinator, session)
    confirm(f"Session {target.session}: {question}", yes=yes, field=action)
    view = ask(target, lambda api: api.post(f"sessions/{target.session}/{action}"))
    print_one(view, lambda one: [action_line(one)], as_json=as_json)
