"""How good predictions are: accuracy, entities found (BIO), answers found (SQuAD)."""

from __future__ import annotations

import string
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

IGNORE = -100
"""A target that is not to be predicted, as in torch's cross-entropy."""

Batch = dict[str, Tensor]
"""One tensor a name, [samples, ...]."""
Prediction = tuple[Tensor, Tensor]
"""Logits [m, classes] float32, and targets [m] int64 with IGNORE where nothing is to be predicted."""

Entity = tuple[str, int, int]
"""Kind, first word, word after the last."""
Words = Sequence[Hashable]


class Metric(ABC):
    """Sums over batches; the share of targets that were held for the likeliest is part of each."""

    def __init__(self) -> None:
        self._correct = self._targets = 0

    def add(self, batch: Batch, predictions: Sequence[Prediction]) -> None:
        """Count one batch; tensors may be on any device."""
        for logits, targets in predictions:
            counted = targets != IGNORE
            self._correct += int(((logits.argmax(dim=-1) == targets) & counted).sum())
            self._targets += int(counted.sum())
        self._add(batch, predictions)

    def result(self) -> dict[str, float]:
        """Shares in [0, 1]; `accuracy` is always there."""
        return {"accuracy": self._correct / max(1, self._targets), **self._result()}

    @abstractmethod
    def _add(self, batch: Batch, predictions: Sequence[Prediction]) -> None: ...

    @abstractmethod
    def _result(self) -> dict[str, float]: ...


class AccuracyMetric(Metric):
    """Nothing but the accuracy."""

    def _add(self, batch: Batch, predictions: Sequence[Prediction]) -> None:
        return None

    def _result(self) -> dict[str, float]:
        return {}


# ---------------------------------------------------------------------------------------------- entities
class EntityMetric(Metric):
    """Micro-averaged F1 of whole entities, as CoNLL-2003 counts them: kind and both ends must agree.

    An entity that runs over the end of a sample is counted in each part.
    """

    def __init__(self, labels: Sequence[str]):
        super().__init__()
        self._labels = tuple(labels)
        self._found = self._predicted = self._gold = 0

    def _add(self, batch: Batch, predictions: Sequence[Prediction]) -> None:
        targets = batch["labels"].cpu().numpy()
        likeliest = predictions[0][0].argmax(dim=-1).cpu().numpy().reshape(targets.shape)
        for predicted_row, gold_row in zip(likeliest, targets, strict=True):
            counted = gold_row != IGNORE
            predicted = entities([self._labels[number] for number in predicted_row[counted]])
            gold = entities([self._labels[number] for number in gold_row[counted]])
            self._found += len(predicted & gold)
            self._predicted += len(predicted)
            self._gold += len(gold)

    def _result(self) -> dict[str, float]:
        return {
            "precision": self._found / max(1, self._predicted),
            "recall": self._found / max(1, self._gold),
            "f1": 2 * self._found / max(1, self._predicted + self._gold),
        }


def entities(tags: Sequence[str]) -> set[Entity]:
    """The entities of one row of tags in the BIO scheme, read as CoNLL's script does.

    An I- that follows another kind begins an entity too; a tag without B- or I- is read as I-.
    """
    found: set[Entity] = set()
    kind, begin = "", 0
    for position, tag in enumerate([*tags, "O"]):
        prefix, _, rest = tag.partition("-")
        this = "" if tag == "O" else rest if prefix in ("B", "I") and rest else tag
        if this != kind or (prefix == "B" and rest):
            if kind:
                found.add((kind, begin, position))
            kind, begin = this, position
    return found


# ----------------------------------------------------------------------------------------------- answers
@dataclass
class _Question:
    """What the windows of one question said so far."""

    gold: list[list[int]]
    answer: list[int] = field(default_factory=list)
    score: float = -np.inf
    """Of the best answer."""
    no_answer_score: float = np.inf


