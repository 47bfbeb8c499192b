"""Serves the application: the socket, TLS, the signals, the line that says it is ready."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
import socket
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import uvloop
from aiohttp import web

from coordinator.app import create_app
from coordinator.auth.addresses import is_loopback
from coordinator.config import CoordinatorConfig, load_coordinator_config
from coordinator.json_log import LogFormat, configure_log
from coordinator.open_files import raise_open_files, too_few
from coordinator.settings import Settings
from coordinator.tls import TlsFiles, load_certificate, tls_context
from cotrain.errors import CotrainError
from cotrain.listening import address_url, listen

_logger = logging.getLogger(__name__)

_EXIT_CODES = {signal.SIGTERM: 0, signal.SIGINT: 130}
_SHUTDOWN_S = 0.75
"""How long handlers may go on; aiohttp waits for it twice, and then the checkpointer has 2.5 s: 5 s together."""
_YOUNG_OBJECTS = 20_000
"""That the collector lets come together before it looks at them; Python's own 700 are made by some fifty messages."""


def run_server(
    *, host: str, port: int, public_url: str, swarm_host: str, swarm_port: int, json_output: bool,
    config_file: Path | None = None, tls: TlsFiles | None = None, log_format: LogFormat = "text",
) -> int:  # fmt: skip
    """Serve until a signal comes; returns the exit code. Raises AddressError if the port is taken, ConfigError."""
    configure_log(log_format)
    if (warning := too_few(raise_open_files())) is not None:
        _logger.warning("%s", warning)
    config = CoordinatorConfig() if config_file is None else load_coordinator_config(config_file)
    context = None if tls is None else tls_context(tls)
    with listen(host, port) as listening:
        url = address_url(host, listening.getsockname()[1], over_tls=tls is not None)
        settings = Settings.from_env(
            public_url=public_url or url, host=host, swarm_host=swarm_host, swarm_port=swarm_port, config=config
        )
        for warning in warnings_at_start(settings):
            _logger.warning("%s", warning)
        ready_line = _ready_line(url, listening.getsockname()[1], json_output=json_output)
        on_hangup = None if tls is None or context is None else partial(_renew_certificate, context, tls)
        code = uvloop.run(_serve(settings, listening, ready_line, tls=context, on_hangup=on_hangup))
    # at its end the interpreter searches all that was loaded for garbage, which takes longer than the stop itself
    gc.freeze()
    return code


def warnings_at_start(settings: Settings) -> list[str]:
    """What an operator should know before anybody comes. Pure."""
    found = []
    if not settings.over_https and not settings.only_this_machine:
        found.append(
            f"{settings.public_url} is not https: tokens and cookies can be read on the way; put a proxy with TLS in "
            "front and name its address with --public-url"
        )
    if not is_loopback(settings.host) and is_loopback(urlsplit(settings.public_url).hostname or ""):
        found.append(
            f"listening on {settings.host}, but wallets sign in to {settings.public_url}: name the address that others "
            "use with --public-url"
        )
    return found


async def _serve(
    settings: Settings, listening: socket.socket, ready_line: str, *, tls: ssl.SSLContext | None,
    on_hangup: Callable[[], None] | None,
) -> int:  # fmt: skip
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def end(code: int) -> None:
        if not ended.done():
            ended.set_result(code)

    for number, code in _EXIT_CODES.items():
        asyncio.get_running_loop().add_signal_handler(number, end, code)
    if on_hangup is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, on_hangup)
    runner = web.AppRunner(create_app(settings), access_log=None, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    try:
        await web.SockSite(runner, listening, ssl_context=tls).start()
        _spare_collector()
        print(ready_line, flush=True)
        return await ended
    finally:
        await runner.cleanup()


def _spare_collector() -> None:
    """Garbage is looked for from now on: seldom, and not among what has been loaded, which would hold up everybody."""
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)
    gc.enable()


def _renew_certificate(context: ssl.SSLContext, files: TlsFiles) -> None:
    """Take what the files hold now for new connections; what is wrong with them changes nothing."""
    try:
        load_certificate(context, files)
    except CotrainError as error:
        _logger.error("the certificate stays as it is: %s", error)
    else:
        _logger.info("new connections get the certificate in %s", files.certificate)


def _ready_line(url: str, port: int, *, json_output: bool) -> str:
    if json_output:
        return json.dumps({"url": url, "port": port, "pid": os.getpid()})
    return f"cotrain coordinator ready at {url}"
