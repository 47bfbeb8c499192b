"""A cycle of learning from chats, without its files: chats and a dataset in, the better dataset out. Pure.

What is held out for evaluation is decided once for each sample and stays so. Nothing near to it is ever trained on, and
nothing near to what is trained on is held out. Where samples are near each other the better scored one stays; a sample
and its own variations are near by their making, so of them only equal ones give way.
"""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cotrain.errors import ConfigError
from cotrain.learn.admission import admit
from cotrain.learn.duplicates import NearIndex, bands_of
from cotrain.learn.quality import Perplexity, judge
from cotrain.learn.samples import MAX_SCORE, Chat, Sample, rated
from cotrain.learn.variations import variations_of

LOW_SCORE = "low score"
_RANKS = 2**64


@dataclass(frozen=True)
class LearnSettings:
    """What a cycle goes by. Raises ConfigError for what is out of bounds.

    Attributes:
        max_size: samples for training at most; the lowest scores leave first.
        threshold: the least score of a sample, 0 .. 10.
        variations_per_sample: made of a new sample at most.
        held_out_share: of the new samples, for evaluation; and of `max_size` altogether.
        seed: decides what is held out, and which variations are made.
    """

    max_size: int = 5000
    threshold: float = 5.0
    variations_per_sample: int = 2
    held_out_share: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        bounds: dict[str, tuple[float, float]] = {
            "max_size": (2, 1_000_000), "threshold": (0, MAX_SCORE), "variations_per_sample": (0, 20),
            "held_out_share": (0, 0.5), "seed": (0, 2**63 - 1),
        }  # fmt: skip
        for name, (least, most) in bounds.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not least <= value <= most:  # NaN is in no range
                raise ConfigError(
                    f"is {value}, which is not from {least:g} to {most:g}",
                    field=name,
                    hint=f"choose {name} in that range",
                )


@dataclass(frozen=True)
class Enhancement:
    """What came of a cycle.

    Attributes:
        original_size, final_size: samples for training, before and after.
        good: chats that passed, before duplicates were looked for.
        variations: that passed and were no duplicates.
        duplicates: samples of chats, or of the dataset, that gave way to a better one or to a held-out one.
        refused: chats by the reason why they were not taken.
        left: samples that gave way because there were more than `max_size`.
        newly_held_out: of the good ones, how many went to evaluation.
    """

    train: tuple[Sample, ...]
    held_out: tuple[Sample, ...]
    original_size: int
    final_size: int
    good: int
    variations: int
    duplicates: int
    refused: dict[str, int]
    left: int
    newly_held_out: int
    settings: LearnSettings = field(default_factory=LearnSettings)

    @property
    def growth(self) -> int:
        return self.final_size - self.original_size

    @property
    def growth_percent(self) -> float:
        """Of the original size; 100 where there was nothing before and now there is."""
        if self.original_size == 0:
            return 100.0 if self.growth else 0.0
        return 100 * self.growth / self.original_size


def enhance(
    chats: Sequence[Chat], train: Sequence[Sample], held_out: Sequence[Sample], settings: LearnSettings,
    *, perplexity: Perplexity | None = None,
) -> Enhancement:  # fmt: skip
    """The dataset that chats make of another one. The order of `chats` does not matter.

    Args:
        train, held_out: the present dataset, as an earlier cycle left it.
        perplexity: of the present model, if answers are to be asked for it (slow).
    """
    good, refused = judged(chats, settings, perplexity)
    trained_on = {sample.key for sample in train}
    order = functools.partial(_order, known=trained_on)
    kept = distinct(sorted([*train, *good], key=order), apart_from=held_out)
    new = [sample for sample in kept if sample.key not in trained_on]
    untouched = distinct(new, apart_from=[*held_out, *train])
    chosen = choose_held_out(untouched, present=len(held_out), most=len(kept) - 1, settings=settings)
    evaluated, chosen_keys = (*held_out, *chosen), {sample.key for sample in chosen}
    remaining = sorted([sample for sample in kept if sample.key not in chosen_keys], key=order)
    # what is beyond the limit leaves anyway, and its variations with it
    parents = [sample for sample in remaining[: settings.max_size] if sample.key not in trained_on]
    made = _varied(parents, settings, perplexity)
    variations = distinct(made, beside=remaining, apart_from=evaluated)
    ranked = sorted([*remaining, *variations], key=order)
    final = tuple(ranked[: settings.max_size])
    return Enhancement(
        train=final, held_out=evaluated, original_size=len(train), final_size=len(final), good=len(good),
        variations=len(variations), duplicates=len(train) + len(good) - len(kept), refused=refused,
        left=len(ranked) - len(final), newly_held_out=len(chosen), settings=settings,
    )  # fmt: skip


