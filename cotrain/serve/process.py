"""The process that serves one model: alone (`cotrain serve`), or for a coordinator, at a Unix socket.

For a coordinator it prints one JSON line: `{"ready": {…}}`, or `{"error": {…}}` and ends. It ends with its parent.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from aiohttp import web

from cotrain.errors import CotrainError
from cotrain.logs import configure_logging
from cotrain.process import bind_to_parent
from cotrain.serve.loading import load_served_model
from cotrain.serve.server import create_chat_app, serve_until_signal


@dataclass(frozen=True)
class ServeOptions:
    """What to serve, and how."""

    folder: Path
    name: str
    running: int = 8
    """Answers under way at a time."""
    waiting: int = 32
    """Chats that may wait besides."""
    device: str = "auto"
    threads: int | None = None
    """None: torch decides."""


def run(options: ServeOptions, listening: socket.socket, on_ready: Callable[[], None]) -> int:
    """Load and serve until a signal comes; returns the exit code. Raises UnservableError, ConfigError."""
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    loaded = load_served_model(options.folder, device=options.device)
    app = create_chat_app(options.name, loaded, running=options.running, waiting=options.waiting)
    return asyncio.run(serve_until_signal(app, lambda runner: web.SockSite(runner, listening), on_ready))


def main() -> int:
    """Entry point for a coordinator."""
    bind_to_parent()
    configure_logging()
    arguments = _arguments()
    options = ServeOptions(
        arguments.folder, name=arguments.name, running=arguments.running, waiting=arguments.waiting,
        threads=arguments.threads,
    )  # fmt: skip
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(arguments.socket))
    try:
        return run(options, listening, lambda: _say({"ready": {"name": options.name}}))
    except CotrainError as error:
        _say({"error": {"message": error.message, "hint": error.hint, "code": error.code}})
        return error.exit_code


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Serve one model for a coordinator.")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--socket", type=Path, required=True)
    for name in ("--running", "--waiting", "--threads"):
        parser.add_argument(name, type=int, required=True)
    return parser.parse_args()


def _say(facts: dict[str, object]) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    sys.exit(main())
