"""Metrics against cases counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cotrain.train.tasks.metrics import (
    IGNORE,
    AccuracyMetric,
    AnswerMetric,
    Batch,
    EntityMetric,
    Prediction,
    best_spans,
    entities,
    normalize_answer,
    overlap_f1,
    pack_answers,
    unpack_answers,
)
from cotrain.train.tokenizer import byte_tokenizer

LABELS = ("O", "B-PER", "I-PER", "B-LOC")


def certain(classes: list[int], *, of: int) -> torch.Tensor:
    """Logits that leave no doubt: [len(classes), of]."""
    return torch.nn.functional.one_hot(torch.tensor(classes), of).float() * 10


def test_accuracy_counts_targets_over_batches_and_passes_over_ignored_ones():
    metric = AccuracyMetric()
    metric.add({}, [(certain([1, 0, 1], of=2), torch.tensor([1, 1, IGNORE]))])
    metric.add({}, [(certain([0, 0], of=2), torch.tensor([0, 0]))])
    assert metric.result() == {"accuracy": pytest.approx(3 / 4)}


# ---------------------------------------------------------------------------------------------- entities
@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O O", set()),
        ("B-PER I-PER O B-LOC", {("PER", 0, 2), ("LOC", 3, 4)}),
        ("B-PER B-PER", {("PER", 0, 1), ("PER", 1, 2)}),
        ("I-PER I-PER O", {("PER", 0, 2)}),
        ("B-PER I-LOC", {("PER", 0, 1), ("LOC", 1, 2)}),
        ("PER PER O LOC", {("PER", 0, 2), ("LOC", 3, 4)}),
        ("B-PER-NAME I-PER-NAME", {("PER-NAME", 0, 2)}),
        ("", set()),
    ],
)
def test_entities_are_read_as_conll_reads_them(tags: str, expected: set[tuple[str, int, int]]):
    assert entities(tags.split()) == expected


def entity_result(predicted: list[list[int]], gold: list[list[int]]) -> dict[str, float]:
    metric = EntityMetric(LABELS)
    labels = torch.tensor(gold)
    logits = torch.cat([certain(row, of=len(LABELS)) for row in predicted])
    metric.add({"labels": labels}, [(logits, labels.flatten())])
    return metric.result()


def test_an_entity_counts_only_whole():
    gold = [[1, 2, 0, 3]]  # one person of two words, one place
    result = entity_result([[1, 0, 0, 3]], gold)
    assert (result["precision"], result["recall"], result["f1"]) == (0.5, 0.5, 0.5)
    assert result["accuracy"] == 0.75


def test_tokens_without_a_tag_neither_begin_nor_end_an_entity():
    result = entity_result([[0, 1, 3, 2, 0]], [[IGNORE, 1, IGNORE, 2, 0]])
    assert (result["f1"], result["accuracy"]) == (1.0, 1.0)


def test_entities_are_counted_over_all_rows_not_averaged_by_row():
    gold = [[1, 1, 1], [3, 0, 0]]
    result = entity_result([[1, 1, 1], [0, 3, 0]], gold)
    assert result["precision"] == result["recall"] == result["f1"] == 0.75


def test_no_entity_at_all_gives_no_division_by_zero():
    assert entity_result([[0, 0]], [[0, 0]])["f1"] == 0.0


# ----------------------------------------------------------------------------------------------- answers
@pytest.mark.parametrize(
    ("text", "expected"),
    [("The  Cat!", "cat"), ("an apple, a day", "apple day"), ("«تهران»؟", "تهران"), ("می‌خواهم.", "می‌خواهم"), ("", "")],
)
def test_answers_are_compared_without_case_punctuation_and_articles(text: str, expected: str):
    assert normalize_answer(text) == expected


@pytest.mark.parametrize(
    ("predicted", "gold", "expected"),
    [
        ("in rome", "rome", 2 / 3),
        ("rome rome", "rome", 2 / 3),
        ("paris", "rome", 0.0),
        ("", "rome", 0.0),
        ("", "", 1.0),
    ],
)
def test_f1_is_that_of_the_common_words(predicted: str, gold: str, expected: float):
    assert overlap_f1(predicted.split(), gold.split()) == pytest.approx(expected)


@given(st.lists(st.lists(st.integers(0, 300), max_size=5), max_size=4), st.integers(0, 3))
def test_packed_answers_come_back_whatever_pads_them(answers: list[list[int]], padding: int):
    packed = np.array(pack_answers(answers) + [IGNORE] * padding, dtype=np.int64)
    assert unpack_answers(packed) == answers


@given(st.data())
def test_the_best_span_is_the_best_of_all_spans_inside_the_context(data: st.DataObject):
    length = data.draw(st.integers(2, 12))
    scores = st.lists(st.integers(-9, 9), min_size=length, max_size=length)
    start, end = (np.array([data.draw(scores)], dtype=np.float32) for _ in range(2))
    first = data.draw(st.integers(0, length - 1))
    after = data.draw(st.integers(first + 1, length))
    (score,), (begin,), (last,) = best_spans(start, end, np.array([first]), np.array([after]))
    spans = [(a, b) for a in range(first, after) for b in range(a, after)]
    assert (begin, last) in spans
    assert score == start[0, begin] + end[0, last] == max(start[0, a] + end[0, b] for a, b in spans)


TEXT = b"??Ada lives in Rome"
"""A question of two bytes, and a context."""
ROME = (15, 18)


def window(span: tuple[int, int], *, group: int = 1, gold: tuple[str, ...] = ("Rome",), sure: float = 10.0):
    """The batch of one window of TEXT, and a prediction of `span` (first and last token)."""
    packed = pack_answers([list(text.encode()) for text in gold])
    facts = {"context_start": 2, "context_end": len(TEXT), "group": group}
    batch: Batch = {name: torch.tensor([value]) for name, value in facts.items()}
    batch |= {"input_ids": torch.tensor([list(TEXT)]), "gold": torch.tensor([packed], dtype=torch.int64)}
    predictions: list[Prediction] = [
        (sure * certain([position], of=len(TEXT)), torch.zeros(1).long()) for position in span
    ]
    return batch, predictions


@pytest.mark.parametrize("tokenizer", [None, byte_tokenizer(special=True)])
def test_the_right_span_is_an_exact_match(tokenizer):
    metric = AnswerMetric(tokenizer)
    metric.add(*window(ROME))
    result = metric.result()
    assert (result["exact_match"], result["f1"]) == (1.0, 1.0)


def test_with_a_tokenizer_words_are_compared_and_without_one_tokens():
    words, tokens = AnswerMetric(byte_tokenizer(special=True)), AnswerMetric()
    for metric in (words, tokens):
        metric.add(*window((12, 18)))  # "in Rome"
    assert words.result()["f1"] == pytest.approx(2 / 3)
    assert tokens.result()["f1"] == pytest.approx(2 * 4 / (7 + 4))
    assert words.result()["exact_match"] == tokens.result()["exact_match"] == 0.0


def test_any_of_several_right_answers_is_right():
    metric = AnswerMetric(byte_tokenizer(special=True))
    metric.add(*window(ROME, gold=("the Eternal City", "rome.")))
    assert metric.result()["exact_match"] == 1.0


def test_the_surest_window_of_a_question_answers_it():
    metric = AnswerMetric()
    metric.add(*window((2, 4), sure=5.0))
    metric.add(*window(ROME, sure=10.0))
    metric.add(*window(ROME, group=2, gold=("Ada",)))
    assert metric.result()["exact_match"] == 0.5


def test_no_answer_is_right_where_there_is_none():
    metric = AnswerMetric()
    metric.add(*window((0, 0), gold=()))
    metric.add(*window((0, 0), group=2))
    metric.add(*window(ROME, group=3, gold=()))
    result = metric.result()
    assert result["exact_match"] == result["f1"] == pytest.approx(1 / 3)


def test_no_answer_must_be_surest_in_every_window():
    metric = AnswerMetric()
    metric.add(*window((0, 0)))
    metric.add(*window(ROME))
    assert metric.result()["exact_match"] == 1.0
