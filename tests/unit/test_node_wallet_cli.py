"""`cotrain node wallet` as people and scripts use it, at a terminal and without one."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cotrain.cli import execute
from cotrain.identity.keystore import open_keystore, read_keystore, write_keystore
from cotrain.identity.password import PASSWORD_VARIABLE
from cotrain.identity.wallet import HOME_KEYSTORE, HOME_PASSWORD, EthereumWallet, WalletOptions, open_wallet

KEY = bytes.fromhex("46" * 31 + "d7")
ADDRESS = EthereumWallet(KEY).account.address
PASSWORD = "correct horse"
PROMPT_TIMEOUT_S = 60


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """COTRAIN_HOME, which is not there yet."""
    monkeypatch.setenv("COTRAIN_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)
    return tmp_path / "home"


@dataclass
class Ended:
    """What a command ended with."""

    code: int
    out: str
    err: str


@pytest.fixture
def wallet(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs `cotrain node wallet` with arguments and standard input, in this process, without a terminal."""

    def run(*arguments: str | Path, stdin: bytes = b"") -> Ended:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = execute(["node", "wallet", *map(str, arguments)])
        return Ended(code, *capsys.readouterr())

    return run


def at_terminal(home: Path, *arguments: str | Path, replies: list[tuple[str, str]]) -> tuple[Ended, str]:
    """Run it at a terminal and answer its questions. Returns also what the terminal has shown of the answers."""
    person, terminal = pty.openpty()
    command = [sys.executable, "-m", "cotrain.cli", "node", "wallet", *map(str, arguments)]
    environment = {**os.environ, "COTRAIN_HOME": str(home)}
    with subprocess.Popen(
        command, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, start_new_session=True
    ) as process:
        os.close(terminal)
        try:
            asked = _answer(process, person, replies)
            out, err = process.communicate(timeout=PROMPT_TIMEOUT_S)
        finally:
            process.kill()
    shown = b""
    while select.select([person], [], [], 0)[0]:
        try:
            shown += os.read(person, 4096)
        except OSError:  # nobody holds the other end any more
            break
    os.close(person)
    return Ended(process.returncode, out.decode(), asked + err.decode()), shown.decode()


def _answer(process: subprocess.Popen[bytes], person: int, replies: list[tuple[str, str]]) -> str:
    """Answer each question when it has been asked. Returns what was said after the last one."""
    assert process.stderr is not None
    said = ""
    for question, reply in replies:
        while question not in said:
            assert select.select([process.stderr], [], [], PROMPT_TIMEOUT_S)[0], f"did not ask {question!r}: {said}"
            chunk = os.read(process.stderr.fileno(), 4096)
            assert chunk, f"did not ask {question!r}: {said}"
            said += chunk.decode()
        said = said.partition(question)[2]
        os.write(person, f"{reply}\n".encode())
    return said


def put(path: Path, content: str, mode: int = 0o600) -> Path:
    path.write_text(content)
    path.chmod(mode)
    return path


# ------------------------------------------------------------------------------------------------- new and show
def test_new_makes_the_wallet_that_a_join_uses(wallet: Any, home: Path) -> None:
    made = wallet("new")
    assert (made.code, made.err) == (0, "")
    account = open_wallet(home, WalletOptions(), ask=None).account
    assert made.out == f"address  {account.address}\nchain    eip155:1\npath     {home / HOME_KEYSTORE}\n"
    assert wallet("show").out == made.out
    assert json.loads(wallet("show", "--json").out) == {
        "account": str(account), "address": account.address, "chain": "eip155:1", "path": str(home / HOME_KEYSTORE),
    }  # fmt: skip
    assert sorted(entry.name for entry in home.iterdir()) == [HOME_KEYSTORE, HOME_PASSWORD]