def judged(
    chats: Sequence[Chat], settings: LearnSettings, perplexity: Perplexity | None = None
) -> tuple[list[Sample], dict[str, int]]:
    """Samples of the chats that are good enough, and how many of the others were refused for which reason."""
    good: list[Sample] = []
    refused: Counter[str] = Counter()
    for chat in chats:
        admitted = admit(chat)
        if isinstance(admitted, str):
            refused[admitted] += 1
            continue
        judgement = judge(admitted.question, admitted.answer, admitted.language, perplexity=perplexity)
        score = rated(judgement.score, admitted.rating)
        if score >= settings.threshold:
            good.append(Sample(admitted.question, admitted.answer, admitted.language, score, admitted.origin))
        else:
            refused[judgement.reasons[0] if judgement.reasons else LOW_SCORE] += 1
    return good, dict(sorted(refused.items()))


def distinct(
    samples: Sequence[Sample], *, beside: Sequence[Sample] = (), apart_from: Sequence[Sample] = ()
) -> list[Sample]:
    """Those of `samples` that are near to none before them, the first of each kind.

    Args:
        samples: the best first.
        beside: samples that are there already, and count as if they came first.
        apart_from: samples that nothing may be near to, not even its own family.
    """
    kept = list(beside)
    forbidden, index, seen = NearIndex(), NearIndex(), {sample.key for sample in [*beside, *apart_from]}
    for sample, bands in _banded(apart_from):
        forbidden.keep(sample.normalized, bands)
    for sample, bands in _banded(beside):
        index.keep(sample.normalized, bands)
    for sample, bands in _banded(samples):
        if sample.key in seen or any(True for _ in forbidden.near(sample.normalized, bands)):
            continue
        if any(kept[number].family != sample.family for number in index.near(sample.normalized, bands)):
            continue
        seen.add(sample.key)
        index.keep(sample.normalized, bands)
        kept.append(sample)
    return kept[len(beside) :]


def choose_held_out(
    candidates: Sequence[Sample], *, present: int, most: int, settings: LearnSettings
) -> tuple[Sample, ...]:
    """Which of the candidates are for evaluation: a share of them, by a seeded hash of their keys.

    One at least where none is held out yet, and no more than that share of `max_size` altogether.

    Args:
        present: samples that are held out already.
        most: so many may be taken at most.
    """
    room = min(most, max(1, int(settings.held_out_share * settings.max_size)) - present)
    if settings.held_out_share == 0 or room <= 0:
        return ()
    ranks = sorted(
        (int.from_bytes(hashlib.sha256(f"{settings.seed}:{sample.key}".encode()).digest()[:8]), place)
        for place, sample in enumerate(candidates)
    )
    chosen = [place for rank, place in ranks if rank < settings.held_out_share * _RANKS]
    if not chosen and not present and ranks:
        chosen = [ranks[0][1]]
    return tuple(candidates[place] for place in chosen[:room])


def _varied(parents: Iterable[Sample], settings: LearnSettings, perplexity: Perplexity | None) -> list[Sample]:
    """Variations that pass by the same rule, the best first. None scores more than its parent, so none outlives it."""
    good = []
    for parent in parents:
        for made in variations_of(parent, settings.variations_per_sample, seed=settings.seed):
            judgement = judge(made.question, made.answer, made.language, perplexity=perplexity)
            if judgement.score >= settings.threshold:
                good.append(replace(made, score=min(judgement.score, parent.score)))
    return sorted(good, key=_order)


def _banded(samples: Sequence[Sample]) -> Iterable[tuple[Sample, list[int]]]:
    return zip(samples, bands_of([sample.normalized for sample in samples]), strict=True)


def _order(sample: Sample, known: Collection[str] = ()) -> tuple[Any, ...]:
    """The best first; of equal ones what is no variation, then what is there already; then any order, but one."""
    return (
        -sample.score, sample.is_variation, sample.key not in known, sample.key, sample.question, sample.answer,
        sample.origin,
    )  # fmt: skip
