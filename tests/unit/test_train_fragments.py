"""Fragments: every value belongs to one, layers go in strides, and a round changes nothing else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cotrain.config import parse_config
from cotrain.errors import ConfigError
from cotrain.sections import ModelSection
from cotrain.train.diloco import OuterOptimizer, OuterState, RoundTotals
from cotrain.train.fragments import Fragments, divide, positions, take
from cotrain.train.model import build_model, count_parameters, parameter_layout
from cotrain.train.spec import DataSpec

TOTALS = RoundTotals(samples=40, positions=44)
SPEC = DataSpec(task="causal-lm", vocab_size=256, seq_length=32)


def parameters_of(layers: list[int]) -> list[tuple[str, int]]:
    numbered = [(f"model.layers.{number}.weight", values) for number, values in enumerate(layers)]
    return [("model.embed.weight", 50), *numbered, ("model.norm.weight", 3)]


@given(st.lists(st.integers(1, 100), min_size=8, max_size=20), st.integers(1, 8))
def test_every_value_belongs_to_one_fragment(layers: list[int], count: int) -> None:
    parameters = parameters_of(layers)
    fragments = Fragments(divide(parameters, count))
    owners = torch.zeros(sum(values for _, values in parameters), dtype=torch.int64)
    for ranges in fragments.ranges:
        for start, stop in ranges:
            owners[start:stop] += 1
    assert owners.eq(1).all()
    assert fragments.count == count
    assert sum(fragments.sizes()) == owners.numel()
    assert all(size > 0 for size in fragments.sizes())


def test_layers_are_dealt_out_in_strides_and_the_rest_where_there_is_least() -> None:
    ranges = divide(parameters_of([10, 10, 10, 10]), 2)
    assert ranges == (((0, 60), (70, 80)), ((60, 70), (80, 93)))
    assert divide(parameters_of([10, 10]), 1) == (((0, 73),),)


def test_encoder_and_decoder_layers_are_counted_together() -> None:
    names = [("encoder.block.0.a", 4), ("encoder.block.1.a", 4), ("decoder.block.0.a", 4), ("decoder.block.1.a", 4)]
    assert divide(names, 2) == (((0, 4), (8, 12)), ((4, 8), (12, 16)))


def test_a_model_with_too_few_layers_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"2 layers cannot be divided into 5 fragments") as caught:
        divide(parameters_of([10, 10]), 5)
    assert caught.value.field == "diloco.fragments"
    with pytest.raises(ConfigError, match=r"more than diloco.inner_steps"):
        parse_config("schema_version = 1\n[train]\nmax_steps = 8\n[diloco]\ninner_steps = 2\nfragments = 4\n")


def test_of_a_real_model() -> None:
    model = build_model(ModelSection(type="llama2", size="nano"), SPEC, seed=0)
    fragments = Fragments.of_model(model, 2)
    assert sum(fragments.sizes()) == count_parameters(model)
    starts = {start for ranges in fragments.ranges for start, _ in ranges}
    assert starts <= {offset for _, _, offset in parameter_layout(model)}


def test_an_outer_step_changes_the_fragment_that_is_due_and_nothing_else() -> None:
    fragments = Fragments(divide(parameters_of([10, 10, 10, 10]), 2))
    generator = torch.Generator().manual_seed(0)
    state = OuterState(torch.randn(93, generator=generator), torch.randn(93, generator=generator), round=4)
    gradient = torch.randn(93, generator=generator)
    whole = OuterOptimizer(0.7, 0.8, 0).step(state, gradient, TOTALS)
    optimizer = OuterOptimizer(0.7, 0.8, 0, fragments=fragments)

    first = optimizer.step(state, take(gradient, fragments.due(4)), TOTALS)

    for here, _ in positions(fragments.due(4)):
        assert torch.equal(first.parameters[here], whole.parameters[here])
        assert torch.equal(first.momentum[here], whole.momentum[here])
    for here, _ in positions(fragments.due(5)):
        assert torch.equal(first.parameters[here], state.parameters[here])
        assert torch.equal(first.momentum[here], state.momentum[here])
    both = optimizer.step(first, take(gradient, fragments.due(5)), TOTALS, out=(torch.empty(93), torch.empty(93)))
    assert torch.equal(both.parameters, whole.parameters)
    assert (both.round, both.samples) == (6, 80)


def test_a_vector_that_is_one_fragment_is_not_copied() -> None:
    flat = torch.zeros(10)
    assert take(flat, Fragments.whole(10).due(3)) is flat
