"""Rows that the tests of the page put into a coordinator's database, where making them for real would take minutes."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

from cotrain.paths import SharedPaths

DATABASE = "cotrain.sqlite3"
FIRST_POINT_AT = 1_900_000_000.0
ROUND_S = 20.0
SAMPLES_A_ROUND = 64


def add_points(shared: Path, session: str, rounds: range) -> None:
    """A point for each of these rounds: the loss falls, every fourth one is evaluated."""
    rows = [
        {
            "session_id": session, "round": number, "time": FIRST_POINT_AT + ROUND_S * number,
            "samples": SAMPLES_A_ROUND * number, "loss": 1.5 + 4.0 / (1 + number),
            "validation_loss": 1.6 + 4.0 / (1 + number) if number % 4 == 0 else None,
            "tokens_per_second": 1000.0 + number, "learning_rate": 0.002 / (1 + number),
        }
        for number in rounds
    ]  # fmt: skip
    _insert(shared, "metrics", rows)


def add_model(shared: Path, name: str, owner: str, sessions: list[str], files: Path | None = None) -> None:
    """A model with a version by each of these sessions; each has a copy of `files`, or they are gone."""
    paths = {session: _copied(shared, session, files) for session in sessions}
    _insert(shared, "models", [{"id": name, "name": name, "owner": owner, "created_at": FIRST_POINT_AT}])
    contributor = {"account": owner, "names": ["Ada"], "peers": 1, "samples": 128, "rounds": 2, "tokens": 4096}
    rows = [
        {
            "model_id": name, "version": number, "session_id": session, "config": _config_of(shared, session),
            "data_fingerprint": "f" * 64,
            "contributors": json.dumps([contributor]), "uncredited_rounds": 0, "last_evaluation": None,
            "evaluation": json.dumps({"round": 8, "samples": 512, "metrics": {"validationLoss": 3.0 / number}}),
            "path": paths[session], "size_bytes": 0, "parameters": 1_000_000, "round": 8, "pinned": False,
            "visibility": "public", "created_at": FIRST_POINT_AT + number,
        }
        for number, session in enumerate(sessions, start=1)
    ]  # fmt: skip
    _insert(shared, "model_versions", rows)


def _copied(shared: Path, session: str, files: Path | None) -> str:
    """A copy of a folder where sessions leave their models: its path below `shared`; empty for none."""
    if files is None:
        return ""
    folder = SharedPaths(shared).final_model(session)
    shutil.copytree(files, folder)
    return str(folder.relative_to(shared))


def _config_of(shared: Path, session: str) -> str:
    with _database(shared) as connection:
        (config,) = connection.execute("SELECT config FROM sessions WHERE id = ?", (session,)).fetchone()
        return str(config)


def add_cycle(shared: Path, number: int, model: str, *, figures: dict[str, Any] | None = None, **facts: Any) -> str:
    """A learning cycle that began `number` hours after the first one, or other facts of it; its id.

    Args:
        figures: in camelCase, as the API tells them.
    """
    began = FIRST_POINT_AT + 3600.0 * number
    row = {
        "id": f"c-{number}", "model_id": model, "trigger": "timer", "stage": "ended", "outcome": "not-significant",
        "dataset_version": number, "chats_until": 0, "figures": json.dumps(figures or {}), "base_version": 1,
        "session_id": None, "new_version": None, "old_loss": None, "new_loss": None, "message": "",
        "created_at": began, "updated_at": began,
    }  # fmt: skip
    _insert(shared, "learning_cycles", [row | facts])
    return str(row["id"])


def add_chats(shared: Path, model: str, exchanges: list[tuple[str, str]]) -> None:
    """Chats with a model that wait to be learnt from."""
    rows = [
        {
            "id": f"chatcmpl-{model}-{number}", "account": "", "consent": "request", "model_id": model, "version": 1,
            "language": "en", "question": question, "answer": answer, "rating": 0, "created_at": FIRST_POINT_AT,
        }
        for number, (question, answer) in enumerate(exchanges)
    ]  # fmt: skip
    _insert(shared, "chats", rows)


def kept_chats(shared: Path) -> list[tuple[str, int]]:
    """Question and rating of the chats that are kept, oldest first."""
    with _database(shared) as connection:
        return list(connection.execute("SELECT question, rating FROM chats ORDER BY position"))


def add_credit(shared: Path, session: str, samples: int) -> None:
    """Credit the participants of this session with `samples` in one round each."""
    with _database(shared) as connection:
        found = connection.execute("SELECT id FROM participants WHERE session_id = ?", (session,)).fetchall()
    rows = [{"participant_id": id_, "session_id": session, "samples": samples, "rounds": 1} for (id_,) in found]
    _insert(shared, "contributions", rows)


def add_record(shared: Path, session: str, *, tx_hash: str, message: str) -> None:
    """The opening of this session is on its way to a chain."""
    row = {
        "session_id": session, "visibility": "public", "kind": "open", "chain": "eip155:8453",
        "contract": "0x" + "c" * 40, "opener": "0x" + "d" * 40, "config_hash": "e" * 64, "final_digest": "",
        "contributions_root": "", "total_samples": 0, "shares": "[]", "state": "sent", "nonce": 0, "tx_hash": tx_hash,
        "block_hash": "", "message": message, "created_at": FIRST_POINT_AT, "updated_at": FIRST_POINT_AT,
    }  # fmt: skip
    _insert(shared, "chain_records", [row])


def copy_participant(shared: Path, count: int) -> None:
    """Give the session of the one participant in the database `count` more like it."""
    with _database(shared) as connection:
        names = [row[1] for row in connection.execute("PRAGMA table_info(participants)")]
        values = dict(zip(names, connection.execute("SELECT * FROM participants").fetchone(), strict=True))
    copies = [
        {"id": f"p{number}", "peer_id": f"peer{number:06}", "created_at": values["created_at"] + 1 + number}
        for number in range(count)
    ]
    _insert(shared, "participants", [values | own for own in copies])


def _insert(shared: Path, table: str, rows: list[dict[str, Any]]) -> None:
    names = ", ".join(rows[0])
    marks = ", ".join(f":{name}" for name in rows[0])
    with _database(shared) as connection:
        # the coordinator may have written one of them itself: a point for the untrained model
        connection.executemany(f"INSERT OR REPLACE INTO {table} ({names}) VALUES ({marks})", rows)


@contextlib.contextmanager
def _database(shared: Path) -> Any:
    """A connection whose changes are committed at the end; a coordinator may be writing meanwhile."""
    with contextlib.closing(sqlite3.connect(shared / DATABASE, timeout=30.0)) as connection, connection:
        yield connection
