"""A few cells of the matrix of kills (`tests/chaos/test_node_kill_matrix.py`)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.node_kills import Stage, kill_and_await_return, running_stage

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(280)]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with running_stage(tmp_path_factory.mktemp("stage")) as found:
        yield found


@pytest.mark.parametrize(
    ("victim", "phase"), [("agent", "inner_steps"), ("training", "downloading"), ("p2pd", "all_reduce")]
)
def test_a_node_whose_process_is_killed_is_back_and_nothing_is_lost(stage: Stage, victim: str, phase: str) -> None:
    assert kill_and_await_return(stage, victim, phase) <= stage.limit_s
