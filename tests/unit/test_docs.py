"""The documents against the code: what they name exists, and what exists is named."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer

from coordinator.cli import app as coordinator_app
from coordinator.learning.cli import app as learn_app
from cotrain.chain_cli import app as chain_app
from cotrain.cli import LAZY_COMMANDS, app
from cotrain.config import parse_config
from cotrain.demo import app as demo_app
from cotrain.request import SessionRequest
from cotrain.serve.cli import app as serve_app
from cotrain.simulate_cli import app as simulate_app
from cotrain.train_cli import app as train_app
from node.cli import app as node_app
from node.sessions.cli import app as sessions_app

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
PACKAGES = ("cotrain", "node", "coordinator")
# files beside the packages that read the environment or set it
OTHER_CODE = ("Dockerfile", "compose.yaml", "Makefile", "scripts/install.sh", ".ci/run")

COMMAND_APPS = {
    "chain": chain_app, "coordinator": coordinator_app, "demo": demo_app, "learn": learn_app, "node": node_app,
    "serve": serve_app,
    "sessions": sessions_app, "simulate": simulate_app, "train": train_app,
}  # fmt: skip
VARIABLE = re.compile(r"\bCOTRAIN_[A-Z_]+\b")
REPOSITORY_FILE = re.compile(r"`((?:[\w.-]+/)*[\w.-]+\.(?:py|js|md|toml|yaml|sh))`")
REPOSITORY_FOLDER = re.compile(r"`((?:cotrain|node|coordinator|tests|configs|docs|scripts|benchmarks)/[\w/-]+)`")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[\w-]+)?\)")
CODE = re.compile(r"^```\w*\n(.*?)^```|`([^`\n]+)`", re.DOTALL | re.MULTILINE)
COMMAND_LINE = re.compile(r"\bcotrain ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?(.*?)(?=\bcotrain |$)", re.MULTILINE)
OPTION = re.compile(r"(?<=\s)--[a-z][a-z-]*")
MAKE_TARGET = re.compile(r"\bmake ([a-z][a-z-]*)")


def text_of(*paths: Path) -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in paths)


def python_files() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def fenced(document: Path, language: str) -> list[str]:
    """The blocks of this language in a document."""
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(document), re.DOTALL | re.MULTILINE)


def table_column(document: Path, header: str) -> list[str]:
    """First cells of the rows of the table whose first title is `header`."""
    _, _, rest = text_of(document).partition(f"\n| {header} |")
    rows = rest.partition("\n\n")[0].splitlines()[2:]
    return [row.split("|")[1].strip() for row in rows]


def code_of(document: Path) -> str:
    """Blocks and spans of code, one below the other; lines that go on behind a backslash are joined."""
    text = text_of(document)
    for error_line in table_column(document, "Line"):
        text = text.replace(error_line, "")  # what cotrain says is no command
    return "\n".join(block or span for block, span in CODE.findall(re.sub(r"\\\n\s*", "", text)))


def existing_commands() -> dict[tuple[str, ...], set[str]]:
    """Options of every command, by its name: ("node", "join") or ("demo",)."""
    root: Any = typer.main.get_command(app)  # click's own types are typer's private matter
    subcommands = {**root.commands, **{name: typer.main.get_command(COMMAND_APPS[name]) for name in LAZY_COMMANDS}}
    leaves: dict[tuple[str, ...], Any] = {}
    for name, command in subcommands.items():
        inner = getattr(command, "commands", None)
        leaves |= {(name,): command} if inner is None else {(name, word): leaf for word, leaf in inner.items()}
    shared = {"--help", *(option for parameter in root.params for option in parameter.opts)}
    return {name: shared | options_of(leaf) for name, leaf in leaves.items()}


def options_of(command: Any) -> set[str]:
    """Options of a command, and of those below it."""
    below = getattr(command, "commands", {}).values()
    own = {option for parameter in command.params for option in parameter.opts}
    return own.union(*map(options_of, below))


def named_commands(document: Path) -> list[tuple[tuple[str, ...], set[str]]]:
    """Each `cotrain ...` in a document's code: the command and the options that follow it."""
    existing = existing_commands()
    found: list[tuple[tuple[str, ...], set[str]]] = []
    for first, second, rest in COMMAND_LINE.findall(code_of(document)):
        name = (first,) if (first,) in existing else (first, second)
        found.append((name, set(OPTION.findall(rest))))
    return found


