"""Tasks that learn from rows: texts to write, classes of texts and words, answers in a context."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from cotrain.sections import FieldsSection, ModelSection, ModelType
from cotrain.train.model import build_model
from cotrain.train.tasks.base import PAD_MULTIPLE, Sample, model_inputs
from cotrain.train.tasks.registry import make_task
from cotrain.train.tokenizer import describe_tokenizer, text_tokens
from tests.unit.task_fixtures import (
    CLS_ID,
    LABELS,
    ROWS,
    SEP_ID,
    SEQ_LENGTH,
    TOKENIZER,
    batch_of,
    collate,
    encode,
    samples_of,
    task_of,
)

FEWER = settings(max_examples=50)


# ------------------------------------------------------------------------------------------ source to target
def test_a_target_ends_with_the_end_token_and_both_sides_are_cut():
    (sample,) = encode("seq2seq-lm", {"source": "ab", "target": "cd"}, with_targets=True)
    assert sample["tokens"].tolist() == [CLS_ID, *b"ab", SEP_ID]
    assert sample["targets"].tolist() == [*b"cd", SEP_ID]
    (long,) = encode("seq2seq-lm", {"source": "a" * 99, "target": "c" * 99}, with_targets=True)
    assert [len(long["tokens"]), len(long["targets"])] == [SEQ_LENGTH, SEQ_LENGTH]
    assert long["tokens"][-1] == long["targets"][-1] == SEP_ID


def test_an_empty_target_is_refused():
    with pytest.raises(ValueError, match="no tokens"):
        encode("seq2seq-lm", {"source": "ab", "target": ""}, with_targets=True)


def test_padding_is_masked_and_no_target():
    task = task_of("seq2seq-lm", with_targets=True)
    batch = batch_of(task)
    lengths = [len(sample["tokens"]) for sample in samples_of(task)]
    assert batch["attention_mask"].sum(dim=1).tolist() == lengths
    assert batch["input_ids"].shape[1] % PAD_MULTIPLE == 0
    assert bool((batch["input_ids"][batch["attention_mask"] == 0] == task.spec.pad_id).all())
    assert task.count_targets(batch) == sum(len(sample["targets"]) for sample in samples_of(task))


# ------------------------------------------------------------------------------------------ classes
def test_texts_pairs_and_classes_become_samples():
    (single,) = encode("text-classification", {"text": "ab", "label": "positive"})
    (pair,) = encode("text-classification", {"text": "ab", "pair": "c", "label": "negative"})
    assert single["tokens"].tolist() == [CLS_ID, *b"ab", SEP_ID]
    assert pair["tokens"].tolist() == [CLS_ID, *b"ab", SEP_ID, *b"c", SEP_ID]
    assert [single["label"].tolist(), pair["label"].tolist()] == [[1], [0]]


def test_a_long_pair_is_cut_and_keeps_its_frame():
    (sample,) = encode("text-classification", {"text": "a" * 50, "pair": "b" * 50, "label": "negative"})
    tokens = sample["tokens"].tolist()
    assert len(tokens) == SEQ_LENGTH
    assert (tokens[0], tokens[-1], tokens.count(SEP_ID)) == (CLS_ID, SEP_ID, 2)
    assert {97, 98} < set(tokens)


def test_a_class_that_the_data_does_not_have_is_refused():
    with pytest.raises(ValueError, match="'neutral' is not one of the 2 classes"):
        encode("text-classification", {"text": "ab", "label": "neutral"})


def test_token_types_go_to_models_that_have_them_where_the_tokenizer_tells_them_apart():
    words = {name: number for number, name in enumerate(["[PAD]", "[CLS]", "[SEP]", "a", "b", "c"])}
    inner = Tokenizer(models.WordLevel(words, unk_token="a"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip
    spec = describe_tokenizer(tokenizer, task="text-classification", seq_length=8, labels=("no", "yes"))
    task = make_task("text-classification", spec, seed=0, fields=FieldsSection(pair="pair"))
    batch = collate(task, task.encode({"text": "a b", "pair": "c", "label": "yes"}, tokenizer, spec))
    assert batch["input_ids"].tolist() == [[1, 3, 4, 2, 5, 2, 0, 0]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 0, 0]]
    used = {
        kind: "token_type_ids" in model_inputs(build_model(ModelSection(type=kind), spec, seed=0), batch)
        for kind in get_args(ModelType)
    }
    assert {kind for kind, uses in used.items() if uses} == {"bert", "albert"}


def tagged_words(samples: list[Sample]) -> list[tuple[int, str]]:
    """(first byte, tag) of each token that has a tag."""
    names = LABELS["token-classification"]
    return [
        (int(token), names[number - 1])
        for sample in samples
        for token, number in zip(sample["tokens"], sample["classes"], strict=True)
        if number
    ]


def test_a_tag_stands_at_the_first_token_of_its_word():
    samples = encode("token-classification", ROWS["token-classification"][0])
    assert tagged_words(samples) == [
        (ord("A"), "B-PER"), (ord("B"), "I-PER"), (ord("i"), "O"), (ord("R"), "B-LOC"),
    ]  # fmt: skip
    text = bytes(token for token in samples[0]["tokens"].tolist() if token < 256)
    assert text == b"Ada Byron in Rome"


@FEWER
@given(st.lists(st.text("ab\u200cمگ🙂", min_size=1, max_size=9), min_size=1, max_size=30), st.integers(8, 40))
def test_every_word_keeps_its_tag_however_the_row_is_split(words: list[str], seq_length: int):
    names = LABELS["token-classification"]
    tags = [names[number % len(names)] for number in range(len(words))]
    samples = encode("token-classification", {"tokens": words, "tags": tags}, seq_length=seq_length)
    assert tagged_words(samples) == [(word.encode()[0], tag) for word, tag in zip(words, tags, strict=True)]
    assert all(len(sample["tokens"]) <= seq_length for sample in samples)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, "2 words, but 1 tags"),
        ({"tokens": ["a"], "tags": ["B-ORG"]}, "'B-ORG' is not one of"),
        ({"tokens": [], "tags": []}, "no word has a token"),
        ({"tokens": [""], "tags": ["O"]}, "no word has a token"),
    ],
)
def test_words_that_cannot_be_tagged_are_refused(row: dict[str, Any], reason: str):
    with pytest.raises(ValueError, match=reason):
        encode("token-classification", row)


# ------------------------------------------------------------------------------------------ answers
def answer_of(sample: Sample) -> str:
    """The text that the sample's answer marks; empty if it has none."""
    first, after = sample["answer"].tolist()
    return "" if after <= sample["context"][0] else bytes(sample["tokens"][first:after].tolist()).decode()


