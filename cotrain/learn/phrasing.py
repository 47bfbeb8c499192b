"""How answers are phrased in each language that is judged: lengths, ends, common words, forms of answers."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cotrain.learn.language import Language, word_set


@dataclass(frozen=True)
class Phrasing:
    """One language.

    Attributes:
        fitting: the least and the most characters of a fitting answer.
        common_words: words that natural sentences are held together by; in Chinese, characters.
        natural_share: the share of them that natural text has at least.
        question_words: words of questions that tell nothing of their subject.
        dangling: a text that ends like this goes on.
        empty_phrases: what an answer says that answers nothing, or what no person has written.
        forms: pairs (question, answer): a question of such a form is answered in such a form.
        stem_letters: so many first letters of a word tell which word it is; 0: words are pairs of characters.
    """

    fitting: tuple[int, int]
    common_words: frozenset[str]
    natural_share: float
    question_words: frozenset[str]
    dangling: re.Pattern[str]
    empty_phrases: re.Pattern[str]
    forms: tuple[tuple[re.Pattern[str], re.Pattern[str]], ...]
    stem_letters: int


def _forms(*pairs: tuple[str, str]) -> tuple[tuple[re.Pattern[str], re.Pattern[str]], ...]:
    return tuple((re.compile(asked, re.IGNORECASE), re.compile(said, re.IGNORECASE)) for asked, said in pairs)


_ENGLISH = Phrasing(
    fitting=(50, 300),
    common_words=word_set("""
        the of and to in is are was were be been it its that this these those for on with as by from at or not
        you your i my we our they their he his she her but if so than then there here can will would should
        could may might do does did has have had which who what when where how why because about into over after
        before more most some any all no each other only also very just up out one two while between under
        through during without usually often them him us me an a
    """),
    natural_share=0.22,
    question_words=word_set("""
        explain describe tell give please want need know mean means meaning difference between best way ways
        good make made makes use used using work works does thing things help show write list name example get
        find someone much many long often simple short brief really actually like different
    """),
    dangling=re.compile(
        r"(?:\b(?:and|or|but|the|a|an|of|to|in|for|with|is|are|was|were|that|which|because|if|so|as|by|from|on|at|its|"
        r"their|such|than|can|will|should|has|have)|[,;:(\[{–—-]|[,:;]\s*etc)\s*[.…]*$|(?:\.\.\.|…)$",
        re.IGNORECASE,
    ),
    empty_phrases=re.compile(
        r"\bas an ai\b|\bas a (?:large )?language model|"
        r"\bi(?: am|'m|’m)? (?:sorry|unable)\b.{0,40}\b(?:can(?:not|'t|’t)|unable|don't|do not)|"
        r"\bi (?:can(?:not|'t|’t)|am unable to|won't) (?:help|assist|answer|do that|provide)|"
        r"^i (?:really )?(?:don't|do not|don’t) know|^(?:i am|i'm|i’m) not sure|\bno idea\b|"
        r"\btraceback \(most recent|\b(?:internal server|syntax|type|key|value)error\b|\binternal server error\b|"
        r"\blorem ipsum\b|\bclick here\b|\bsubscribe (?:to|now)\b|\bbuy now\b|\blimited(?:-| )time offer|"
        r"\bundefined\b.*\bundefined\b|</?(?:div|span|p|html|body|br|script|table|td)\b",
        re.IGNORECASE | re.DOTALL,
    ),
    forms=_forms(
        (r"^why\b|\bwhy (?:do|does|is|are|did)",
         r"\bbecause\b|\bsince\b|\bdue to\b|\bso that\b|\bcauses?\b|\bthat is why\b"),
        (r"^when\b|\bwhat (?:year|time|date)\b", r"\d|\b(?:century|morning|evening|spring|summer|autumn|winter)\b"),
        (r"\bhow (?:many|much|long|far|old|tall|deep|fast|often)\b",
         r"\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|hundred|thousand|million|twice|once)\b"),
        (r"^(?:is|are|was|were|do|does|did|can|could|should|will|would|has|have)\b", r"^(?:yes|no|not|it depends)\b"),
    ),
    stem_letters=5,
)  # fmt: skip

_PERSIAN = Phrasing(
    fitting=(50, 300),
    common_words=word_set("""
        و از به در که را با این آن برای است بود شد شود می نمی هم تا یا اگر اما ولی نیز هر یک دو چون بر پس پیش
        بعد قبل باید توان دارد دارند داشت هست هستند نیست کند کنند کنید کرد کرده شده شوند باشد باشند خود ما شما
        او آنها آن‌ها من تو ها های ای بین روی زیر همه چند بسیار خیلی بیشتر کمتر دیگر وقتی زیرا مثل مانند بدون رو
        میشه میشود نه بله حدود
    """),
    natural_share=0.18,
    question_words=word_set("""
        چه چی چیست چیه چگونه چطور چطوری چرا کجا کجاست کدام کدوم کی کیست چند چقدر چیزی آیا لطفا توضیح بده بدهید
        دهید بگو بگویید معنی یعنی منظور تفاوت فرق بهترین راه روش خوب کار کنم کنیم میتوانم توانم میشه نام ببر
        سلام درباره مورد شروع استفاده
    """),
    dangling=re.compile(
        "(?:(?<![\\w\u200c])(?:و|یا|که|از|به|در|با|برای|این|آن|تا|اگر|چون|زیرا|مثل|مانند|یک|هر|بین|را که)|"
        "[،؛,;:(\\[«–—-])"
        "\\s*[.…]*$|(?:\\.\\.\\.|…)$"
    ),
    empty_phrases=re.compile(
        "به عنوان یک (?:مدل|هوش)|(?:متاسفم|متأسفم|ببخشید|متاسفانه|متأسفانه).{0,40}(?:نمی.?توانم|نمی.?دانم|قادر نیستم)|"
        "^(?:من )?(?:نمی.?دانم|نمیدونم|مطمئن نیستم)|قادر به پاسخ.{0,20}نیستم|"
        "کلیک کنید|همین حالا (?:بخرید|عضو)|"
        "تخفیف ویژه|خطای داخلی|</?(?:div|span|p|html|br|script)\\b|Traceback|undefined",
        re.DOTALL,
    ),
    forms=_forms(
        ("چرا|علت|دلیل", "چون|زیرا|به دلیل|به علت|به خاطر|باعث|برای اینکه|برای این که|موجب|سبب"),
        ("چه زمانی|چه سالی|چه وقت|کِی|کی (?:شروع|تأسیس|آغاز)", "[0-9۰-۹٠-٩]|قرن|صبح|شب|بهار|تابستان|پاییز|زمستان"),
        ("چند|چقدر|چه مقدار|چه مدت",
         "[0-9۰-۹٠-٩]|(?<!\\w)(?:یک|دو|سه|چهار|پنج|شش|هفت|هشت|نه|ده|صد|هزار|میلیون|نیم)(?!\\w)"),
        ("آیا|^می.?(?:شود|توان|شه)", "^(?:بله|آره|خیر|نه|بستگی)"),
    ),
    stem_letters=4,
)  # fmt: skip

_CHINESE = Phrasing(
    fitting=(18, 120),
    common_words=frozenset(
        "的是在了和有不这我你他她它们一以可到会也就都而与为中上下能要人个之及或等于从对将被把让用但因所很更最时后前并其该如果则"
    ),
    natural_share=0.12,
    question_words=word_set("""
        什么 怎么 如何 为什 为何 哪里 哪个 哪些 多少 几个 吗？ 请问 请解 解释 介绍 一下 告诉 诉我 是什 什么？
        么？ 怎样 样？ 可以 能不 不能 有什 么办 应该 我应 该怎 区别 是谁 谁？ 呢？ 说明 简单 意思 么意 么样 要怎
        么做 做？ 么是 的区 有哪 怎么样
    """),
    dangling=re.compile(
        "(?:和|或|但是|因为|所以|而且|以及|如果|的|与|及|在|把|被|从|对|是|，|、|：|；|（|[,;:(\\[])\\s*$|"
        "(?:\\.\\.\\.|…+)$"
    ),
    empty_phrases=re.compile(
        "作为(?:一个|一名)?(?:人工智能|AI|语言模型)|"
        "(?:抱歉|对不起|很遗憾).{0,20}(?:无法|不能|不知道)|^我不知道|^我不(?:太)?(?:清楚|确定)|无法回答|"
        "点击(?:这里|链接)|立即购买|限时优惠|扫码|加微信|内部服务器错误|</?(?:div|span|p|html|br|script)\\b|Traceback|undefined",
        re.IGNORECASE | re.DOTALL,
    ),
    forms=_forms(
        ("为什么|为何|原因", "因为|由于|所以|因此|导致|为了"),
        ("什么时候|哪一?年|何时|几点", "[0-9０-９]|世纪|早上|晚上|春|夏|秋|冬|[一二三四五六七八九十]+[年月日点]"),
        ("多少|几[个天次年岁]|多[长久大高远深]", "[0-9０-９]|[一二两三四五六七八九十百千万亿]"),
        ("吗|是不是|能不能|可不可以|会不会", "^(?:是的?|不|可以|能|会|对|没有|不一定|取决)"),
    ),
    stem_letters=0,
)  # fmt: skip

PHRASINGS: dict[Language, Phrasing] = {"en": _ENGLISH, "fa": _PERSIAN, "zh": _CHINESE}
