from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotrain.errors import IntegrityError, InvalidRequestError, NotFoundError
from cotrain.folders import StorageError
from cotrain.learn.pipeline import Enhancement, LearnSettings
from cotrain.learn.samples import Sample
from cotrain.learn.versions import CURRENT, MANIFEST, TRAIN, VALIDATION, DatasetVersions, Version

TRAINED = (
    Sample("What is tea?", "Tea is a drink.\nUser: not me", "en", 8.5, "chat:1"),
    Sample("چای چیست؟", "چای نوشیدنی است.", "fa", 7.0, "import:seed:2"),
)
HELD_OUT = (Sample("茶是什么？", "茶是一种饮料。", "zh", 9.0, "chat:3"),)


def enhancement(train: tuple[Sample, ...] = TRAINED, held_out: tuple[Sample, ...] = HELD_OUT) -> Enhancement:
    return Enhancement(train, held_out, 0, len(train), len(train), 0, 0, {}, 0, len(held_out))


def versions_in(folder: Path) -> DatasetVersions:
    return DatasetVersions(folder, clock=lambda: 12.5)


def test_a_version_holds_what_was_written_and_says_so(tmp_path: Path):
    store = versions_in(tmp_path / "data")
    assert (store.versions(), store.current()) == ([], None)
    version = store.write(enhancement(), cycle="c1", base=None, facts={"chats": 3})
    assert (version.number, version.path) == (1, tmp_path / "data" / "v000001")
    assert store.get(1) == store.of_cycle("c1") == version
    assert store.of_cycle("c2") is None
    assert (version.train_size, version.held_out_size) == (2, 1)
    assert store.read(version) == (TRAINED, HELD_OUT)
    manifest = json.loads((version.path / MANIFEST).read_text())
    assert {key: value for key, value in manifest.items() if key != "sha256"} == {
        "schema": 1, "version": 1, "cycle": "c1", "base": None, "created_at": 12.5, "sizes": {TRAIN: 2, VALIDATION: 1},
        "languages": {"en": 1, "fa": 1, "zh": 1}, "settings": asdict(LearnSettings()),
        "facts": {"chats": 3},
    }  # fmt: skip
    assert manifest["sha256"].keys() == {TRAIN, VALIDATION}
    lines = [json.loads(line) for line in (version.path / TRAIN).read_text(encoding="utf-8").splitlines()]
    assert lines[0]["text"] == "User: What is tea?\nAssistant: Tea is a drink.\n User: not me\n"
    assert lines[0].keys() == {"text", "question", "answer", "language", "score", "origin"}
    assert store.current() is None, "writing does not switch"


def test_without_held_out_samples_there_is_no_file_for_them(tmp_path: Path):
    store = versions_in(tmp_path)
    version = store.write(enhancement(held_out=()), cycle="c1", base=None)
    assert not (version.path / VALIDATION).exists()
    assert store.read(version) == (TRAINED, ())


def test_a_cycle_that_is_repeated_finds_its_version_again(tmp_path: Path):
    first = versions_in(tmp_path).write(enhancement(), cycle="c1", base=None)
    other = versions_in(tmp_path).write(enhancement(TRAINED[:1]), cycle="c2", base=1)
    again = versions_in(tmp_path).write(enhancement(()), cycle="c1", base=None)
    assert (again, other.number, other.manifest.base) == (first, 2, 1)
    assert versions_in(tmp_path).read(again) == (TRAINED, HELD_OUT)


def test_switching_is_seen_by_others_and_can_be_repeated(tmp_path: Path):
    store = versions_in(tmp_path)
    first = store.write(enhancement(), cycle="c1", base=None)
    second = store.write(enhancement(TRAINED[:1]), cycle="c2", base=1)
    for version in (first, second, second, first):
        store.switch(version)
        assert versions_in(tmp_path).current() == version
    with pytest.raises(NotFoundError):
        store.switch(Version(9, tmp_path / "v000009", first.manifest))
    assert store.current() == first


