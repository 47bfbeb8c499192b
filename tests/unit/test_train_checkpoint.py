from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from cotrain.errors import DivergedError
from cotrain.folders import StorageError, replacing_folder
from cotrain.paths import CHECKPOINT_MANIFEST
from cotrain.sections import ModelSection
from cotrain.train.checkpoint import (
    STATE_FILE,
    Checkpoint,
    CheckpointStore,
    export_model,
    outer_counters,
    outer_tensors,
    read_outer_state,
)
from cotrain.train.diloco import OuterState
from cotrain.train.evaluate import generate_text
from cotrain.train.model import build_model
from cotrain.train.spec import DataSpec
from cotrain.train.tokenizer import byte_tokenizer

SIZE = 5000


def save(folder: Path, value: float, *, keep: int = 2, validation_loss: float | None = None) -> Path:
    state = OuterState(torch.full((SIZE,), value), torch.full((SIZE,), -value), round=int(value), samples=8, cursor=9)
    return CheckpointStore(folder, keep=keep).save(
        outer_tensors(state), {"outer": outer_counters(state)}, validation_loss=validation_loss
    )


def newest(folder: Path) -> Checkpoint | None:
    return CheckpointStore(folder).newest(lambda checkpoint: checkpoint)


def newest_round(folder: Path) -> int | None:
    state = CheckpointStore(folder).newest(lambda checkpoint: read_outer_state(checkpoint, numel=SIZE))
    return None if state is None else state.round


