from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotrain.learn.language import Language
from cotrain.learn.pipeline import LearnSettings
from cotrain.learn.quality import (
    ANSWERS_NOTHING,
    ASKS_BACK,
    CRITERIA,
    ECHO,
    NOT_PROSE,
    OFF_TOPIC,
    OTHER_LANGUAGE,
    REPETITIVE,
    TOO_LONG,
    TOO_SHORT,
    UNFINISHED,
    UNUSABLE,
    judge,
    unlikely,
)

EXAMPLES = [json.loads(line) for line in Path(__file__).with_name("learn_examples.jsonl").read_text().splitlines()]
REASONS = {
    "too-short": {TOO_SHORT}, "too-long": {TOO_LONG}, "repetitive": {REPETITIVE}, "unfinished": {UNFINISHED},
    "asks-back": {ASKS_BACK}, "nothing": {ANSWERS_NOTHING}, "error": {ANSWERS_NOTHING}, "html": {ANSWERS_NOTHING},
    "gibberish": {NOT_PROSE, OTHER_LANGUAGE}, "keywords": {NOT_PROSE, REPETITIVE}, "shouting": {NOT_PROSE},
    "symbols": {NOT_PROSE, REPETITIVE}, "other-language": {OTHER_LANGUAGE}, "off-topic": {OFF_TOPIC}, "echo": {ECHO},
    "spam": {ANSWERS_NOTHING},
}  # fmt: skip
"""What an example that was written to be bad in this way may be refused for."""


def passes(example: dict[str, Any]) -> bool:
    judgement = judge(example["question"], example["answer"], example["language"])
    return judgement.score >= LearnSettings().threshold


def figures(examples: list[dict[str, Any]]) -> tuple[float, float]:
    """Precision and recall of what passes, of examples that a person has judged."""
    passed = [example for example in examples if passes(example)]
    right = sum(example["good"] for example in passed)
    return right / len(passed), right / sum(example["good"] for example in examples)


@pytest.mark.parametrize(
    ("examples", "precision", "recall"),
    [
        (EXAMPLES, 0.90, 0.88),
        (EXAMPLES[1::2], 0.85, 0.84),  # this half was not looked at while the criteria were written
        ([example for example in EXAMPLES if example["language"] == "en"], 0.90, 0.85),
        ([example for example in EXAMPLES if example["language"] == "fa"], 0.90, 0.85),
        ([example for example in EXAMPLES if example["language"] == "zh"], 0.85, 0.85),
    ],
    ids=["all", "unseen half", "English", "Persian", "Chinese"],
)
def test_what_passes_is_mostly_good(examples: list[dict[str, Any]], precision: float, recall: float):
    got_precision, got_recall = figures(examples)
    print(f"precision {got_precision:.3f}, recall {got_recall:.3f} of {len(examples)} examples")
    assert got_precision >= precision
    assert got_recall >= recall


def test_there_are_examples_of_every_kind_in_three_languages():
    assert len(EXAMPLES) >= 200
    assert len({(example["question"], example["answer"]) for example in EXAMPLES}) == len(EXAMPLES)
    for language in ("en", "fa", "zh"):
        of_language = [example for example in EXAMPLES if example["language"] == language]
        assert 0.3 < sum(example["good"] for example in of_language) / len(of_language) < 0.7
        assert REASONS.keys() - {"shouting"} <= {example["kind"] for example in of_language}


@pytest.mark.parametrize("kind", REASONS)
def test_a_refusal_tells_what_is_wrong(kind: str):
    bad = [example for example in EXAMPLES if example["kind"] == kind and not example["good"] and not passes(example)]
    told = [judge(example["question"], example["answer"], example["language"]).reasons for example in bad]
    assert told
    assert [reasons for reasons in told if not REASONS[kind] & set(reasons)] == []


GOOD = (
    "What is the capital of France?",
    "The capital of France is Paris, a city on the Seine with two million people.",
)


def test_a_good_answer_has_all_points():
    judgement = judge(*GOOD, "en")
    assert judgement.points == dict.fromkeys(CRITERIA, 2.0)
    assert (judgement.score, judgement.reasons) == (10.0, ())


@pytest.mark.parametrize(("characters", "points"), [(30, 1.0), (50, 2.0), (300, 2.0), (600, 1.0), (750, 0.5)])
def test_length_fades_beyond_what_fits(characters: int, points: float):
    answer = "Paris is the " + "city of lights and it is " * 40
    judgement = judge("Paris?", answer[: characters - 1] + ".", "en")
    assert judgement.points["length"] == pytest.approx(points, abs=0.05)


def test_chinese_says_as_much_in_fewer_characters():
    answer = "法国的首都是巴黎，它位于塞纳河边，有二百万人。"
    assert len(answer) < 50
    assert judge("法国的首都是哪里？", answer, "zh").points["length"] == 2.0


def test_a_language_that_is_not_judged_scores_nothing():
    judgement = judge("Was?", "Das ist es.", "other")
    assert (judgement.score, judgement.reasons) == (0.0, (OTHER_LANGUAGE,))


def test_an_unusable_answer_is_not_lifted_by_what_is_good_about_it():
    judgement = judge("What is the capital of Japan?", "Regular exercise makes the heart strong and it is good.", "en")
    assert judgement.reasons == (OFF_TOPIC,)
    assert sum(judgement.points.values()) > UNUSABLE
    assert judgement.score == UNUSABLE


@pytest.mark.parametrize(
    ("perplexity", "lost"), [(1.0, 0.0), (8.0, 0.0), (math.sqrt(8 * 64), 1.0), (64.0, 2.0), (1e9, 2.0),
                             (math.inf, 0.0), (math.nan, 0.0), (-1.0, 0.0)],
)  # fmt: skip
def test_perplexity_only_takes_points_away(perplexity: float, lost: float):
    assert unlikely(perplexity) == pytest.approx(-lost)
    judgement = judge(*GOOD, "en", perplexity=lambda question, answer: perplexity)
    assert judgement.score == pytest.approx(10 - lost)
    assert judgement.points["perplexity"] == pytest.approx(-lost)


@given(
    question=st.text(min_size=1, max_size=120), answer=st.text(min_size=1, max_size=400),
    language=st.sampled_from(["en", "fa", "zh", "other"]),
)  # fmt: skip
def test_every_score_is_within_its_bounds(question: str, answer: str, language: Language):
    judgement = judge(question, answer, language)
    assert 0 <= judgement.score <= 10
    assert all(0 <= points <= 2 for points in judgement.points.values())
    assert judgement == judge(question, answer, language)
    if judgement.reasons:
        assert judgement.score <= UNUSABLE


@pytest.mark.parametrize(
    "piece", [".", '"', ",", " ", "(", "a", "!x", "undefined ", "sorry ", "ab", "؟", "，", "```", "and "]
)
@pytest.mark.parametrize("language", ["en", "fa", "zh"])
def test_a_hostile_answer_costs_little(piece: str, language: Language):
    started = time.process_time()
    judge("Why is that?", (piece * 8000)[:7999] + "x", language)
    assert time.process_time() - started < 0.5
