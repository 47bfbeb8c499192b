"""The page's pure modules, tested by node without a browser; and what the coordinator writes for them to read."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, get_args

import pytest

from coordinator.api.pages import STATIC
from coordinator.learning.rows import Outcome, Stage, Trigger
from cotrain.config import RunConfig, dump_config
from cotrain.learn import admission, pipeline, quality
from cotrain.request import SessionRequest, request_field

TESTS = Path(__file__).resolve().parents[1] / "page"
LIMIT_S = 60

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="needs node 18 or newer: apt-get install nodejs")


def node(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run node to its end, with what it prints."""
    return subprocess.run(["node", *arguments], capture_output=True, text=True, timeout=LIMIT_S, check=False)


def answer(module: str, expression: str) -> Any:
    """The JSON value of an expression in which `m` is a module of the page's logic."""
    address = json.dumps((STATIC / "logic" / module).as_uri())
    finished = node("-e", f"import({address}).then((m) => console.log(JSON.stringify({expression})))")
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def test_the_pure_modules_pass_their_own_tests() -> None:
    files = sorted(str(path) for path in TESTS.glob("*.test.mjs"))
    assert files
    finished = node("--test", *files)
    assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-1000:]


def test_every_module_of_logic_is_imported_by_a_test() -> None:
    tests = "".join(path.read_text() for path in TESTS.glob("*.mjs"))
    # said.js is a class without a decision; the others must be tested themselves
    untested = {path.name for path in (STATIC / "logic").glob("*.js") if f"logic/{path.name}" not in tests}
    assert untested == {"said.js"}


@pytest.mark.parametrize(
    ("task", "model", "expected"),
    [(None, "llama3", 48), ("masked-lm", "bert", 48), ("text-classification", "bert", None), (None, "t5", None)],
)
def test_the_page_reads_the_tokens_of_a_sample_from_what_the_coordinator_writes(
    task: str | None, model: str, expected: int | None
) -> None:
    wanted = {"name": "[data] seq_length = 7", "model": {"type": model}, "training": {"task": task}}
    wanted |= {"data": {"seqLength": 48}}
    toml = dump_config(SessionRequest.model_validate(wanted).to_config("test"))
    assert answer("config_facts.js", f"m.tokensPerSample({json.dumps(toml)})") == expected


def test_the_form_knows_where_its_fields_stand_in_the_toml() -> None:
    """Their defaults are read there."""
    places = answer("request_form.js", "m.FIELDS.map(({ path }) => [path, m.tomlKey(path)])")
    toml = {
        f"{section}.{key}" for section, field in RunConfig.model_fields.items()
        for key in getattr(field.annotation, "model_fields", {})
    }  # fmt: skip
    wrong = {path: key for path, key in places if key is not None and (key not in toml or request_field(key) != path)}
    assert wrong == {}
    absent = {path for path, key in places if key is None}
    assert absent == {"visibility", "schedule.priority", "schedule.allowSameDataset"}


def test_the_form_finds_the_choices_of_its_fields_in_the_schema() -> None:
    schema = SessionRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    document = {"components": {"schemas": {**schema.pop("$defs"), "SessionRequest": schema}}}
    facts = answer("request_form.js", f"[...m.fieldFacts({json.dumps(document)})]")
    kinds = dict(answer("request_form.js", "m.FIELDS.map(({ path, kind }) => [path, kind])"))
    with_choices = {path for path, found in facts if len(found["choices"]) > 1}
    assert with_choices == {path for path, kind in kinds.items() if kind == "choice"}
    assert dict(facts)["distributed.nodes"]["initial"] == 1


def test_the_page_has_a_text_for_every_reason_that_chats_are_refused_for() -> None:
    reasons = {
        value
        for module in (admission, pipeline, quality)
        for name, value in vars(module).items()
        if name.isupper() and not name.startswith("_") and isinstance(value, str)
    }
    assert len(reasons) > 10
    told = answer("learning.js", f"m.refusals({json.dumps({'refused': dict.fromkeys(reasons, 1)})})")
    assert {reason for _, key, reason in told if key is None} == set()


def test_the_page_has_words_for_all_that_a_cycle_can_be_at() -> None:
    badges = (STATIC / "parts" / "badge.js").read_text()
    for state in (*get_args(Stage), *get_args(Outcome)):
        assert state == "ended" or f"  {state}: {{" in badges or f'  "{state}": {{' in badges, state
    keys = answer("learning.js", f"{json.dumps(get_args(Trigger))}.map(m.triggerKey)")
    assert all(keys)
