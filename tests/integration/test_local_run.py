"""A run on this machine alone: it is interrupted, resumed to the last bit, stopped early, and loses nothing."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from cotrain.errors import ConflictError, DivergedError
from cotrain.folders import StorageError
from cotrain.paths import CONTROL_FILE
from cotrain.sections import Optimizer, Strategy
from cotrain.status import Control, write_control
from cotrain.train.checkpoint import STATE_FILE
from cotrain.train.local_run import LocalRun
from cotrain.train.model import flatten_parameters
from cotrain.train.trainer import MOST_SKIPPED
from tests.train_fixtures import config_for, run_locally, write_rows
from tests.unit.test_train_checkpoint import flip_a_bit, full_disk

ROOT = Path(__file__).parents[2]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.jsonl", "causal-lm")


# ------------------------------------------------------------------------------------------------ resuming
@pytest.mark.parametrize(
    ("strategy", "optimizer", "inner_steps", "dropout"),
    [("ddp", "adamw", 5, 0.1), ("diloco", "adamw", 4, 0.0), ("diloco", "muon", 7, 0.0), ("ddp", "sgd", 3, 0.0),
     ("ddp", "adam", 20, 0.0)],
)  # fmt: skip
def test_ten_steps_and_ten_more_are_twenty_to_the_last_bit(
    data: Path, tmp_path: Path, strategy: Strategy, optimizer: Optimizer, inner_steps: int, dropout: float
) -> None:
    """Also where the interruption falls into the middle of a round."""
    config = config_for(
        "causal-lm", data, train={"max_steps": 20, "optimizer": optimizer, "batch_size": 4},
        diloco={"inner_steps": inner_steps}, distributed={"strategy": strategy},
        model={"type": "gpt2", "dropout": dropout},
    )  # fmt: skip
    whole = run_locally(config, tmp_path / "whole")
    first = run_locally(config, tmp_path / "parts", most_steps=10)
    assert (first.status.status, first.status.step, first.final) == ("stopped", 10, None)
    second = run_locally(config, tmp_path / "parts")
    assert first.losses + second.losses == whole.losses
    assert torch.equal(second.run._inner.weights(), whole.run._inner.weights())


def test_a_fresh_process_goes_on_to_the_last_bit(data: Path, tmp_path: Path) -> None:
    """Through the command line: 20 steps, and 10 + a fresh process + 10."""
    toml = tmp_path / "run.toml"
    toml.write_text(
        f'schema_version = 1\n[train]\nmax_steps = 20\nbatch_size = 4\n[data]\nseq_length = 32\ndata_path = "{data}"\n'
        "[diloco]\ninner_steps = 8\n"
    )
    ends = {}
    for name, goes in (("whole", [[]]), ("parts", [["--steps", "10"], []])):
        for options in goes:
            train(toml, tmp_path / name, *options)
        state = next((tmp_path / name).rglob("models/final/local/model.safetensors"))
        ends[name] = state.read_bytes()
    assert ends["whole"] == ends["parts"]


def train(toml: Path, shared: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cotrain.cli", "train", str(toml), *options],
        env={"COTRAIN_SHARED": str(shared), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(shared)},
        cwd=ROOT, check=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_a_broken_checkpoint_is_passed_over_for_the_one_before(data: Path, tmp_path: Path) -> None:
    config = config_for("causal-lm", data, train={"max_steps": 12, "batch_size": 4}, diloco={"inner_steps": 2},
                        checkpoint={"interval": 2})  # fmt: skip
    whole = run_locally(config, tmp_path / "whole")
    run_locally(config, tmp_path / "parts", most_steps=8)
    newest = sorted((tmp_path / "parts" / "models" / "checkpoints" / "local").iterdir())[-1]
    flip_a_bit(newest)
    second = run_locally(config, tmp_path / "parts")
    assert second.losses == whole.losses[-len(second.losses) :]
    assert len(second.losses) > 4
    assert torch.equal(second.run._inner.weights(), whole.run._inner.weights())


def test_a_checkpoint_of_another_run_is_refused_with_the_ways_out(data: Path, tmp_path: Path) -> None:
    settings = {"max_steps": 2, "batch_size": 4}
    run_locally(config_for("causal-lm", data, train=settings), tmp_path)
    other = config_for("causal-lm", data, train=settings | {"optimizer": "sgd"}, model={"type": "gpt2"})
    with pytest.raises(ConflictError, match="another model, optimizer") as caught:
        run_locally(other, tmp_path)
    assert "--fresh" in caught.value.hint
    assert run_locally(other, tmp_path, fresh=True).status.status == "completed"
    assert (tmp_path / "models" / "checkpoints" / "local.old-1").is_dir(), "what was there is not lost"


def test_a_longer_run_goes_on_from_a_shorter_one(data: Path, tmp_path: Path) -> None:
    short, long = (config_for("causal-lm", data, train={"max_steps": n, "batch_size": 4}) for n in (4, 10))
    run_locally(short, tmp_path)
    outcome = run_locally(long, tmp_path)
    assert (len(outcome.losses), outcome.status.step) == (6, 10)


# ---------------------------------------------------------------------------------------------- what is kept
def test_a_run_that_stops_early_exports_its_best_model(data: Path, tmp_path: Path) -> None:
    """A rate that is far too high after a good start: the last weights are worse than earlier ones."""
    config = config_for(
        "causal-lm", data, diloco={"inner_steps": 2}, checkpoint={"interval": 2, "keep": 1},
        train={"max_steps": 60, "learning_rate": 0.3, "warmup_steps": 1000, "early_stopping": True,
               "early_stopping_patience": 2, "optimizer": "sgd", "max_grad_norm": 100.0},
        monitoring={"evaluation_rounds": 1, "evaluation_batches": 2},
    )  # fmt: skip
    outcome = run_locally(config, tmp_path)
    evaluations = [record.data["validationLoss"] for record in outcome.records if record.kind == "evaluation"]
    assert outcome.status.step < 60
    assert outcome.final is not None
    exported = flatten_parameters(AutoModelForCausalLM.from_pretrained(outcome.final, local_files_only=True))
    assert outcome.run._best is not None
    assert torch.equal(exported, outcome.run._best[1])
    assert outcome.run._best[0] == min(evaluations) < evaluations[-1]
    (outcome.run._places.final / "model.safetensors").unlink()
    assert run_locally(config, tmp_path).final is not None, "a later process takes the best checkpoint"


def test_a_full_disk_ends_the_run_and_leaves_the_older_checkpoint(data: Path, tmp_path: Path) -> None:
    config = config_for("causal-lm", data, train={"max_steps": 8, "batch_size": 4}, diloco={"inner_steps": 2},
                        checkpoint={"interval": 2})  # fmt: skip
    run_locally(config, tmp_path, most_steps=4)
    folder = tmp_path / "models" / "checkpoints" / "local"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with full_disk(100_000), pytest.raises(StorageError, match="cannot be written"):
        run_locally(config, tmp_path)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert run_locally(config, tmp_path).status.step == 8


def test_a_wish_in_the_control_file_stops_the_run_with_a_checkpoint(data: Path, tmp_path: Path) -> None:
    config = config_for("causal-lm", data, train={"max_steps": 50, "batch_size": 4})
    write_control(tmp_path / "run" / CONTROL_FILE, Control(wish="stop"))
    outcome = run_locally(config, tmp_path)
    assert (outcome.status.status, outcome.status.step, outcome.final) == ("stopped", 0, None)
    write_control(tmp_path / "run" / CONTROL_FILE, Control(wish="run"))
    assert list((tmp_path / "models" / "checkpoints").rglob(STATE_FILE)) == [], "nothing was learnt yet"


# ------------------------------------------------------------------------------------------------- trouble
def poison_at(step: int) -> Callable[[LocalRun], None]:
    """Make the weights not a number once, after this step, as an overflow does."""

    def on_step(run: LocalRun) -> None:
        if run._trainer.steps == step - 1:
            with torch.no_grad():
                next(run._inner.model.parameters()).fill_(torch.nan)

    return on_step


def test_a_run_that_is_no_number_goes_back_to_its_last_good_checkpoint(data: Path, tmp_path: Path) -> None:
    config = config_for("causal-lm", data, train={"max_steps": 40, "batch_size": 4}, diloco={"inner_steps": 4},
                        checkpoint={"interval": 8})  # fmt: skip
    outcome = run_locally(config, tmp_path, on_step=poison_at(18))
    assert [math.isnan(loss) for loss in outcome.losses].count(True) == MOST_SKIPPED
    assert any("back to the last good checkpoint" in message for message in outcome.messages("log"))
    assert (outcome.status.status, outcome.status.step) == ("completed", 40)
    after, before = outcome.losses[18 + MOST_SKIPPED], outcome.losses[16]
    assert after == pytest.approx(before, abs=0.6), "it goes on about where it was"


def test_a_run_that_stays_no_number_fails_as_diverged_with_advice(data: Path, tmp_path: Path) -> None:
    config = config_for("causal-lm", data, train={"max_steps": 200, "batch_size": 4, "learning_rate": 10.0,
                        "warmup_steps": 0, "optimizer": "sgd", "max_grad_norm": 1e30})  # fmt: skip
    with pytest.raises(DivergedError, match="also after going back to an older state") as caught:
        run_locally(config, tmp_path)
    assert "lower learning rate" in caught.value.hint


OUT_OF_MEMORY = """
import json, resource, sys
from pathlib import Path
import torch
from tests.train_fixtures import config_for, run_locally
folder, data = Path(sys.argv[1]), Path(sys.argv[2])
config = config_for("causal-lm", data, train={"batch_size": 128, "max_steps": 2}, data={"seq_length": 64})
run_locally(config, folder / "warm", most_steps=1)  # what is loaded once is loaded before the limit
in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
room = int(sys.argv[3])
if room:
    resource.setrlimit(resource.RLIMIT_AS, (in_use + room, resource.RLIM_INFINITY))
