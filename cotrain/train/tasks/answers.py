"""Extractive question answering: where in a context the answer begins and ends (SQuAD, arXiv:1806.03822)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from cotrain.sections import FieldsSection
from cotrain.train.data.permutation import Indices
from cotrain.train.spec import DataSpec
from cotrain.train.tasks.base import Row, Sample, Task, model_inputs, pad_column, pad_tokens, token_types
from cotrain.train.tasks.metrics import IGNORE, AnswerMetric, Batch, Metric, Prediction, pack_answers

Span = tuple[int, int]
"""First, and one after the last."""
Offsets = Sequence[Span]
"""The characters of each token."""


class QuestionAnswering(Task):
    """Predict the first and the last token of the answer; both are the first token of the sample if it has none.

    A context that does not fit is read in windows that overlap by half; a question that would take more than half of
    a sample is cut. Of several right answers the first is learnt, and all are kept for the metric.
    """

    name = "question-answering"
    columns = ("tokens", "types", "context", "answer", "question", "gold")
    """`context`, `answer`: spans of tokens; `question`: a number for all windows of one; `gold`: see `pack_answers`."""

    def roles(self, fields: FieldsSection) -> tuple[str, ...]:
        return ("question", "context", "answers")

    def encode(self, row: Row, tokenizer: PreTrainedTokenizerFast, spec: DataSpec) -> list[Sample]:
        context = row["context"]
        answers = answer_spans(row["answers"], context)
        question, room = _fitting_question(row["question"].strip(), tokenizer, spec.seq_length)
        encoded = tokenizer(
            question, context, truncation="only_second", max_length=spec.seq_length, stride=room // 2,
            return_overflowing_tokens=True, return_offsets_mapping=True, split_special_tokens=True,
        )  # fmt: skip
        tokens = _answer_tokens(answers, context, tokenizer)
        shared = {
            "question": np.array([_question_number(row)]),
            "gold": np.array(pack_answers(tokens), dtype=np.int64),
        }
        learnt = list(zip(answers, tokens, strict=True))[:1]
        return [self._sample(encoding, learnt, tokenizer) | shared for encoding in encoded.encodings]

    def _sample(
        self, encoding: Any, answer: list[tuple[Span, list[int]]], tokenizer: PreTrainedTokenizerFast
    ) -> Sample:
        """One window; `answer` holds the characters and the tokens of what is to be found, or nothing."""
        positions = [position for position, text in enumerate(encoding.sequence_ids) if text == 1]
        first, after = (positions[0], positions[-1] + 1) if positions else (0, 0)
        span = (0, 1)
        for characters, tokens in answer:
            begin, end = (first + place for place in covered_tokens(characters, encoding.offsets[first:after]))
            if encoding.ids[begin:end] == tokens:  # not where the window's edge cuts it, be it inside a character
                span = (begin, end)
        return {
            "tokens": np.array(encoding.ids),
            "types": token_types(encoding, tokenizer),
            "context": np.array([first, after]),
            "answer": np.array(span),
        }

    def collate(self, samples: Sequence[Sample], keys: Indices) -> Batch:
        context, answer = (pad_column(samples, name, length=2, value=0) for name in ("context", "answer"))
        longest = max(len(sample["gold"]) for sample in samples)
        facts = {
            "start_positions": answer[:, 0],
            "end_positions": answer[:, 1] - 1,
            "context_start": context[:, 0],
            "context_end": context[:, 1],
            "group": pad_column(samples, "question", length=1, value=0)[:, 0],
            "gold": pad_column(samples, "gold", length=longest, value=IGNORE),
        }
        return pad_tokens(samples, self.spec) | {name: torch.from_numpy(values) for name, values in facts.items()}

    def predictions(self, model: PreTrainedModel, batch: Batch) -> list[Prediction]:
        """Starts, then ends; no token of the padding can be either, however much of it there is."""
        outputs = model(**model_inputs(model, batch))
        padding = batch["attention_mask"] == 0
        return [
            (logits.float().masked_fill(padding, torch.finfo(torch.float32).min), targets)
            for logits, targets in (
                (outputs.start_logits, batch["start_positions"]),
                (outputs.end_logits, batch["end_positions"]),
            )
        ]

    def targets(self, batch: Batch) -> Tensor:
        return torch.cat([batch["start_positions"], batch["end_positions"]])

    def count_targets(self, batch: Batch) -> int:
        return 2 * len(batch["start_positions"])

    def new_metric(self, tokenizer: PreTrainedTokenizerFast | None = None) -> Metric:
        return AnswerMetric(tokenizer)


# ------------------------------------------------------------------------------------------------- rows
def answer_spans(answers: dict[str, Any], context: str) -> list[Span]:
    """The characters of each answer in the context. Raises ValueError if one is not there."""
    texts, starts = answers.get("text"), answers.get("answer_start")
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        raise ValueError("answers must hold two lists of one length, text and answer_start")
    spans = []
    for text, start in zip(texts, starts, strict=True):
        if not isinstance(text, str) or not isinstance(start, int) or not text:
            raise ValueError("an answer must be a text, and its answer_start a number")
        if start < 0 or context[start : start + len(text)] != text:
            raise ValueError(f"the context does not hold an answer at its answer_start, {start}")
        spans.append((start, start + len(text)))
    return list(dict.fromkeys(spans))


def covered_tokens(characters: Span, offsets: Offsets) -> Span:
    """The tokens that hold some of these characters; an empty span if there are none."""
    begin, end = characters
    touching = [position for position, (first, after) in enumerate(offsets) if first < end and after > begin]
    return (touching[0], touching[-1] + 1) if touching else (0, 0)


def _answer_tokens(answers: Sequence[Span], context: str, tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
    """The tokens of each answer as they stand in the context, where their form may differ from the answer's alone.

    Raises ValueError if one has no tokens.
    """
    encoded = tokenizer(
        context, add_special_tokens=False, return_offsets_mapping=True, split_special_tokens=True, verbose=False
    )
    spans = [covered_tokens(answer, encoded.offset_mapping) for answer in answers]
    if any(first == after for first, after in spans):
        raise ValueError("an answer has no tokens")
    return [encoded.input_ids[first:after] for first, after in spans]


def _fitting_question(question: str, tokenizer: PreTrainedTokenizerFast, seq_length: int) -> tuple[str, int]:
    """The question, cut to half of what a sample holds beside special tokens, and the tokens left for the context."""
    room = seq_length - tokenizer.num_special_tokens_to_add(pair=True)
    encoded = tokenizer(question, add_special_tokens=False, return_offsets_mapping=True, split_special_tokens=True)
    if len(encoded.input_ids) > room // 2:
        return question[: encoded.offset_mapping[room // 2][0]], room - room // 2
    return question, room - len(encoded.input_ids)


def _question_number(row: Row) -> int:
    """The same for all windows of a question, another for every other: 63 bits of a hash."""
    text = f"{row['question']}\0{row['context']}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 1
