"""Files with secrets: nobody else may read them, they are whole or not there, and none is written over."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cotrain.errors import ConflictError, CotrainError, NotFoundError
from cotrain.identity.secret_files import (
    SecretFileError,
    read_secret_file,
    replace_secret_file,
    write_new_secret_file,
)


def read(path: Path) -> bytes:
    return read_secret_file(path, what="the secret", limit_bytes=100)


def write(path: Path, content: bytes = b"secret") -> None:
    write_new_secret_file(path, content, what="the secret")


@pytest.fixture
def umask() -> Iterator[None]:
    """Puts the process's umask back."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o277])
def test_a_file_is_its_owners_alone_whatever_the_umask(tmp_path: Path, umask: None, mask: int) -> None:
    path = tmp_path / "folder" / "secret"
    path.parent.mkdir() if mask == 0o277 else None  # with this mask nobody could enter a new folder
    os.umask(mask)
    write(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read(path) == b"secret"
    assert list(path.parent.iterdir()) == [path]
    if mask != 0o277:
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_is_never_written_over(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_bytes(b"precious")
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "nowhere")
    folder = tmp_path / "folder"
    folder.mkdir()
    for path in (taken, dangling, folder):
        with pytest.raises(ConflictError, match="is there already") as caught:
            write(path)
        assert caught.value.field == str(path)
    assert taken.read_bytes() == b"precious"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["dangling", "folder", "taken"]


def test_a_file_is_replaced_in_one_step_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "secret"
    for content in (b"first", b"second"):
        replace_secret_file(path, content, what="the secret")
        assert read(path) == content
    assert list(path.parent.iterdir()) == [path]
    (tmp_path / "taken" / "inside").mkdir(parents=True)
    with pytest.raises(SecretFileError, match="cannot be written"):
        replace_secret_file(tmp_path / "taken", b"third", what="the secret")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["folder", "taken"]


def test_of_writers_at_once_one_wins_and_its_file_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    contents = [bytes([number]) * 5000 for number in range(12)]
    start, lost = threading.Barrier(len(contents)), []

    def race(content: bytes) -> None:
        start.wait()
        try:
            write(path, content)
        except ConflictError:
            lost.append(content)

    threads = [threading.Thread(target=race, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.read_bytes()] == [content for content in contents if content not in lost]
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_is_full_leaves_nothing_behind(tmp_path: Path) -> None:
    script = (
        "import pathlib, resource, signal, sys\n"
        "from cotrain.identity.secret_files import SecretFileError, write_new_secret_file\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "try:\n"
        "    write_new_secret_file(pathlib.Path(sys.argv[1]), bytes(1000), what='the secret')\n"
        "except SecretFileError as error:\n"
        "    print(error)\n"
    )
    path = tmp_path / "secret"
    ended = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout == f"{path}: the secret cannot be written: File too large\n"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SecretFileError, match="cannot be written") as caught:
        write(tmp_path / "file" / "secret")
    assert caught.value.field.endswith("file/secret")


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o610, 0o604, 0o602, 0o601, 0o666, 0o777])
def test_a_file_open_to_others_is_refused_with_the_command_that_closes_it(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "secret"
    write(path)
    path.chmod(mode)
    with pytest.raises(SecretFileError, match=f"open to others \\(mode 0{mode:o}\\)") as caught:
        read(path)
    command = caught.value.hint.removeprefix("close it with: ")
    subprocess.run(command.split(), check=True)
    assert read(path) == b"secret"


def test_a_file_that_only_its_owner_reads_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    write(path)
    path.chmod(0o400)
    assert read(path) == b"secret"


def test_only_a_regular_file_is_read(tmp_path: Path) -> None:
    write(tmp_path / "secret")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir(mode=0o700)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    listener.close()
    reasons = {"link": "is a link", "pipe": "not a regular file", "folder": "not a regular", "socket": "cannot be read"}
    for name, reason in reasons.items():
        with pytest.raises(SecretFileError, match=reason) as caught:
            read(tmp_path / name)
        assert caught.value.field == str(tmp_path / name)


def test_a_missing_file_and_a_large_one_are_errors(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="the secret is not there"):
        read(tmp_path / "absent")
    write(tmp_path / "exact", bytes(100))
    assert read(tmp_path / "exact") == bytes(100)
    write(tmp_path / "large", bytes(101))
    with pytest.raises(SecretFileError, match="more than 100 bytes") as caught:
        read(tmp_path / "large")
    assert isinstance(caught.value, CotrainError)
    assert (caught.value.code, caught.value.exit_code) == ("secret-file", 77)
