"""What the page takes from npm is what npm has, with version and licence, and the page uses all of it."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import PurePosixPath

import pytest

from coordinator.api.pages import STATIC

VENDOR = STATIC / "vendor"
PACKAGES = json.loads((VENDOR / "vendor.json").read_text())
FILES = {name: facts for package in PACKAGES for name, facts in package["files"].items()}
LICENCES = {"MIT": "Permission is hereby granted, free of charge", "Apache-2.0": "Apache License"}


@pytest.mark.parametrize("name", FILES)
def test_a_vendored_file_is_what_the_package_has(name: str) -> None:
    content = (VENDOR / name).read_text(encoding="utf-8")
    for original, replacement in FILES[name].get("replaced", {}).items():
        assert content.count(replacement) == 1
        content = content.replace(replacement, original)
    assert hashlib.sha256(content.encode()).hexdigest() == FILES[name]["sha256"]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: str(package["package"]))
def test_a_package_has_version_integrity_and_its_licence_beside_it(package: dict[str, str]) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", package["version"])
    assert re.fullmatch(r"sha512-[A-Za-z0-9+/]{86}==", package["integrity"])
    assert LICENCES[package["licence"]] in (VENDOR / package["package"] / "LICENSE").read_text()


def test_every_vendored_file_is_listed() -> None:
    present = {str(path.relative_to(VENDOR)) for path in VENDOR.rglob("*") if path.is_file()}
    assert present - {"vendor.json", "README.md"} == set(FILES)


def test_the_page_loads_every_vendored_module_and_style() -> None:
    own = [path for path in STATIC.rglob("*") if path.suffix in (".js", ".html") and VENDOR not in path.parents]
    text = "".join(path.read_text() for path in own) + (VENDOR / "preact" / "hooks.js").read_text()
    code = [name for name in FILES if PurePosixPath(name).suffix]
    assert [name for name in code if PurePosixPath(name).name not in text] == []
