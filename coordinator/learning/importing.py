"""Chats of files into the chat log."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from coordinator.chat_log import ChatLog, Exchange, Rating
from coordinator.learning.place import Place
from coordinator.store import open_store
from cotrain.learn.importing import read_chats
from cotrain.learn.samples import Chat
from cotrain.put_aside import PutAside
from cotrain.request import CamelModel

_MOST_PROBLEMS = 20
_NAME_LENGTH = 40


class ImportReport(CamelModel):
    """What became of the rows of some files."""

    added: int
    """In the log now; when there are more than it keeps, the last ones."""
    refused: int
    problems: list[str]
    """Where and why, the first ones."""


async def import_files(place: Place, files: Sequence[Path]) -> ImportReport:
    """Put the chats of files into the log. Raises ConfigError for a file that cannot be read as a whole."""
    put_aside = PutAside()
    chats = await asyncio.to_thread(_read, files, put_aside)
    async with open_store(place.database_url) as store:
        added = await ChatLog(store, kept=place.config.chat.kept).import_many([_exchange(chat) for chat in chats])
    problems = [f"{place}: {reason}" for place, reason in put_aside.listed[:_MOST_PROBLEMS]]
    return ImportReport(added=added, refused=put_aside.counts.total(), problems=problems)


def _read(files: Sequence[Path], problems: PutAside) -> list[Chat]:
    return [chat for file in files for chat in read_chats(file, name=_name(file), problems=problems)]


def _name(file: Path) -> str:
    """What the file is called where samples tell their origin."""
    return re.sub(r"[^\w.-]", "-", file.stem)[:_NAME_LENGTH] or "file"


def _exchange(chat: Chat) -> Exchange:
    return Exchange(question=chat.question, answer=chat.answer, consent="import", rating=cast(Rating, chat.rating))
