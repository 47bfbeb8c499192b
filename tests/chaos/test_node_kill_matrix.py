"""kill -9 of each process of a node in each of its phases: it is back within 30 s, and nothing is left or lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.chaos.node_kills import PHASES, VICTIMS, Stage, kill_and_await_return, running_stage

pytestmark = [pytest.mark.chaos, pytest.mark.long, pytest.mark.timeout(280)]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One session for all: it outlives twenty kills."""
    with running_stage(tmp_path_factory.mktemp("stage")) as found:
        yield found


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("victim", VICTIMS)
def test_a_node_survives_the_kill_of_one_of_its_processes(
    stage: Stage, victim: str, phase: str, record_property: Callable[[str, object], None]
) -> None:
    back_s = kill_and_await_return(stage, victim, phase)
    record_property("back_s", round(back_s, 1))
    record_property("joined_s", round(stage.joined_s, 1))
    assert back_s <= stage.limit_s
