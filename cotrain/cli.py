"""The `cotrain` command: loads node, coordinator or demo only when one of them is asked for."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from cotrain import PARENT_VARIABLE, __version__
from cotrain.errors import CotrainError, InvalidRequestError, storage_hint

EXIT_INTERRUPTED = 130


class SystemFailureError(CotrainError):
    """The operating system refused something: a full disk, a file without permission."""

    code = "system"
    exit_code = 74


class LazyCommand(NamedTuple):
    """A subcommand that is imported when it is run: `module:app`, and its line in the help."""

    module: str
    help: str


LAZY_COMMANDS = {
    "chain": LazyCommand("cotrain.chain_cli", "Prove by a public chain who gave how much."),
    "coordinator": LazyCommand("coordinator.cli", "Run a coordinator."),
    "demo": LazyCommand("cotrain.demo", "A coordinator and some nodes on this machine."),
    "learn": LazyCommand("coordinator.learning.cli", "Turn chats into data, and data into a better model."),
    "node": LazyCommand("node.cli", "Take part in a session as a volunteer."),
    "serve": LazyCommand("cotrain.serve.cli", "Chat with a trained model, in OpenAI's form."),
    "sessions": LazyCommand("node.sessions.cli", "Open, watch and steer a coordinator's sessions."),
    "simulate": LazyCommand("cotrain.simulate_cli", "Try a swarm of virtual peers in one process."),
    "train": LazyCommand("cotrain.train_cli", "Train on this machine alone."),
}


class LazyGroup(TyperGroup):
    """A command group whose help does not import the subcommands of LAZY_COMMANDS."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted([*super().list_commands(ctx), *LAZY_COMMANDS])

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command; of a lazy one only its name and help."""
        lazy = LAZY_COMMANDS.get(cmd_name)
        return TyperCommand(cmd_name, help=lazy.help) if lazy else super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that runs: here a lazy one is imported."""
        lazy = LAZY_COMMANDS.get(args[0])
        if lazy is None:
            return super().resolve_command(ctx, args)
        return args[0], typer.main.get_command(import_module(lazy.module).app), args[1:]


app = typer.Typer(
    cls=LazyGroup, help="Train a language model together.",
    rich_markup_mode=None, pretty_exceptions_enable=False,
)  # fmt: skip
config_app = typer.Typer(help="Check config files, and show what may stand in one.")
app.add_typer(config_app, name="config")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cotrain {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print the trace of an error.")] = False,
) -> None:
    """Options that stand before the command; `execute` reads --debug itself, wherever it stands."""


@config_app.command("check")
def check_config(
    file: Annotated[Path, typer.Argument(help="A TOML file, or the name of a template.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Check a config file; nothing is started."""
    from cotrain.config import load_config
    from cotrain.paths import config_file

    config = load_config(config_file(str(file)))
    if as_json:
        typer.echo(config.model_dump_json())
    else:
        typer.echo(f"{file}: fine (session {config.session.id}, model {config.model.type} {config.model.size})")


@config_app.command("templates")
def list_templates() -> None:
    """List the templates by name, each with its place."""
    from cotrain.paths import templates

    for path in templates():
        typer.echo(f"{path.stem:<20} {path}")


@config_app.command("schema")
def print_schema() -> None:
    """Print the JSON schema of a config."""
    from cotrain.config import RunConfig

    typer.echo(json.dumps(RunConfig.model_json_schema(), indent=2))


def error_lines(error: CotrainError) -> list[str]:
    """An error for people: what happened and where, and what to do next."""
    where = f"{error.field}: " if error.field else ""
    lines = [f"error: {where}{error.message}"]
    return [*lines, f"hint: {error.hint}"] if error.hint else lines


def error_json(error: CotrainError) -> str:
    """An error for scripts: one JSON object in one line."""
    facts = {
        "code": error.code, "message": error.message, "field": error.field, "hint": error.hint,
        "exitCode": error.exit_code, "details": error.details,
    }  # fmt: skip
    return json.dumps({"error": facts}, default=str)


def explain(error: Exception) -> CotrainError:
    """Any exception as an error for people; a fault of ours shows no trace."""
    if isinstance(error, CotrainError):
        return error
    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "cotrain"
        return InvalidRequestError(error.format_message(), hint=f"see: {command} --help")
    if isinstance(error, OSError):
        return SystemFailureError(
            error.strerror or str(error), field=str(error.filename or ""), hint=storage_hint(error)
        )
    return CotrainError(f"{type(error).__name__}: {error}", hint="this is a fault of cotrain; --debug shows its trace")


def execute(arguments: Sequence[str]) -> int:
    """Run a command line; errors go to stderr. Returns the exit code."""
    debug, as_json = "--debug" in arguments, "--json" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"] or ["--help"]
    try:
        result = typer.main.get_command(app)(arguments, prog_name="cotrain", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except (typer.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except Exception as error:
        if debug:
            traceback.print_exception(error)
        failure = explain(error)
        print(error_json(failure) if as_json else "\n".join(error_lines(failure)), file=sys.stderr)
        return failure.exit_code


def main() -> None:
    """Entry point of the `cotrain` command."""
    if PARENT_VARIABLE in os.environ:  # started by another program of cotrain: end with it
        from cotrain.process import bind_to_parent

        bind_to_parent()
    sys.exit(execute(sys.argv[1:]))


if __name__ == "__main__":
    main()
