"""A node's wallet: where it and its password come from, and that its key shows up nowhere."""

from __future__ import annotations

import copy
import json
import logging
import os
import re
import stat
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from eth_keys.constants import SECPK1_N
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cotrain.errors import ConflictError, CotrainError, InvalidRequestError, NotAuthorizedError, NotFoundError
from cotrain.identity.keystore import KeystoreError, open_keystore, write_keystore
from cotrain.identity.password import PASSWORD_VARIABLE, PasswordSource
from cotrain.identity.secret_files import SecretFileError
from cotrain.identity.signature import verify_signature
from cotrain.identity.wallet import (
    HOME_KEYSTORE,
    HOME_PASSWORD,
    EthereumWallet,
    WalletOptions,
    create_home_wallet,
    open_wallet,
    parse_private_key,
    refuse_key_as_name,
)

KEY = bytes.fromhex("46" * 31 + "d7")
ADDRESS = EthereumWallet(KEY).account.address
PASSWORD = "correct horse"
NOTHING = WalletOptions()


@pytest.fixture(autouse=True)
def no_password_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)


def put(path: Path, content: str) -> Path:
    path.write_text(content)
    path.chmod(0o600)
    return path


def keystore_at(path: Path) -> Path:
    write_keystore(path, KEY, PASSWORD, scrypt_n=2)
    return path


def answers(*given: str) -> tuple[Callable[[str], str], list[str]]:
    """Somebody at a terminal, and what they have been asked."""
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        return given[len(asked) - 1]

    return ask, asked


def error_of(call: Callable[[], object]) -> CotrainError:
    with pytest.raises(CotrainError) as caught:
        call()
    return caught.value


# ------------------------------------------------------------------------------------------------- the home folder
def test_the_first_join_makes_a_wallet_without_asking(tmp_path: Path) -> None:
    home = tmp_path / "home"
    ask, asked = answers()
    wallet = open_wallet(home, NOTHING, ask=ask)
    assert wallet.account.chain == "eip155:1"
    assert sorted(entry.name for entry in home.iterdir()) == [HOME_KEYSTORE, HOME_PASSWORD]
    assert [stat.S_IMODE(path.stat().st_mode) for path in (home, *home.iterdir())] == [0o700, 0o600, 0o600]
    assert open_wallet(home, NOTHING, ask=None).account == wallet.account
    assert asked == []
    assert open_wallet(tmp_path / "other", NOTHING, ask=None).account != wallet.account


def test_processes_that_make_it_at_once_get_the_same(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys\n"
        "from cotrain.identity.wallet import WalletOptions, open_wallet\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
        "print(open_wallet(pathlib.Path(sys.argv[1]), WalletOptions(), ask=None).account)\n"
    )
    home = tmp_path / "home"
    command = [sys.executable, "-c", script, str(home)]
    started = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [process.stdout.readline() for process in started if process.stdout] == ["ready\n"] * 4
    for process in started:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None  # it is closed already, which communicate would not expect
    printed = {process.communicate(timeout=60)[0] for process in started}
    assert printed == {f"{open_wallet(home, NOTHING, ask=None).account}\n"}
    assert sorted(entry.name for entry in home.iterdir()) == [HOME_KEYSTORE, HOME_PASSWORD]


