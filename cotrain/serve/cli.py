"""`cotrain serve`: chat with a trained model on this machine, in OpenAI's form."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def serve(
    model: Annotated[Path, typer.Argument(help="Folder of a model that a training has exported.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")] = 8001,
    name: Annotated[str, typer.Option(help="What requests call the model; its folder's name if left out.")] = "",
    max_concurrent: Annotated[
        int, typer.Option(min=1, max=256, help="Answers under way at a time; they share the model's steps.")
    ] = 8,
    max_waiting: Annotated[
        int, typer.Option(min=0, max=4096, help="Chats that may wait for one of those; more are told 429.")
    ] = 32,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Arithmetic threads; torch decides if left out.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line when ready.")] = False,
) -> None:
    """Serve a model at /v1 until SIGTERM (exit code 0) or Ctrl-C (130). What people say is not kept."""
    from cotrain.listening import address_url, listen
    from cotrain.logs import configure_logging
    from cotrain.serve.model_folder import check_folder

    configure_logging()
    check_folder(model)

    from cotrain.serve.process import ServeOptions, run

    options = ServeOptions(
        model, name=name or model.resolve().name, running=max_concurrent, waiting=max_waiting, device=device,
        threads=threads,
    )  # fmt: skip
    with listen(host, port) as listening:
        bound = listening.getsockname()[1]
        url = f"{address_url(host, bound)}/v1"
        facts = {"url": url, "port": bound, "pid": os.getpid(), "model": options.name}
        line = json.dumps(facts) if as_json else f"{options.name} answers at {url}"
        raise typer.Exit(run(options, listening, lambda: print(line, flush=True)))
