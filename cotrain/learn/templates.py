"""What variations are made with, in each language: forms of questions, openings, synonyms, given names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cotrain.learn.language import Language


@dataclass(frozen=True)
class Forms:
    """Questions that ask for the same.

    Attributes:
        patterns: what they are recognized by; all find the same groups.
        forms: how they are written with these groups.
    """

    patterns: tuple[re.Pattern[str], ...]
    forms: tuple[str, ...]


@dataclass(frozen=True, eq=False)  # compared and hashed by identity
class Templates:
    """One language.

    Attributes:
        openings: polite words with a place for the question.
        opened: a question that begins with such.
        synonyms: words that stand for each other in any sentence, in the same form.
        names: given names by kind; only those of a kind stand for each other.
        spaced: whether words are parted by spaces.
    """

    question_forms: tuple[Forms, ...]
    openings: tuple[str, ...]
    opened: re.Pattern[str]
    synonyms: tuple[tuple[str, ...], ...]
    names: tuple[tuple[str, ...], ...]
    spaced: bool


def _forms(patterns: Sequence[str], *forms: str) -> Forms:
    return Forms(tuple(re.compile(pattern, re.IGNORECASE) for pattern in patterns), forms)


def _groups(*lines: str) -> tuple[tuple[str, ...], ...]:
    """Words between bars, a group in each line."""
    return tuple(tuple(line.split("|")) for line in lines)


_SUBJECT = r"([^?.!\n]{2,120}?)"
"""What an English question asks about; without the end of a sentence inside."""
_THING = r"((?:the|an?|some) [^?.!\n]{2,100}?|[a-z-]{2,30}(?<!ing)(?<!you)(?<!they)(?<!we))"
"""A noun with its article, or a single word: what a verb may be put behind."""
_PERSIAN_SUBJECT = r"([^؟?.\n]{2,120}?)"
_CHINESE_SUBJECT = "([^？?。，\n]{1,60}?)"

_ENGLISH = Templates(
    question_forms=(
        _forms(
            [rf"how (?:do|can|should) i {_SUBJECT}\?*", rf"how to {_SUBJECT}\?*",
             rf"what is the best way to {_SUBJECT}\?*", rf"(?:can you )?show me how to {_SUBJECT}[?.]*"],
            "How do I {0}?", "How to {0}?", "What is the best way to {0}?", "Can you show me how to {0}?",
        ),
        _forms(
            [rf"what does {_SUBJECT} mean\?*", rf"what is the meaning of {_SUBJECT}\?*"],
            "What does {0} mean?", "What is the meaning of {0}?",
        ),
        _forms(
            [r"why (is|are) (the [\w-]+|[\w-]+) ((?:so )?[\w-]+)\?*"],
            "Can you explain why {1} {0} {2}?", "What is the reason that {1} {0} {2}?",
        ),
        _forms(
            [rf"what (is|are) (?!the best way|the meaning of){_THING}\?*"],
            "Can you tell me what {1} {0}?", "Do you know what {1} {0}?",
        ),
        _forms(
            [rf"(?:please )?explain {_SUBJECT}[?.]*", rf"(?:can|could) you explain {_SUBJECT}\?*"],
            "Explain {0}.", "Could you explain {0}?",
        ),
        _forms(
            [rf"(?:please )?tell me (?:something )?about {_SUBJECT}[?.]*",
             rf"what (?:can you tell me|do you know) about {_SUBJECT}\?*"],
            "Tell me about {0}.", "What can you tell me about {0}?",
        ),
    ),
    openings=("I have a question: {0}", "Please tell me: {0}", "Hello! {0}"),
    opened=re.compile(r"(?:hi|hello|hey|please|i have a question|can you|could you)\b", re.IGNORECASE),
    synonyms=_groups(
        "big|large", "important|essential", "often|frequently", "usually|normally", "almost|nearly", "buy|purchase",
        "for example|for instance", "needs|requires", "difficult|hard", "maybe|perhaps", "rarely|seldom",
        "quickly|rapidly", "begins|starts", "main|principal",
    ),
    names=_groups("Anna|Emma|Sarah|Laura|Alice", "Tom|Peter|Daniel|Oliver|Ben"),
    spaced=True,
)  # fmt: skip

_PERSIAN = Templates(
    question_forms=(
        _forms(
            [rf"(?!منظور از ){_PERSIAN_SUBJECT} (?:چیست|چیه)[؟?]*", rf"منظور از {_PERSIAN_SUBJECT} چیست[؟?]*"],
            "{0} چیست؟", "{0} چیه؟", "می‌توانید بگویید {0} چیست؟",
        ),
        _forms([rf"(?:چگونه|چطور) {_PERSIAN_SUBJECT}[؟?]*"], "چگونه {0}؟", "چطور {0}؟", "به چه روشی {0}؟"),
        _forms([rf"چرا {_PERSIAN_SUBJECT}[؟?]*"], "به چه دلیل {0}؟", "می‌دانید چرا {0}؟"),
        _forms(
            [rf"{_PERSIAN_SUBJECT} (?:کجاست|در کجا قرار دارد)[؟?]*"], "{0} کجاست؟", "{0} در کجا قرار دارد؟",
        ),
        _forms(
            [rf"(?:لطفا |لطفاً )?درباره(?:ٔ|‌ی)? {_PERSIAN_SUBJECT} توضیح (?:بده|بدهید)[.؟?]*"],
            "درباره {0} توضیح بده.", "لطفاً درباره {0} توضیح بدهید.",
        ),
    ),
    openings=("سلام، {0}", "لطفاً بگویید {0}", "یک سؤال دارم: {0}"),
    opened=re.compile("سلام|لطفا|یک سؤال|یک سوال|درود"),
    synonyms=_groups(
        "شروع|آغاز", "کمک|یاری", "مهم|بااهمیت", "معمولاً|اغلب", "زیرا|چون", "برای مثال|به عنوان نمونه",
        "همیشه|همواره", "بسیار|خیلی", "پاسخ|جواب", "گوناگون|مختلف",
    ),
    names=_groups("سارا|مینا|لیلا|نرگس", "نیما|آرش|بابک|سامان"),
    spaced=True,
)  # fmt: skip

_CHINESE = Templates(
    question_forms=(
        _forms(
            [rf"什么是{_CHINESE_SUBJECT}[？?]*", rf"{_CHINESE_SUBJECT}是什么[？?]*",
             rf"请?(?:解释|介绍)一下{_CHINESE_SUBJECT}[？?。]*"],
            "什么是{0}？", "{0}是什么？", "请介绍一下{0}。",
        ),
        _forms([rf"(?:怎么|怎样|如何){_CHINESE_SUBJECT}[？?]*"], "如何{0}？", "怎样{0}？", "应该怎么{0}？"),
        _forms([rf"为什么{_CHINESE_SUBJECT}[？?]*"], "{0}，这是为什么？", "你知道为什么{0}吗？"),
        _forms([rf"{_CHINESE_SUBJECT}(?:在|位于)哪里[？?]*"], "{0}在哪里？", "{0}位于哪里？"),
    ),
    openings=("请问，{0}", "你好，{0}", "我想知道：{0}"),
    opened=re.compile("请问|你好|您好|我想"),
    synonyms=_groups(
        "因为|由于", "通常|一般", "例如|比如", "帮助|协助", "经常|常常", "非常|十分", "如果|假如",
        "大约|大概", "立刻|马上",
    ),
    names=_groups("小明|小刚|小强|小军", "小红|小丽|小芳|小美"),
    spaced=False,
)  # fmt: skip

TEMPLATES: dict[Language, Templates] = {"en": _ENGLISH, "fa": _PERSIAN, "zh": _CHINESE}