# ------------------------------------------------------------------------------------------------- files
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_and_folder_that_a_document_names_is_there(document: Path) -> None:
    text = text_of(document)
    named = {*REPOSITORY_FILE.findall(text), *REPOSITORY_FOLDER.findall(text)}
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    links = [link for link in LINK.findall(text_of(document)) if "://" not in link]
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_the_architecture_names_every_module() -> None:
    modules = {
        str(path.relative_to(ROOT))
        for path in python_files()
        if path.name != "__init__.py" and "migrations" not in path.parts
    }
    assert sorted(modules - set(REPOSITORY_FILE.findall(text_of(ARCHITECTURE)))) == []


# ------------------------------------------------------------------------------------------------- environment
def test_the_table_of_variables_is_what_the_code_reads() -> None:
    code = text_of(*python_files(), *(ROOT / name for name in OTHER_CODE))
    documented = {cell.strip("`") for cell in table_column(README, "Variable")}
    assert documented == set(VARIABLE.findall(code))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_document_names_no_other_variable(document: Path) -> None:
    known = {cell.strip("`") for cell in table_column(README, "Variable")}
    assert set(VARIABLE.findall(text_of(document))) <= known


# ------------------------------------------------------------------------------------------------- commands
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_and_option_that_a_document_names_exists(document: Path) -> None:
    existing = existing_commands()
    for name, options in named_commands(document):
        assert name in existing
        assert options <= existing[name], f"cotrain {' '.join(name)} does not have all of these options"


def test_the_readme_names_every_command() -> None:
    assert {name for name, _ in named_commands(README)} == set(existing_commands())


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_make_target_that_a_document_names_exists(document: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", text_of(ROOT / "Makefile"), re.MULTILINE))
    assert set(MAKE_TARGET.findall(code_of(document))) <= targets


# ------------------------------------------------------------------------------------------------- examples
def test_the_readmes_config_is_one() -> None:
    (block,) = fenced(README, "toml")
    assert len(block.splitlines()) == 10
    assert parse_config(block).session.id == "our-first-model"


def test_the_readmes_request_is_one() -> None:
    bodies = re.findall(r" -d '(\{.*?\n\})'", text_of(README), re.DOTALL)
    assert len(bodies) == 1
    request = SessionRequest.model_validate(json.loads(bodies[0]), strict=True)
    assert request.to_config("example").train.max_steps == 500


def test_every_error_line_that_the_readme_explains_can_be_given() -> None:
    code = text_of(*python_files(), ROOT / "scripts" / "install.sh")
    # a message may be written as several literals, with fields in braces
    code = re.sub(r'"\s*\n\s*f?"', "", code)
    cells = table_column(README, "Line")
    assert len(cells) > 10
    for cell in cells:
        pieces = [re.escape(piece.strip()) for piece in cell.strip("`").split("…")]
        assert re.search(r"\s?(?:\{[^\"\n]*?\}|\$\w+)?\s?".join(pieces), code), f"no error says {cell}"


def test_every_attack_that_the_identity_page_lists_has_its_test() -> None:
    named = []
    for line in (ROOT / "docs" / "identity.md").read_text(encoding="utf-8").splitlines():
        path = ""
        for reference in re.findall(r"`((?:tests/[\w/]+\.py)?(?:::\w+)?)`", line):
            if not reference:
                continue
            file, _, name = reference.partition("::")
            path = file or path
            named.append((path, name))
    assert len(named) > 30
    missing = [f"{path}::{name}" for path, name in named if name and f"def {name}(" not in (ROOT / path).read_text()]
    assert missing == []
    assert [path for path, _ in named if not (ROOT / path).is_file()] == []
