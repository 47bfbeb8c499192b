"""Two ranks on the processor, started as a run starts them, beside one process with the same global batch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import psutil
import pytest
import torch

from cotrain.errors import ConfigError, CotrainError, IntegrityError, MissingDeviceError
from cotrain.sections import Optimizer
from cotrain.train.launch import launch
from cotrain.train.parallel import ParallelGroup, require_devices
from tests.integration.parallel_ranks import MAX_NORM, Job, Loop, do_jobs, load

RANKS = "tests.integration.parallel_ranks"
OPTIMIZERS = get_args(Optimizer)
ALONE = ParallelGroup(0, 1, torch.device("cpu"))
WHOLE_RUNS = [
    *(Job(f"{strategy}-{name}", strategy, name) for strategy in ("ddp", "fsdp") for name in OPTIMIZERS),
    *(Job(f"{strategy}-checkpointed", strategy, kind="llama-checkpointed") for strategy in ("ddp", "fsdp")),
    *(Job(f"{strategy}-albert", strategy, kind="albert") for strategy in ("ddp", "fsdp")),
]
REFERENCES = [*(Job(f"alone-{name}", optimizer=name) for name in OPTIMIZERS), Job("alone-albert", kind="albert")]
REFERENCE_OF = {job.name: f"alone-{'albert' if job.kind == 'albert' else job.optimizer}" for job in WHOLE_RUNS}
HALVES = [job for name in OPTIMIZERS for job in (
    Job(f"alone-half-{name}", optimizer=name, last=5),
    Job(f"alone-rest-{name}", optimizer=name, first=5, source=f"alone-half-{name}"),
)]  # fmt: skip
RESUMED = [job for name in OPTIMIZERS for job in (
    Job(f"fsdp-half-{name}", "fsdp", name, last=5),
    Job(f"fsdp-rest-{name}", "fsdp", name, first=5, source=f"fsdp-half-{name}"),
    Job(f"ddp-from-alone-{name}", "ddp", name, first=5, source=f"alone-half-{name}"),
    Job(f"fsdp-from-alone-{name}", "fsdp", name, first=5, source=f"alone-half-{name}"),
)]  # fmt: skip


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what one process, then two ranks, then one process again have trained."""
    folder = tmp_path_factory.mktemp("ranks")
    do_jobs(ALONE, REFERENCES + HALVES, folder)
    (folder / "jobs.json").write_text(json.dumps(WHOLE_RUNS + RESUMED))
    assert launch(RANKS, ["train", str(folder)], processes=2) == 0
    do_jobs(
        ALONE, [Job(f"alone-from-fsdp-{n}", "ddp", n, first=5, source=f"fsdp-half-{n}") for n in OPTIMIZERS], folder
    )
    return folder


def same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", REFERENCE_OF)
def test_two_ranks_learn_what_one_process_does(results: Path, name: str):
    """Ten steps with gradient accumulation and clipping, other numbers of targets in each rank."""
    weights, _, facts = load(results / name)
    expected_weights, _, expected = load(results / REFERENCE_OF[name])
    assert facts["losses"] == pytest.approx(expected["losses"], abs=1e-5)
    assert facts["norms"] == pytest.approx(expected["norms"], rel=1e-4)
    assert min(facts["norms"]) > MAX_NORM  # each step was clipped
    # adam divides by the root of what may be next to nothing: single weights may differ by more than the loss does
    assert (weights - expected_weights).norm() <= 1e-3 * expected_weights.norm()


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("who", ["alone", "fsdp"])
def test_going_on_from_a_saved_optimizer_gives_the_same_bits(results: Path, who: str, name: str):
    _, whole, facts = load(results / f"{who}-{name}")
    _, resumed, rest = load(results / f"{who}-rest-{name}")
    assert rest["losses"] == facts["losses"][5:]
    assert same_bits(whole, resumed)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("case", ["ddp-from-alone", "fsdp-from-alone", "alone-from-fsdp"])
def test_any_number_of_ranks_goes_on_from_what_any_other_has_saved(results: Path, case: str, name: str):
    expected = load(results / f"alone-{name}")[2]["losses"][5:]
    assert load(results / f"{case}-{name}")[2]["losses"] == pytest.approx(expected, abs=1e-5)


