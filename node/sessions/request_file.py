"""What a person asks for, from a file and from options, as the body of a request. The coordinator checks it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cotrain.config import RunConfig, known_keys, load_config
from cotrain.errors import ConfigError, InvalidRequestError
from cotrain.paths import config_file
from cotrain.request import SessionRequest, request_field

_MOST_BYTES = 64 * 1024
"""What the coordinator takes."""
_NOT_ASKED_FOR = frozenset({"schema_version", "session.id", "session.name", "session.runnable"})
"""Keys of a config that say nothing more about what is wanted: the name is taken already, the id is given."""


class Wanted(NamedTuple):
    """A request as far as it is known.

    Attributes:
        body: its fields.
        left_out: keys of a run's config that no session can be asked for and that differ from their defaults.
    """

    body: dict[str, Any]
    left_out: list[str]


def request_body(file: Path | None, given: Mapping[str, Any], changes: Sequence[str]) -> Wanted:
    """The request: the file's fields, then the options', then the changes.

    Args:
        given: value by path, as `training.maxSteps`; None: not given.
        changes: `FIELD=VALUE`; the value is JSON, else text.

    Raises ConfigError for a file that cannot be used, InvalidRequestError for a change that cannot be.
    """
    wanted = Wanted({}, []) if file is None else read_request(config_file(str(file)))
    named = {path: value for path, value in given.items() if value is not None}
    for path, value in [*named.items(), *map(parse_change, changes)]:
        _put(wanted.body, path, value)
    return wanted


def parse_change(change: str) -> tuple[str, Any]:
    """`training.maxSteps=500` -> path and value. Raises InvalidRequestError."""
    path, sign, text = change.partition("=")
    if not sign or not all(path.split(".")):
        raise InvalidRequestError(f"{change!r} sets nothing", field="--set", hint="as in --set training.maxSteps=500")
    try:
        return path, json.loads(text)
    except ValueError:
        return path, text


def read_request(path: Path) -> Wanted:
    """A request in JSON or TOML, or the config of a run in TOML, which has a schema_version. Raises ConfigError."""
    try:
        raw = path.read_bytes()
        text = raw.decode()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", field=str(path)) from error
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8 text", field=str(path)) from error
    if len(raw) > _MOST_BYTES:
        raise ConfigError(f"has more than {_MOST_BYTES} bytes", field=str(path), hint="is this the right file?")
    is_json = path.suffix == ".json" or text.lstrip().startswith("{")
    try:
        body = json.loads(text) if is_json else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"is not valid {'JSON' if is_json else 'TOML'}: {error}", field=str(path)) from error
    if not isinstance(body, dict):
        raise ConfigError("is no object", field=str(path), hint='as in {"name": "Our first model"}')
    return Wanted(body, []) if is_json or "schema_version" not in body else request_of_config(body, load_config(path))


def request_of_config(written: Mapping[str, Any], config: RunConfig) -> Wanted:
    """The request that asks for what a config says.

    Args:
        written: the config's tables as they stand in the file.
        config: the same, checked.
    """
    left_out = []
    body: dict[str, Any] = {"name": config.session.name or config.session.id}
    for key, value in _leaves(written):
        path = request_field(key)
        *parts, name = path.split(".")
        if key in _NOT_ASKED_FOR:
            continue
        if name in known_keys(SessionRequest, parts):
            _put(body, path, value)
        elif value != _default(key):
            left_out.append(key)
    return Wanted(body, left_out)


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _default(key: str) -> Any:
    found: Any = RunConfig()
    for part in key.split("."):
        found = getattr(found, part, None)
    return found


def _put(body: dict[str, Any], path: str, value: Any) -> None:
    *parts, name = path.split(".")
    for part in parts:
        body = body.setdefault(part, {})
        if not isinstance(body, dict):
            raise InvalidRequestError(f"{part!r} has no fields", field=path, hint="see docs/models.md for the fields")
    body[name] = value
