"""Whether a share is what its session's opener recorded: by the document alone, and by the chain itself."""

from __future__ import annotations

from cotrain.chain.document import Recorded, ShareDocument
from cotrain.chain.merkle import ShareError, session_key, verify
from cotrain.chain.reader import ChainReader
from cotrain.chain.registry import Record, is_registry, read_session, read_verify, session_call, verify_call


def check_document(document: ShareDocument) -> None:
    """That the proof leads from the share to the root which the document names. Pure. Raises ShareError."""
    if not verify(document.record.root(), document.share(), document.siblings()):
        raise ShareError(
            "the proof does not lead to the recorded root: this share is not among those of the session",
            field=document.account, hint="somebody has changed the document, or it is of another session",
        )  # fmt: skip
    if document.samples > document.record.total_samples:
        raise ShareError("has more samples than the session", field=document.account)


def check_opener(record: Recorded, opener: str) -> None:
    """That the record is by whom the reader believes. Pure. Raises ShareError."""
    if record.opener.lower() != opener.lower():
        raise ShareError(f"was recorded by {record.opener}, not by {opener}", field=record.session)


async def check_on_chain(document: ShareDocument, reader: ChainReader) -> Record:
    """That the registry holds this record, and takes this proof.

    Returns what the chain says. Raises ShareError with what differs, and what `ChainReader` raises.
    """
    said = document.record
    chain = await reader.chain()
    if chain != said.chain:
        raise ShareError(f"is recorded on {said.chain}, but the node answers for {chain}", field=said.session)
    if not is_registry(await reader.code(said.contract)):
        # another contract could say yes to everything
        raise ShareError("there is no registry of cotrain at this address", field=said.contract)
    key = session_key(said.session)
    record = read_session(await reader.call(said.contract, session_call(said.opener, key)))
    _compare(said, record)
    called = verify_call(said.opener, key, document.share(), document.siblings())
    if not read_verify(await reader.call(said.contract, called)):
        raise ShareError("the registry does not take this proof", field=document.account)
    return record


def _compare(said: Recorded, record: Record) -> None:
    if record.opened_at == 0:
        raise ShareError(f"{said.opener} has recorded no such session", field=said.session)
    if record.closed_at == 0:
        raise ShareError("is not closed on the chain", field=said.session, hint="try again later")
    claims = (
        ("the config's hash", said.config_hash, record.config_hash),
        ("the model's digest", said.final_digest, record.final_digest),
        ("the contributions' root", said.contributions_root, record.contributions_root),
    )
    for name, claimed, recorded in claims:
        if bytes.fromhex(claimed[2:]) != recorded:
            raise ShareError(f"{name} is 0x{recorded.hex()} on the chain, not {claimed}", field=said.session)
    if said.total_samples != record.total_samples:
        raise ShareError(
            f"has {record.total_samples} samples in all on the chain, not {said.total_samples}", field=said.session
        )
