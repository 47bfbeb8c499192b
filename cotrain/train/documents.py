"""Where text comes from: the source text of Python's standard library, a text file, or a folder of them."""

from __future__ import annotations

import logging
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cotrain.config import DataSection
from cotrain.errors import ConfigError

TEXT_SUFFIXES = (".txt", ".md", ".py")
PIECE_BYTES = 4096
"""A lone file is cut into documents of this many bytes (to the end of a line), else it could not be split."""
MAX_UNREADABLE_SHARE = 0.01
"""Documents that are not UTF-8 are put aside; a larger share of them stops the preparation."""

BUILTIN_PACKAGES = (
    "asyncio", "collections", "concurrent", "ctypes", "email", "html", "http", "importlib", "json", "logging",
    "multiprocessing", "re", "tomllib", "unittest", "urllib", "xml", "xmlrpc", "zoneinfo",
)  # fmt: skip
"""Packages of the built-in corpus, beside all top-level modules: about 7 MB, most of it written by hand.
Left out are tables (encodings, pydoc_data), tests, and what later Pythons dropped (lib2to3, distutils)."""
EXCLUDED_FOLDERS = frozenset({"test", "tests", "site-packages", "idlelib", "lib2to3", "__pycache__"})
EXCLUDED_MODULES = ("_sysconfigdata", "sitecustomize", "usercustomize")
"""Modules of this one installation, not of the library."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Piece:
    """A stretch of a file, before it is known to be text."""

    path: Path
    line: int
    content: bytes


def read_documents(section: DataSection) -> Iterator[bytes]:
    """The documents (UTF-8, not empty) of `data_path`, or of the built-in corpus; always in one order.

    A folder's files (*.txt, *.md, *.py, at any depth) are a document each; a lone file is cut at line ends.
    Raises ConfigError if there is no text, or if more than 1 % of the documents are not UTF-8 (at the end,
    when that is known).
    """
    total, unreadable, first = 0, 0, ""
    for piece in _pieces(section):
        total += 1
        try:
            piece.content.decode("utf-8")
        except UnicodeDecodeError as error:
            unreadable += 1
            line = piece.line + piece.content.count(b"\n", 0, error.start)
            first = first or f"{piece.path}:{line}"
            logger.warning("put aside a document that is not UTF-8: %s:%d: %s", piece.path, line, error.reason)
            continue
        yield piece.content
    if unreadable > MAX_UNREADABLE_SHARE * total:
        raise ConfigError(
            f"{unreadable} of {total} documents are not UTF-8 text", field=first,
            hint="convert them to UTF-8, or take them out of data.data_path",
        )  # fmt: skip
    if total == 0:
        raise ConfigError(
            "holds no text", field=_where(section),
            hint=f"give a text file that is not empty, or a folder with {', '.join(TEXT_SUFFIXES)} files",
        )  # fmt: skip


def _where(section: DataSection) -> str:
    return f"data.data_path = {section.data_path}" if section.data_path else "the standard library's source text"


def _pieces(section: DataSection) -> Iterator[_Piece]:
    try:
        if section.data_path is None:
            yield from _whole_files(_standard_library_files())
            return
        path = Path(section.data_path)
        if path.is_dir():
            files = (file for file in path.rglob("*") if file.suffix in TEXT_SUFFIXES and file.is_file())
            yield from _whole_files(sorted(files, key=lambda file: file.relative_to(path).as_posix()))
        else:
            yield from _cut_file(path)
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {error.strerror or error}", field=str(error.filename or _where(section)),
            hint="name a text file or a folder on this machine, or leave data_path out",
        ) from error  # fmt: skip


def _standard_library_files() -> list[Path]:
    root = Path(sysconfig.get_paths()["stdlib"])
    files = [file for file in root.glob("*.py") if not file.name.startswith(EXCLUDED_MODULES)]
    for package in BUILTIN_PACKAGES:
        files += (
            file for file in (root / package).rglob("*.py") if EXCLUDED_FOLDERS.isdisjoint(file.relative_to(root).parts)
        )
    return sorted(files, key=lambda file: file.relative_to(root).as_posix())


def _whole_files(files: list[Path]) -> Iterator[_Piece]:
    for file in files:
        if content := file.read_bytes():
            yield _Piece(file, 1, content)


def _cut_file(path: Path) -> Iterator[_Piece]:
    """Pieces of at least PIECE_BYTES but for the last, each ending with a line."""
    lines: list[bytes] = []
    size, first_line, next_line = 0, 1, 1
    with path.open("rb") as file:
        for line in file:
            lines.append(line)
            size += len(line)
            next_line += 1
            if size >= PIECE_BYTES:
                yield _Piece(path, first_line, b"".join(lines))
                lines, size, first_line = [], 0, next_line
    if lines:
        yield _Piece(path, first_line, b"".join(lines))