def test_facts_come_from_rank_0_and_each_rank_takes_its_rows(results: Path):
    first, second = (json.loads((results / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first["object"] == second["object"] == {"rank": 0, "text": "سلام", "list": [1, 2.5, None, 2**60]}
    assert first["nothing"] is second["nothing"] is None
    assert first["tensor"] == second["tensor"] == [5.0, 5.0, 5.0]
    assert first["sum"] == second["sum"] == [3, 20]
    assert [first["rows"], second["rows"]] == [[0, 3], [3, 6]]
    assert first["uneven"].startswith("train.batch_size: 7 samples")


def test_a_state_of_another_optimizer_or_model_is_refused_and_changes_nothing(results: Path):
    loop = Loop(ALONE, "ddp", "adamw")
    loop.step(0)
    before, rest = ALONE.optimizer_tensors(loop.model, loop.optimizer)
    for name, reason in (("alone-sgd", "SGD, not of AdamW"), ("alone-albert", "of no parameter of this model")):
        _, tensors, facts = load(results / name)
        with pytest.raises(IntegrityError, match=reason):
            ALONE.load_optimizer_tensors(loop.model, loop.optimizer, tensors, facts["optimizer"])
    assert same_bits(before, ALONE.optimizer_tensors(loop.model, loop.optimizer)[0])
    assert rest == {"kind": "AdamW"}


def test_an_optimizer_that_has_not_stepped_has_no_state(results: Path):
    loop = Loop(ALONE, "ddp", "adamw")
    tensors, rest = ALONE.optimizer_tensors(loop.model, loop.optimizer)
    assert tensors == {}
    loop.step(0)
    ALONE.load_optimizer_tensors(loop.model, loop.optimizer, tensors, rest)
    assert not loop.optimizer.state


def test_a_process_that_nobody_launched_is_alone():
    group = ParallelGroup.from_environment()
    assert (group.rank, group.size, group.is_main) == (0, 1, True)
    assert group.rows(5) == slice(0, 5)
    assert group.broadcast_object(["x"]) == ["x"]
    group.close()


def test_devices_that_are_not_there_are_named():
    wanted = torch.cuda.device_count() + 1
    with pytest.raises(MissingDeviceError, match=f"{wanted} GPUs are wanted, this machine has {wanted - 1}"):
        require_devices(wanted)
    require_devices(0)


def test_the_error_of_a_failing_rank_ends_the_others_and_is_raised_as_it_was(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(CotrainError) as raised:
        launch(RANKS, ["config", str(tmp_path)], processes=2)
    error = raised.value
    assert str(error) == "train.batch_size: seven is not even (make it eight)"
    assert (error.code, error.exit_code) == (ConfigError.code, ConfigError.exit_code)
    assert "seven is not even" not in capfd.readouterr().err  # it is shown by whoever catches it, once
    assert [child for child in psutil.Process().children() if RANKS in child.cmdline()] == []
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_rank_that_is_killed_is_named_and_not_those_that_lost_it(tmp_path: Path):
    with pytest.raises(CotrainError, match="process 1 was ended by SIGKILL") as raised:
        launch(RANKS, ["kill", str(tmp_path)], processes=2)
    assert raised.value.exit_code == 137


def until(condition: Callable[[], bool], limit_s: float = 60.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def waiting_launch(folder: Path) -> tuple[subprocess.Popen[bytes], list[psutil.Process]]:
    """A launch whose ranks wait for a signal, and its ranks."""
    launcher = subprocess.Popen(
        [sys.executable, "-m", RANKS, "launch", "wait", str(folder)], env={**os.environ, "TMPDIR": str(folder)}
    )
    files = [folder / f"rank{rank}.pid" for rank in (0, 1)]
    until(lambda: all(file.exists() and file.read_text() for file in files))
    return launcher, [psutil.Process(int(file.read_text())) for file in files]


def test_a_signal_reaches_rank_0_which_ends_the_run_in_its_own_time(tmp_path: Path):
    launcher, ranks = waiting_launch(tmp_path)
    launcher.terminate()
    assert launcher.wait(60) == 143
    assert (tmp_path / "checkpoint").read_text() == "saved"
    assert psutil.wait_procs(ranks, timeout=10)[1] == []


def test_no_rank_outlives_a_launcher_that_is_killed(tmp_path: Path):
    launcher, ranks = waiting_launch(tmp_path)
    listening = [c for rank in ranks for c in rank.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert {connection.laddr.ip for connection in listening} <= {"127.0.0.1", "::1"}
    launcher.kill()
    launcher.wait(10)
    until(lambda: not any(rank.is_running() and rank.status() != psutil.STATUS_ZOMBIE for rank in ranks), 10)
