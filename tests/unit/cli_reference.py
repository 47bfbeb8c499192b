"""The reference of all commands in docs/cli.md, made from the code. `python -m tests.unit.cli_reference` writes it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import typer

from cotrain.cli import LAZY_COMMANDS, app

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
BEGIN = "<!-- commands -->\n"
END = "<!-- end of commands -->\n"


def reference() -> str:
    """Each command with its first sentence, and a line for each of its options and arguments."""
    root: Any = typer.main.get_command(app)
    lazy = {name: typer.main.get_command(import_module(entry.module).app) for name, entry in LAZY_COMMANDS.items()}
    parts = ["## Options of `cotrain` itself", "", *_parameters(root)]
    for name, command in sorted({**root.commands, **lazy}.items()):
        parts += [f"## cotrain {name}", ""]
        for full_name, leaf in _leaves(f"cotrain {name}", command):
            parts += [f"### `{full_name}`", "", _text(leaf.help.split("\n\n")[0]), "", *_parameters(leaf)]
    return "\n".join(parts)


def replaced(document: str) -> str:
    """The document with the reference that the code has now."""
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + reference() + END + after


def _leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    below = getattr(command, "commands", None)
    if below is None:
        yield name, command
        return
    for word, inner in sorted(below.items()):
        yield from _leaves(f"{name} {word}", inner)


def _parameters(command: Any) -> list[str]:
    lines = [f"- {_name(parameter)}: {_text(parameter.help)}" for parameter in command.params]
    return [*lines, ""] if lines else []


def _name(parameter: Any) -> str:
    if parameter.param_type_name == "option":
        return ", ".join(f"`{spelling}`" for spelling in parameter.opts)
    return f"`{parameter.metavar or parameter.name.upper()}`"


def _text(given: str | None) -> str:
    """In one line, so that Markdown shows it as it is."""
    return " ".join((given or "").split()).replace("<", "\\<")


if __name__ == "__main__":
    DOCUMENT.write_text(replaced(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