def test_a_home_wallet_is_not_made_a_second_time(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = open_wallet(home, NOTHING, ask=None)
    with pytest.raises(ConflictError, match="a wallet already"):
        create_home_wallet(home, EthereumWallet.create(), PasswordSource())
    assert open_wallet(home, NOTHING, ask=None).account == first.account


def test_a_password_file_from_an_interrupted_start_is_used(tmp_path: Path) -> None:
    put(tmp_path / HOME_PASSWORD, "left behind\n")
    wallet = open_wallet(tmp_path, NOTHING, ask=None)
    assert open_keystore(tmp_path / HOME_KEYSTORE, "left behind") == wallet.private_key()


def test_a_given_password_is_the_home_wallets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    wallet = open_wallet(tmp_path, NOTHING, ask=None)
    assert [entry.name for entry in tmp_path.iterdir()] == [HOME_KEYSTORE]
    assert json.loads((tmp_path / HOME_KEYSTORE).read_bytes())["crypto"]["kdfparams"]["n"] == 262144
    error = error_of(lambda: open_wallet(tmp_path, NOTHING, ask=None))
    assert isinstance(error, NotAuthorizedError)
    ask, asked = answers(PASSWORD)
    assert open_wallet(tmp_path, NOTHING, ask=ask).account == wallet.account
    assert asked == [f"Password of {tmp_path / HOME_KEYSTORE}"]


def test_the_file_beside_the_home_wallet_comes_before_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = open_wallet(tmp_path, NOTHING, ask=None).account
    monkeypatch.setenv(PASSWORD_VARIABLE, "another keystore's")
    assert open_wallet(tmp_path, WalletOptions(keystore=tmp_path / HOME_KEYSTORE), ask=None).account == account


def test_a_damaged_home_wallet_is_never_replaced(tmp_path: Path) -> None:
    path = put(tmp_path / HOME_KEYSTORE, "{")
    put(tmp_path / HOME_PASSWORD, PASSWORD)
    assert isinstance(error_of(lambda: open_wallet(tmp_path, NOTHING, ask=None)), KeystoreError)
    assert path.read_text() == "{"
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    assert isinstance(error_of(lambda: open_wallet(tmp_path, NOTHING, ask=None)), SecretFileError)
    assert path.is_symlink()


# ------------------------------------------------------------------------------------------------- a keystore
def test_a_keystores_password_comes_from_file_variable_or_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = WalletOptions(keystore=keystore_at(tmp_path / "keystore"))
    ask, asked = answers(PASSWORD)
    assert open_wallet(tmp_path, options, ask=ask).account.address == ADDRESS
    assert asked == [f"Password of {options.keystore}"]
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    assert open_wallet(tmp_path, options, ask=ask).account.address == ADDRESS
    monkeypatch.setenv(PASSWORD_VARIABLE, "wrong password")
    for content in (PASSWORD, f"{PASSWORD}\n", f"{PASSWORD}\r\nand more\n"):
        file = put(tmp_path / "password", content)
        with_file = WalletOptions(keystore=options.keystore, password_file=file)
        assert open_wallet(tmp_path, with_file, ask=ask).account.address == ADDRESS
    assert len(asked) == 1
    assert not (tmp_path / HOME_KEYSTORE).exists()


def test_without_a_password_the_error_names_the_three_ways(tmp_path: Path) -> None:
    options = WalletOptions(keystore=keystore_at(tmp_path / "keystore"))
    for ask in (None, lambda question: ""):
        error = error_of(lambda: open_wallet(tmp_path, options, ask=ask))  # noqa: B023
        assert isinstance(error, NotAuthorizedError)
        assert error.field == str(options.keystore)
        assert all(way in error.hint for way in ("--password-file", "COTRAIN_WALLET_PASSWORD", "terminal"))


def test_a_keystore_that_was_named_is_not_made(tmp_path: Path) -> None:
    options = WalletOptions(keystore=tmp_path / "absent")
    ask, _ = answers(PASSWORD)
    assert isinstance(error_of(lambda: open_wallet(tmp_path, options, ask=ask)), NotFoundError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [
        (b"", 0o600, "first line is empty"),
        (b"\nsecond", 0o600, "first line is empty"),
        (b"\xff\xfe", 0o600, "not UTF-8"),
        (PASSWORD.encode(), 0o644, "open to others"),
        (b"x" * 5000, 0o600, "more than 4096 bytes"),
        (b"wrong password", 0o600, "password is wrong"),
    ],
)
def test_a_password_file_that_cannot_be_used_is_refused(tmp_path: Path, content: bytes, mode: int, reason: str) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    file.chmod(mode)
    options = WalletOptions(keystore=keystore_at(tmp_path / "keystore"), password_file=file)
    error = error_of(lambda: open_wallet(tmp_path, options, ask=None))
    assert reason in error.message
    assert error.field
    assert error.hint


def test_a_new_password_is_asked_for_twice(tmp_path: Path) -> None:
    ask, asked = answers(PASSWORD, PASSWORD)
    assert PasswordSource(ask=ask).of_new(tmp_path) == PASSWORD
    assert len(asked) == 2
    ask, _ = answers(PASSWORD, PASSWORD + " ")
    assert "not the same" in error_of(lambda: PasswordSource(ask=ask).of_new(tmp_path)).message
    assert isinstance(error_of(lambda: PasswordSource().of_new(tmp_path)), NotAuthorizedError)
    assert PasswordSource(variable=PASSWORD).of_new(tmp_path) == PASSWORD


# ------------------------------------------------------------------------------------------------- a variable
@pytest.mark.parametrize("spelling", [KEY.hex(), "0x" + KEY.hex(), f" 0x{KEY.hex().upper()}\n"])
def test_a_key_in_a_variable_is_taken_out_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str) -> None:
    monkeypatch.setenv("MY_KEY", spelling)
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    wallet = open_wallet(tmp_path, WalletOptions(private_key_env="MY_KEY"), ask=None)
    assert wallet.account.address == ADDRESS
    inherited = subprocess.run(["env"], capture_output=True, text=True, check=True).stdout
    assert "MY_KEY" not in inherited
    assert PASSWORD_VARIABLE not in inherited
    assert list(tmp_path.iterdir()) == []