def test_what_was_left_half_written_is_not_seen_and_goes(tmp_path: Path):
    store = versions_in(tmp_path)
    store.write(enhancement(), cycle="c1", base=None)
    for name in (".v000002.tmp", ".v000001.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / TRAIN).write_text("{")
    (tmp_path / f".{CURRENT}.tmp").write_text("v9")
    assert [version.number for version in store.versions()] == [1]
    assert store.remove_unfinished() == 2
    assert store.remove_unfinished() == 0
    assert store.write(enhancement(), cycle="c2", base=1).number == 2


def test_pruning_leaves_the_newest_and_the_current_one(tmp_path: Path):
    store = versions_in(tmp_path)
    written = [store.write(enhancement(), cycle=f"c{number}", base=None) for number in range(5)]
    store.switch(written[0])
    assert store.prune(keep=2) == [2, 3]
    assert [version.number for version in store.versions()] == [1, 4, 5]
    assert store.write(enhancement(), cycle="new", base=5).number == 6
    assert store.remove_unfinished() == 0
    with pytest.raises(InvalidRequestError):
        store.prune(keep=0)


@pytest.mark.parametrize("name", [TRAIN, VALIDATION])
def test_a_file_that_was_changed_is_not_read(name: str, tmp_path: Path):
    store = versions_in(tmp_path)
    version = store.write(enhancement(), cycle="c1", base=None)
    with (version.path / name).open("a") as file:
        file.write(HELD_OUT[0].to_line())
    with pytest.raises(IntegrityError) as caught:
        store.read(version)
    assert caught.value.field == str(version.path / name)
    (version.path / name).unlink()
    with pytest.raises(IntegrityError, match="cannot be read"):
        store.read(version)


@pytest.mark.parametrize("content", [b"", b"v1\n", b"../v000001\n", b"\xff", b"v000007\n"])
def test_a_pointer_to_no_version_is_told_and_not_taken_for_an_empty_dataset(content: bytes, tmp_path: Path):
    store = versions_in(tmp_path)
    store.write(enhancement(), cycle="c1", base=None)
    (tmp_path / CURRENT).write_bytes(content)
    with pytest.raises(IntegrityError):
        store.current()


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"schema": 2}', "{" * 100_000])
def test_a_manifest_that_is_none_is_told_with_its_file(content: str, tmp_path: Path):
    store = versions_in(tmp_path)
    version = store.write(enhancement(), cycle="c1", base=None)
    (version.path / MANIFEST).write_text(content)
    with pytest.raises(IntegrityError) as caught:
        store.versions()
    assert caught.value.field == str(version.path / MANIFEST)


def test_a_folder_that_was_renamed_is_not_another_version(tmp_path: Path):
    store = versions_in(tmp_path)
    store.write(enhancement(), cycle="c1", base=None).path.rename(tmp_path / "v000002")
    with pytest.raises(IntegrityError, match="version 1"):
        store.versions()


@pytest.mark.parametrize("cycle", ["", "x" * 201])
def test_a_cycle_without_a_proper_id_is_refused(cycle: str, tmp_path: Path):
    with pytest.raises(InvalidRequestError):
        versions_in(tmp_path).write(enhancement(), cycle=cycle, base=None)


def test_a_disk_that_takes_nothing_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        versions_in(tmp_path / "file" / "data").write(enhancement(), cycle="c1", base=None)


@settings(max_examples=20, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["write", "switch", "prune", "leave", "clean"]), st.integers(0, 4)), max_size=14
    )
)
def test_whatever_is_done_every_version_is_whole_and_the_current_one_stays(steps: list[tuple[str, int]]):
    with tempfile.TemporaryDirectory() as folder:
        store, current = versions_in(Path(folder)), None
        for step, number in steps:
            present = store.versions()
            if step == "write":
                store.write(enhancement(TRAINED[: number % 3]), cycle=f"c{number}", base=None)
            elif step == "switch" and present:
                current = present[number % len(present)]
                store.switch(current)
            elif step == "prune":
                store.prune(keep=1 + number)
            elif step == "leave":
                (Path(folder) / f".v{number:06d}.tmp").mkdir(exist_ok=True)
            elif step == "clean":
                store.remove_unfinished()
            assert store.current() == current
            assert len({version.manifest.cycle for version in store.versions()}) == len(store.versions())
            for version in store.versions():
                cycle = int(version.manifest.cycle[1:])
                assert store.read(version) == (TRAINED[: cycle % 3], HELD_OUT)
