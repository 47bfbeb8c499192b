"""The lies of a simulation: what they are, and that those made to pass the filter pass it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cotrain.swarm.aggregate import Contribution, aggregate
from cotrain.swarm.fixed_order import norm
from cotrain.swarm.parts import Part
from cotrain.swarm.scenario import LIES, Lie
from cotrain.swarm.simulated_lies import (
    LIE_SCALE,
    LITTLE_DEVIATIONS,
    NOISE_SCALE,
    Speaker,
    announced_steps,
    spoken,
    tell,
)


def test_crude_lies_are_what_they_are_called() -> None:
    truth = torch.linspace(-1, 1, 101)
    said = {lie: tell(lie, truth, np.random.default_rng(0)) for lie in LIES}
    assert torch.equal(said["sign-flip"], -LIE_SCALE * truth)
    assert torch.equal(said["scale"], LIE_SCALE * truth)
    assert not said["zero"].any()
    assert float(said["noise"].norm() / truth.norm()) == pytest.approx(NOISE_SCALE, rel=1e-4)
    assert tell(None, truth, np.random.default_rng(0)) is truth


def group(lie: Lie, *, honest: int, liars: int, numel: int = 4000) -> list[Speaker]:
    """Honest members that agree to a half, then liars."""
    generator = np.random.default_rng(0)
    common = generator.standard_normal(numel, dtype=np.float32)
    truths = [
        torch.from_numpy(common + generator.standard_normal(numel, dtype=np.float32)) for _ in range(honest + liars)
    ]
    lies: list[Lie | None] = [None] * honest + [lie] * liars
    return [
        Speaker(truth, announced_steps(told, 20), told, np.random.default_rng(i))
        for i, (truth, told) in enumerate(zip(truths, lies, strict=True))
    ]


@pytest.mark.parametrize("lie", ["inside-norm", "little"])
@pytest.mark.parametrize(("honest", "liars"), [(3, 1), (5, 2), (4, 3)])
def test_lies_that_are_made_to_pass_do_pass_and_do_harm(lie: Lie, honest: int, liars: int) -> None:
    speakers = group(lie, honest=honest, liars=liars)
    parts = [Part(0, 1500, "a"), Part(1500, 4000, "b")]
    told = spoken(speakers, parts)
    assert all(said is speaker.truth for said, speaker in zip(told[:honest], speakers, strict=False))
    assert all(torch.equal(said, told[-1]) for said in told[honest:])
    truth = torch.stack(told[:honest]).mean(0)
    for part in parts:
        brought = [
            Contribution(f"peer{i}", said[part.start : part.stop], 1.0, speaker.steps)
            for i, (said, speaker) in enumerate(zip(told, speakers, strict=True))
        ]
        found = aggregate("filter", brought, part.numel)
        assert not found.dropped
        without = truth[part.start : part.stop]
        assert norm(found.average - without) > 0.2 * norm(without)


def test_the_lie_inside_the_norm_is_as_long_as_passes_and_turns_the_average_away() -> None:
    speakers = group("inside-norm", honest=3, liars=1)
    *honest, lie = spoken(speakers, [Part(0, 4000, "a")])
    middle_length = sorted(norm(vector) for vector in honest)[1]
    assert norm(lie) == pytest.approx(0.95 * 3 * 4 * middle_length, rel=0.02)  # 16 times the steps excuse 4 times
    truth = torch.stack(honest).mean(0)

    def agreement(told: torch.Tensor) -> float:
        brought = [
            Contribution(f"peer{i}", said, 1.0, speaker.steps)
            for i, (said, speaker) in enumerate(zip([*honest, told], speakers, strict=True))
        ]
        average = aggregate("filter", brought, 4000).average
        return float(torch.nn.functional.cosine_similarity(average, truth, dim=0))

    crude = [tell(kind, honest[0], np.random.default_rng(0)) for kind in ("sign-flip", "scale", "zero", "noise")]
    assert agreement(lie) < 0.8 < min(agreement(told) for told in crude)


def test_a_little_is_what_the_honest_say_less_some_deviations() -> None:
    *honest, lie = spoken(group("little", honest=4, liars=1), [Part(0, 4000, "a")])
    expected = np.mean(honest, axis=0) - LITTLE_DEVIATIONS * np.std(honest, axis=0)
    np.testing.assert_allclose(lie.numpy(), expected, atol=1e-5)


def test_liars_among_themselves_lie_about_their_own() -> None:
    for lie in LIES:
        told = spoken(group(lie, honest=0, liars=3), [Part(0, 4000, "a")])
        assert all(bool(torch.isfinite(said).all()) for said in told)
