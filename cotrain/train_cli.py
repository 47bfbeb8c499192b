"""`cotrain train`: a run on this machine alone, without a swarm or a coordinator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cotrain.errors import CotrainError

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def train(
    file: Annotated[Path, typer.Argument(help="A TOML file, or the name of a template.")],
    steps: Annotated[
        int | None, typer.Option(min=1, help="Inner steps in this go; the same command goes on from there.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Put older checkpoints aside and begin anew.")] = False,
    processes: Annotated[
        int | None, typer.Option(min=1, max=64, help="Processes (ddp, fsdp); distributed.gpus_per_node if left out.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Arithmetic threads of each process; torch decides if left out.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines instead of text.")] = False,
) -> None:
    """Train from a config file; a run that was interrupted goes on from its newest checkpoint."""
    from cotrain.config import load_config
    from cotrain.paths import config_file

    path = config_file(str(file))
    config = load_config(path)  # what is wrong in it is said before torch is loaded

    from cotrain.train.launch import launch
    from cotrain.train.local_process import LocalOptions, mark_failed, run_process
    from cotrain.train.parallel import require_devices

    options = LocalOptions(path, fresh=fresh, steps=steps, as_json=as_json, threads=threads)
    if processes is None:
        require_devices(config.distributed.gpus_per_node)
    count = processes or config.distributed.gpus_per_node or 1
    if count == 1:
        raise typer.Exit(run_process(options))
    try:
        code = launch("cotrain.train.local_process", options.arguments(), processes=count)
    except CotrainError as error:
        mark_failed(options, error)
        raise
    raise typer.Exit(code)
