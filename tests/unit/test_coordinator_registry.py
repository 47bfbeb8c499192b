"""What the registry decides, without a database: names, facts, comparison, retention, archives."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coordinator.checkpoints import read_checkpoints
from coordinator.comparison import MetricComparison, compare
from coordinator.credits import Credit
from coordinator.downloads import CHUNK_BYTES, ModelFile, close_files, model_size_bytes, open_model, zip_chunks
from coordinator.model_views import EvaluationView, VersionView
from coordinator.models import ParticipantRow
from coordinator.removal import remove_set_aside, set_aside
from coordinator.retention import Candidate, paths_in_config, superfluous
from coordinator.version_facts import contributors_of, evaluation_at, model_names
from cotrain.config import RunConfig, dump_config
from cotrain.errors import NotFoundError
from cotrain.paths import CHECKPOINT_MANIFEST, SharedPaths
from cotrain.train.checkpoint import CheckpointStore, outer_counters, outer_tensors
from cotrain.train.diloco import OuterState


# ------------------------------------------------------------------------------------------------- facts
def evaluated(round_: int, loss: float, **more: Any) -> dict[str, Any]:
    """Data of an evaluation record."""
    return {"round": round_, "samples": 8 * round_, "validationLoss": loss, "targets": 100, **more}


def test_a_version_has_the_evaluation_of_its_round() -> None:
    records = [evaluated(0, 5.5), evaluated(3, 3.0, exact_match=0.5), evaluated(6, 3.5), {"round": 6}]
    found = evaluation_at(3, records)
    assert found == EvaluationView(
        round=3, samples=24, targets=100, metrics={"validationLoss": 3.0, "exactMatch": 0.5}
    )  # fmt: skip


@pytest.mark.parametrize(("round_", "expected"), [(5, 3), (6, 6), (9, 6), (None, 6), (0, 0)])
def test_a_round_without_an_evaluation_has_the_last_one_before_it(round_: int | None, expected: int) -> None:
    records = [evaluated(0, 5.5), evaluated(3, 3.0), evaluated(6, 3.5)]
    found = evaluation_at(round_, records)
    assert found is not None
    assert found.round == expected


def test_of_two_evaluations_of_a_round_the_later_one_counts() -> None:
    found = evaluation_at(None, [evaluated(3, 3.0), evaluated(3, 2.5)])
    assert found is not None
    assert found.metrics["validationLoss"] == 2.5


def test_without_evaluations_there_is_none() -> None:
    assert evaluation_at(3, []) is None
    assert evaluation_at(3, [evaluated(4, 3.0)]) is None


def participant(account: str, **changes: Any) -> ParticipantRow:
    facts: dict[str, Any] = {"name": account, "status": {"step": 4, "tokens": 100}, "removed_at": None}
    return ParticipantRow(account=account, **(facts | changes))


def test_contributors_are_the_wallets_that_are_credited() -> None:
    rows = [
        participant("a", id="1", name="one"), participant("b", id="2"), participant("c", id="3", removed_at=5.0),
        participant("a", id="4", name="two"), participant("a", id="5"), participant("d", id="6", status=None),
    ]  # fmt: skip
    credits = {"1": Credit(8, 1), "3": Credit(8, 1), "4": Credit(16, 2), "6": Credit(4, 1)}
    a, d = contributors_of(rows, credits, all_credited=True)
    assert (a.account, a.names, a.peers, a.samples, a.rounds, a.tokens) == ("a", ["one", "two"], 2, 24, 3, 200)
    assert (d.account, d.samples, d.rounds, d.tokens) == ("d", 4, 1, 0)


def test_where_rounds_are_not_credited_who_says_that_it_trained_is_named_too() -> None:
    rows = [
        participant("a", id="1"), participant("b", id="2", status=None), participant("c", id="3", removed_at=5.0),
        participant("d", id="4", status={"step": 0, "tokens": 0}), participant("e", id="5"),
    ]  # fmt: skip
    found = contributors_of(rows, {"5": Credit(8, 1)}, all_credited=False)
    assert [(one.account, one.samples, one.rounds) for one in found] == [("a", 0, 0), ("e", 8, 1)]


def test_a_model_has_its_sessions_name_or_one_that_tells_it_apart() -> None:
    assert model_names("Poems", "eip155:1:0xAb12345678", "f00") == ["Poems", "Poems (12345678)", "Poems (f00)"]
    assert model_names("Poems", "", "f00") == ["Poems", "Poems (f00)"]
    assert all(len(name) <= 120 for name in model_names("x" * 120, "eip155:1:0xAb12345678", "f00"))


# ------------------------------------------------------------------------------------------------- comparison
def version(model: str, *, data: str = "d", targets: int | None = 100, size: int = 10, **metrics: float) -> VersionView:
    evaluation = EvaluationView(round=3, samples=24, targets=targets, metrics=metrics) if metrics else None
    return VersionView(
        model=model, version=1, session_id=None, data_fingerprint=data, contributors=[], evaluation=evaluation,
        uncredited_rounds=0, round=3, parameters=5, size_bytes=size, available=True, pinned=False, created_at="",
    )  # fmt: skip


def metric(name: str, *versions: VersionView) -> MetricComparison:
    (found,) = [one for one in compare(versions).metrics if one.metric == name]
    return found


def test_a_lower_loss_and_a_higher_accuracy_are_better() -> None:
    pair = version("a", validationLoss=2.5, accuracy=0.5), version("b", validationLoss=2.0, accuracy=0.25)
    loss, accuracy = metric("validationLoss", *pair), metric("accuracy", *pair)
    assert (loss.best, loss.better, loss.not_comparable) == (["b:1"], "lower", "")
    assert (loss.values, loss.differences) == ({"a:1": 2.5, "b:1": 2.0}, {"a:1": 0.0, "b:1": -0.5})
    assert (accuracy.best, accuracy.better, accuracy.differences["b:1"]) == (["a:1"], "higher", -0.25)


def test_equal_ones_are_both_the_best() -> None:
    assert metric("accuracy", version("a", accuracy=0.5), version("b", accuracy=0.5)).best == ["a:1", "b:1"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"data": "other"}, "different data"), ({"data": ""}, "not known of all"),
        ({"targets": 50}, "different parts of the data"),
    ],
)  # fmt: skip
def test_what_was_measured_on_other_data_is_not_compared(change: dict[str, Any], why: str) -> None:
    pair = version("a", validationLoss=2.5), version("b", validationLoss=2.0, size=5, **change)
    loss = metric("validationLoss", *pair)
    assert why in loss.not_comparable
    assert (loss.best, loss.differences) == ([], {})
    assert loss.values == {"a:1": 2.5, "b:1": 2.0}
    assert metric("sizeBytes", *pair).best == ["b:1"]  # of the files, whatever they learnt


def test_what_only_one_was_measured_by_is_not_compared() -> None:
    found = metric("f1", version("a", validationLoss=2.5, f1=0.5), version("b", validationLoss=2.0))
    assert (found.best, found.not_comparable) == ([], "fewer than two versions have it")
    assert "not known whether" in metric("speed", version("a", speed=1.0), version("b", speed=2.0)).not_comparable
    assert compare([version("a"), version("b")]).metrics[0].metric == "parameters"  # neither was evaluated


# ------------------------------------------------------------------------------------------------- retention
CANDIDATES = st.lists(
    st.builds(
        Candidate, model=st.sampled_from("ab"), version=st.integers(1, 9), path=st.sampled_from("pqrstuvw"),
        pinned=st.booleans(),
    ),
    max_size=12, unique_by=lambda one: (one.model, one.version),
)  # fmt: skip


@given(CANDIDATES, st.integers(1, 4), st.sets(st.sampled_from("pqrstuvw"), max_size=2))
def test_only_what_nobody_needs_goes(versions: list[Candidate], keep: int, used: set[str]) -> None:
    goes = superfluous(versions, keep=keep, started_from=used)
    stays = [one for one in versions if one not in goes]
    for one in goes:
        newer = [other for other in versions if other.model == one.model and other.version > one.version]
        assert len(newer) >= keep
        assert not one.pinned
        assert one.path not in used
        assert one.path not in {other.path for other in stays}
    for one in stays:
        newer = [other for other in versions if other.model == one.model and other.version > one.version]
        needed = len(newer) < keep or one.pinned or one.path in used
        assert needed or one.path in {other.path for other in stays if other != one}


def test_a_session_that_started_in_a_versions_folder_keeps_it() -> None:
    versions = [Candidate("m", number, f"models/final/{number}") for number in (1, 2, 3)]
    goes = superfluous(versions, keep=1, started_from={"models/final/1/sub", "models/final/22"})
    assert [one.version for one in goes] == [2]


def test_the_paths_in_a_config_are_read_as_the_checkpointer_does(tmp_path: Path) -> None:
    config = RunConfig.model_validate(
        {
            "schema_version": 1, "model": {"source": "final/first"}, "data": {"tokenizer": "./final/../final/second"},
            "distillation": {"enabled": True, "teacher": str(tmp_path / "models" / "third")},
            "train": {"task": "causal-lm"},
        }
    )  # fmt: skip
    found = paths_in_config(dump_config(config), SharedPaths(tmp_path))
    assert sorted(found) == ["models/final/first", "models/final/second", "models/third"]
    assert paths_in_config("schema_version = 1", SharedPaths(tmp_path)) == []


def test_a_folder_is_gone_at_once_and_deleted_later(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "file").write_bytes(b"x")
    assert set_aside(folder)
    assert not folder.exists()
    assert not set_aside(folder)
    (tmp_path / "other").mkdir()
    remove_set_aside([tmp_path, tmp_path / "absent"])
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_a_link_that_was_set_aside_takes_nothing_along(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert set_aside(tmp_path / "link")
    remove_set_aside([tmp_path])
    assert [path.name for path in tmp_path.rglob("*")] == ["real", "file"]


# ------------------------------------------------------------------------------------------------- archives
def write_model(folder: Path, *, weights: bytes = b"weights") -> Path:
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_bytes(b"{}")
    return folder


def unzipped(files: list[ModelFile]) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(b"".join(zip_chunks(files)))) as archive:
        assert archive.testzip() is None
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        return {name: archive.read(name) for name in archive.namelist()}


def test_an_archive_holds_the_files_and_is_made_piece_by_piece(tmp_path: Path) -> None:
    weights = os.urandom(3 * CHUNK_BYTES + 17)
    folder = write_model(tmp_path / "m", weights=weights)
    files = open_model(folder)
    try:
        pieces = list(zip_chunks(files))
    finally:
        close_files(files)
    assert max(map(len, pieces)) < CHUNK_BYTES + 1000
    assert len(pieces) == 6
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as archive:
        assert archive.read("model.safetensors") == weights
    assert model_size_bytes(folder) == len(weights) + 2


def test_what_was_removed_meanwhile_is_sent_to_its_end(tmp_path: Path) -> None:
    files = open_model(write_model(tmp_path / "m"))
    assert set_aside(tmp_path / "m")
    remove_set_aside([tmp_path])
    assert unzipped(files) == {"model.safetensors": b"weights", "config.json": b"{}"}


def test_links_pickles_and_folders_are_left_out(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    secret = tmp_path / "secret.json"
    secret.write_bytes(b"key")
    (folder / "linked.json").symlink_to(secret)
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "folder.json").mkdir()
    os.mkfifo(folder / "pipe.json")
    files = open_model(folder)
    assert set(unzipped(files)) == {"model.safetensors", "config.json"}
    close_files(files)


def test_a_link_in_the_place_of_a_model_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(write_model(tmp_path / "m"))
    for folder in (tmp_path / "link", tmp_path / "absent"):
        with pytest.raises(NotFoundError):
            open_model(folder)
        assert model_size_bytes(folder) == 0


def test_a_folder_without_weights_is_no_model(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(NotFoundError):
        open_model(folder)
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_header_of_a_large_file_has_room_for_its_size() -> None:
    large = ModelFile("model.safetensors", io.BytesIO(b"short"), 5 * 2**30, 0.0)
    assert unzipped([large]) == {"model.safetensors": b"short"}
    small = ModelFile("model.safetensors", io.BytesIO(b"short"), 5, 0.0)
    room = len(b"".join(zip_chunks([ModelFile("model.safetensors", io.BytesIO(b"short"), 5 * 2**30, 0.0)])))
    assert room > len(b"".join(zip_chunks([small])))


# ------------------------------------------------------------------------------------------------- checkpoints
def save_checkpoint(folder: Path, round_: int, loss: float | None) -> Path:
    state = OuterState(torch.zeros(8), torch.zeros(8), round=round_, samples=10 * round_, cursor=0)
    metadata = {"outer": outer_counters(state), "digest": state.digest(), "early_stopping": {}}
    return CheckpointStore(folder, keep=2).save(outer_tensors(state), metadata, validation_loss=loss)


def test_checkpoints_are_read_as_they_were_saved(tmp_path: Path) -> None:
    for round_, loss in ((1, 1.5), (2, 2.5), (3, None), (4, 3.5)):
        save_checkpoint(tmp_path, round_, loss)
    found = read_checkpoints(tmp_path)
    assert [(one.number, one.round, one.samples, one.validation_loss) for one in found] == [
        (4, 4, 40, 3.5), (3, 3, 30, None), (1, 1, 10, 1.5),  # the newest two, and the best
    ]  # fmt: skip
    assert all(len(one.digest) == 64 and one.size_bytes > 64 for one in found)


def test_a_broken_checkpoint_is_passed_over(tmp_path: Path) -> None:
    assert read_checkpoints(tmp_path / "absent") == []
    save_checkpoint(tmp_path, 1, None)
    broken = save_checkpoint(tmp_path, 2, None)
    (broken / CHECKPOINT_MANIFEST).write_text('{"size_bytes": "many"}')
    (tmp_path / "checkpoint-00000009").mkdir()
    (tmp_path / ".checkpoint-00000010.tmp").mkdir()
    assert [one.number for one in read_checkpoints(tmp_path)] == [1]