@contextlib.contextmanager
def full_disk(limit_bytes: int = 4096) -> Iterator[None]:
    """No file may grow beyond the limit: writing more fails as it does on a full disk (EFBIG for ENOSPC)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# -------------------------------------------------------------------------------------------- checkpoints
def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path):
    tensors = {"a": torch.randn(SIZE), "b": torch.arange(6).view(2, 3), "c": torch.tensor(2.0)}
    metadata = {"step": 3, "digest": "ab", "nested": {"list": [1, 2.5, None]}}
    path = CheckpointStore(tmp_path).save(tensors, metadata)
    loaded = newest(tmp_path)
    assert loaded is not None
    assert loaded.tensors.keys() == tensors.keys()
    assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in tensors.items())
    assert (loaded.metadata, loaded.path) == (metadata, path)


def test_an_outer_state_comes_back_as_it_was(tmp_path: Path):
    state = OuterState(torch.randn(SIZE), torch.randn(SIZE), round=3, samples=640, cursor=700)
    CheckpointStore(tmp_path).save(outer_tensors(state), {"outer": outer_counters(state)})
    loaded = CheckpointStore(tmp_path).newest(lambda checkpoint: read_outer_state(checkpoint, numel=SIZE))
    assert loaded is not None
    assert loaded.digest() == state.digest()


def test_without_a_checkpoint_there_is_none(tmp_path: Path):
    assert newest(tmp_path) is None
    assert newest(tmp_path / "nowhere") is None


def test_the_newest_are_kept_and_the_newest_is_loaded(tmp_path: Path):
    paths = [save(tmp_path, value, keep=3) for value in (1.0, 2.0, 3.0, 4.0, 5.0)]
    assert sorted(tmp_path.iterdir()) == paths[2:]
    assert newest_round(tmp_path) == 5


def test_the_best_is_kept_beside_the_newest(tmp_path: Path):
    losses = (3.0, 1.5, 2.0, None, 2.5, 1.75)
    paths = [save(tmp_path, float(n), keep=2, validation_loss=loss) for n, loss in enumerate(losses)]
    assert sorted(tmp_path.iterdir()) == [paths[1], paths[4], paths[5]]
    best = CheckpointStore(tmp_path).best(lambda checkpoint: checkpoint)
    assert best is not None
    assert best.path == paths[1]
    flip_a_bit(paths[1])
    best = CheckpointStore(tmp_path).best(lambda checkpoint: checkpoint)
    assert best is not None
    assert best.path == paths[5], "the second best takes the place of a broken one"


def test_clearing_removes_checkpoints_and_nothing_else(tmp_path: Path):
    save(tmp_path, 1.0)
    (tmp_path / "notes.txt").touch()
    CheckpointStore(tmp_path).clear()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def flip_a_bit(path: Path) -> None:
    content = bytearray((path / STATE_FILE).read_bytes())
    content[-1] ^= 1
    (path / STATE_FILE).write_bytes(content)


def truncate(path: Path) -> None:
    content = (path / STATE_FILE).read_bytes()
    (path / STATE_FILE).write_bytes(content[: len(content) // 2])


def empty_manifest(path: Path) -> None:
    (path / CHECKPOINT_MANIFEST).write_text("{}")


def half_manifest(path: Path) -> None:
    content = (path / CHECKPOINT_MANIFEST).read_text()
    (path / CHECKPOINT_MANIFEST).write_text(content[: len(content) // 2])


def lose_the_state(path: Path) -> None:
    (path / STATE_FILE).unlink()


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, empty_manifest, half_manifest, lose_the_state])
def test_a_broken_checkpoint_is_passed_over_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage):
    save(tmp_path, 1.0)
    broken = save(tmp_path, 2.0)
    damage(broken)
    with caplog.at_level(logging.WARNING):
        assert newest_round(tmp_path) == 1
    assert str(broken) in caplog.text


@pytest.mark.parametrize(
    "tensors",
    [
        {"outer.parameters": torch.full((SIZE,), torch.nan), "outer.momentum": torch.zeros(SIZE)},
        {"outer.parameters": torch.zeros(SIZE), "outer.momentum": torch.zeros(3)},
        {"outer.parameters": torch.zeros(SIZE, dtype=torch.float64), "outer.momentum": torch.zeros(SIZE)},
        {"outer.parameters": torch.zeros(SIZE)},
    ],
    ids=["nan", "sizes", "type", "half"],
)
def test_a_state_that_is_signed_right_but_wrong_inside_is_passed_over(tmp_path: Path, tensors):
    path = save(tmp_path, 1.0)
    save_file(tensors, path / STATE_FILE)
    sign_again(path)
    assert newest_round(tmp_path) is None


def sign_again(path: Path) -> None:
    manifest = json.loads((path / CHECKPOINT_MANIFEST).read_text())
    content = (path / STATE_FILE).read_bytes()
    manifest |= {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (path / CHECKPOINT_MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_state_that_is_not_finite_is_never_saved(tmp_path: Path, value: float):
    save(tmp_path, 1.0)
    momentum = torch.zeros(SIZE)
    momentum[7] = value
    with pytest.raises(DivergedError, match="momentum is not finite"):
        CheckpointStore(tmp_path, keep=1).save({"parameters": torch.zeros(SIZE), "momentum": momentum}, {})
    assert newest_round(tmp_path) == 1


def test_keeping_none_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="keep is 0"):
        save(tmp_path, 1.0, keep=0)


def test_a_full_disk_leaves_the_older_checkpoint_and_no_rubbish(tmp_path: Path):
    older = save(tmp_path, 1.0, keep=1)
    with full_disk(), pytest.raises(StorageError) as caught:
        save(tmp_path, 2.0, keep=1)
    assert str(tmp_path) in caught.value.field
    assert list(tmp_path.iterdir()) == [older]
    assert newest_round(tmp_path) == 1
    assert save(tmp_path, 3.0, keep=1).is_dir()


def test_what_a_killed_process_left_is_no_checkpoint(tmp_path: Path):
    older = save(tmp_path, 1.0)
    unfinished = tmp_path / ".checkpoint-00000002.tmp"
    unfinished.mkdir()
    (unfinished / STATE_FILE).write_bytes(b"half")
    loaded = newest(tmp_path)
    assert loaded is not None
    assert loaded.path == older
    newer = save(tmp_path, 2.0)
    assert sorted(tmp_path.iterdir()) == [older, newer]


# ------------------------------------------------------------------------------------------------ folders
def test_a_replaced_folder_holds_the_new_files_only(tmp_path: Path):
    for name in ("old", "new"):
        with replacing_folder(tmp_path / "target") as temporary:
            (temporary / name).write_text(name)
    assert [path.name for path in tmp_path.rglob("*")] == ["target", "new"]


def test_an_error_in_the_block_leaves_the_older_folder(tmp_path: Path):
    with replacing_folder(tmp_path / "target") as temporary:
        (temporary / "old").touch()

    def fail_half_way() -> None:
        with replacing_folder(tmp_path / "target") as temporary:
            (temporary / "new").touch()
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail_half_way()
    assert [path.name for path in tmp_path.rglob("*")] == ["target", "old"]


def test_a_folder_put_aside_by_a_killed_process_is_put_back(tmp_path: Path):
    previous = tmp_path / ".target.previous"
    previous.mkdir()
    (previous / "old").touch()
    with pytest.raises(RuntimeError, match="stop"), replacing_folder(tmp_path / "target"):
        raise RuntimeError("stop")
    assert [path.name for path in tmp_path.rglob("*")] == ["target", "old"]


# ------------------------------------------------------------------------------------------------- export
@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return build_model(ModelSection(), DataSpec(task="causal-lm", vocab_size=256, seq_length=32), seed=0)


def test_an_export_loads_from_pretrained_and_gives_the_same_logits(model: PreTrainedModel, tmp_path: Path):
    target = tmp_path / "session" / "final"
    export_model(model, byte_tokenizer(), target)
    loaded = AutoModelForCausalLM.from_pretrained(target, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(target, local_files_only=True)
    tokens = tokenizer("def main():", return_tensors="pt").input_ids
    with torch.no_grad():
        assert torch.equal(loaded(tokens).logits, model(tokens).logits)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert loaded.generation_config.eos_token_id is None
    arguments = {"max_new_tokens": 8, "seed": 1}
    assert generate_text(loaded, tokenizer, "x", **arguments) == generate_text(
        model, byte_tokenizer(), "x", **arguments
    )


def test_an_export_holds_no_pickle(model: PreTrainedModel, tmp_path: Path):
    export_model(model, byte_tokenizer(), tmp_path / "final")
    assert {path.suffix for path in (tmp_path / "final").iterdir()} <= {".json", ".safetensors"}


def test_an_export_replaces_an_older_one(model: PreTrainedModel, tmp_path: Path):
    target = tmp_path / "final"
    export_model(model, byte_tokenizer(), target)
    (target / "stale.json").touch()
    export_model(model, byte_tokenizer(), target)
    assert not (target / "stale.json").exists()
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_leaves_the_older_export(model: PreTrainedModel, tmp_path: Path):
    target = tmp_path / "final"
    export_model(model, byte_tokenizer(), target)
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    with full_disk(100_000), pytest.raises(StorageError):
        export_model(model, byte_tokenizer(), target)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before
    assert list(tmp_path.iterdir()) == [target]
