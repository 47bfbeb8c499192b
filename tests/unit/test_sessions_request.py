"""What `cotrain sessions` makes of files, options, addresses and remembered sign-ins."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from cotrain.cli import execute
from cotrain.config import load_config
from cotrain.errors import ConfigError, CotrainError, InvalidRequestError
from cotrain.identity.secret_files import SecretFileError
from cotrain.paths import templates
from cotrain.request import SessionRequest
from node.sessions.request_file import parse_change, read_request, request_body
from node.sessions.sign_ins import SIGN_INS_FILE, SignIns, forget, read_sign_ins, remember
from node.sessions.target import COORDINATOR_VARIABLE, Target, find_target

URL, OTHER = "http://one.example", "https://two.example:8443/prefix"
TOKEN = "a-secret-token"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(COORDINATOR_VARIABLE, raising=False)
    monkeypatch.setenv("COTRAIN_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def put(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


# ------------------------------------------------------------------------------------------------- requests
def test_changes_go_before_options_and_options_before_the_file(tmp_path: Path) -> None:
    wanted = {"name": "file", "seed": 1, "training": {"maxSteps": 1, "batchSize": 2}}
    for file in (
        put(tmp_path / "a.json", json.dumps(wanted)),
        put(tmp_path / "a.toml", 'name = "file"\nseed = 1\n[training]\nmaxSteps = 1\nbatchSize = 2\n'),
    ):
        body = request_body(file, {"name": "option", "training.maxSteps": 3, "data.dataset": None}, ["seed=5"])
        assert body.left_out == []
        assert body.body == {"name": "option", "seed": 5, "training": {"maxSteps": 3, "batchSize": 2}}


@pytest.mark.parametrize(
    ("change", "meant"),
    [
        ("training.maxSteps=500", ("training.maxSteps", 500)),
        ("schedule.allowSameDataset=true", ("schedule.allowSameDataset", True)),
        ("data.dataPath=raw/a=b", ("data.dataPath", "raw/a=b")),
        ('name="5"', ("name", "5")),
    ],
)
def test_a_value_is_json_or_else_text(change: str, meant: tuple[str, object]) -> None:
    assert parse_change(change) == meant


@pytest.mark.parametrize("change", ["name", "=1", "training.=1", ""])
def test_a_change_that_sets_nothing_is_refused(change: str) -> None:
    with pytest.raises(InvalidRequestError, match="sets nothing"):
        parse_change(change)


def test_a_field_cannot_be_put_into_a_value() -> None:
    with pytest.raises(InvalidRequestError) as raised:
        request_body(None, {"name": "x"}, ["name.first=1"])
    assert raised.value.field == "name.first"


def test_a_config_of_a_run_is_asked_for_as_it_is(tmp_path: Path) -> None:
    file = put(
        tmp_path / "run.toml",
        'schema_version = 1\nsession.id = "our-first"\nsession.seed = 3\nmodel.size = "tiny"\ntrain.max_steps = 9\n'
        'train.early_stopping = false\nswarm.min_peers = 2\ndistributed.nodes = 2\ncheckpoint.interval = 7\n'
        'data.seq_length = 64\n[data.fields]\ntext = "verse"\n',
    )  # fmt: skip
    assert read_request(file) == ({
        "name": "our-first", "seed": 3, "model": {"size": "tiny"},
        "training": {"maxSteps": 9, "enableEarlyStopping": False, "saveCheckpointEvery": 7},
        "distributed": {"minPeers": 2, "nodes": 2}, "data": {"seqLength": 64, "fields": {"text": "verse"}},
    }, [])  # fmt: skip


@pytest.mark.parametrize("path", templates(), ids=lambda path: path.stem)
def test_every_template_makes_a_request_that_makes_its_config_but_for_what_is_left_out(path: Path) -> None:
    body, left_out = read_request(path)
    made = SessionRequest.model_validate(body).to_config("session").model_dump()
    given = load_config(path).model_dump()
    differing = [
        f"{section}.{key}"
        for section in made if isinstance(made[section], dict) and section != "session"
        for key in made[section] if made[section][key] != given[section][key]
    ]  # fmt: skip
    assert differing == left_out
    assert set(left_out) <= {"swarm.matchmaking_s", "swarm.record_ttl_s", "monitoring.status_interval_s"}


def test_what_no_session_can_be_asked_for_is_named(tmp_path: Path) -> None:
    file = put(tmp_path / "run.toml", 'schema_version = 1\n[checkpoint]\noutput_path = "x"\n[swarm]\ngrace = 0.05\n')
    assert read_request(file) == ({"name": "local"}, ["checkpoint.output_path"])


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.json", "{"), ("a.json", "[]"), ("a.toml", "a = "), ("a.toml", "schema_version = 1\n[train]\nbatch_sise = 1\n"),
     ("a.json", "[" * 5000), ("a.json", '{"a": "' + "x" * 70_000 + '"}')],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_named(name: str, content: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        read_request(put(tmp_path / name, content))
    assert raised.value.field.startswith(str(tmp_path / name))
    with pytest.raises(ConfigError, match="cannot be read"):
        read_request(tmp_path / "absent.json")


# ------------------------------------------------------------------------------------------------- sign-ins
def test_tokens_are_kept_where_nobody_else_reads_them(home: Path) -> None:
    assert read_sign_ins(home) == SignIns()
    remember(home, URL, TOKEN)
    remember(home, OTHER, "another")
    path = home / SIGN_INS_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in home.iterdir()] == [SIGN_INS_FILE]
    assert read_sign_ins(home) == SignIns(latest=OTHER, tokens={URL: TOKEN, OTHER: "another"})
    assert TOKEN not in repr(read_sign_ins(home))
    forget(home, OTHER)
    assert read_sign_ins(home) == SignIns(tokens={URL: TOKEN})


def test_a_file_of_sign_ins_that_cannot_be_trusted_is_refused(home: Path) -> None:
    remember(home, URL, TOKEN)
    path = home / SIGN_INS_FILE
    path.chmod(0o644)
    with pytest.raises(SecretFileError, match="open to others"):
        read_sign_ins(home)
    path.chmod(0o600)
    path.write_text(f'{{"tokens": "{TOKEN}"}}')
    with pytest.raises(ConfigError) as raised:
        read_sign_ins(home)
    assert TOKEN not in str(raised.value)


# ------------------------------------------------------------------------------------------------- targets
def test_the_option_goes_before_the_variable_and_that_before_the_last_sign_in(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember(home, OTHER, "another")
    remember(home, URL, TOKEN)
    assert find_target(home) == Target(URL, token=TOKEN)
    monkeypatch.setenv(COORDINATOR_VARIABLE, OTHER + "/")
    assert find_target(home, session="poems-1") == Target(OTHER, "poems-1", "another")
    assert find_target(home, "http://third.example/s/x") == Target("http://third.example")
    assert TOKEN not in repr(find_target(home, URL))


def test_a_sessions_address_names_its_coordinator_and_may_invite(home: Path) -> None:
    remember(home, URL, TOKEN)
    found = find_target(home, session=f"{OTHER}/s/poems-1#invitation=abc")
    assert found == Target(OTHER, "poems-1", "", "abc")
    assert find_target(home, OTHER, f"{OTHER}/s/poems-1", "def") == Target(OTHER, "poems-1", "", "def")
    with pytest.raises(InvalidRequestError) as raised:
        find_target(home, URL, f"{OTHER}/s/poems-1")
    assert raised.value.field == "--coordinator"


@pytest.mark.parametrize("session", ["", "open", "../auth/me", "Poems", "a" * 64, "x?y"])
def test_what_cannot_be_a_session_is_asked_of_nobody(session: str, home: Path) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        find_target(home, URL, session)
    assert raised.value.field == "SESSION"


@pytest.mark.parametrize(
    ("arguments", "code", "field"),
    [
        (["list"], 2, "--coordinator"),
        (["list", "--coordinator", "ftp://host"], 2, "URL"),
        (["show", "x", "--coordinator", URL, "--invitation", "a b"], 2, "--invitation"),
        (["stop", "x", "--coordinator", URL], 2, "stop"),
        (["cancel", "x", "--coordinator", URL], 2, "cancel"),
        (["delete", "x", "--coordinator", URL], 2, "delete"),
        (["create", "absent.json", "--coordinator", URL], 2, "absent.json"),
    ],
)
def test_what_is_wrong_is_said_before_anybody_is_asked(
    arguments: list[str], code: int, field: str, home: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("node.sessions.api.SessionsApi.__init__", refuse_network)
    assert execute(["sessions", *arguments]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"error: {field}: ")


def refuse_network(*_arguments: object, **_options: object) -> None:
    raise CotrainError("asked the coordinator")
