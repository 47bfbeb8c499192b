"""join.sh: the script that installs cotrain on a volunteer's machine and joins a session. Pure."""

from __future__ import annotations

import shlex
from functools import cache
from pathlib import Path

_BODY = Path(__file__).with_name("join.sh")


def join_script(*, url: str, name: str, package: str) -> str:
    """A POSIX shell script; what it is called with is passed on to `cotrain node join`.

    Args:
        url: the session's address, `<public URL>/s/<session>`.
        name: what people call the session; may hold anything.
        package: what pip installs.
    """
    # a name may not steer the terminal that shows it
    shown = "".join(character if character.isprintable() else " " for character in name)
    values = {"session_url": url, "session_name": shown, "package": package}
    # what is quoted here is meant as it stands, whatever shellcheck takes it for
    lines = [f"# shellcheck disable=SC1003,SC2016\n{key}={shlex.quote(value)}\n" for key, value in values.items()]
    return "".join(("#!/bin/sh\n", *lines, _body()))


@cache
def _body() -> str:
    return _BODY.read_text(encoding="utf-8")
