"""A node as a service of the volunteer's own systemd: starts with the machine, and again when it fails."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from cotrain.errors import ConflictError, InvalidRequestError, NotFoundError
from cotrain.status import replace_file

UNIT = "cotrain-node.service"
_FIRST_LINE = "# Written by: cotrain node install-service"
_FINAL_EXITS = (2, 65, 66, 76, 77, 78)
"""Exit codes of `cotrain node join` after which another try would end in the same way."""
_LEFT = 130
"""Its exit code when its volunteer has left; systemd's own stop is never followed by a restart."""


def quoted(word: str) -> str:
    """A word of a unit file, as systemd.syntax(7) wants it.

    Raises InvalidRequestError for line breaks and other control characters.
    """
    if not word.isprintable():
        raise InvalidRequestError(f"{word!r} cannot stand in a unit file", hint="leave control characters out")
    return '"{}"'.format(word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%"))


def command_line(command: Sequence[str]) -> str:
    """A command as systemd.service(5) wants it: variables are expanded behind the program, and quotes not in its path.

    Raises InvalidRequestError.
    """
    program, *words = command
    if not set(program).isdisjoint("\"'\\"):
        raise InvalidRequestError(f"systemd starts no program of this name: {program}", hint="install it elsewhere")
    return " ".join([quoted(program), *(quoted(word).replace("$", "$$") for word in words)])


def unit_text(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, *, goes_on: bool = False
) -> str:  # fmt: skip
    """The unit that runs this command with these variables in `folder`, which its relative paths are seen from.

    Args:
        goes_on: whether it starts again also when all went well, for a node that takes one session after the other.
    """
    variables = " ".join(quoted(f"{name}={value}") for name, value in environment.items())
    quoted(str(folder))  # its line takes no quotes, but the same characters are refused
    if str(folder).endswith(("\\", " ")):
        raise InvalidRequestError("a service cannot work in this folder", field=str(folder), hint="go to another one")
    return f"""{_FIRST_LINE}
[Unit]
Description=Node of cotrain
StartLimitIntervalSec=0

[Service]
Type=exec
WorkingDirectory={str(folder).replace("%", "%%")}
Environment={variables}
ExecStart={command_line(command)}
Restart={"always" if goes_on else "on-failure"}
RestartSec=60
SuccessExitStatus={_LEFT}
RestartPreventExitStatus={" ".join(map(str, (*_FINAL_EXITS, _LEFT)))}
KillMode=mixed
TimeoutStopSec=90
UMask=0077
NoNewPrivileges=yes

[Install]
WantedBy=default.target
"""


def units_folder() -> Path:
    """Where this user's units lie (systemd.unit(5))."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"


def write_unit(folder: Path, text: str) -> Path:
    """Write the unit into a folder of units, in the place of an earlier one.

    Raises ConflictError where somebody else has written it.
    """
    path = folder / UNIT
    if path.exists() and not _is_ours(path):
        raise ConflictError(
            "another service of this name is there, which cotrain has not written", field=str(path),
            hint="move it away, or write its file yourself from what --print shows",
        )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(path, text.encode())
    return path


def remove_unit(folder: Path) -> Path:
    """Remove the unit, and what enabled it. Raises NotFoundError, and ConflictError where it is somebody else's."""
    path = folder / UNIT
    if not path.exists():
        raise NotFoundError("no service is installed", field=str(path))
    if not _is_ours(path):
        raise ConflictError("cotrain has not written this service", field=str(path), hint="remove it yourself")
    (folder / "default.target.wants" / UNIT).unlink(missing_ok=True)
    path.unlink()
    return path


def _is_ours(path: Path) -> bool:
    return path.read_text(encoding="utf-8", errors="replace").startswith(_FIRST_LINE)
