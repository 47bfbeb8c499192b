"""docs/api.md against the routes: each stands there once, with whose token it asks for."""

from __future__ import annotations

import re
from pathlib import Path

from coordinator.api.operations import operation_of
from coordinator.app import create_app
from coordinator.settings import Settings
from cotrain.paths import SharedPaths

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "api.md"
ROW = re.compile(r"^\| `([A-Z]+) (\S+)` \| (\w+) \| .+ \|$", re.MULTILINE)
OURS = re.compile(r"`([A-Z]+) (/api/v1/\S+)`")


def routes(folder: Path) -> dict[tuple[str, str], str]:
    """(method, path) -> who may call it."""
    app = create_app(Settings(SharedPaths(folder), public_url="https://train.example"))
    return {
        (route.method, route.resource.canonical): said.who
        for route in app.router.routes()
        if route.resource is not None and (said := operation_of(route.handler)) is not None and route.method != "HEAD"
    }


def test_the_table_of_endpoints_is_what_there_is(tmp_path: Path) -> None:
    rows = [((method, path), who) for method, path, who in ROW.findall(DOCUMENT.read_text(encoding="utf-8"))]
    assert len(rows) == len(dict(rows))
    assert dict(rows) == routes(tmp_path)


def test_every_endpoint_that_is_named_exists(tmp_path: Path) -> None:
    named = set(OURS.findall(DOCUMENT.read_text(encoding="utf-8")))
    assert named <= set(routes(tmp_path))
