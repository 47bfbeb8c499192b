"""What the API answers, as lines for people. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from cotrain.display import format_bytes

View = Mapping[str, Any]
"""An object as the API answers it."""


def printable(text: object) -> str:
    """In one line, without what would steer a terminal: names and messages come from strangers."""
    return "".join(character if character.isprintable() else "�" for character in str(text))


def columns(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """A table of left-aligned columns, two blanks apart."""
    cells = [list(header), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def figure(value: float | None, digits: int = 4) -> str:
    """A number, or a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def clock(seconds: float) -> str:
    """Unix seconds as a time of day in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%H:%M:%S")


# ------------------------------------------------------------------------------------------------- sessions
def sessions_table(views: Sequence[View]) -> list[str]:
    """One line a session."""
    rows = [
        (view["id"], view["status"], f"{view['processRate']:.1f}", view["round"], view["peers"], figure(view["loss"]),
         view["name"])
        for view in views
    ]  # fmt: skip
    return columns(("SESSION", "STATUS", "%", "ROUND", "NODES", "LOSS", "NAME"), rows)


def offers_table(views: Sequence[View]) -> list[str]:
    """One line a session that can be joined."""
    rows = [
        (view["id"], view["status"], view["missingPeers"], _bytes(view["memoryBytes"]), view["name"]) for view in views
    ]
    return columns(("SESSION", "STATUS", "LACKS", "MEMORY", "NAME"), rows)


def session_lines(view: View) -> list[str]:
    """All that people want to know of one session."""
    facts = [
        ("session", view["id"]),
        ("name", view["name"]),
        ("description", view["description"]),
        ("status", view["status"]),
        ("waits for", waiting_for(view)),
        ("error", view["errorMsg"]),
        ("progress", f"{view['processRate']:.1f} %, round {view['round']}"),
        ("samples", f"{view['samplesCommitted']} of {view['samplesWanted']}"),
        ("loss", figure(view["loss"])),
        ("validation", figure(view["validationLoss"])),
        ("nodes", view["peers"]),
        ("node needs", _bytes(view["memoryBytes"])),
        ("visibility", view["visibility"]),
        ("owner", view["owner"]),
        ("created", view["createdAt"]),
        ("last trained", view["lastTrainAt"] or ""),
        ("model", view["modelPath"]),
        ("record", record_words(view.get("record"))),
        ("possible", ", ".join(view["possibleActions"])),
        ("address", view["url"]),
        ("join with", view["joinCommand"]),
    ]
    return [f"{name:<13} {printable(value)}" for name, value in facts if value != ""]


def waiting_for(view: View) -> str:
    """Why a session does not train yet; empty if it waits for nothing."""
    reason = view.get("waitingFor")
    return "" if reason is None else f"{reason['code']}: {reason['message']}"


def record_words(record: View | None) -> str:
    """How far a session's record on a chain is; empty where nothing is recorded."""
    if record is None or record["status"] == "off":
        return ""
    transaction = record["closeTx"] or record["openTx"]
    words = f"{record['status']} on {record['chain']}" + (f", transaction {transaction}" if transaction else "")
    return f"{words}: {record['message']}" if record["message"] else words


def action_line(view: View) -> str:
    """What has become of a session that was steered."""
    waits = waiting_for(view)
    return printable(f"session {view['id']}: {view['status']}" + (f", waits for {waits}" if waits else ""))


def opened_lines(view: View) -> list[str]:
    """A session that has just been opened."""
    facts = [("session", view["id"]), ("status", view["status"]), ("address", view["url"]),
             ("join with", view["joinCommand"])]  # fmt: skip
    return [*(f"{name:<13} {printable(value)}" for name, value in facts), *outlook_lines(view)]


def preview_lines(view: View) -> list[str]:
    """The TOML, with all else as its comments: what is printed is a config."""
    notes = [f"# {line}" for line in outlook_lines(view)]
    return [*view["config"].rstrip("\n").split("\n"), *(["", *notes] if notes else [])]


def outlook_lines(view: View) -> list[str]:
    """What a session asks of each node, and what to know about it."""
    lines = []
    if (estimate := view["estimate"]) is not None:
        memory, traffic = estimate["memory"], estimate["traffic"]
        gpu = f", each GPU {format_bytes(memory['gpuBytes'])}" if memory["gpuBytes"] else ""
        lines = [
            f"parameters    {estimate['parameters']:,}",
            f"node needs    {format_bytes(memory['totalBytes'])} of memory at most{gpu}",
            f"a round       {traffic['roundSteps']} inner steps; a node sends {format_bytes(traffic['sentBytes'])}, "
            f"receives {format_bytes(traffic['receivedBytes'])}",
        ]
    return [*lines, *map(_advice_line, view["advice"])]


def _advice_line(advice: View) -> str:
    where = f"{advice['field']}: " if advice["field"] else ""
    hint = f" ({advice['hint']})" if advice.get("hint") else ""
    return printable(f"advice        {where}{advice['message']}{hint}")


# ------------------------------------------------------------------------------------------------- what is in them
def participants_table(views: Sequence[View]) -> list[str]:
    """One line a participant."""
    rows = [
        (view["id"], view["state"], view["phase"] or "-", view["round"], view["credit"]["samples"],
         figure(view["loss"]), figure(view["tokensPerSecond"], 0), view["name"], view["device"])
        for view in views
    ]  # fmt: skip
    header = ("PARTICIPANT", "STATE", "PHASE", "ROUND", "SAMPLES", "LOSS", "TOKENS/S", "NAME", "DEVICE")
    return columns(header, rows)


def credit_table(views: Sequence[View]) -> list[str]:
    """One line a wallet."""
    rows = [
        (view["account"], view["samples"], "-" if view["tokens"] is None else view["tokens"], view["rounds"],
         ", ".join(view["names"]))
        for view in views
    ]  # fmt: skip
    return columns(("WALLET", "SAMPLES", "TOKENS", "ROUNDS", "NAMES"), rows)


def models_table(views: Sequence[View]) -> list[str]:
    """One line a model."""
    rows = []
    for view in views:
        newest = view["newest"] or {}
        evaluation = newest.get("evaluation") or {"metrics": {}}
        loss = figure(evaluation["metrics"].get("validationLoss"))
        size = _bytes(newest.get("sizeBytes", 0)) if newest.get("available") else "-"
        rows.append((view["id"], view["versions"], loss, size, newest.get("createdAt", "-"), view["name"]))
    return columns(("MODEL", "VERSIONS", "VALIDATION", "SIZE", "NEWEST", "NAME"), rows)


def log_line(record: View) -> str:
    """One record of the training log."""
    level = "" if record["level"] == "info" else f" {record['level']}:"
    return printable(f"{clock(record['time'])} {record['source']} {record['kind']}:{level} {record['message']}")


def job_line(job: View) -> str:
    """A job, and what has come of it."""
    made = f": {job['model']} version {job['version']}" if job["version"] is not None else ""
    return printable(f"job {job['id']}: {job['kind']} {job['status']}{made}")


def invitation_lines(invitation: View) -> list[str]:
    """An invitation at the one moment when its token is at hand."""
    facts = [("invitation", invitation["id"]), ("for", invitation["wallet"] or f"{invitation['uses']} accounts"),
             ("until", invitation["expiresAt"] or "it is ended"), ("join with", invitation["joinCommand"])]  # fmt: skip
    return [f"{name:<13} {printable(value)}" for name, value in facts]


def _bytes(size: int) -> str:
    return format_bytes(size) if size else "-"
