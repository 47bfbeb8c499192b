"""A cycle, and how auto-learning stands, as lines for people. Pure."""

from __future__ import annotations

from coordinator.learning.views import CycleView, LearningView

_RULE = "=" * 50


def cycle_lines(cycle: CycleView) -> list[str]:
    """The summary that is printed at the end of a cycle (R2.7)."""
    lines = [
        _RULE,
        f"cycle {cycle.id} of {cycle.model}",
        f"  chats looked at:      {cycle.chats:>6,}",
        f"  good samples found:   {cycle.good:>6,}",
        f"  variations made:      {cycle.variations:>6,}",
        f"  duplicates left out:  {cycle.duplicates:>6,}",
        f"  original size:        {cycle.original_size:>6,}",
        f"  final size:           {cycle.final_size:>6,}",
        f"  growth:               {cycle.growth_samples:>+6,} ({cycle.growth_percent:+.1f} %)",
        f"  held out:             {cycle.held_out:>6,}",
    ]
    lines += [f"  refused, {reason}: {count}" for reason, count in _most_first(cycle)]
    if cycle.session_id is not None:
        lines.append(f"  session:              {cycle.session_id}")
    lines.append(f"{cycle.outcome or cycle.stage}: {cycle.message}" if cycle.message else cycle.outcome or cycle.stage)
    return [*lines, _RULE]


def standing_lines(found: LearningView) -> list[str]:
    """What `cotrain learn status` prints."""
    if found.model is None:
        return ["no model learns: name one in the coordinator's config, [learning] model"]
    promoted = "the newest" if found.promoted_version is None else str(found.promoted_version)
    lines = [
        f"model:      {found.model}, version served: {promoted}",
        f"chats:      {found.chats} of the {found.min_chats} that a cycle needs",
        f"data:       {found.dataset_size} samples to train on, {found.held_out} held out"
        + ("" if found.dataset_version is None else f" (version {found.dataset_version})"),
        f"cycles:     {'begin by themselves' if found.automatic else 'by hand'}"
        + (", one is under way" if found.running else ""),
    ]
    if found.last is not None:
        lines.append(f"last cycle: {found.last.id}, {found.last.outcome or found.last.stage}, {found.last.started_at}")
    return lines


def _most_first(cycle: CycleView) -> list[tuple[str, int]]:
    return sorted(cycle.refused.items(), key=lambda item: (-item[1], item[0]))
