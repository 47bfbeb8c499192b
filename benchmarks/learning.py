"""How long a cycle of learning computes: chats are judged, varied, held against each other and against a dataset.

    python -m benchmarks.learning [--chats 100000] [--dataset 5000] [--json FILE]

The chats are made of words that are drawn at random (seed 0), in English, Persian and Chinese; common words stand
between them. A tenth are said again with a word added, a tenth as they were, a tenth are cut short. Times are of this
process's own processor, in seconds, so that other work on the machine does not count; `bar_s` is what is wanted of
judging and finding duplicates together. Takes some minutes.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cotrain.learn.language import Language
from cotrain.learn.pipeline import LearnSettings, distinct, enhance, judged
from cotrain.learn.samples import Chat

BAR_S = 60.0
SYLLABLES: dict[Language, str] = {
    "en": "ba co du fe gi ha jo ku la me ni po ra so tu va we yo",
    "fa": "با دو سی کا لی مو نا پر شا تو زی گل خو را بی",
    "zh": "山 水 风 火 木 金 石 云 雨 田 河 花 鸟 鱼 马 牛 书 车 船 灯",
}
COMMON: dict[Language, str] = {
    "en": "the of and to in is that for with as it by from at or not you can when which",
    "fa": "از به در که را با این آن برای است و یا هم تا اگر چون هر بین",
    "zh": "的 是 在 了 和 有 不 这 也 就 与 可 以 会 到",
}
QUESTIONS: dict[Language, str] = {"en": "What is {0} in {1}?", "fa": "{0} در {1} چیست؟", "zh": "{1}的{0}是什么？"}


def draw_chat(number: int, random_: random.Random) -> Chat:
    """A chat that is like no other, on nothing in particular, whose answer takes up its question."""
    language = random_.choice(list(QUESTIONS))
    syllables, common = SYLLABLES[language].split(), COMMON[language].split()
    words = ["".join(random_.choices(syllables, k=random_.randint(2, 4))) for _ in range(random_.randint(8, 20))]
    spaced = "" if language == "zh" else " "
    answer = spaced.join(part for word in words for part in (word, random_.choice(common)))
    end = {"en": ".", "fa": " است.", "zh": "。"}[language]
    question = QUESTIONS[language].format(*words[:2])
    return Chat(
        str(number), question, f"{answer}{spaced}{words[0]}{end}", language, random_.choice((0, 0, 0, 1)), "model",
        float(number),
    )  # fmt: skip


def draw_chats(count: int, seed: int = 0) -> tuple[list[Chat], int]:
    """The chats, and how many of them say again what another one says."""
    random_ = random.Random(seed)
    chats: list[Chat] = []
    repeated = 0
    while len(chats) < count:
        chat = draw_chat(len(chats), random_)
        kind = random_.random()
        if chats and kind < 0.2:
            earlier = random_.choice(chats)
            ending = "" if kind < 0.1 else " " + random_.choice(("Yes", "بله", "好"))
            chat = Chat(
                chat.id, earlier.question, earlier.answer + ending, earlier.language, 0, "model", chat.created_at
            )  # fmt: skip
            repeated += 1
        elif kind < 0.3:
            chat = Chat(chat.id, chat.question, chat.answer[:12], chat.language, 0, "model", chat.created_at)
        chats.append(chat)
    return chats, repeated


def measure(count: int, dataset: int) -> dict[str, Any]:
    """CPU seconds of judging alone, of duplicates alone, and of a whole cycle."""
    settings = LearnSettings()
    earlier = enhance(draw_chats(dataset, seed=1)[0], (), (), settings)
    chats, repeated = draw_chats(count)
    start = time.process_time()
    good, refused = judged(chats, settings)
    judged_at = time.process_time()
    kept = distinct(sorted(good, key=lambda sample: -sample.score))
    ended = time.process_time()
    cycle = enhance(chats, earlier.train, earlier.held_out, settings)
    cycle_s = time.process_time() - ended
    return {
        "chats": count, "dataset": earlier.final_size, "judge_cpu_s": round(judged_at - start, 2),
        "duplicates_cpu_s": round(ended - judged_at, 2), "both_cpu_s": round(ended - start, 2),
        "bar_s": BAR_S * count / 100_000, "reached": ended - start <= BAR_S * count / 100_000,
        "cycle_cpu_s": round(cycle_s, 2), "said_again": repeated, "good": len(good), "kept": len(kept),
        "refused": refused, "variations": cycle.variations, "final_size": cycle.final_size,
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chats", type=int, default=100_000)
    parser.add_argument("--dataset", type=int, default=5_000)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    if options.chats < 1 or options.dataset < 0:
        parser.error("--chats is at least 1, --dataset at least 0")
    result = json.dumps(measure(options.chats, options.dataset), ensure_ascii=False, indent=2)
    if options.json is not None:
        options.json.write_text(result + "\n", encoding="utf-8")
    print(result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
