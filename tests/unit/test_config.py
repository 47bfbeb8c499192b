"""RunConfig: every rule of the file, its errors, and that what is written can be read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotrain.config import MAX_CONFIG_BYTES, RunConfig, dump_config, load_config, parse_config
from cotrain.described import DescribedModel, field_texts
from cotrain.errors import ConfigError
from cotrain.sections import LARGEST_INTEGER, ModelSection, Section, TrainSection

HEAD = "schema_version = 1\n"


def refused(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, source="run.toml")
    assert caught.value.exit_code == 2
    assert "Traceback" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("text", "field", "message", "hint"),
    [
        ("[train]\nbatch_sise = 3", "train.batch_sise", "unknown key 'batch_sise'", "did you mean 'batch_size'?"),
        ("[trian]\n", "trian", "unknown key 'trian'", "did you mean 'train'?"),
        (
            "[model]\nxyzzy = 1",
            "model.xyzzy",
            "unknown key 'xyzzy'",
            "known here: " + ", ".join(ModelSection.model_fields),
        ),
        ("[model]\nattention = 'x'", "model.attention", "not one of the allowed values", "allowed: 'sdpa' or 'eager'"),
        ("[train]\nlearning_rate = nan", "train.learning_rate", "finite", ""),
        ("[train]\nlearning_rate = inf", "train.learning_rate", "finite", ""),
        ("[train]\nlearning_rate = 0.0", "train.learning_rate", "greater than 0", ""),
        ("[train]\nbatch_size = 'many'", "train.batch_size", "valid integer", ""),
        ("[train]\nmax_steps = 0", "train.max_steps", "greater than or equal to 1", ""),
        ("[diloco]\nouter_momentum = 1.0", "diloco.outer_momentum", "less than 1", ""),
        ("[session]\nid = 'Not An Id'", "session.id", "match pattern", ""),
        ("[data]\nvalidation_split = 1.0", "data.validation_split", "less than 1", ""),
        ("train = 3", "train", "valid dictionary", ""),
        (
            "[swarm]\nmin_peers = 2",
            "swarm.min_peers",
            "more than distributed.nodes (1)",
            "lower it, or expect more nodes",
        ),
        ("[model]\ntype = 'bert'\nsize = '7B'", "model.size", "bert has no preset 7B", "it has nano, tiny, small"),
        (
            "[model]\ntype = 'gpt2'\n[train]\ntask = 'masked-lm'",
            "train.task",
            "gpt2 reads from the left only",
            "see docs/models.md",
        ),
        ("[model]\nsource = 'a/b'", "train.task", "is missing", "a model.source does not say what it is to learn"),
        (
            "[distillation]\nenabled = true",
            "distillation.teacher",
            "is missing",
            "name a model, or set distillation.enabled = false",
        ),
        ("[data]\ndata_path = 'a'\ndataset = 'b'", "data.dataset", "beside data.data_path", "leave one of them out"),
        (
            "[distributed]\nstrategy = 'ddp'\nnodes = 2",
            "distributed.strategy",
            "the devices of one machine",
            "2 nodes train together with diloco",
        ),
        (
            "[model]\nprecision = 'fp16'\n[distributed]\nstrategy = 'fsdp'",
            "model.precision",
            "cannot be had with fsdp",
            "take bf16, or strategy ddp",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_its_key_and_the_way_out(text: str, field: str, message: str, hint: str) -> None:
    error = refused(HEAD + text)
    assert error.field == (f"run.toml: {field}" if field else "run.toml")
    assert message in error.message
    assert error.hint == hint
    assert error.details["problems"][0]["field"] == field


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "schema_version is missing"),
        ("[train]\nbatch_size = 3\n", "schema_version is missing"),
        ("schema_version = 2\n", "the file has schema_version 2, this cotrain knows 1"),
        ("schema_version = 0\n", "not one of the allowed values"),
        ("schema_version = '1'\n", "not one of the allowed values"),
        (HEAD + "[train\n", "at line 2"),
        (HEAD + "[train]\n[train]\n", "is not valid TOML"),
        (HEAD + "a = " + "[" * 5000, "nested too deeply"),
        (HEAD + "a = " + "[" * 50 + "]" * 50, "unknown key 'a'"),
    ],
)
def test_a_wrong_file_is_refused(text: str, message: str) -> None:
    assert message in refused(text).message


def test_all_problems_are_told_at_once() -> None:
    error = refused(HEAD + "[train]\nbatch_size = 0\nlearning_rate = -1.0\n[model]\nsize = 'huge'\n")
    assert [problem["field"] for problem in error.details["problems"]] == [
        "model.size",
        "train.batch_size",
        "train.learning_rate",
    ]
    assert error.message.endswith("(and 2 more)")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        (b"#" * (MAX_CONFIG_BYTES + 1), f"at most {MAX_CONFIG_BYTES} are read"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_file_that_cannot_be_a_config_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "run.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    assert caught.value.field == str(path)


def test_a_folder_is_no_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(tmp_path)


def test_one_line_is_a_config_and_a_file_may_be_as_large_as_allowed(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(HEAD + "#" * (MAX_CONFIG_BYTES - len(HEAD)))
    assert load_config(path) == RunConfig()


# ---------------------------------------------------------------------------------------------- writing
fractions = st.floats(0, 1)
plain = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=120)
paths = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=50)
configs = st.builds(
    RunConfig.model_validate,
    st.fixed_dictionaries(
        {"schema_version": st.just(1), "distributed": st.fixed_dictionaries({"nodes": st.integers(4, 10_000)})},
        optional={
            "session": st.fixed_dictionaries(
                {},
                optional={
                    "id": st.from_regex(r"\A[a-z0-9][a-z0-9-]{0,62}\Z"),
                    "name": plain,
                    "description": plain,
                    "seed": st.integers(0, 2**31 - 1),
                },
            ),
            "train": st.fixed_dictionaries(
                {},
                optional={
                    "batch_size": st.integers(1, 65536),
                    "learning_rate": st.floats(0, 10, exclude_min=True),
                    "epochs": st.floats(0, 1e5, exclude_min=True),
                    "max_steps": st.integers(1, 10**12),
                    "min_learning_rate_ratio": fractions,
                },
            ),
            "diloco": st.fixed_dictionaries(
                {},
                optional={
                    "codec": st.sampled_from(["int4", "int8", "fp32"]),
                    "momentum_ramp": fractions,
                    "overlap_steps": st.integers(0, 10_000),
                },
            ),
            "swarm": st.fixed_dictionaries({"min_peers": st.integers(1, 4)}),
            "data": st.fixed_dictionaries({"data_path": paths}),
        },
    ),
)


@settings(max_examples=60)
@given(configs)
def test_what_is_written_is_read_again_as_it_was(config: RunConfig) -> None:
    text = dump_config(config)
    assert parse_config(text) == config
    assert dump_config(parse_config(text)) == text


def test_each_section_is_written_with_what_it_is_for() -> None:
    lines = dump_config(RunConfig()).splitlines()
    assert lines[0] == "schema_version = 1"
    sections = [number for number, line in enumerate(lines) if line.startswith("[") and "." not in line]
    assert len(sections) == len(RunConfig.model_fields) - 1
    assert all(lines[number - 2].startswith("# ") for number in sections)
    assert not any("None" in line for line in lines)


def undocumented(model: type[DescribedModel]) -> list[str]:
    found = [] if model.__doc__ else [model.__name__]
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            found += undocumented(field.annotation)
        elif name not in field_texts(model) and name != "schema_version":
            found.append(f"{model.__name__}.{name}")
    return found


def test_every_key_is_documented() -> None:
    assert undocumented(RunConfig) == []


# ---------------------------------------------------------------------------------------------- what follows from it
@pytest.mark.parametrize(
    ("train", "nodes", "wanted"),
    [
        ({"max_steps": 10}, 3, 10 * 8 * 3),
        ({"max_steps": 10, "epochs": 99.0}, 1, 80),
        ({"epochs": 2.5}, 7, 250),
        ({"epochs": 0.0001}, 1, 1),
    ],
)
def test_samples_wanted(train: dict[str, Any], nodes: int, wanted: int) -> None:
    section = TrainSection(batch_size=4, gradient_accumulation_steps=2, **train)
    config = RunConfig(train=section).model_copy(
        update={"distributed": RunConfig().distributed.model_copy(update={"nodes": nodes})}
    )
    assert config.samples_wanted(100) == wanted


def test_what_is_wanted_at_most_still_fits_into_a_status() -> None:
    most = {"batch_size": 65536, "gradient_accumulation_steps": 65536, "max_steps": 10**12}
    config = RunConfig.model_validate({"train": most, "distributed": {"nodes": 10_000}})
    assert config.samples_wanted(1) == LARGEST_INTEGER


def test_overlap_is_a_quarter_of_a_round_unless_set() -> None:
    assert parse_config(HEAD + "[diloco]\ninner_steps = 50\n").diloco.overlap_limit == 12
    assert parse_config(HEAD + "[diloco]\ninner_steps = 50\noverlap_steps = 0\n").diloco.overlap_limit == 0


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        RunConfig().train.batch_size = 3  # type: ignore[misc]
