"""What a launch says of how its ranks ended; real ranks are in tests/integration/test_parallel.py."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from cotrain.errors import ConfigError, CotrainError
from cotrain.train.launch import FAILURE_FILE, FOLDER_VARIABLE, Failure, outcome, run_rank

TOLD = {"code": "diverged", "exit_code": 65, "message": "the loss is nan", "field": "train.learning_rate", "hint": "x"}
KILLED, ENDED = -signal.SIGKILL, -signal.SIGTERM


def test_a_launch_without_failures_succeeds():
    assert outcome([], None) == 0


@pytest.mark.parametrize(
    ("failures", "code"),
    [
        ([Failure(0, 143, 5), Failure(1, ENDED, 5)], 143),  # a polite end of rank 0, then the launcher's
        ([Failure(1, ENDED, 5), Failure(0, 7, 5)], 7),
        ([Failure(0, ENDED, 5), Failure(1, ENDED, 5)], 143),
    ],
)
def test_the_exit_code_is_that_of_the_rank_that_ended_by_itself(failures: list[Failure], code: int):
    assert outcome(failures, None) == code


def test_the_error_that_was_left_first_is_raised_with_its_codes():
    with pytest.raises(CotrainError) as raised:
        outcome([Failure(0, 70, 5), Failure(1, 65, 5)], TOLD)
    error = raised.value
    assert (error.code, error.exit_code, error.message) == ("diverged", 65, "the loss is nan")
    assert str(error) == "train.learning_rate: the loss is nan (x)"


def test_a_killed_rank_is_the_cause_of_what_the_others_say():
    with pytest.raises(CotrainError, match=r"process 1 was ended by SIGKILL .*batch_size") as raised:
        outcome([Failure(0, 65, 6), Failure(1, KILLED, 5)], TOLD)
    assert raised.value.exit_code == 137


def test_a_rank_that_the_launcher_had_to_kill_later_is_not_the_cause():
    with pytest.raises(CotrainError, match="the loss is nan"):
        outcome([Failure(0, 65, 5), Failure(1, KILLED, 35)], TOLD)


def fail(error: Exception) -> int:
    raise error


def test_only_the_first_error_of_all_ranks_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    assert run_rank(lambda: 3) == 3
    assert run_rank(lambda: fail(RuntimeError("a wheel came off"))) == 70
    assert run_rank(lambda: fail(ConfigError("too late"))) == 2
    told = json.loads((tmp_path / FAILURE_FILE).read_text())
    assert (told["message"], told["code"]) == ("RuntimeError: a wheel came off", "internal")
    assert "a wheel came off" in told["details"]["traceback"]


def test_without_a_launch_an_error_is_raised(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    with pytest.raises(ConfigError):
        run_rank(lambda: fail(ConfigError("wrong")))
