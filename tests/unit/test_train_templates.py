from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from cotrain.config import RunConfig, dump_config, load_config, parse_config
from cotrain.paths import configs_dir

TEMPLATES = sorted((configs_dir() / "templates").glob("*.toml"))


def test_the_templates_are_there():
    assert {"laptop-nano.toml", "community-tiny.toml"} <= {path.name for path in TEMPLATES}


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
