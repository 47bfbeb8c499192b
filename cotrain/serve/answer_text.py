"""Tokens become text as they come: whole characters only, and nothing that a stop text may still swallow."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_BROKEN = "\N{REPLACEMENT CHARACTER}"
_CHARACTER_BYTES = 4
"""Of the longest character in UTF-8: what is broken for longer is no character."""

Decode = Callable[[Sequence[int]], str]


class Characters:
    """The text of tokens, each piece once it is whole."""

    def __init__(self, decode: Decode):
        self._decode = decode
        self._told: list[int] = []
        """Of the last piece: how the next one is written may depend on it."""
        self._held: list[int] = []

    def push(self, token: int) -> str:
        """What this token completes; may be empty."""
        self._held.append(token)
        text = self._text_held()
        if text.endswith(_BROKEN) and len(self._held) < _CHARACTER_BYTES:
            return ""
        self._told, self._held = self._held, []
        return text

    def finish(self) -> str:
        """What is left."""
        text = self._text_held() if self._held else ""
        self._told, self._held = self._held, []
        return text

    def _text_held(self) -> str:
        return self._decode([*self._told, *self._held])[len(self._decode(self._told)) :]


class AnswerText:
    """The text of one answer, up to where it stops.

    Args:
        decode: token ids to text.
        stops: texts that the answer ends before; the earliest one counts.
        strip_start: whether white space at the start is left out.
    """

    def __init__(self, decode: Decode, stops: Sequence[str], *, strip_start: bool):
        self._characters = Characters(decode)
        self._stops = tuple(stops)
        self._strip_start = strip_start
        self._held = ""
        self.stopped = False
        """Whether a stop text has come; nothing follows."""

    def push(self, token: int) -> str:
        """What can be told after this token; may be empty."""
        return self._take(self._characters.push(token))

    def finish(self) -> str:
        """What is left where no stop text has come."""
        if self.stopped:
            return ""
        text = self._take(self._characters.finish())
        held, self._held = self._held, ""
        return text if self.stopped else text + held

    def _take(self, text: str) -> str:
        self._held += text
        found = [place for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            told, self._held = self._held[: min(found)], ""
        else:
            safe = len(self._held) - longest_beginning(self._held, self._stops)
            told, self._held = self._held[:safe], self._held[safe:]
        if self._strip_start and told:
            told = told.lstrip()
            self._strip_start = not told
        return told


def longest_beginning(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end of the text may be the beginning of a stop text."""
    return max(
        (size for stop in stops for size in range(1, min(len(stop), len(text) + 1)) if text.endswith(stop[:size])),
        default=0,
    )
