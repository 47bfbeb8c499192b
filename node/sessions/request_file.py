"""What a person asks for, from a file and from options, as the body of a request. The coordinator checks it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cotrain.config import RunConfig, known_keys, load_config
from cotrain.errors import ConfigError, InvalidRequestError
from cotrain.paths import config_file
from cotrain.request import SessionRequest, request_field

_MOST_BYTES = 64 * 1024
"""What the coordinator takes."""
_OF_THE_COORDINATOR = frozenset({"schema_version", "session.id", "session.runnable"})
"""Keys of a config that say nothing about what is wanted: the coordinator names the session."""


def request_body(file: Path | None, given: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """The request: the file's fields, then the options', then the changes.

    Args:
        given: value by path, as `training.maxSteps`; None: not given.
        changes: `FIELD=VALUE`; the value is JSON, else text.

    Raises ConfigError for a file that cannot be used, InvalidRequestError for a change that cannot be.
    """
    body = {} if file is None else read_request(config_file(str(file)))
    named = {path: value for path, value in given.items() if value is not None}
    for path, value in [*named.items(), *map(parse_change, changes)]:
        _put(body, path, value)
    return body


def parse_change(change: str) -> tuple[str, Any]:
    """`training.maxSteps=500` -> path and value. Raises InvalidRequestError."""
    path, sign, text = change.partition("=")
    if not sign or not all(path.split(".")):
        raise InvalidRequestError(f"{change!r} sets nothing", field="--set", hint="as in --set training.maxSteps=500")
    try:
        return path, json.loads(text)
    except ValueError:
        return path, text


def read_request(path: Path) -> dict[str, Any]:
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
    return body if is_json or "schema_version" not in body else request_of_config(body, load_config(path), str(path))


def request_of_config(written: Mapping[str, Any], config: RunConfig, source: str) -> dict[str, Any]:
    """The request that asks for what a config says.

    Args:
        written: the config's tables as they stand in the file.
        config: the same, checked.
        source: names the file in errors.

    Raises ConfigError for a key that differs from its default and that no session can be asked for.
    """
    body: dict[str, Any] = {"name": config.session.name or config.session.id}
    for key, value in _leaves(written):
        path = request_field(key)
        *parts, name = path.split(".")
        if name in known_keys(SessionRequest, parts) and key != "session.name":
            _put(body, path, value)
        elif key not in _OF_THE_COORDINATOR and key != "session.name" and value != _default(key):
            raise ConfigError(
                "cannot be chosen for a session", field=f"{source}: {key}", hint="leave it out: it has its default"
            )
    return body


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
