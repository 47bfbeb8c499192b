"""Where everything lies, and how the environment moves it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cotrain.paths import SharedPaths, configs_dir, home_dir


def test_folders_follow_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COTRAIN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COTRAIN_CONFIGS", str(tmp_path / "configs"))
    monkeypatch.setenv("COTRAIN_SHARED", str(tmp_path / "data"))
    assert home_dir() == tmp_path / "home"
    assert configs_dir() == tmp_path / "configs"
    assert SharedPaths.from_env().root == tmp_path / "data"


def test_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COTRAIN_HOME", "COTRAIN_CONFIGS", "COTRAIN_SHARED"):
        monkeypatch.setenv(name, "")  # empty is as good as absent
    monkeypatch.chdir(tmp_path)
    assert home_dir() == Path.home() / ".cotrain"
    assert SharedPaths.from_env().root == tmp_path / "shared"
    assert (configs_dir() / "templates").is_dir()


def test_create_makes_every_folder_and_keeps_what_is_there(tmp_path: Path) -> None:
    paths = SharedPaths(tmp_path / "shared").create()
    kept = paths.final_models / "model"
    kept.write_text("precious")
    paths.create()
    assert kept.read_text() == "precious"
    folders = [paths.checkpoints, paths.temporary_models, paths.raw_datasets, paths.processed_datasets]
    folders += [paths.dataset_splits, paths.generated_configs, paths.training_logs, paths.system_logs]
    assert all(folder.is_dir() for folder in folders)


def test_every_path_lies_under_the_root(tmp_path: Path) -> None:
    paths = SharedPaths(tmp_path)
    made = [paths.generated_config("s"), paths.run_dir("s", "p"), paths.final_model("s"), paths.database]
    assert all(path.is_relative_to(tmp_path) for path in made)
    assert paths.generated_config("s").name == "s.toml"
    assert len(set(made)) == len(made)
