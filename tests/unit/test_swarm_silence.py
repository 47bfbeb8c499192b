"""When the own daemon counts as lost: at once where a process has ended, after a while where it says nothing."""

from __future__ import annotations

import contextlib
import multiprocessing as mp
import signal
import time
from collections.abc import Callable, Iterator

import pytest
from hivemind.utils import MPFuture

from cotrain.errors import SwarmError
from cotrain.swarm.silence import (
    SILENCE_S,
    SILENT_CALLS,
    LocalProcess,
    Silence,
    answer_of,
    await_start,
    require_running,
)

_fork = mp.get_context("fork")
LIMIT_S = 20.0


def silent() -> None:
    signal.pause()


@contextlib.contextmanager
def started(target: Callable[..., None], *arguments: object) -> Iterator[LocalProcess]:
    process = _fork.Process(target=target, args=arguments)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def give(future: MPFuture) -> None:
    future.set_result("an answer")


def refuse(future: MPFuture) -> None:
    future.set_exception(TimeoutError("no peer"))


def test_the_last_answer_of_a_process_that_has_ended_counts() -> None:
    future = MPFuture()
    with started(give, future) as giver:
        giver.join()
        assert answer_of(future, LIMIT_S, giver) == "an answer"


def test_what_a_process_raises_is_raised_here_a_timeout_too() -> None:
    future = MPFuture()
    with started(refuse, future) as giver, pytest.raises(TimeoutError, match="no peer"):
        answer_of(future, LIMIT_S, giver)


def test_nothing_is_waited_for_once_a_process_has_ended() -> None:
    with started(silent) as giver, started(silent) as needed:
        require_running(needed)
        needed.kill()
        needed.join()
        since = time.monotonic()
        with pytest.raises(SwarmError, match="has ended"):
            answer_of(MPFuture(), LIMIT_S, giver, needed)
        with pytest.raises(SwarmError, match="the peer-to-peer daemon of this machine has ended"):
            require_running(needed)
        assert time.monotonic() - since < LIMIT_S / 2


def test_a_process_that_does_not_start_in_time_is_killed() -> None:
    with started(silent) as process:
        with pytest.raises(SwarmError, match="has said nothing for 0 s"):
            await_start(process, MPFuture(), 0.1)
        assert not process.is_alive()


def after(misses: list[float]) -> Silence:
    silence = Silence()
    for miss in misses:
        silence.note(miss)
    return silence


def test_many_failures_over_a_while_are_a_loss() -> None:
    silence = after([10.0] * SILENT_CALLS)
    silence.require_none(10.0 + SILENCE_S)
    with pytest.raises(SwarmError, match="not answered for 31 s"):
        silence.require_none(11.0 + SILENCE_S)


def test_one_answer_ends_it() -> None:
    silence = after([0.0] * 10)
    silence.end()
    silence.require_none(1000.0)
    silence.note(1000.0)
    silence.require_none(2000.0)


def test_a_machine_that_was_stopped_for_long_has_missed_too_few_calls() -> None:
    after([0.0] * (SILENT_CALLS - 1)).require_none(1e6)
