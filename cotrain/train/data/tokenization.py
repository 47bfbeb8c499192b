"""The second pass over the data: rows become tokens, and tokens samples in the file of their split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from transformers import PreTrainedTokenizerFast

from cotrain.put_aside import PutAside
from cotrain.train.data.rows import PlacedRow
from cotrain.train.data.samples import Integers, SampleWriter, token_dtype
from cotrain.train.spec import DataSpec
from cotrain.train.tasks.base import Task
from cotrain.train.tokenizer import text_tokens

BATCH_CHARACTERS = 2**20
"""Text that is tokenized at once; a longer document is cut at line ends for it."""


class Sink(Protocol):
    """Takes the rows of a pass, in order."""

    def add(self, placed: PlacedRow, writer: SampleWriter) -> None:
        """Tokenize a row into its split."""

    def flush(self) -> None:
        """Write what is still held back; called once, at the end."""


@dataclass(frozen=True, slots=True)
class _Piece:
    text: str
    writer: SampleWriter
    ends_document: bool


class PackedSink:
    """For packed tasks: documents one after another, each followed by a separator.

    That is the tokenizer's end token or, without one, a line end: so one document does not run into the next.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, spec: DataSpec):
        self._tokenizer = tokenizer
        self._dtype = token_dtype(spec.vocab_size)
        ends = text_tokens(tokenizer, ["\n"])[0] if spec.end_id is None else [spec.end_id]
        self._separator: Integers = np.array(ends, self._dtype)
        self._pieces: list[_Piece] = []
        self._characters = 0

    def add(self, placed: PlacedRow, writer: SampleWriter) -> None:
        pieces = list(cut_text(placed.row["text"], BATCH_CHARACTERS))
        for number, text in enumerate(pieces, start=1):
            self._pieces.append(_Piece(text, writer, ends_document=number == len(pieces)))
            self._characters += len(text)
            if self._characters >= BATCH_CHARACTERS:
                self.flush()

    def flush(self) -> None:
        if not self._pieces:
            return
        batch = text_tokens(self._tokenizer, [piece.text for piece in self._pieces])
        for ids, piece in zip(batch, self._pieces, strict=True):
            piece.writer.add_tokens(np.array(ids, self._dtype))
            if piece.ends_document:
                piece.writer.add_tokens(self._separator)
        self._pieces, self._characters = [], 0


def cut_text(text: str, limit: int) -> Iterator[str]:
    """The text in pieces of at most `limit` characters, cut at line ends where there are any; joined they are it."""
    start = 0
    while len(text) - start > limit:
        end = text.rfind("\n", start, start + limit) + 1 or start + limit
        yield text[start:end]
        start = end
    yield text[start:]


class RowSink:
    """For tasks on rows: the task makes samples of each, or says why it cannot."""

    def __init__(self, task: Task, tokenizer: PreTrainedTokenizerFast, spec: DataSpec, put_aside: PutAside):
        self._task, self._tokenizer, self._spec, self._put_aside = task, tokenizer, spec, put_aside

    def add(self, placed: PlacedRow, writer: SampleWriter) -> None:
        try:
            samples = self._task.encode(placed.row, self._tokenizer, self._spec)
        except ValueError as error:
            self._put_aside.add(placed.place, str(error))
            return
        for sample in samples:
            writer.add_sample(sample)

    def flush(self) -> None:
        return None
