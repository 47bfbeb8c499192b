"""The data's part of a cycle: chats of the log through `cotrain.learn`. It computes: call it in a thread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from coordinator.chat_log import LoggedChat
from coordinator.config import LearningSection
from coordinator.learning.views import CycleFigures
from cotrain.errors import ConfigError
from cotrain.learn.language import Language
from cotrain.learn.pipeline import Enhancement, LearnSettings, enhance
from cotrain.learn.quality import Perplexity
from cotrain.learn.samples import Chat
from cotrain.learn.versions import DatasetVersions, Version
from cotrain.paths import SharedPaths


def make_version(
    versions: DatasetVersions, cycle: str, logged: Sequence[LoggedChat], settings: LearningSection,
    perplexity: Perplexity | None = None,
) -> tuple[int, CycleFigures]:  # fmt: skip
    """The version of the data that a cycle makes of these chats: written if it is not there; and what became of them.

    The version is not the current one yet. Raises OSError, and what `perplexity` raises.
    """
    versions.remove_unfinished()
    made = versions.of_cycle(cycle)
    if made is None:
        current = versions.current()
        train, held_out = versions.read(current) if current is not None else ((), ())
        chats = [_chat(one) for one in logged]
        found = enhance(chats, train, held_out, learn_settings(settings), perplexity=perplexity)
        figures = figures_of(found, len(logged))
        base = None if current is None else current.number
        made = versions.write(found, cycle=cycle, base=base, facts=figures.model_dump(by_alias=True))
    return made.number, CycleFigures.model_validate(made.manifest.facts)


def untrained_samples(versions: DatasetVersions, number: int, trained: int | None) -> tuple[int, int]:
    """How many training samples of a version another one has not, and how many it has in all.

    Args:
        trained: the version that a session has trained on last; None, or one that is gone: all are new.
    """
    train, _ = versions.read(versions.get(number))
    known: set[str] = set()
    if trained is not None and any(version.number == trained for version in versions.versions()):
        known = {sample.key for sample in versions.read(versions.get(trained))[0]}
    return sum(sample.key not in known for sample in train), len(train)


def tokens_of(versions: DatasetVersions, number: int, tokenizer: Path) -> tuple[int, int]:
    """How many tokens a version's training text and its held-out text have, for the model with this `tokenizer.json`.

    Raises ConfigError if that cannot be read.
    """
    from tokenizers import Tokenizer

    try:
        loaded = Tokenizer.from_file(str(tokenizer))
    except Exception as error:  # the tokenizers library raises nothing more precise for a broken file
        raise ConfigError(f"is no tokenizer: {error}", field=str(tokenizer), hint="is the version whole?") from error
    counts = []
    for samples in versions.read(versions.get(number)):
        encoded = loaded.encode_batch_fast([sample.text for sample in samples], add_special_tokens=False)
        counts.append(sum(len(one.ids) for one in encoded))
    return counts[0], counts[1]


def data_path(shared: SharedPaths, version: Version) -> str:
    """Where a session's request finds a version: relative to the folder of datasets."""
    return str(version.path.relative_to(shared.datasets))


def learn_settings(settings: LearningSection) -> LearnSettings:
    """What `cotrain.learn` is told of the coordinator's settings."""
    return LearnSettings(
        max_size=settings.max_size, threshold=settings.threshold,
        variations_per_sample=settings.variations_per_sample, held_out_share=settings.held_out_share,
    )  # fmt: skip


def figures_of(found: Enhancement, chats: int) -> CycleFigures:
    """An enhancement's figures for the log (R2.7)."""
    return CycleFigures(
        chats=chats, original_size=found.original_size, final_size=found.final_size, held_out=len(found.held_out),
        growth_samples=found.growth, growth_percent=round(found.growth_percent, 2), good=found.good,
        variations=found.variations, duplicates=found.duplicates, left=found.left, refused=dict(found.refused),
    )  # fmt: skip


def _chat(logged: LoggedChat) -> Chat:
    return Chat(
        id=logged.id, question=logged.question, answer=logged.answer, language=cast(Language, logged.language),
        rating=logged.rating, model=f"{logged.model}:{logged.version}", created_at=logged.created_at,
    )  # fmt: skip
