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

from cotrain.config import ModelSection
from cotrain.errors import DivergedError
from cotrain.train.checkpoint import (
    MANIFEST_FILE,
    STATE_FILE,
    export_model,
    load_newest_outer_checkpoint,
    save_outer_checkpoint,
)
from cotrain.train.evaluate import generate_text
from cotrain.train.files import StorageError, replacing_folder
from cotrain.train.model import build_model
from cotrain.train.tokenizer import byte_tokenizer

SIZE = 5000


def save(folder: Path, value: float, *, keep: int = 2) -> Path:
    return save_outer_checkpoint(
        folder, parameters=torch.full((SIZE,), value), momentum=torch.full((SIZE,), -value),
        metadata={"round": int(value), "digest": "ab"}, keep=keep,
    )  # fmt: skip


@contextlib.contextmanager
def full_disk(limit_bytes: int = 4096) -> Iterator[None]:
    """No file may grow beyond the limit: writing more fails as it does on a full disk (EFBIG for ENOSPC)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# -------------------------------------------------------------------------------------------- outer state
def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path):
    parameters, momentum = torch.randn(SIZE), torch.randn(SIZE)
    metadata = {"round": 3, "samples_committed": 640, "digest": "ab", "nested": {"list": [1, 2.5, None]}}
    path = save_outer_checkpoint(tmp_path, parameters=parameters, momentum=momentum, metadata=metadata)
    loaded = load_newest_outer_checkpoint(tmp_path)
    assert loaded is not None
    assert torch.equal(loaded.parameters, parameters)
    assert torch.equal(loaded.momentum, momentum)
    assert loaded.metadata == metadata
    assert loaded.path == path


def test_without_a_checkpoint_there_is_none(tmp_path: Path):
    assert load_newest_outer_checkpoint(tmp_path) is None
    assert load_newest_outer_checkpoint(tmp_path / "nowhere") is None


def test_the_newest_are_kept_and_the_newest_is_loaded(tmp_path: Path):
    paths = [save(tmp_path, value, keep=3) for value in (1.0, 2.0, 3.0, 4.0, 5.0)]
    assert sorted(tmp_path.iterdir()) == paths[2:]
    loaded = load_newest_outer_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded.metadata["round"] == 5


def flip_a_bit(path: Path) -> None:
    content = bytearray((path / STATE_FILE).read_bytes())
    content[-1] ^= 1
    (path / STATE_FILE).write_bytes(content)


def truncate(path: Path) -> None:
    content = (path / STATE_FILE).read_bytes()
    (path / STATE_FILE).write_bytes(content[: len(content) // 2])


def empty_manifest(path: Path) -> None:
    (path / MANIFEST_FILE).write_text("{}")


def half_manifest(path: Path) -> None:
    content = (path / MANIFEST_FILE).read_text()
    (path / MANIFEST_FILE).write_text(content[: len(content) // 2])


def lose_the_state(path: Path) -> None:
    (path / STATE_FILE).unlink()


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, empty_manifest, half_manifest, lose_the_state])
def test_a_broken_checkpoint_is_passed_over_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage):
    save(tmp_path, 1.0)
    broken = save(tmp_path, 2.0)
    damage(broken)
    with caplog.at_level(logging.WARNING):
        loaded = load_newest_outer_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded.metadata["round"] == 1
    assert str(broken) in caplog.text


@pytest.mark.parametrize(
    "tensors",
    [
        {"parameters": torch.tensor([1.0, torch.nan]), "momentum": torch.zeros(2)},
        {"parameters": torch.zeros(2), "momentum": torch.zeros(3)},
        {"parameters": torch.zeros(2, dtype=torch.float64), "momentum": torch.zeros(2)},
        {"parameters": torch.zeros(2)},
    ],
    ids=["nan", "sizes", "type", "half"],
)
def test_a_state_that_is_signed_right_but_wrong_inside_is_passed_over(tmp_path: Path, tensors):
    path = save(tmp_path, 1.0)
    save_file(tensors, path / STATE_FILE)
    sign_again(path)
    assert load_newest_outer_checkpoint(tmp_path) is None


def sign_again(path: Path) -> None:
    manifest = json.loads((path / MANIFEST_FILE).read_text())
    content = (path / STATE_FILE).read_bytes()
    manifest |= {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (path / MANIFEST_FILE).write_text(json.dumps(manifest))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_state_that_is_not_finite_is_never_saved(tmp_path: Path, value: float):
    save(tmp_path, 1.0)
    momentum = torch.zeros(SIZE)
    momentum[7] = value
    with pytest.raises(DivergedError, match="not finite"):
        save_outer_checkpoint(tmp_path, parameters=torch.zeros(SIZE), momentum=momentum, metadata={}, keep=1)
    loaded = load_newest_outer_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded.metadata["round"] == 1


@pytest.mark.parametrize(
    ("parameters", "momentum", "message"),
    [
        (torch.zeros(2, 2), torch.zeros(4), "parameters is 2-D"),
        (torch.zeros(4), torch.zeros(4, dtype=torch.float64), "momentum is 1-D torch.float64"),
        (torch.zeros(4), torch.zeros(5), "4 values, momentum 5"),
    ],
)
def test_tensors_that_are_no_outer_state_are_refused(tmp_path: Path, parameters, momentum, message: str):
    with pytest.raises(ValueError, match=message):
        save_outer_checkpoint(tmp_path, parameters=parameters, momentum=momentum, metadata={})


def test_keeping_none_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="keep is 0"):
        save(tmp_path, 1.0, keep=0)


def test_a_full_disk_leaves_the_older_checkpoint_and_no_rubbish(tmp_path: Path):
    older = save(tmp_path, 1.0, keep=1)
    with full_disk(), pytest.raises(StorageError) as caught:
        save(tmp_path, 2.0, keep=1)
    assert str(tmp_path) in caught.value.field
    assert list(tmp_path.iterdir()) == [older]
    loaded = load_newest_outer_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded.metadata["round"] == 1
    assert save(tmp_path, 3.0, keep=1).is_dir()


def test_what_a_killed_process_left_is_no_checkpoint(tmp_path: Path):
    older = save(tmp_path, 1.0)
    unfinished = tmp_path / ".checkpoint-00000002.tmp"
    unfinished.mkdir()
    (unfinished / STATE_FILE).write_bytes(b"half")
    loaded = load_newest_outer_checkpoint(tmp_path)
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
    return build_model(ModelSection(), vocab_size=256, seq_length=32, seed=0)


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
