"""What is decided about jobs: which sessions can be saved, what is evaluated on what, what a process has said."""

from __future__ import annotations

import pytest

from coordinator.evaluation import how_to_get
from coordinator.evaluation_process import Evaluated, NotEvaluated, outcome_of
from coordinator.evaluations import config_on
from coordinator.lifecycle import STATES, possible_actions
from coordinator.saves import SAVABLE_STATES, check_savable
from cotrain.catalog import DatasetEntry
from cotrain.config import dump_config, parse_config
from cotrain.errors import ConflictError
from cotrain.request import SessionRequest
from cotrain.sections import DataSection, FieldsSection
from cotrain.status import State

CONFIG = dump_config(
    SessionRequest.model_validate(
        {"name": "Poems", "data": {"dataPath": "poems", "seqLength": 64}, "training": {"validationSplit": 0.2}}
    ).to_config("poems")
)


def entry(**changes: object) -> DatasetEntry:
    facts = {
        "id": "verses", "name": "Verses", "hugging_face_id": "group/verses", "licence": "mit", "verified": False,
        "task": "causal-lm", "size": "", "fields": FieldsSection(text="verse"), "normalization": "persian",
    }  # fmt: skip
    return DatasetEntry.model_validate(facts | changes)


@pytest.mark.parametrize("state", STATES)
def test_a_session_can_be_saved_while_it_is_open_and_is_told_why_not_otherwise(state: State) -> None:
    if state in SAVABLE_STATES:
        check_savable(state)
        return
    with pytest.raises(ConflictError) as raised:
        check_savable(state)
    assert raised.value.details == {"state": state, "possible": possible_actions(state)}
    assert raised.value.hint


def test_the_states_that_can_be_saved_are_those_of_an_open_session() -> None:
    assert {"waiting", "training", "paused"} == SAVABLE_STATES


def test_without_a_dataset_a_model_is_evaluated_on_its_own_data() -> None:
    assert config_on(CONFIG, None) == CONFIG


@pytest.mark.parametrize(("changes", "dataset", "data_path"), [
    ({}, "verses", None),
    ({"owner": "eip155:1:0xab"}, "group/verses", None),
    ({"owner": "eip155:1:0xab", "hugging_face_id": None, "path": "verses/2026"}, None, "verses/2026"),
])  # fmt: skip
def test_a_dataset_takes_the_place_of_the_data_and_nothing_else_changes(
    changes: dict[str, object], dataset: str | None, data_path: str | None
) -> None:
    before, after = parse_config(CONFIG), parse_config(config_on(CONFIG, entry(**changes)))
    assert (after.data.dataset, after.data.data_path) == (dataset, data_path)
    assert (after.data.fields.text, after.data.normalization) == ("verse", "persian")
    assert (after.data.seq_length, after.data.validation_split) == (64, 0.2)
    assert after.model_copy(update={"data": before.data}) == before


def test_the_last_line_of_a_process_is_its_outcome() -> None:
    said = Evaluated(data_fingerprint="ab", targets=5, metrics={"validationLoss": 2.5})
    line = said.model_dump_json(by_alias=True).encode()
    assert outcome_of(b"a library's greeting\n" + line + b"\n", 0) == said


@pytest.mark.parametrize("output", [b"", b"nonsense", b"{}", b'{"outcome": "evaluated"}'])
def test_a_process_that_says_nothing_useful_has_failed_with_its_exit_code(output: bytes) -> None:
    outcome = outcome_of(output, -9)
    assert isinstance(outcome, NotEvaluated)
    assert "exit code -9" in outcome.message
    assert "logs/system/evaluation.log" in outcome.hint


@pytest.mark.parametrize(("data", "words"), [
    (DataSection(data_path="poems"), "put them back at poems"),
    (DataSection(dataset="group/verses"), "group/verses on the hub"),
    (DataSection(), "source text of the Python"),
])  # fmt: skip
def test_whoever_lacks_data_is_told_how_to_get_them(data: DataSection, words: str) -> None:
    assert words in how_to_get(data)