outcome = run_locally(config, folder / "tight")
print(json.dumps({"losses": outcome.losses, "logs": outcome.messages("log"),
                  "micro": outcome.run._inner.micro_batch_size, "tokens": outcome.status.tokens}))
"""


def test_when_memory_runs_out_micro_batches_are_halved_and_the_step_stays_what_it_was(
    data: Path, tmp_path: Path
) -> None:
    """A real limit of the address space; torch's allocator fails as on a full machine."""
    outcomes = []
    for room in (0, 100_000_000):
        done = subprocess.run(
            [sys.executable, "-c", OUT_OF_MEMORY, str(tmp_path / str(room)), str(data), str(room)], cwd=ROOT,
            check=True, capture_output=True, text=True, timeout=240,
            env={"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "MALLOC_ARENA_MAX": "1",
                 # what is freed goes back at once: else the limit's room depends on what earlier steps left mapped
                 "MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"},
        )  # fmt: skip
        outcomes.append(json.loads(done.stdout.splitlines()[-1]))
    roomy, tight = outcomes
    assert roomy["micro"] == 128
    assert tight["micro"] < 128
    assert any(message.startswith("out of memory: going on with micro-batches") for message in tight["logs"])
    assert tight["tokens"] == roomy["tokens"]
    assert tight["losses"] == pytest.approx(roomy["losses"], abs=1e-4)
