"""The plain form of a conversation, for models without a chat template: what is served is what is trained on. Pure.

Each message is a line that begins with its role's label; a line inside a message that begins like one is set in by a
space, so that nobody speaks in another's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

LABELS = {"system": "System", "user": "User", "assistant": "Assistant"}
"""What stands before a message, by the role of who says it."""
STOP = f"\n{LABELS['user']}:"
"""Where an answer ends that the model itself does not end."""

_LABELLED = re.compile(rf"^(?=(?:{'|'.join(LABELS.values())}):)", re.MULTILINE)


def message_line(role: str, text: str) -> str:
    """One message, without a line break at its end. Raises KeyError for a role that has no label."""
    return f"{LABELS[role]}: {_LABELLED.sub(' ', text.strip())}"


def conversation_text(messages: Iterable[tuple[str, str]]) -> str:
    """What is trained on: the messages (role, text), oldest first, each on a line of its own."""
    return "".join(message_line(role, text) + "\n" for role, text in messages)


def prompt_text(messages: Iterable[tuple[str, str]]) -> str:
    """The same up to where the next answer begins: a model that learnt `conversation_text` goes on with it."""
    return f"{conversation_text(messages)}{LABELS['assistant']}:"