def test_new_never_writes_over(wallet: Any, home: Path, tmp_path: Path) -> None:
    wallet("new")
    before = (home / HOME_KEYSTORE).read_bytes()
    file = put(tmp_path / "file", "precious")
    for arguments in (["new"], ["new", "--file", file], ["import", "--file", file], ["export", file, "--file", "x"]):
        refused = wallet(*arguments, stdin=KEY.hex().encode())
        assert refused.code in (66, 75)
        assert refused.err.startswith("error: ")
        assert refused.out == ""
    assert (home / HOME_KEYSTORE).read_bytes() == before
    assert file.read_text() == "precious"
    refused = wallet("new", "--json")
    assert json.loads(refused.err)["error"]["code"] == "conflict"


def test_new_in_a_file_takes_its_password_from_a_file_or_the_variable(
    wallet: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    refused = wallet("new", "--file", tmp_path / "a")
    assert refused.code == 77
    assert PASSWORD_VARIABLE in refused.err
    made = wallet("new", "--file", tmp_path / "a", "--password-file", put(tmp_path / "password", PASSWORD), "--json")
    assert made.code == 0
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    assert wallet("new", "--file", tmp_path / "b").code == 0
    for name in ("a", "b"):
        assert len(open_keystore(tmp_path / name, PASSWORD)) == 32
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert json.loads(made.out)["path"] == str(tmp_path / "a")
    assert not home.exists()


def test_show_needs_the_password_only_where_the_keystore_hides_its_address(wallet: Any, tmp_path: Path) -> None:
    file = tmp_path / "keystore"
    write_keystore(file, KEY, PASSWORD, scrypt_n=2)
    assert f"address  {ADDRESS}\n" in wallet("show", "--file", file).out
    content = json.loads(file.read_bytes())
    del content["address"]
    put(file, json.dumps(content))
    assert wallet("show", "--file", file).code == 77
    shown = wallet("show", "--file", file, "--password-file", put(tmp_path / "password", PASSWORD))
    assert f"address  {ADDRESS}\n" in shown.out


def test_show_without_a_wallet_says_how_to_get_one(wallet: Any, home: Path) -> None:
    for command in (["show"], ["export", "--private-key", "--yes"], ["export", "copy"]):
        refused = wallet(*command)
        assert refused.code == 66
        assert str(home / HOME_KEYSTORE) in refused.err
        assert "cotrain node wallet new" in refused.err


# ------------------------------------------------------------------------------------------------- import
@pytest.mark.parametrize("spelling", [KEY.hex(), "0x" + KEY.hex() + "\nmore\n"])
def test_a_private_key_is_imported_from_standard_input(wallet: Any, home: Path, spelling: str) -> None:
    imported = wallet("import", stdin=spelling.encode())
    assert (imported.code, imported.err) == (0, "")
    assert f"address  {ADDRESS}\n" in imported.out
    assert open_wallet(home, WalletOptions(), ask=None).private_key() == KEY
    assert KEY.hex() not in imported.out


def test_a_keystore_is_imported(wallet: Any, home: Path, tmp_path: Path) -> None:
    source, password = tmp_path / "keystore", put(tmp_path / "password", PASSWORD)
    write_keystore(source, KEY, PASSWORD, scrypt_n=2)
    assert wallet("import", source).code == 77
    assert wallet("import", source, "--password-file", password).code == 0
    assert open_wallet(home, WalletOptions(), ask=None).private_key() == KEY
    assert wallet("import", source, "--password-file", password, "--file", tmp_path / "copy").code == 0
    assert open_keystore(tmp_path / "copy", PASSWORD) == KEY


@pytest.mark.parametrize(
    "stdin", [b"", b"\n", b"no key\n", b"\xff\xfe\n", KEY.hex()[:-1].encode(), b"0" * 64, b"f" * 64]
)
def test_what_is_no_key_is_refused_and_not_repeated(wallet: Any, home: Path, stdin: bytes) -> None:
    refused = wallet("import", stdin=stdin)
    assert refused.code == 2
    assert "is not an Ethereum private key" in refused.err
    assert KEY.hex()[:32] not in refused.err
    assert not home.exists()


@pytest.mark.parametrize("text", [KEY.hex(), "0x" + KEY.hex()])
def test_a_private_key_as_an_argument_is_refused_and_not_repeated(wallet: Any, home: Path, text: str) -> None:
    for arguments in (
        ["import", text],
        ["import", text, "--json"],
        ["show", "--file", text],
        ["new", "--file", text],
        ["export", text],
        ["export", "copy", "--file", text],
    ):
        refused = wallet(*arguments)
        assert refused.code == 2
        assert "is a private key" in refused.err
        assert KEY.hex()[:32] not in refused.err
    assert not home.exists()
    assert not Path(text).exists()


# ------------------------------------------------------------------------------------------------- export
def test_a_keystore_is_exported_under_a_new_password(wallet: Any, home: Path, tmp_path: Path) -> None:
    wallet("import", stdin=KEY.hex().encode())
    copy = tmp_path / "copy"
    refused = wallet("export", copy)
    assert refused.code == 77
    assert "--new-password-file" in refused.err
    exported = wallet("export", copy, "--new-password-file", put(tmp_path / "password", PASSWORD))
    assert exported.out == f"address  {ADDRESS}\nchain    eip155:1\npath     {copy}\n"
    assert open_keystore(copy, PASSWORD) == KEY
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    parameters: Any = read_keystore(copy).crypto.kdfparams
    assert parameters.n == 262144


def test_a_private_key_is_printed_only_when_that_is_confirmed(wallet: Any) -> None:
    wallet("import", stdin=KEY.hex().encode())
    refused = wallet("export", "--private-key")
    assert (refused.code, refused.out) == (2, "")
    assert "--yes" in refused.err
    printed = wallet("export", "--private-key", "--yes")
    assert (printed.code, printed.out, printed.err) == (0, f"0x{KEY.hex()}\n", "")


def test_export_wants_one_of_two_things(wallet: Any, tmp_path: Path) -> None:
    wallet("new")
    for arguments in (["export"], ["export", tmp_path / "copy", "--private-key", "--yes"]):
        refused = wallet(*arguments)
        assert refused.code == 2
        assert "--private-key" in refused.err
        assert refused.out == ""


# ------------------------------------------------------------------------------------------------- at a terminal
def test_passwords_are_asked_for_and_not_shown(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "keystore"
    asks_twice = [("New password", PASSWORD), ("once more", PASSWORD)]
    made, shown = at_terminal(home, "new", "--file", file, replies=asks_twice)
    assert (made.code, PASSWORD in shown + made.out + made.err) == (0, False)
    key = open_keystore(file, PASSWORD)
    copied, shown = at_terminal(
        home, "export", tmp_path / "copy", "--file", file,
        replies=[("Password of", PASSWORD), ("New password", "another one"), ("once more", "another one")],
    )  # fmt: skip
    assert (copied.code, shown.strip()) == (0, "")
    assert open_keystore(tmp_path / "copy", "another one") == key
    refused, _ = at_terminal(home, "export", tmp_path / "third", "--file", file, replies=[("Password of", "wrong one")])
    assert refused.code == 77
    assert "the password is wrong" in refused.err
    assert not (tmp_path / "third").exists()


def test_a_private_key_is_asked_for_and_not_shown(home: Path) -> None:
    imported, shown = at_terminal(home, "import", replies=[("Private key", KEY.hex())])
    assert imported.code == 0
    assert ADDRESS in imported.out
    assert KEY.hex() not in shown + imported.out + imported.err
    printed, _ = at_terminal(home, "export", "--private-key", replies=[("Print it?", "y")])
    assert (printed.code, printed.out) == (0, f"0x{KEY.hex()}\n")
    declined, shown = at_terminal(home, "export", "--private-key", replies=[("Print it?", "n")])
    assert declined.code == 130
    assert KEY.hex() not in shown + declined.out + declined.err


def test_the_help_of_node_loads_no_wallet() -> None:
    script = (
        "import sys\nfrom cotrain.cli import execute\ncode = execute(['node', '--help'])\n"
        "print(sorted({'eth_account', 'cotrain.identity'} & set(sys.modules)), file=sys.stderr)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert "wallet" in ended.stdout
    assert ended.stderr == "[]\n"
