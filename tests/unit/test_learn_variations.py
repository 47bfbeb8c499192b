from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotrain.learn.language import Language
from cotrain.learn.samples import MAX_QUESTION_CHARACTERS, Sample
from cotrain.learn.templates import TEMPLATES
from cotrain.learn.variations import KINDS, variations_of


def sample(question: str, answer: str, language: Language) -> Sample:
    return Sample(question, answer, language, 8.0, "chat:1")


def made(kind: str, parent: Sample) -> set[tuple[str, str]]:
    return {
        (variation.question, variation.answer)
        for variation in variations_of(parent, 100)
        if variation.origin.split(":")[1] == kind
    }


@pytest.mark.parametrize(
    ("language", "question", "forms"),
    [
        ("en", "How do I boil eggs?", {"How to boil eggs?", "What is the best way to boil eggs?",
                                       "Can you show me how to boil eggs?"}),
        ("en", "What is the capital of Peru?", {"Can you tell me what the capital of Peru is?",
                                                "Do you know what the capital of Peru is?"}),
        ("en", "Why is the sky blue?", {"Can you explain why the sky is blue?",
                                        "What is the reason that the sky is blue?"}),
        ("en", "What are you doing?", set()),
        ("fa", "چطور نان بپزم؟", {"چگونه نان بپزم؟", "به چه روشی نان بپزم؟"}),
        ("fa", "فتوسنتز چیست؟", {"فتوسنتز چیه؟", "می‌توانید بگویید فتوسنتز چیست؟"}),
        ("zh", "什么是黑洞？", {"黑洞是什么？", "请介绍一下黑洞。"}),
        ("zh", "为什么天空是蓝色的？", {"天空是蓝色的，这是为什么？", "你知道为什么天空是蓝色的吗？"}),
    ],
)  # fmt: skip
def test_a_question_is_asked_in_other_forms(language: Language, question: str, forms: set[str]):
    assert {asked for asked, _ in made("question-form", sample(question, "x", language))} == forms


@pytest.mark.parametrize(
    ("language", "answer", "others"),
    [
        ("en", "It is often big.", {"It is frequently big.", "It is often large."}),
        ("en", "Often it rains.", {"Frequently it rains."}),
        ("en", "The oftener, the bigger.", set()),
        ("fa", "این بسیار مهم است.", {"این خیلی مهم است.", "این بسیار بااهمیت است."}),
        ("fa", "مهم‌ترین شهر است.", set()),
        ("zh", "它非常好。", {"它十分好。"}),
    ],
)
def test_a_word_gives_way_to_one_of_the_same_meaning(language: Language, answer: str, others: set[str]):
    assert {said for _, said in made("synonym", sample("q", answer, language))} == others


def test_a_given_name_changes_in_question_and_answer_alike():
    pairs = made("name", sample("小明有三个苹果，吃了一个，还剩几个？", "小明还剩两个苹果。", "zh"))
    assert ("小强有三个苹果，吃了一个，还剩几个？", "小强还剩两个苹果。") in pairs
    assert len(pairs) == 3


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Who is Anna Karenina?", "Anna Karenina is a novel by Tolstoy."),
        ("Anna and Emma share six pens. How many each?", "Anna and Emma have three pens each."),
        ("How many pens does Anna have?", "She has three of them."),
    ],
    ids=["surname", "two of a kind", "not in the answer"],
)
def test_a_name_that_may_be_somebodys_own_stays(question: str, answer: str):
    assert made("name", sample(question, answer, "en")) == set()


def test_a_polite_question_is_not_opened_again():
    assert made("opening", sample("Hello, what is tea?", "x", "en")) == set()
    assert made("opening", sample("请问，什么是茶？", "x", "zh")) == set()


@given(
    question=st.sampled_from(["What is tea?", "چرا آسمان آبی است؟", "怎么煮鸡蛋？", "{0} {x} %s?"]),
    answer=st.text(min_size=1, max_size=60).filter(str.strip),
    language=st.sampled_from(["en", "fa", "zh", "other"]), most=st.integers(0, 6),
    seed=st.integers(0, 5),
)  # fmt: skip
def test_variations_are_few_marked_and_different(question: str, answer: str, language: Language, most: int, seed: int):
    parent = sample(question, answer, language)
    variations = variations_of(parent, most, seed=seed)
    keys = [variation.key for variation in variations]
    assert variations == variations_of(parent, most, seed=seed)
    assert len(variations) <= most
    assert len({*keys, parent.key}) == len(keys) + 1
    for variation in variations:
        word, kind, key = variation.origin.split(":")
        assert (word, key) == ("variation", parent.key)
        assert kind in KINDS
        assert variation.family == parent.key
        assert variations_of(variation, most) == []
        assert Sample.from_line(variation.to_line()) == variation


def test_a_question_does_not_grow_beyond_what_a_dataset_takes():
    assert variations_of(sample("x" * MAX_QUESTION_CHARACTERS, "It is so.", "en"), 5) == []


def test_two_variations_are_of_two_kinds():
    variations = variations_of(sample("What is tea?", "It is often hot.", "en"), 2)
    assert len({variation.origin.split(":")[1] for variation in variations}) == 2


def test_every_synonym_and_name_stands_in_one_group_only():
    for templates in TEMPLATES.values():
        for groups in (templates.synonyms, templates.names):
            words = [word for group in groups for word in group]
            assert len(set(words)) == len(words)
            assert all(len(group) > 1 for group in groups)
