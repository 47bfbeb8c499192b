"""Files that nobody but their owner may read: written whole; read only if they are private."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from pathlib import Path
from typing import ClassVar

from cotrain.errors import ConflictError, CotrainError, NotFoundError, storage_hint

_FILE_MODE = 0o600
_FOLDER_MODE = 0o700
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class SecretFileError(CotrainError):
    """A file with a secret that cannot be used as it lies there."""

    code: ClassVar[str] = "secret-file"
    exit_code: ClassVar[int] = 77


def read_secret_file(path: Path, *, what: str, limit_bytes: int) -> bytes:
    """The contents of a private file.

    Args:
        path: a regular file; links are not followed.
        what: what it is, for the error: "the keystore".
        limit_bytes: what it may have at most.

    Raises:
        NotFoundError: there is no such file.
        SecretFileError: it is a link or no regular file, others can read it, it is too large, it cannot be read.
    """
    try:
        # Without O_NONBLOCK a pipe at this place would stop the program until somebody wrote into it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            _check_private(os.fstat(descriptor), path, what)
            with open(descriptor, "rb", closefd=False) as file:
                content = file.read(limit_bytes + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise NotFoundError(f"{what} is not there", field=str(path)) from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise SecretFileError(f"{what} is a link", field=str(path), hint="name the file itself") from None
        raise SecretFileError(f"{what} cannot be read: {error.strerror}", field=str(path)) from None
    if len(content) > limit_bytes:
        raise SecretFileError(
            f"{what} has more than {limit_bytes} bytes", field=str(path), hint="is it the right file?"
        )
    return content


def write_new_secret_file(path: Path, content: bytes, *, what: str) -> None:
    """Put a file with mode 0600 at `path`, whole or not at all; missing folders are made, the last with mode 0700.

    Raises:
        ConflictError: something is at `path` already; it is left as it is.
        SecretFileError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=_FOLDER_MODE)
        is_new = _put_where_nothing_is(path, content)
    except OSError as error:
        raise SecretFileError(
            f"{what} cannot be written: {error.strerror}", field=str(path), hint=storage_hint(error)
        ) from None
    if not is_new:
        raise ConflictError(f"{what} is there already", field=str(path), hint="it is never written over")


def replace_secret_file(path: Path, content: bytes, *, what: str) -> None:
    """Put a file with mode 0600 at `path` in one step, also over another. Raises SecretFileError."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    write_new_secret_file(temporary, content, what=what)
    try:
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise SecretFileError(f"{what} cannot be written: {error.strerror}", field=str(path)) from None


def _put_where_nothing_is(path: Path, content: bytes) -> bool:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        _write_whole(temporary, content)
        os.link(temporary, path)  # unlike a rename it fails where a file is
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    _flush_folder(path.parent)
    return True


def _check_private(status: os.stat_result, path: Path, what: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise SecretFileError(f"{what} is not a regular file", field=str(path))
    if status.st_mode & _OTHERS:
        raise SecretFileError(
            f"{what} is open to others (mode {stat.S_IMODE(status.st_mode):04o})", field=str(path),
            hint=f"close it with: chmod 600 {path}",
        )  # fmt: skip


def _write_whole(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, _FILE_MODE)  # the umask may have taken the owner's own bits away
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def _flush_folder(folder: Path) -> None:
    """Write the folder's entries to the disk, else a power cut could lose the new name."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
