"""Whether a chat may be looked at at all: what is refused before its quality is asked. Pure."""

from __future__ import annotations

import re
from dataclasses import replace

from cotrain.learn.phrasing import PHRASINGS
from cotrain.learn.redaction import redact
from cotrain.learn.samples import MAX_ANSWER_CHARACTERS, MAX_QUESTION_CHARACTERS, Chat

RATED_DOWN, NOT_TEXT, EMPTY, HUGE = "rated down", "not valid text", "empty", "too large"
INJECTION, UNKNOWN_LANGUAGE = "prompt injection", "other language"

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff]")
"""Control characters, and marks that turn the direction of what follows: they hide text from whoever reads it."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_INJECTION = re.compile(
    r"<\|[a-z_]{1,30}\|>|\[/?INST\]|<</?SYS>>|"
    r"\b(?:ignore|disregard|forget|override)(?:\W{1,3}\w{1,20}){0,3}?\W{1,3}(?:previous|prior|above|earlier|all|your)"
    r"(?:\W{1,3}\w{1,20}){0,3}?\W{1,3}(?:instructions?|prompts?|rules?|guidelines?)\b|"
    r"\b(?:reveal|print|show|repeat)\b.{0,30}\b(?:system|hidden|initial) (?:prompt|instructions?)|"
    r"\byou are now (?:in )?(?:dan|developer mode|jailbroken)\b|"
    r"\bfrom now on,? (?:you are|you will|answer|always|reply)\b|"
    r"دستور(?:ات|های|العمل)?.{0,20}(?:قبل|پیشین|بالا).{0,30}(?:نادیده|فراموش)|(?:نادیده|فراموش).{0,30}دستور|"
    r"(?:پرامپت|دستور|پیام) سیستم.{0,30}(?:نشان|بگو|نمایش|فاش)|از این پس (?:تو|همیشه)|"
    r"(?:忽略|无视|忘记|忘掉).{0,15}(?:之前|以上|上面|先前|所有|你的).{0,10}(?:指令|指示|提示|规则|要求)|"
    r"(?:显示|告诉我|泄露|输出).{0,10}系统(?:提示|指令)|从现在(?:开始|起).{0,4}你(?:是|要|必须|将)",
    re.IGNORECASE,
)  # fmt: skip
_ROLE_LINE = re.compile(r"^[^\S\n]*+(?:system|assistant|user|human)\s*:", re.IGNORECASE | re.MULTILINE)


def admit(chat: Chat) -> Chat | str:
    """The chat without control characters and without what tells who somebody is, or why it is refused.

    Costs no more than a look at bounded text, whatever it holds.
    """
    if chat.rating < 0:
        return RATED_DOWN
    if _is_huge(chat):
        return HUGE
    if _SURROGATE.search(chat.question) or _SURROGATE.search(chat.answer):
        return NOT_TEXT
    if chat.language not in PHRASINGS:
        return UNKNOWN_LANGUAGE
    plain = replace(chat, question=_clean(chat.question), answer=_clean(chat.answer))
    if not plain.question or not plain.answer:
        return EMPTY
    if _is_huge(plain):  # a mark may be longer than what it stands for
        return HUGE
    return INJECTION if is_injection(plain.question) or is_injection(plain.answer) else plain


def is_injection(text: str) -> bool:
    """Whether a text gives orders to the model that reads it, or speaks in another role's name.

    A net with known meshes: it knows the common phrases of three languages, not every one.
    """
    return _INJECTION.search(text) is not None or _ROLE_LINE.search(text) is not None


def _is_huge(chat: Chat) -> bool:
    return len(chat.question) > MAX_QUESTION_CHARACTERS or len(chat.answer) > MAX_ANSWER_CHARACTERS


def _clean(text: str) -> str:
    return redact(_CONTROL.sub("", text.replace("\r\n", "\n"))).strip()
