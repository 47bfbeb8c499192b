"""`cotrain learn …`, on the coordinator's machine. Heavy imports wait until a command runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from coordinator.learning.learner import TooFewChats
    from coordinator.learning.place import Place
    from coordinator.learning.rows import Trigger
    from coordinator.learning.views import CycleView

app = typer.Typer(help="Turn chats into data, and data into a better model.", no_args_is_help=True)

ConfigFile = Annotated[Path | None, typer.Option(help="The coordinator's TOML file, as `coordinator serve` has it.")]
Model = Annotated[str, typer.Option(help="Id or name of the model that learns, instead of the file's.")]
Url = Annotated[str, typer.Option(help="Where the coordinator's REST API is.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
MinChats = Annotated[int | None, typer.Option(min=1, help="Chats that a cycle needs, instead of the file's.")]

_URL = "http://127.0.0.1:8000"
_ResultT = TypeVar("_ResultT")


@app.command()
def run(
    config: ConfigFile = None, model: Model = "", url: Url = _URL, min_chats: MinChats = None, as_json: AsJson = False
) -> None:
    """One cycle: score the chats, make data of the good ones, train where that is worth it, keep the better model.

    Goes on with a cycle that was interrupted. Volunteers have to join its session.
    """
    _show(_run(_carry_out(_place(config, model, url, min_chats), "hand")), as_json)


@app.command()
def watch(
    every: Annotated[float, typer.Option(min=1, help="Seconds from the end of a cycle to the next one.")] = 3600.0,
    config: ConfigFile = None, model: Model = "", url: Url = _URL, min_chats: MinChats = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Cycles one after another, until Ctrl-C. A coordinator with `learning.automatic` does the same by itself."""
    place = _place(config, model, url, min_chats)

    async def go_on() -> None:
        from cotrain.errors import CotrainError

        while True:
            try:
                _show(await _carry_out(place, "timer"), as_json)
            except CotrainError as error:  # it is taken up again the next time
                typer.echo(f"error: {error}", err=True)
            await asyncio.sleep(every)

    _run(go_on())


@app.command("import")
def import_chats(
    files: Annotated[list[Path], typer.Argument(help="JSON arrays or JSON Lines of questions and answers.")],
    consent: Annotated[
        bool, typer.Option("--consent", help="The people in them allow learning from what they said.")
    ] = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Add chats from FILES to the log, without personal data: those of the former system, or anybody's.

    What cannot be used is counted and told, and stops nothing.
    """
    from coordinator.learning.importing import import_files
    from cotrain.errors import InvalidRequestError

    if not consent:
        raise InvalidRequestError(
            "chats are kept with the consent of their people only", field="--consent",
            hint="give --consent if you have it",
        )  # fmt: skip
    report = _run(import_files(_place(config, "", _URL, None), files))
    if as_json:
        typer.echo(report.model_dump_json(by_alias=True))
        return
    typer.echo(f"{report.added} chats are in the log; {report.refused} rows could not be used")
    for problem in report.problems:
        typer.echo(f"  {problem}")


@app.command()
def status(config: ConfigFile = None, model: Model = "", as_json: AsJson = False) -> None:
    """How much there is to learn from, and what the last cycles came to."""
    from coordinator.learning.standing import standing
    from coordinator.learning.summary import standing_lines

    found = _run(standing(_place(config, model, _URL, None)))
    typer.echo(found.model_dump_json(by_alias=True) if as_json else "\n".join(standing_lines(found)))


def _place(config: Path | None, model: str, url: str, min_chats: int | None) -> Place:
    from coordinator.config import CoordinatorConfig, load_coordinator_config
    from coordinator.learning.place import Place
    from coordinator.settings import database_url_from_env
    from cotrain.paths import SharedPaths

    settings = CoordinatorConfig() if config is None else load_coordinator_config(config)
    changes: dict[str, Any] = {"model": model} if model else {}
    if min_chats is not None:
        changes["min_chats"] = min_chats
    learning = settings.learning.model_copy(update=changes)
    shared = SharedPaths.from_env()
    return Place(
        shared, database_url_from_env(shared), settings.model_copy(update={"learning": learning}), url.rstrip("/")
    )


async def _carry_out(place: Place, trigger: Trigger) -> CycleView | TooFewChats:
    from coordinator.learning.carry_out import carry_out

    return await carry_out(place, trigger, lambda line: typer.echo(line, err=True))


def _show(done: CycleView | TooFewChats, as_json: bool) -> None:
    from coordinator.learning.learner import TooFewChats
    from coordinator.learning.summary import cycle_lines

    if isinstance(done, TooFewChats):
        facts = {"chats": done.chats, "minChats": done.wanted}
        line = f"{done.chats} chats in the log; a cycle needs {done.wanted}"
        typer.echo(json.dumps(facts) if as_json else line)
    else:
        typer.echo(done.model_dump_json(by_alias=True) if as_json else "\n".join(cycle_lines(done)))


def _run(work: Coroutine[Any, Any, _ResultT]) -> _ResultT:
    return asyncio.run(work)
