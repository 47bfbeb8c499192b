from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from cotrain.catalog import find_dataset, is_hub_id, resolve_model
from cotrain.cli import execute
from cotrain.config import RunConfig, dump_config, load_config, parse_config
from cotrain.paths import configs_dir

TEMPLATES = sorted((configs_dir() / "templates").glob("*.toml"))


def test_the_templates_are_there():
    names = {path.stem for path in TEMPLATES}
    assert names >= {"laptop-nano", "laptop-muon", "community-tiny", "persian-sentiment", "server-8b"}


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_config_check_passes_on_a_template(path: Path):
    assert execute(["config", "check", path.stem]) == 0


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_what_a_template_names_is_in_the_catalog(path: Path):
    config = load_config(path)
    if config.model.source is not None:
        assert is_hub_id(resolve_model(config.model.source))
    if config.data.dataset is not None:
        assert find_dataset(config.data.dataset).task == config.task


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_a_template_is_a_config_and_survives_the_round_trip(path: Path):
    config = load_config(path)
    assert parse_config(dump_config(config)) == config


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_what_a_template_says_is_what_the_config_holds(path: Path):
    written = tomllib.loads(path.read_text(encoding="utf-8"))
    config = load_config(path).model_dump()
    for section, keys in written.items():
        if isinstance(keys, dict):
            assert {key: config[section][key] for key in keys} == keys


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_a_template_makes_several_rounds_and_goes_by_its_file_name(path: Path):
    config: RunConfig = load_config(path)
    assert config.session.id == path.stem
    assert config.train.max_steps is not None
    assert config.train.max_steps >= 5 * config.diloco.inner_steps
    assert config.checkpoint.interval % config.diloco.inner_steps == 0
