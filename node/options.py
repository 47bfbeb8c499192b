"""What a volunteer sets for every join: `[node]` in node.toml, and the command line, which wins."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from cotrain.config import explain_problem
from cotrain.errors import ConfigError, InvalidRequestError
from cotrain.sections import Section
from node.schedule import Schedule, parse_schedule
from node.units import parse_rate

NODE_FILE = "node.toml"
"""In the volunteer's own folder."""
_MOST_BYTES = 64 * 1024
_WALLET_KEYS = ("wallet", "password_file", "private_key_env", "browser")


class NodeOptions(Section):
    """The options of `cotrain node join` of the same names; None: not set."""

    name: str | None = None
    host: str | None = None
    port: Annotated[int, Field(ge=0, le=65535)] | None = None
    threads: Annotated[int, Field(ge=1, le=4096)] | None = None
    processes: Annotated[int, Field(ge=1, le=64)] | None = None
    wallet: Path | None = None
    password_file: Path | None = None
    private_key_env: str | None = None
    browser: bool | None = None
    invitation: Annotated[str | None, Field(repr=False)] = None
    schedule: tuple[str, ...] = ()
    when_idle: Annotated[int, Field(ge=1, le=1440)] | None = None
    nice: Annotated[int, Field(ge=0, le=19)] | None = None
    max_cpu: Annotated[int, Field(ge=1, le=100)] | None = None
    max_upload: str | None = None
    skip_preflight: bool | None = None


class _NodeFile(Section):
    """The whole file: other programs' tables have no place in it."""

    node: NodeOptions = NodeOptions()


def read_node_file(home: Path) -> NodeOptions:
    """The options in this folder's node.toml; none where there is no such file. Paths in it are seen from the folder.

    Raises ConfigError that names file and key, and the way out.
    """
    path = home / NODE_FILE
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        return NodeOptions()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", field=str(path)) from error
    if len(raw) > _MOST_BYTES:
        raise ConfigError(f"has more than {_MOST_BYTES} bytes", field=str(path), hint="is this the right file?")
    options = _parse(raw, str(path))
    seen_from_here = {
        key: home / value.expanduser()
        for key in ("wallet", "password_file")
        if (value := getattr(options, key)) is not None
    }
    return options.model_copy(update=seen_from_here)


def _parse(raw: bytes, source: str) -> NodeOptions:
    try:
        options = _NodeFile.model_validate(tomllib.loads(raw.decode("utf-8"))).node
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8 text", field=source) from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"is not valid TOML: {error}", field=source) from error
    except ValidationError as error:
        problem = explain_problem(dict(error.errors(include_url=False, include_input=False)[0]), _NodeFile)
        raise ConfigError(problem["message"], field=f"{source}: {problem['field']}", hint=problem["hint"]) from error
    try:
        join_options("", options, place=f"{source}: node.")
    except InvalidRequestError as error:
        raise ConfigError(error.message, field=error.field, hint=error.hint) from error
    return options


def over(given: Mapping[str, Any], options: NodeOptions) -> NodeOptions:
    """The options with those of the command line over them: whatever of `given` is neither None nor an empty list.

    What one of the two says about the wallet is taken whole: the places it can come from exclude each other.
    """
    said = {key: value for key, value in given.items() if value is not None and value != []}
    if not said.keys().isdisjoint(_WALLET_KEYS):
        said = dict.fromkeys(_WALLET_KEYS) | said
    return options.model_copy(update=said)


@dataclass(frozen=True)
class JoinOptions:
    """What an agent is told about one session and its part in it."""

    url: str = field(repr=False)
    """The session's address; may hold the token of an invitation."""
    name: str = ""
    host: str | None = None
    """Address to listen on for other peers; None: every one, or loopback if the coordinator is on this machine."""
    port: int = 0
    """Port to listen on for other peers; 0: any free one."""
    threads: int | None = None
    """Arithmetic threads of the training process; None: the physical cores."""
    processes: int | None = None
    """Processes that train together on this machine; None: one for each GPU, else one."""
    invitation: str = field(default="", repr=False)
    """Token for a private session; empty: the one that the address holds, if any."""
    schedule: Schedule | None = None
    """When this machine trains; None: always."""
    when_idle: int | None = None
    """Minutes for which nobody must have used it; None: it trains all the same."""
    nice: int = 0
    """Niceness of the training process, 0 to 19."""
    max_cpu: int | None = None
    """Percent of this machine's processors that it may use; None: all."""
    max_upload: int | None = None
    """What its peer may send, bytes a second; None: what the line carries."""
    skip_preflight: bool = False
    """Whether it trains whatever its preflight finds."""


def join_options(url: str, options: NodeOptions, *, place: str = "") -> JoinOptions:
    """The options of a join of the session at this address.

    Raises InvalidRequestError that names the option, behind the `place` where it stands.
    """
    if options.browser and (options.wallet or options.password_file or options.private_key_env):
        raise InvalidRequestError(
            "goes with neither a keystore nor a private key", field=f"{place}browser" if place else "--browser",
            hint="give one of them",
        )  # fmt: skip
    rate = options.max_upload
    return JoinOptions(
        url=url, name=options.name or "", host=options.host, port=options.port or 0, threads=options.threads,
        processes=options.processes, invitation=options.invitation or "",
        schedule=parse_schedule(options.schedule, field=f"{place}schedule"),
        when_idle=options.when_idle, nice=options.nice or 0,
        max_cpu=options.max_cpu, max_upload=None if rate is None else parse_rate(rate, field=f"{place}max_upload"),
        skip_preflight=options.skip_preflight or False,
    )  # fmt: skip