def test_a_variable_without_a_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = WalletOptions(private_key_env="MY_KEY")
    error = error_of(lambda: open_wallet(tmp_path, options, ask=None))
    assert (error.field, error.message) == ("MY_KEY", "the variable is not set")
    monkeypatch.setenv("MY_KEY", "none")
    assert error_of(lambda: open_wallet(tmp_path, options, ask=None)).field == "MY_KEY"
    assert "MY_KEY" not in os.environ


@pytest.mark.parametrize("options", [{"keystore": Path("k")}, {"password_file": Path("p")}])
def test_a_variable_and_a_keystore_exclude_each_other(tmp_path: Path, options: dict[str, Path]) -> None:
    both = WalletOptions(private_key_env="MY_KEY", **options)
    error = error_of(lambda: open_wallet(tmp_path, both, ask=None))
    assert isinstance(error, InvalidRequestError)
    assert error.field == "--private-key-env"


# ------------------------------------------------------------------------------------------------- signing
def test_a_wallet_signs_as_its_account() -> None:
    wallet = EthereumWallet(KEY, chain="eip155:10")
    assert str(wallet.account) == f"eip155:10:{ADDRESS}"
    assert re.fullmatch("0x[0-9a-f]{130}", wallet.sign("a text"))
    verify_signature(wallet.account, "a text", wallet.sign("a text"), purpose="statement")


def test_new_wallets_differ() -> None:
    assert len({EthereumWallet.create().account for _ in range(20)}) == 20


def test_loading_the_wallet_leaves_the_recursion_limit_alone() -> None:
    modules = ", ".join(f"cotrain.identity.{name}" for name in ("signature", "keystore", "wallet"))
    script = f"import sys\nbefore = sys.getrecursionlimit()\nimport {modules}\nprint(sys.getrecursionlimit() - before)"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "0\n"


# ------------------------------------------------------------------------------------------------- the key stays inside
def all_said(error: BaseException) -> str:
    """Everything that any way of printing an error and its causes would show."""
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and one not in seen:
            seen.append(one)
            waiting += [one.__cause__, one.__context__]
    texts = [f"{one} {one!r} {one.args} {getattr(one, 'details', '')}" for one in seen]
    return " ".join([*texts, *traceback.format_exception(error)]).lower()


def shows(text: str, key: bytes) -> bool:
    """Whether a text holds at least half of the key, as hexadecimal, decimal or bytes."""
    digits = key.hex()
    halves = [digits[start : start + 32] for start in range(33)]
    return any(half in text for half in halves) or str(int.from_bytes(key, "big")) in text or repr(key) in text


