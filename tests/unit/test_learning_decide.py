"""What a learning cycle decides."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.config import LearningSection
from coordinator.learning.decide import is_significant, sequence_length, session_request, verdict
from cotrain.config import RunConfig
from cotrain.request import SessionRequest

SETTINGS = LearningSection(significant_share=0.01, significant_samples=50)
SIZES = st.integers(min_value=0, max_value=10**7)


@pytest.mark.parametrize(
    ("new", "size", "expected"),
    [
        (0, 0, False), (1, 0, True), (1, 100, True), (0, 100, False), (9, 1000, False), (10, 1000, True),
        (49, 100_000, False), (50, 100_000, True),
    ],
)  # fmt: skip
def test_a_share_of_the_data_or_a_number_is_significant(new: int, size: int, expected: bool) -> None:
    assert is_significant(new, size, SETTINGS) is expected


@given(SIZES, SIZES)
def test_with_one_sample_more_it_stays_significant(new: int, size: int) -> None:
    assert is_significant(new + 1, size, SETTINGS) or not is_significant(new, size, SETTINGS)


@pytest.mark.parametrize(
    ("old", "new", "outcome"),
    [(2.0, 1.9, "promoted"), (2.0, 2.0, "kept"), (2.0, 2.1, "kept")],
)
def test_only_what_is_measured_as_better_is_promoted(old: float, new: float, outcome: str) -> None:
    found, message = verdict(old, new)
    assert found == outcome
    assert f"{new:.4f}" in message
    assert f"{old:.4f}" in message


@given(st.integers(8, 10**6), SIZES, SIZES)
def test_samples_are_as_long_as_the_data_allow(base: int, train: int, held_out: int) -> None:
    length = sequence_length(base, train, held_out)
    if length is None:
        assert held_out < 16 or train < 32
    else:
        assert 8 <= length <= base
        assert 2 * length <= held_out
        assert 4 * length <= train


def config(normalization: str = "none") -> RunConfig:
    return RunConfig.model_validate({"session": {"id": "base"}, "data": {"normalization": normalization}})


def request_of(wanted: dict[str, object], base: RunConfig) -> dict[str, object]:
    return session_request(
        wanted, name="Poet", visibility="private", cycle="c-1", source="final/old", data_path="learned/poet/v000002",
        seq_length=64, base=base,
    )  # fmt: skip


def test_a_session_learns_the_data_as_the_base_version_did() -> None:
    base = config("persian")
    request = SessionRequest.model_validate(request_of({}, base))
    assert (request.name, request.visibility) == ("Poet", "private")
    assert (request.model.source, request.training.task) == ("final/old", "causal-lm")
    assert (request.data.data_path, request.data.seq_length) == ("learned/poet/v000002", 64)
    assert request.data.normalization == "persian"
    assert request.to_config("s-1").model.source == "final/old"


def test_what_the_operator_asks_for_holds_but_not_in_the_place_of_model_and_data() -> None:
    wanted = {
        "description": "ours", "visibility": "public", "distributed": {"nodes": 3}, "training": {"maxSteps": 7},
        "model": {"source": "elsewhere", "dropout": 0.1}, "data": {"dataPath": "raw/x", "normalization": "none"},
    }  # fmt: skip
    request = SessionRequest.model_validate(request_of(wanted, config("persian")))
    assert (request.description, request.distributed.nodes) == ("ours", 3)
    assert request.visibility == "private", "what a private version has learnt stays private"
    assert (request.training.max_steps, request.training.task) == (7, "causal-lm")
    assert (request.model.source, request.model.dropout) == ("final/old", 0.1)
    assert (request.data.data_path, request.data.normalization) == ("learned/poet/v000002", "none")
