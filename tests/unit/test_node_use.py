"""Whether a machine is in use: what is seen of it, and what follows."""

from __future__ import annotations

import asyncio
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotrain.status import Control
from node.activity import Activity, ProcessorTimes, load_of_others, logind_input_s, measure, terminal_input_s
from node.timetable import follow_use
from node.use import BUSY_LOAD, QUIET_LOAD, Seen, Use, use_reason

REST_S = 600.0
looks = st.one_of(
    st.builds(Seen, source=st.just("input"), input_s=st.floats(0, 2000) | st.just(math.inf)),
    st.builds(Seen, source=st.just("load"), load=st.floats(0, 1)),
)


def load(share: float) -> Seen:
    return Seen("load", load=share)


# ---------------------------------------------------------------------------------------------- the decision
@given(st.lists(looks, max_size=20))
def test_a_node_trains_only_after_so_long_without_use(seen: list[Seen]) -> None:
    use, now = Use(0.0), 0.0
    for one in seen:
        now += 100.0
        use = use.after(one, now, rest_s=REST_S)
        if one.input_s is not None:
            assert use.is_used == (one.input_s < REST_S)
        if one.load is not None and one.load > BUSY_LOAD:
            assert use.is_used
        assert use.is_used == (now - use.used_at < REST_S)
        assert bool(use_reason(use, REST_S)) == use.is_used


def test_a_little_computing_of_others_keeps_a_used_machine_in_use_but_does_not_begin_it() -> None:
    between = (BUSY_LOAD + QUIET_LOAD) / 2
    use = Use(0.0)
    for now in (300.0, 600.0, 900.0):
        use = use.after(load(between), now, rest_s=REST_S)
        assert use.is_used
    assert use.after(load(0.0), 900.0 + REST_S - 1, rest_s=REST_S).is_used
    assert not use.after(load(0.0), 900.0 + REST_S, rest_s=REST_S).is_used


def test_a_machine_that_rested_begins_to_be_used_only_by_much() -> None:
    rested = Use(0.0).after(load(0.0), REST_S, rest_s=REST_S)
    assert not rested.is_used
    assert not rested.after(load((BUSY_LOAD + QUIET_LOAD) / 2), REST_S + 10, rest_s=REST_S).is_used
    assert rested.after(load(BUSY_LOAD + 0.01), REST_S + 10, rest_s=REST_S).is_used


# ---------------------------------------------------------------------------------------------- what is seen
@pytest.mark.parametrize(
    ("text", "input_s"),
    [
        ("IdleHint=no\nIdleSinceHint=0\n", 0.0),
        ("IdleHint=yes\nIdleSinceHint=1000000000\n", 500.0),
        ("IdleHint=yes\nIdleSinceHint=9000000000\n", 0.0),
        ("IdleHint=yes\nIdleSinceHint=0\n", None),
        ("IdleHint=yes\n", None),
        ("IdleHint=yes\nIdleSinceHint=soon\n", None),
        ("", None),
    ],
)
def test_what_logind_says(text: str, input_s: float | None) -> None:
    assert logind_input_s(text, now=1500.0) == input_s


def test_the_last_input_at_a_terminal_is_when_it_was_read(tmp_path: Path) -> None:
    for name, read_at in {"tty1": 100.0, "tty2": 300.0, "tty3": 900.0}.items():
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (read_at, 0.0))
    assert terminal_input_s(["tty1", "tty2", None, ":0"], 1000.0, devices=tmp_path) == 700.0
    assert terminal_input_s([None, ":0", ""], 1000.0, devices=tmp_path) is None
    assert terminal_input_s([], 1000.0, devices=tmp_path) is None


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [
        ((100.0, 50.0, 20.0), (140.0, 80.0, 30.0), 0.5),
        ((100.0, 50.0, 20.0), (140.0, 80.0, 50.0), 0.0),
        ((100.0, 50.0, 20.0), (140.0, 80.0, 50.5), 0.0),
        ((100.0, 50.0, 20.0), (140.0, 91.0, 20.0), 1.0),
        ((100.0, 50.0, 20.0), (140.0, 80.0, 5.0), 0.0),  # a process of the node was killed
        ((100.0, 50.0, 20.0), (100.0, 50.0, 20.0), 0.0),
    ],
)
def test_the_load_of_others(
    before: tuple[float, float, float], after: tuple[float, float, float], share: float
) -> None:
    assert load_of_others(ProcessorTimes(*before), ProcessorTimes(*after)) == share


def test_what_a_child_has_computed_counts_as_the_nodes_own_also_when_it_has_ended() -> None:
    before = measure()
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.5: pass"], check=True)
    after = measure()
    assert after.own_s - before.own_s >= 0.45  # the kernel counts in hundredths, of four kinds
    assert after.busy_s - before.busy_s >= 0.4
    assert after.all_s > before.all_s


async def test_every_machine_can_be_looked_at() -> None:
    seen = await Activity().look()
    assert seen.source
    assert (seen.input_s is None) != (seen.load is None)


# ---------------------------------------------------------------------------------------------- the wish
async def test_a_node_rests_while_its_machine_is_used_and_trains_when_it_is_not() -> None:
    told: list[Control] = []
    notices: list[str] = []
    trains, rests_again = asyncio.Event(), asyncio.Event()
    seen = [Seen("terminals", input_s=5.0), Seen("terminals", input_s=math.inf), Seen("logind", input_s=0.0)]

    async def look() -> Seen:
        return seen.pop(0) if len(seen) > 1 else seen[0]

    def tell(control: Control) -> None:
        told.append(control)
        if control.wish == "run":
            trains.set()
        elif trains.is_set():
            rests_again.set()

    following = asyncio.create_task(follow_use(60.0, look, tell, notices.append, interval_s=0.01))
    try:
        await asyncio.wait_for(rests_again.wait(), 5)
    finally:
        following.cancel()
    assert told[0] == Control(wish="pause", reason="this machine is in use, or was within 1 min 00 s")
    assert [told[0].wish, told[1].wish, told[2].wish, told[3].wish] == ["pause", "pause", "run", "pause"]
    assert [notice.rpartition(" ")[2] for notice in notices] == ["terminals", "logind"]