class AnswerMetric(Metric):
    """Exact match and F1 as in SQuAD 2 (arXiv:1806.03822), over the best window of each question.

    With a tokenizer, answers are decoded and compared as SQuAD does: lower case, without punctuation and English
    articles, word by word. Without one, tokens stand for words and are compared as they are: stricter for the exact
    match, and kinder for F1 where tokens are bytes. "No answer" is predicted where its score is higher in every
    window than the best answer's; it is right where there is none.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast | None = None):
        super().__init__()
        self._tokenizer = tokenizer
        self._questions: dict[int, _Question] = {}

    def _add(self, batch: Batch, predictions: Sequence[Prediction]) -> None:
        start, end = (logits.detach().float().cpu().numpy() for logits, _ in predictions)
        facts = {name: tensor.cpu().numpy() for name, tensor in batch.items()}
        scores, first, last = best_spans(start, end, facts["context_start"], facts["context_end"])
        for row, group in enumerate(facts["group"].tolist()):
            question = self._questions.setdefault(group, _Question(unpack_answers(facts["gold"][row])))
            question.no_answer_score = min(question.no_answer_score, float(start[row, 0] + end[row, 0]))
            if scores[row] > question.score:
                question.score = float(scores[row])
                question.answer = facts["input_ids"][row, first[row] : last[row] + 1].tolist()

    def _result(self) -> dict[str, float]:
        exact, f1 = 0.0, 0.0
        for question in self._questions.values():
            answered = question.score >= question.no_answer_score
            predicted = self._words(question.answer) if answered else []
            golds = [self._words(tokens) for tokens in question.gold] or [[]]
            exact += max(float(list(predicted) == list(gold)) for gold in golds)
            f1 += max(overlap_f1(predicted, gold) for gold in golds)
        count = max(1, len(self._questions))
        return {"exact_match": exact / count, "f1": f1 / count}

    def _words(self, tokens: list[int]) -> Words:
        if self._tokenizer is None:
            return tokens
        return normalize_answer(str(self._tokenizer.decode(tokens, skip_special_tokens=True))).split()


def best_spans(
    start: NDArray[np.float32], end: NDArray[np.float32], first: NDArray[np.int64], after: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """The span of each row with the highest start score + end score, its ends both inside the context.

    Args:
        start: scores [rows, tokens]; `end` likewise.
        first: the context's first token [rows]; `after` the one after its last.

    Returns scores [rows] (-inf where there is no context), first and last tokens [rows].
    """
    positions = np.arange(start.shape[1])
    inside = (positions >= first[:, None]) & (positions < after[:, None])
    starts = np.where(inside, start, -np.inf)
    best_start = np.maximum.accumulate(starts, axis=1)
    best_position = np.maximum.accumulate(np.where(starts == best_start, positions, 0), axis=1)
    totals = np.where(inside, best_start + end, -np.inf)
    last = totals.argmax(axis=1)
    rows = np.arange(len(start))
    return totals[rows, last], best_position[rows, last], last


def pack_answers(answers: Sequence[Sequence[int]]) -> list[int]:
    """Several token sequences as one: each with its length before it."""
    return [number for tokens in answers for number in (len(tokens), *tokens)]


def unpack_answers(packed: NDArray[np.int64]) -> list[list[int]]:
    """What `pack_answers` packed; IGNORE in the place of a length ends it."""
    numbers, answers, at = packed.tolist(), [], 0
    while at < len(numbers) and numbers[at] != IGNORE:
        answers.append(numbers[at + 1 : at + 1 + numbers[at]])
        at += 1 + numbers[at]
    return answers


def normalize_answer(text: str) -> str:
    """SQuAD's normal form, with the punctuation of every script: "The  Cat!" -> "cat"."""
    kept = (c for c in text.lower() if c not in string.punctuation and not unicodedata.category(c).startswith("P"))
    return " ".join(word for word in "".join(kept).split() if word not in ("a", "an", "the"))


def overlap_f1(predicted: Words, gold: Words) -> float:
    """F1 of the words that both have, counted as often as they occur; 1 if both are empty."""
    if not predicted and not gold:
        return 1.0
    common = sum((Counter(predicted) & Counter(gold)).values())
    return 2 * common / (len(predicted) + len(gold))
