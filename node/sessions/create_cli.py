"""`cotrain sessions create`: from a file, from options, or from both."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.sessions.options import AsJson, Coordinator, ask, print_one, target_of

if TYPE_CHECKING:
    from node.sessions.target import Target


File = Annotated[
    Path | None,
    typer.Argument(
        metavar="FILE", show_default=False,
        help="The request in JSON or TOML, or a run's config in TOML, or the name of a template.",
    ),
]  # fmt: skip
Name = Annotated[str | None, typer.Option(help="What people call it.", show_default=False)]
Description = Annotated[str | None, typer.Option(help="What it is for.", show_default=False)]
Model = Annotated[str | None, typer.Option(help="Architecture, as llama3.", show_default=False)]
Size = Annotated[str | None, typer.Option(help="Of the architecture, as nano.", show_default=False)]
Source = Annotated[str | None, typer.Option(help="A model to go on from, in their place.", show_default=False)]
Task = Annotated[str | None, typer.Option(help="What is learnt, as causal-lm.", show_default=False)]
Dataset = Annotated[str | None, typer.Option(help="Data: a name of the catalog, or a hub's id.", show_default=False)]
DataPath = Annotated[str | None, typer.Option(help="Data: below the coordinator's datasets.", show_default=False)]
Steps = Annotated[int | None, typer.Option(help="Inner steps of each node.", show_default=False)]
BatchSize = Annotated[int | None, typer.Option(help="Samples of a micro-batch.", show_default=False)]
LearningRate = Annotated[
    float | None, typer.Option(help="Of the inner optimizer, at its highest.", show_default=False)
]  # fmt: skip
SeqLength = Annotated[int | None, typer.Option(help="Tokens of a sample.", show_default=False)]
InnerSteps = Annotated[int | None, typer.Option(help="Inner steps of a round.", show_default=False)]
Nodes = Annotated[int | None, typer.Option(help="How many it is planned for.", show_default=False)]
Private = Annotated[bool, typer.Option("--private", help="Seen and joined by invitation only.")]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="FIELD=VALUE", show_default=False,
        help="Any field of the request by its path, as diloco.codec=int8; may be given again.",
    ),
]  # fmt: skip
Start = Annotated[bool, typer.Option("--start", help="Start it, too.")]
Preview = Annotated[
    bool, typer.Option("--preview", help="Open nothing: print the TOML, what a node needs, and advice.")
]  # fmt: skip


def add_to(app: typer.Typer) -> None:
    """Make it a command of `app`."""
    app.command("create")(create)


def create(
    file: File = None, name: Name = None, description: Description = None,
    model: Model = None, size: Size = None, source: Source = None, task: Task = None,
    dataset: Dataset = None, data_path: DataPath = None, steps: Steps = None, batch_size: BatchSize = None,
    learning_rate: LearningRate = None, seq_length: SeqLength = None, inner_steps: InnerSteps = None,
    nodes: Nodes = None, private: Private = False, changes: Changes = None, start: Start = False,
    preview: Preview = False, coordinator: Coordinator = "", as_json: AsJson = False,
) -> None:  # fmt: skip
    """Open a session; options go before the file's fields. It is a draft until it is started."""
    from node.sessions.request_file import request_body
    from node.sessions.text import preview_lines

    given = {
        "name": name, "description": description, "visibility": "private" if private else None,
        "model.type": model, "model.size": size, "model.source": source,
        "training.task": task, "training.maxSteps": steps, "training.batchSize": batch_size,
        "training.learningRate": learning_rate, "data.dataset": dataset, "data.dataPath": data_path,
        "data.seqLength": seq_length, "diloco.innerSteps": inner_steps, "distributed.nodes": nodes,
    }  # fmt: skip
    wanted, target = request_body(file, given, changes or []), target_of(coordinator)
    for key in wanted.left_out:
        typer.echo(f"left out: {key} (no session can be asked for it; it has its default)", err=True)
    if preview:
        print_one(ask(target, lambda api: api.post("configs/preview", wanted.body)), preview_lines, as_json=as_json)
    else:
        _open(target, wanted.body, start=start, as_json=as_json)


def _open(target: Target, body: dict[str, Any], *, start: bool, as_json: bool) -> None:
    from node.sessions.text import action_line, opened_lines

    opened = ask(target, lambda api: api.post("sessions", body))
    print_one(opened, opened_lines, as_json=as_json)
    if start:
        started = ask(target, lambda api: api.post(f"sessions/{opened['id']}/start"))
        print_one(started, lambda view: [action_line(view)], as_json=as_json)
