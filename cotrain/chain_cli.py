"""`cotrain chain`: who gave how much to a session, proved by the record on a public chain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.sessions.options import Coordinator, Invitation, ask, target_of

if TYPE_CHECKING:
    from cotrain.chain.document import CreditDocument, Recorded, ShareDocument
    from node.sessions.api import SessionsApi

app = typer.Typer(
    help="Prove by a public chain who gave how much to a session.", add_completion=False,
    rich_markup_mode=None, pretty_exceptions_enable=False,
)  # fmt: skip

Session = Annotated[
    str,
    typer.Argument(metavar="SESSION", help="Id or address of a session, or a file that share or credit saved."),
]
Wallet = Annotated[
    str, typer.Argument(metavar="WALLET", help="An account, as eip155:1:0x…, or its address.", show_default=False)
]
Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to save it.", show_default=False)]


@app.command()
def verify(
    session: Session,
    wallet: Wallet,
    rpc: Annotated[
        str,
        typer.Option(metavar="URL", help="JSON-RPC of a node of the chain: it is asked itself.", show_default=False),
    ] = "",
    opener: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="Whose record counts; refuse anybody else's.", show_default=False),
    ] = "",
    coordinator: Coordinator = "",
    invitation: Invitation = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:  # fmt: skip
    """Check a wallet's share of a session, with --rpc by the chain itself: 0 if all is right, 1 with what is wrong."""
    from cotrain.chain.proof import check_document, check_opener

    document = _document(session, wallet, coordinator, invitation)
    check_document(document)
    if opener:
        check_opener(document.record, opener)
    closed_at = _ask_chain(document, rpc) if rpc else None
    if as_json:
        facts = document.model_dump(mode="json", by_alias=True)
        facts |= {"provedBy": "chain" if rpc else None, "closedAt": closed_at}
        typer.echo(json.dumps(facts))
        return
    for line in _verdict_lines(document, closed_at):
        typer.echo(line)


@app.command()
def share(
    session: Session, wallet: Wallet, out: Out, coordinator: Coordinator = "", invitation: Invitation = ""
) -> None:
    """Save a wallet's share with its proof: all that is needed to verify it when the coordinator is gone."""
    from cotrain.chain.document import write_document

    document = _document(session, wallet, coordinator, invitation)
    write_document(out, document)
    typer.echo(f"{document.account} gave {document.samples} samples to {document.record.session}: {out}")


@app.command()
def credit(session: Session, out: Out, coordinator: Coordinator = "", invitation: Invitation = "") -> None:
    """Save the shares of all wallets: whoever has the file makes the root and every proof from it."""
    from cotrain.chain.document import write_document

    document = _credit(session, coordinator, invitation)
    document.tree()
    write_document(out, document)
    typer.echo(f"{len(document.items)} accounts gave {document.record.total_samples} samples: {out}")


def _document(session: str, wallet: str, coordinator: str, invitation: str) -> ShareDocument:
    """The share of a wallet, from a file or from a coordinator. Raises ShareError if it has none."""
    from cotrain.chain.document import CreditDocument, read_document
    from cotrain.chain.merkle import ShareError

    path = Path(session)
    if "://" in session or not path.is_file():
        return _credit(session, coordinator, invitation).document_of(wallet)
    document = read_document(path)
    if isinstance(document, CreditDocument):
        return document.document_of(wallet)
    if wallet.lower() not in (document.account.lower(), document.account.lower().rpartition(":")[2]):
        raise ShareError(f"is the share of {document.account}", field=session, hint=f"ask whether {wallet} has another")
    return document


def _credit(session: str, coordinator: str, invitation: str) -> CreditDocument:
    """All shares of a session as its coordinator tells them."""
    target = target_of(coordinator, session, invitation)
    return ask(target, lambda api: fetch_credit(api, target.session))


async def fetch_credit(api: SessionsApi, session: str) -> CreditDocument:
    """All shares of a session, and its record, as the coordinator tells them.

    Raises:
        ShareError: the session is not recorded, or not closed yet.
        ProtocolError: the answers are not what a coordinator sends.
    """
    from pydantic import ValidationError

    from cotrain.chain.document import FORMAT_VERSION, CreditDocument
    from cotrain.errors import ProtocolError

    record = await api.get(f"sessions/{session}/record")
    _require_closed(record, session)
    shares = await api.get(f"sessions/{session}/record/shares")
    try:
        return CreditDocument.model_validate(
            {
                "kind": "cotrain-credit", "version": FORMAT_VERSION, "record": _recorded(record, session),
                "items": shares.get("items"),
            }
        )  # fmt: skip
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        raise ProtocolError(
            f"the coordinator's record cannot be read: {problem['msg']}", field=".".join(map(str, problem["loc"]))
        ) from error


def _require_closed(record: dict[str, Any], session: str) -> None:
    from cotrain.chain.merkle import ShareError
    from node.sessions.text import printable

    status, message = record.get("status"), record.get("message")
    if status == "closed":
        return
    if status == "off":
        raise ShareError("is not recorded on a chain", field=session, hint="its operator decides about that")
    raise ShareError(
        f"is not closed on its chain: {printable(status)}", field=session,
        hint=printable(message or "try again when the session has ended"),
    )  # fmt: skip


def _recorded(record: dict[str, Any], session: str) -> dict[str, Any]:
    names = ("chain", "contract", "opener", "openTx", "closeTx", "configHash", "finalDigest", "contributionsRoot",
             "totalSamples")  # fmt: skip
    return {"session": session, **{name: record.get(name) for name in names}}


def _ask_chain(document: ShareDocument, rpc: str) -> int:
    """When the record was closed, by the chain, in Unix seconds. Raises as `check_on_chain`."""
    import asyncio

    from cotrain.chain.proof import check_on_chain
    from cotrain.chain.reader import ChainReader

    async def run() -> int:
        async with ChainReader(rpc) as reader:
            return (await check_on_chain(document, reader)).closed_at

    return asyncio.run(run())


def _verdict_lines(document: ShareDocument, closed_at: int | None) -> list[str]:
    from datetime import UTC, datetime

    share = f"{document.account} gave {document.samples} of {document.record.total_samples} samples"
    lines = [f"{share} to session {document.record.session}", *_record_lines(document.record)]
    if closed_at is None:
        return [
            *lines, "Not proved, since the chain was not asked: the share is under the root above, but that this root "
            "is recorded is only what the coordinator or the file says. Give --rpc URL to ask the chain itself.",
        ]  # fmt: skip
    when = datetime.fromtimestamp(closed_at, UTC).isoformat()
    return [
        *lines, f"closed      {when}, by the chain's clock",
        "Proved by the chain. It says what the opener recorded: that this opener is the one whom you believe is for "
        "you to check.",
    ]  # fmt: skip


def _record_lines(record: Recorded) -> list[str]:
    facts = [
        ("opener", record.opener), ("chain", record.chain), ("registry", record.contract),
        ("root", record.contributions_root), ("config", record.config_hash), ("model", record.final_digest),
        ("opened in", record.open_tx), ("closed in", record.close_tx),
    ]  # fmt: skip
    return [f"{name:<11} {value}" for name, value in facts if value is not None]
