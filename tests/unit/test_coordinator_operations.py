"""What operators see of a coordinator: its log, its measures, what it says of a certificate; and their page."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from aiohttp.http_exceptions import BadHttpMessage
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from coordinator.api.monitoring import readiness
from coordinator.auth.limits import Limits
from coordinator.config import LimitsSection
from coordinator.json_log import FIELDS, LOGGED_REQUEST, JsonFormatter, TextFormatter, without_input
from coordinator.observability import (
    CLOSE_CODES,
    METHODS,
    OTHER,
    LearningCollector,
    LearningCounts,
    Metrics,
    Standing,
    close_code,
    known_method,
)
from coordinator.tls import TlsFiles, check_files, tls_files
from cotrain.errors import ConfigError, RateLimitedError

OPERATIONS_PAGE = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
NOW = datetime.now(UTC)


# ------------------------------------------------------------------------------------------------- the log
@pytest.fixture
def request_id() -> Iterator[str]:
    before = LOGGED_REQUEST.set("request-1")
    yield "request-1"
    LOGGED_REQUEST.reset(before)


def record(message: str, *arguments: object, error: BaseException | None = None) -> logging.LogRecord:
    exception = None if error is None else (type(error), error, error.__traceback__)
    return logging.LogRecord("coordinator.test", logging.WARNING, __file__, 1, message, arguments, exception)


def raised(error: Exception) -> Exception:
    try:
        raise error
    except type(error) as caught:
        return caught


def test_a_record_is_one_line_of_json(request_id: str) -> None:
    entry = record("two\nlines: %s", "سلام", error=raised(ValueError("a\nb")))
    setattr(entry, FIELDS, {"status": "500"})
    line = JsonFormatter().format(entry)
    assert line.isascii()
    assert "\n" not in line
    told = json.loads(line)
    # hivemind renames it, where another test has loaded it
    assert (told["level"], told["logger"]) == (logging.getLevelName(logging.WARNING), "coordinator.test")
    assert told["message"] == "two\nlines: سلام"
    assert (told["requestId"], told["status"]) == (request_id, "500")
    assert datetime.fromisoformat(told["time"]).tzinfo is not None
    assert told["exception"].startswith("Traceback")
    assert told["exception"].endswith("ValueError: a\nb")


def test_outside_of_a_request_no_id_is_told() -> None:
    assert "requestId" not in json.loads(JsonFormatter().format(record("x")))
    assert TextFormatter("%(message)s").format(record("x")) == "x"


def test_what_somebody_sent_begins_no_line_of_the_text(request_id: str) -> None:
    line = TextFormatter("%(message)s").format(record("%s", "/a\n2026-01-01 ERROR forged\x1b[2J"))
    assert line == f"/a\\n2026-01-01 ERROR forged\\x1b[2J [request {request_id}]"


def test_a_request_that_cannot_be_read_is_not_quoted() -> None:
    quoted = raised(BadHttpMessage("Authorization: Bearer secret-word"))
    entry = record("Error handling request from %s", "127.0.0.1", error=quoted)
    assert without_input(entry)
    for formatter in (JsonFormatter(), TextFormatter("%(message)s")):
        line = formatter.format(entry)
        assert "secret-word" not in line
        assert "BadHttpMessage" in line
    ordinary = record("x", error=raised(ValueError("why")))
    assert without_input(ordinary)
    assert "ValueError: why" in JsonFormatter().format(ordinary)


# ------------------------------------------------------------------------------------------------- measures
@given(st.text())
def test_any_method_is_one_of_few_labels(method: str) -> None:
    assert known_method(method) in {*METHODS, OTHER}


@given(st.integers() | st.none())
def test_any_close_code_is_one_of_few_labels(code: int | None) -> None:
    assert close_code(code) in {*map(str, CLOSE_CODES), OTHER}


def test_applications_do_not_share_their_measures() -> None:
    first, second = Metrics("1"), Metrics("1")
    first.event_stored("training.log")
    name, labels = "cotrain_events_stored_total", {"type": "training.log"}
    assert first.registry.get_sample_value(name, labels) == 1.0
    assert second.registry.get_sample_value(name, labels) == 0.0


def test_sessions_are_left_out_while_the_database_does_not_answer() -> None:
    metrics = Metrics("1")
    counts = LearningCounts({"kept": 4}, samples=70)
    up = Standing(sessions={"training": 2}, learning=counts, participants_connected=3, checkpointer_up=True)
    told = metrics.exposition(up).decode()
    assert 'cotrain_sessions{state="training"} 2.0' in told
    assert 'cotrain_sessions{state="draft"} 0.0' in told
    assert "cotrain_participants_connected 3.0" in told
    assert "cotrain_database_up 1.0" in told
    assert 'cotrain_learning_cycles_total{outcome="kept"} 4.0' in told
    assert 'cotrain_learning_cycles_total{outcome="promoted"} 0.0' in told
    assert "cotrain_learning_samples 70.0" in told
    told = metrics.exposition(Standing(None, None, participants_connected=0, checkpointer_up=False)).decode()
    assert "cotrain_sessions{" not in told
    assert "cotrain_learning" not in told
    assert "cotrain_database_up 0.0" in told
    assert "cotrain_checkpointer_up 0.0" in told


def test_the_operators_page_has_every_measure_with_its_labels() -> None:
    metrics = Metrics("1")
    measures = {
        name: set(labels)
        for collector, names in metrics.registry._collector_to_names.items()
        if (labels := getattr(collector, "_labelnames", None)) is not None
        for name in names
        if name.startswith("cotrain_") and not name.endswith(("_created", "_bucket", "_sum", "_count"))
    }
    learning = LearningCollector()
    learning.counts = LearningCounts({}, samples=0)
    measures |= {one.name: set(one.labels) for family in learning.collect() for one in family.samples}
    exposed = {name for name in measures if f"{name}_total" not in measures}
    rows = re.findall(r"^\| `(cotrain_\w+)` \| ([^|]*) \|", OPERATIONS_PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    documented = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    assert documented == {name: measures[name] for name in exposed}


@pytest.mark.parametrize(
    ("database", "checkpointer", "missing"),
    [
        (True, True, ""), (True, False, "checkpointer"), (False, True, "database"),
        (False, False, "database checkpointer"),
    ],
)  # fmt: skip
def test_readiness_says_what_is_missing(database: bool, checkpointer: bool, missing: str) -> None:
    found = readiness(database=database, checkpointer=checkpointer)
    assert found.status == ("starting" if missing else "ready")
    assert [line.split()[1] for line in found.missing] == missing.split()


# ------------------------------------------------------------------------------------------------- TLS
def make_certificate(folder: Path, *, valid_from: datetime = NOW, days: int = 30, password: str = "") -> TlsFiles:
    """A certificate for 127.0.0.1 that has signed itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    address = x509.IPAddress(ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(valid_from - timedelta(hours=1)).not_valid_after(valid_from + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    files = TlsFiles(folder / "certificate.pem", folder / "key.pem")
    files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    encryption = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    files.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    )  # fmt: skip
    return files


def refusal(files: TlsFiles) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        check_files(files, now=NOW)
    assert "PRIVATE KEY" not in str(caught.value.message)
    return caught.value


def test_a_certificate_and_its_key_will_do(tmp_path: Path) -> None:
    check_files(make_certificate(tmp_path), now=NOW)


def test_a_wrong_certificate_is_said_with_file_and_reason(tmp_path: Path) -> None:
    good = make_certificate(tmp_path / "good")
    other = make_certificate(tmp_path / "other")
    (tmp_path / "text").write_text("hello")
    cases = [
        (TlsFiles(tmp_path / "none", good.key), tmp_path / "none", "No such file"),
        (TlsFiles(tmp_path / "text", good.key), tmp_path / "text", "holds no certificate"),
        (TlsFiles(good.key, good.key), good.key, "holds no certificate"),
        (TlsFiles(good.certificate, tmp_path / "none"), tmp_path / "none", "No such file"),
        (TlsFiles(good.certificate, good.certificate), good.certificate, "holds no private key"),
        (TlsFiles(good.certificate, other.key), other.key, "is not the key of the first certificate"),
        (TlsFiles(good.certificate, tmp_path), tmp_path, "Is a directory"),
    ]
    for files, named, reason in cases:
        error = refusal(files)
        assert (error.field, error.exit_code) == (str(named), 2)
        assert reason in error.message


def test_a_certificate_must_hold_now_and_its_key_be_readable(tmp_path: Path) -> None:
    expired = make_certificate(tmp_path / "a", valid_from=NOW - timedelta(days=40))
    assert "has expired on" in refusal(expired).message
    early = make_certificate(tmp_path / "b", valid_from=NOW + timedelta(days=2))
    assert "from" in refusal(early).message
    locked = make_certificate(tmp_path / "c", password="secret")
    assert "encrypted with a password" in refusal(locked).message


def test_one_file_of_the_two_is_not_enough() -> None:
    assert tls_files(None, None) is None
    for certificate, key, missing in ((Path("a"), None, "--tls-key"), (None, Path("a"), "--tls-certificate")):
        with pytest.raises(ConfigError) as caught:
            tls_files(certificate, key)
        assert caught.value.field == missing


# ------------------------------------------------------------------------------------------------- limits
def test_an_address_has_a_bounded_number_of_listeners_at_a_time() -> None:
    limits = Limits(LimitsSection(listeners_per_address=1), enforced=True)
    with limits.listener("203.0.113.1"):
        with limits.listener("203.0.113.2"):
            pass
        with pytest.raises(RateLimitedError, match="event streams"), limits.listener("203.0.113.1"):
            pass
    with limits.listener("203.0.113.1"):
        pass
    assert not limits._listeners