def question_row(context: str, answer: str, **answers: Any) -> dict[str, Any]:
    found = {"text": [answer], "answer_start": [context.index(answer)]} | answers
    return {"question": "کجا؟", "context": context, "answers": found}


PERSIAN = "آدا در شهر رُم زندگی می‌کند و رم پایتخت است 🙂."


@pytest.mark.parametrize("answer", ["آدا", "رُم", "می‌کند", "رم پایتخت", "🙂", PERSIAN])
def test_an_answer_in_persian_is_found_by_its_characters(answer: str):
    (sample,) = encode("question-answering", question_row(PERSIAN, answer), seq_length=128)
    assert answer_of(sample) == answer


@FEWER
@given(st.text("aگ 🙂", min_size=1, max_size=60), st.data())
def test_windows_cover_the_context_and_mark_the_answer_or_nothing(context: str, data: st.DataObject):
    begin = data.draw(st.integers(0, len(context) - 1))
    answer = context[begin : data.draw(st.integers(begin + 1, len(context)))]
    row = question_row(context, answer, answer_start=[begin])
    samples = encode("question-answering", row)
    covered = np.zeros(len(context.encode()), dtype=bool)
    for sample in samples:
        assert len(sample["tokens"]) <= SEQ_LENGTH
        assert answer_of(sample) in ("", answer)
        first, after = sample["context"].tolist()
        part = bytes(sample["tokens"][first:after].tolist())
        for place in range(len(covered)):
            if context.encode()[place : place + len(part)] == part:
                covered[place : place + len(part)] = True
    assert covered.all()
    assert len({int(sample["question"][0]) for sample in samples}) == 1
    if len(answer.encode()) <= 5:  # shorter than the overlap of two windows
        assert any(answer_of(sample) == answer for sample in samples)


def test_no_answer_is_the_first_token():
    row = {"question": "why?", "context": "Ada.", "answers": {"text": [], "answer_start": []}}
    (sample,) = encode("question-answering", row)
    batch = collate(task_of("question-answering"), [sample])
    assert (batch["start_positions"].tolist(), batch["end_positions"].tolist()) == ([0], [0])


def test_a_long_question_is_cut_to_half_a_sample():
    row = question_row("Ada lives in Rome.", "Rome") | {"question": "چرا " * 50}
    samples = encode("question-answering", row)
    assert all(len(sample["tokens"]) <= SEQ_LENGTH for sample in samples)
    assert any(answer_of(sample) == "Rome" for sample in samples)


def test_all_right_answers_are_kept_and_the_first_is_learnt():
    answers = {"text": ["Rome", "in Rome", "Rome"], "answer_start": [13, 10, 13]}
    row = {"question": "where?", "context": "Ada lives in Rome.", "answers": answers}
    (sample,) = encode("question-answering", row)
    assert answer_of(sample) == "Rome"
    assert sample["gold"].tolist() == [4, *b"Rome", 7, *b"in Rome"]


def test_questions_have_different_numbers():
    rows = ROWS["question-answering"]
    numbers = {int(encode("question-answering", row)[0]["question"][0]) for row in rows}
    assert len(numbers) == len(rows)


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({"text": ["Rome"], "answer_start": [12]}, "does not hold an answer at its answer_start, 12"),
        ({"text": ["Rome"], "answer_start": [-5]}, "answer_start, -5"),
        ({"text": ["Rome"], "answer_start": []}, "two lists of one length"),
        ({"text": "Rome", "answer_start": 13}, "two lists of one length"),
        ({"text": [1], "answer_start": [13]}, "must be a text"),
        ({"text": [""], "answer_start": [13]}, "must be a text"),
        ({}, "two lists of one length"),
    ],
)
def test_answers_that_are_not_in_the_context_are_refused(answers: dict[str, Any], reason: str):
    with pytest.raises(ValueError, match=reason):
        encode("question-answering", {"question": "?", "context": "Ada lives in Rome.", "answers": answers})


def test_a_perfect_model_of_the_answers_scores_one():
    task = task_of("question-answering")
    samples = samples_of(task)
    batch = collate(task, samples)
    length = batch["input_ids"].shape[1]
    predictions = [
        (F.one_hot(targets, length).float() * 20, targets)
        for targets in (batch["start_positions"], batch["end_positions"])
    ]
    for tokenizer in (None, TOKENIZER):
        metric = task.new_metric(tokenizer)
        metric.add(batch, predictions)
        assert metric.result() == {"accuracy": 1.0, "exact_match": 1.0, "f1": 1.0}


def test_special_names_in_a_row_are_text():
    (sample,) = encode("text-classification", {"text": "<mask>", "label": "positive"})
    assert sample["tokens"].tolist() == [CLS_ID, *text_tokens(TOKENIZER, ["<mask>"])[0], SEP_ID]
