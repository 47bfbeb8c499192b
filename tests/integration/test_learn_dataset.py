"""A dataset made of chats is what training reads; a process killed while it writes one leaves the earlier one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cotrain.config import RunConfig
from cotrain.learn.importing import read_chats
from cotrain.learn.pipeline import LearnSettings, enhance
from cotrain.learn.samples import Sample
from cotrain.learn.versions import DatasetVersions, Version
from cotrain.train.data.prepare import prepare_dataset
from cotrain.train.data.samples import SampleFile

EXAMPLES = Path(__file__).parents[1] / "unit" / "learn_examples.jsonl"
KILLED = """
import os, signal, sys
from pathlib import Path
from cotrain import folders
from cotrain.learn.pipeline import LearnSettings, enhance
from cotrain.learn.versions import DatasetVersions

def die(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)

setattr(folders if sys.argv[3] == "_flush" else folders.Path, sys.argv[3], die)
store = DatasetVersions(Path(sys.argv[1]))
if sys.argv[2] == "write":
    store.write(enhance([], *store.read(store.current()), LearnSettings()), cycle="killed", base=1)
else:
    store.switch(store.versions()[-1])
"""


def config_of(data: Path) -> RunConfig:
    return RunConfig.model_validate(
        {
            "session": {"seed": 3},
            "model": {"type": "llama3", "size": "nano"},
            "train": {"max_steps": 10},
            "data": {"data_path": str(data), "seq_length": 16},
        }
    )


@pytest.fixture
def store(tmp_path: Path) -> DatasetVersions:
    return DatasetVersions(tmp_path / "dataset")


@pytest.fixture
def version(store: DatasetVersions) -> Version:
    chats = list(read_chats(EXAMPLES, name="examples"))
    written = store.write(enhance(chats, (), (), LearnSettings()), cycle="c1", base=None)
    store.switch(written)
    return written


def tokens_of(path: Path) -> bytes:
    return SampleFile(path).columns["tokens"].astype(np.uint8).tobytes()


def joined(samples: tuple[Sample, ...]) -> bytes:
    return "".join(sample.text + "\n" for sample in samples).encode()


def test_a_run_trains_on_the_one_file_and_validates_on_the_other(
    store: DatasetVersions, version: Version, tmp_path: Path
):
    train, held_out = store.read(version)
    assert len(train) > 100
    assert len(held_out) >= 3
    prepared = prepare_dataset(config_of(version.path), folder=tmp_path / "prepared")
    assert prepared.put_aside == {}
    assert prepared.documents == len(train) + len(held_out)
    assert tokens_of(prepared.train) == joined(train)
    assert tokens_of(prepared.validation) == joined(held_out)


def test_without_held_out_samples_a_run_splits_some_off(store: DatasetVersions, tmp_path: Path):
    chats = list(read_chats(EXAMPLES, name="examples"))
    version = store.write(enhance(chats, (), (), LearnSettings(held_out_share=0)), cycle="c1", base=None)
    prepared = prepare_dataset(config_of(version.path), folder=tmp_path / "prepared")
    assert prepared.documents == version.manifest.sizes["train.jsonl"]
    assert prepared.validation_samples > 0


@pytest.mark.parametrize(("action", "at"), [("write", "_flush"), ("write", "rename"), ("switch", "_flush"),
                                            ("switch", "replace")])  # fmt: skip
def test_a_process_killed_while_it_writes_leaves_the_earlier_version(
    action: str, at: str, store: DatasetVersions, version: Version
):
    if action == "switch":
        store.write(enhance([], *store.read(version), LearnSettings()), cycle="c2", base=1)
    folder = version.path.parent
    before = [other.number for other in store.versions()]
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), action, at],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert store.current() == version
    assert [other.number for other in store.versions()] == before
    assert store.remove_unfinished() == (action == "write")
    written = store.write(enhance([], *store.read(version), LearnSettings()), cycle="killed", base=1)
    store.switch(written)
    assert store.current() == written


def test_two_processes_that_write_at_once_make_two_versions(store: DatasetVersions, version: Version):
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from cotrain.learn.pipeline import LearnSettings, enhance\n"
        "from cotrain.learn.versions import DatasetVersions\n"
        "store = DatasetVersions(Path(sys.argv[1]))\n"
        "result = enhance([], *store.read(store.current()), LearnSettings())\n"
        "for number in range(5):\n"
        "    store.write(result, cycle=f'{sys.argv[2]}-{number}', base=1)\n"
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(version.path.parent), name],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for name in ("a", "b")
    ]
    try:
        assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    finally:
        for writer in writers:
            writer.kill()
    assert [other.number for other in store.versions()] == list(range(1, 12))
    cycles = {json.loads((other.path / "manifest.json").read_text())["cycle"] for other in store.versions()}
    assert cycles == {"c1", *(f"{name}-{number}" for name in "ab" for number in range(5))}