def test_no_way_of_printing_a_wallet_shows_its_key() -> None:
    wallet = EthereumWallet(KEY)
    printed = f"{wallet} {wallet!r} {wallet!s} {[wallet]} { ({'wallet': wallet}) } {wallet.account} {dir(wallet)}"
    assert repr(wallet) == f"EthereumWallet({ADDRESS})"
    assert not hasattr(wallet, "__dict__")
    assert repr(copy.copy(wallet)) == repr(wallet)
    assert not shows(printed.lower(), KEY)
    assert PASSWORD not in repr(PasswordSource(variable=PASSWORD))


# of a few digits, a key would show up by chance
keys = st.integers(2**250, SECPK1_N - 1).map(lambda secret: secret.to_bytes(32, "big"))


@given(keys, st.sampled_from(["", "0x"]), st.data())
def test_errors_about_what_is_no_key_do_not_repeat_it(key: bytes, prefix: str, data: st.DataObject) -> None:
    digits, place = key.hex(), data.draw(st.integers(0, 63))
    spoilt = data.draw(
        st.sampled_from([digits[:-1], digits + "0", digits[:place] + "g" + digits[place + 1 :], f"{digits} {digits}"])
    )
    error = error_of(lambda: parse_private_key(prefix + spoilt, field="the key"))
    assert not shows(all_said(error), key)


@given(st.integers(SECPK1_N, 2**256 - 1))
def test_errors_about_keys_outside_the_curve_do_not_repeat_them(secret: int) -> None:
    key = secret.to_bytes(32, "big")
    said = all_said(error_of(lambda: parse_private_key(key.hex(), field="the key")))
    assert not shows(said, key)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keys, st.sampled_from(["", "0x"]))
def test_a_key_where_a_name_belongs_is_refused_and_not_repeated(tmp_path: Path, key: bytes, prefix: str) -> None:
    text = prefix + key.hex()
    for options in (WalletOptions(private_key_env=text), WalletOptions(keystore=Path(text))):
        error = error_of(lambda: open_wallet(tmp_path, options, ask=None))  # noqa: B023
        assert isinstance(error, InvalidRequestError)
        assert "standard input" in error.hint
        assert not shows(all_said(error), key)
    refuse_key_as_name("wallet.json", field="name")


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keys, st.text(st.characters(exclude_categories=["Cs"]), min_size=8))
def test_errors_about_a_keystore_show_neither_key_nor_password(tmp_path: Path, key: bytes, password: str) -> None:
    path = tmp_path / "keystore"
    path.unlink(missing_ok=True)
    write_keystore(path, key, password + " right", scrypt_n=2)
    content = json.loads(path.read_bytes())
    content["crypto"]["cipherparams"]["iv"] = "00" * 16
    altered = put(tmp_path / "altered", json.dumps(content))
    for place, attempt in ((path, password + " secret"), (altered, password + " right")):
        said = all_said(error_of(lambda: open_keystore(place, attempt)))  # noqa: B023
        assert not shows(said, key)
        assert attempt.lower() not in said


def test_nothing_is_logged_and_no_file_holds_the_key_or_is_open_to_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG):
        wallet = open_wallet(tmp_path / "home", NOTHING, ask=None)
        wallet.sign("a text")
        write_keystore(tmp_path / "home" / "copy", wallet.private_key(), PASSWORD, scrypt_n=2)
        open_wallet(
            tmp_path / "home", WalletOptions(keystore=tmp_path / "home" / "copy"), ask=lambda question: PASSWORD
        )
    printed = capfd.readouterr()
    assert caplog.text + printed.out + printed.err == ""
    files = sorted((tmp_path / "home").iterdir())
    assert len(files) == 3
    for file in files:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert wallet.private_key() not in file.read_bytes()
        assert not shows(file.read_text().lower(), wallet.private_key())
