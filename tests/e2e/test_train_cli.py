"""`cotrain train` as people use it: real processes, the smallest file, signals, and several processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from cotrain.config import load_config
from cotrain.paths import STATUS_FILE, templates
from cotrain.process import child_environment
from cotrain.status import read_status
from tests.train_fixtures import write_rows
from tests.waiting import wait_until

pytestmark = pytest.mark.e2e
LIMIT_S = 120.0


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "cotrain.cli", "train", *map(str, arguments)]


def environment(shared: Path) -> dict[str, str]:
    return {**os.environ, "COTRAIN_SHARED": str(shared), "OMP_NUM_THREADS": "1"}


def train(shared: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), env=environment(shared), capture_output=True, text=True, timeout=LIMIT_S, cwd=shared.parent
    )


def ten_lines(folder: Path, *, strategy: str = "ddp", max_steps: int = 6, more: str = "") -> Path:
    """Only what a beginner would write."""
    path = folder / "run.toml"
    path.write_text(f"""schema_version = 1
[model]
type = "llama2"
size = "nano"
[train]
max_steps = {max_steps}
{more}
[distributed]
strategy = "{strategy}"
[data]
data_path = "{write_rows(folder / "rows.jsonl", "causal-lm")}"
seq_length = 32
[checkpoint]
output_path = "{folder / "out"}"
""")
    return path


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "diloco"])
def test_a_file_of_ten_lines_trains_and_exports(tmp_path: Path, strategy: str) -> None:
    done = train(tmp_path / "shared", ten_lines(tmp_path, strategy=strategy))
    assert done.returncode == 0, done.stderr
    final = tmp_path / "out" / "final"
    assert f"model: {final}" in done.stdout
    model = AutoModelForCausalLM.from_pretrained(final, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(final, local_files_only=True)
    written = model.generate(tokenizer("Ro", return_tensors="pt").input_ids, max_new_tokens=4, do_sample=False)
    assert tokenizer.decode(written[0]).startswith("Ro")
    status = read_status(tmp_path / "shared" / "logs" / "training" / "local" / "local" / STATUS_FILE)
    assert (status.status, status.step, status.process_rate) == ("completed", 6, 100.0)


def test_two_processes_end_where_one_does(tmp_path: Path) -> None:
    losses = []
    for processes in ("1", "2"):
        folder = tmp_path / processes
        folder.mkdir()
        done = train(folder / "shared", ten_lines(folder), "--processes", processes, "--json")
        assert done.returncode == 0, done.stderr
        last = json.loads(done.stdout.splitlines()[-1])
        assert last["status"] == "completed"
        losses.append((last["loss"], last["validationLoss"]))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@contextlib.contextmanager
def running(shared: Path, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command(*arguments), env={**environment(shared), **child_environment()}, cwd=shared.parent,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        for child in [*psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []:
            child.kill()
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("number", "processes", "code"), [(signal.SIGINT, 1, 130), (signal.SIGTERM, 1, 143), (signal.SIGTERM, 2, 143)]
)
def test_a_signal_ends_the_run_with_a_checkpoint_and_the_same_command_goes_on(
    tmp_path: Path, number: signal.Signals, processes: int, code: int
) -> None:
    shared = tmp_path / "shared"
    toml = ten_lines(tmp_path, max_steps=100_000, more="early_stopping = false")
    status = shared / "logs" / "training" / "local" / "local" / STATUS_FILE
    with running(shared, toml, "--processes", str(processes)) as process:
        wait_until(lambda: status.exists() and read_status(status).step > 0, limit_s=LIMIT_S, what="a first step")
        process.send_signal(number)
        assert process.wait(LIMIT_S) == code
        assert process.stdout is not None
        assert "checkpoint: " in process.stdout.read()
    step = read_status(status).step
    assert read_status(status).status == "stopped"
    done = train(shared, toml, "--steps", "1", "--processes", str(processes))
    assert done.returncode == 0, done.stderr
    assert read_status(status).step == step + 1


@pytest.mark.parametrize(
    ("change", "code", "line"),
    [
        (('size = "nano"', 'size = "nan"'), 2, "model.size: not one of the allowed values"),
        (("seq_length = 32", 'seq_length = 32\nformat = "x"'), 2, "unknown key 'format'"),
        (("rows.jsonl", "nowhere.jsonl"), 2, "nowhere.jsonl"),
        (('size = "nano"', 'size = "nano"\nsource = "hoshvare"'), 2, "train.task: is missing"),
        (('[train]\n', '[train]\ntask = "causal-lm"\n[model]\nsource = "gpt2-farsi"\n'), 2, "model"),
        (('strategy = "ddp"', 'strategy = "ddp"\ngpus_per_node = 64'), 78, "64 GPUs are wanted"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_the_way_out(tmp_path: Path, change: tuple[str, str], code: int, line: str) -> None:
    toml = ten_lines(tmp_path)
    assert change[0] in toml.read_text()
    toml.write_text(toml.read_text().replace(*change))
    done = train(tmp_path / "shared", toml)
    assert done.returncode == code, done.stderr
    assert line in done.stderr
    assert "Traceback" not in done.stderr


LAPTOP = [path for path in templates() if load_config(path).session.runnable == "laptop"]


@pytest.mark.parametrize("template", LAPTOP, ids=lambda path: path.stem)
def test_a_template_for_laptops_trains(tmp_path: Path, template: Path) -> None:
    """Its first steps; a whole run takes minutes."""
    done = train(tmp_path / "shared", template.stem, "--steps", "12", "--json")
    assert done.returncode == 0, done.stderr
    snapshots = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert (snapshots[-1]["status"], snapshots[-1]["step"]) == ("stopped", 12)
    assert snapshots[-1]["loss"] < 5.5, "it has begun to learn: chance is 5.55"
    assert len(LAPTOP) == 2


def test_when_a_process_is_killed_the_run_fails_and_says_so_and_the_same_command_goes_on(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    toml = ten_lines(tmp_path, max_steps=100_000, more="early_stopping = false")
    status = shared / "logs" / "training" / "local" / "local" / STATUS_FILE
    with running(shared, toml, "--processes", "2") as process:
        wait_until(lambda: status.exists() and read_status(status).step > 0, limit_s=LIMIT_S, what="a first step")
        ranks = psutil.Process(process.pid).children(recursive=True)
        (second,) = [rank for rank in ranks if rank.environ().get("RANK") == "1"]
        second.kill()
        assert process.wait(LIMIT_S) not in (0, None)
        assert process.stdout is not None
        assert "process 1 was ended by SIGKILL" in process.stdout.read()
        assert [rank for rank in ranks if rank.is_running() and rank.status() != psutil.STATUS_ZOMBIE] == []
    assert (read_status(status).status, read_status(status).phase) == ("failed", "done")
    done = train(shared, toml, "--steps", "1", "--processes", "2")
    assert done.returncode == 0, done.stderr
