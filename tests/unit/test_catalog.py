from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cotrain.catalog import find_dataset, find_model, load_datasets, load_models, resolve_dataset, resolve_model
from cotrain.errors import ConfigError, NotFoundError
from cotrain.sections import FieldsSection


def test_the_five_persian_models_are_there_with_their_sizes():
    sizes = {model.type: model.size_bytes for model in load_models()}
    assert sizes == {"gpt2": 1.2e9, "bert": 420e6, "roberta": 480e6, "t5": 900e6, "albert": 180e6}


def test_the_eight_persian_datasets_are_there_with_task_source_size_and_licence():
    datasets = load_datasets()
    assert [dataset.name for dataset in datasets] == [
        "FarsTail", "Persian News Corpus", "Persian Sentiment", "Persian QA", "Persian NER",
        "Persian Text Classification", "Persian Poetry", "Persian Wikipedia",
    ]  # fmt: skip
    for dataset in datasets:
        assert dataset.task
        assert dataset.size
        assert dataset.licence
        assert (dataset.language, dataset.normalization) == ("fa", "persian")
    assert find_dataset("farstail").fields == FieldsSection(text="premise", pair="hypothesis", label="label")


def test_an_entry_is_found_by_id_name_or_hub_id():
    for name in ("bert-fa", "BERT persian", "HooshvareLab/bert-fa-base-uncased"):
        assert find_model(name).id == "bert-fa"
        assert resolve_model(name) == "HooshvareLab/bert-fa-base-uncased"
    assert resolve_dataset("Persian Wikipedia") == "wikimedia/wikipedia"


def test_what_is_in_no_catalog_is_refused_with_near_matches():
    with pytest.raises(NotFoundError, match="did you mean bert-fa") as caught:
        resolve_model("brt-fa")
    assert "bert-fa" in caught.value.details["near"]
    with pytest.raises(NotFoundError, match="did you mean persian-poetry"):
        resolve_dataset("persian poems")
    with pytest.raises(NotFoundError, match="the catalog has gpt2-fa, bert-fa"):
        find_model("zzzzzzzz")


def test_a_local_folder_is_a_model_but_a_dataset_by_path_has_a_key_of_its_own(tmp_path: Path):
    assert resolve_model(str(tmp_path)) == str(tmp_path)
    with pytest.raises(NotFoundError):
        resolve_dataset(str(tmp_path))


@pytest.mark.parametrize("hub_id", ["org/name", "org-1/name_2.v3"])
def test_a_hub_id_stands_for_itself(hub_id: str):
    assert resolve_model(hub_id) == resolve_dataset(hub_id) == hub_id


@pytest.mark.parametrize(
    "text", ["../etc/passwd", "a/../b", "org/..", "org/na me", "org/name/more", "/org/name", "org/", ""]
)
def test_paths_are_no_hub_ids(text: str):
    with pytest.raises(NotFoundError):
        resolve_dataset(text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[[models]", "not a catalog"),
        ("models = 5", "not a catalog"),
        ('[[models]]\nid = "a"\n', "Field required"),
        (None, "cannot be read"),
    ],
)
def test_a_broken_catalog_is_told_with_its_file(
    content: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "catalog").mkdir()
    if content is not None:
        (tmp_path / "catalog" / "models.toml").write_text(content)
    monkeypatch.setenv("COTRAIN_CONFIGS", str(tmp_path))
    with pytest.raises(ConfigError, match=message) as caught:
        load_models()
    assert caught.value.field.endswith("models.toml")


def test_the_catalog_loads_no_torch():
    code = "import sys, cotrain.catalog as c; c.load_models(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
