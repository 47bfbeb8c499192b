"""Plain text: the source text of Python's standard library, and text files, whole or cut at line ends."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from pathlib import Path

from cotrain.records import NOT_UTF8, BadRecord, Place, Record

PIECE_BYTES = 4096
"""A lone file is cut into documents of this many bytes (to the end of a line), else it could not be split."""

BUILTIN_PACKAGES = (
    "asyncio", "collections", "concurrent", "ctypes", "email", "html", "http", "importlib", "json", "logging",
    "multiprocessing", "re", "tomllib", "unittest", "urllib", "xml", "xmlrpc", "zoneinfo",
)  # fmt: skip
"""Packages of the built-in corpus, beside all top-level modules: about 7 MB, most of it written by hand.
Left out are tables (encodings, pydoc_data), tests, and what later Pythons dropped (lib2to3, distutils)."""
EXCLUDED_FOLDERS = frozenset({"test", "tests", "site-packages", "idlelib", "lib2to3", "__pycache__"})
EXCLUDED_MODULES = ("_sysconfigdata", "sitecustomize", "usercustomize")
"""Modules of this one installation, not of the library."""


def standard_library_files() -> list[Path]:
    """The built-in corpus: always the same files in one order, on one version of Python."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = [file for file in root.glob("*.py") if not file.name.startswith(EXCLUDED_MODULES)]
    for package in BUILTIN_PACKAGES:
        files += (
            file for file in (root / package).rglob("*.py") if EXCLUDED_FOLDERS.isdisjoint(file.relative_to(root).parts)
        )
    return sorted(files, key=lambda file: file.relative_to(root).as_posix())


def read_whole(path: Path) -> Iterator[Record | BadRecord]:
    """The file as one document; none if it is empty."""
    if content := path.read_bytes():
        yield _document(path, 1, content)


def read_pieces(path: Path) -> Iterator[Record | BadRecord]:
    """The file in documents of at least PIECE_BYTES but for the last, each ending with a line."""
    lines: list[bytes] = []
    size, first_line, next_line = 0, 1, 1
    with path.open("rb") as file:
        for line in file:
            lines.append(line)
            size += len(line)
            next_line += 1
            if size >= PIECE_BYTES:
                yield _document(path, first_line, b"".join(lines))
                lines, size, first_line = [], 0, next_line
    if lines:
        yield _document(path, first_line, b"".join(lines))


def _document(path: Path, first_line: int, content: bytes) -> Record | BadRecord:
    try:
        return Record(Place(path, first_line), {"text": content.decode("utf-8")})
    except UnicodeDecodeError as error:
        return BadRecord(Place(path, first_line + content.count(b"\n", 0, error.start)), NOT_UTF8)
