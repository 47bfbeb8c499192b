"""What a learning cycle decides. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coordinator.config import LearningSection
from coordinator.learning.rows import Outcome
from cotrain.config import RunConfig
from cotrain.request import Visibility

HELD_OUT_BATCHES = 1000
"""Of the held-out samples, an evaluation reads as many: all that a dataset of the usual size has."""

SHORTEST_SAMPLE = 8
"""Tokens that a config allows."""


def is_significant(new: int, size: int, settings: LearningSection) -> bool:
    """Whether so many samples that no session has trained on are worth one.

    Args:
        size: of the data without them.
    """
    return new >= max(1, min(settings.significant_samples, settings.significant_share * size))


def verdict(old_loss: float, new_loss: float) -> tuple[Outcome, str]:
    """What becomes of the new version, and why. As good as the old one is not better: then nothing changes.

    Args:
        old_loss: on the held-out samples, in nats per target; and `new_loss`.
    """
    measured = f"on the held-out samples its loss is {new_loss:.4f}, the present one's {old_loss:.4f}"
    if new_loss < old_loss:
        return "promoted", f"the new version is better: {measured}"
    return "kept", f"the present version stays: the new one is not better; {measured}"


def sequence_length(base: int, train_tokens: int, held_out_tokens: int) -> int | None:
    """Tokens of a sample, for training and evaluation alike: the base version's, or fewer where the data are short.

    None where they are too short for any. At least two samples are held out, and more are trained on.
    """
    length = min(base, held_out_tokens // 2, train_tokens // 4)
    return length if length >= SHORTEST_SAMPLE else None


def session_request(
    wanted: Mapping[str, Any], *, name: str, visibility: Visibility, cycle: str, source: str, data_path: str,
    seq_length: int, base: RunConfig,
) -> dict[str, Any]:  # fmt: skip
    """The request of a cycle's session: what the operator's settings say, from a version, on its data.

    What they leave out of how text becomes samples is as the base version learnt it.

    Args:
        visibility: of the base version: what a private one has made stays private.
        name: of the model; a session of its owner with this name makes the next version.
        source: folder of the base version, relative to the data folder's `models`.
        data_path: relative to the data folder's `datasets`.
        seq_length: tokens of a sample.
        base: what the base version was trained from.
    """
    data = {
        "normalization": base.data.normalization, **wanted.get("data", {}),
        "seqLength": seq_length, "dataPath": data_path,
    }  # fmt: skip
    training = {**wanted.get("training", {}), "task": "causal-lm"}  # no other is chatted with
    model = {**wanted.get("model", {}), "source": source}
    return {
        "description": f"Learns from chats (cycle {cycle}).", **wanted,
        "visibility": "private" if visibility == "private" else wanted.get("visibility", visibility),
        "name": name, "model": model, "training": training, "data": data,
    }  # fmt: skip
