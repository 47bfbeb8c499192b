"""What each check says of facts made by hand, in every state it has; and the document that lists its lines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotrain.config import RunConfig
from cotrain.errors import ConflictError, SwarmError, UnreachableError
from cotrain.estimate import MemoryEstimate, estimate_memory, fits
from cotrain.model_facts import model_facts
from cotrain.process import SHARED_MEMORY_HINT
from cotrain.protocol import Hardware
from cotrain.reachability import Attachment
from cotrain.sections import DistributedSection
from node import checks
from node.checks import Check, Folder
from node.doctor import ORDER
from node.offers import nothing_open

TABLE = Path(__file__).resolve().parents[2] / "docs" / "troubleshooting.md"
GIB = 2**30
UNKNOWN_REACH = "the checkpointer did not say whether others can connect to this node; it takes part as if they could"


def memory_of(gpus: int) -> MemoryEstimate:
    config = RunConfig(distributed=DistributedSection(gpus_per_node=gpus))
    facts = model_facts(config).facts
    assert facts is not None
    return estimate_memory(config, facts)


NEED, GPU_NEED = memory_of(0), memory_of(1)


def folder(free_bytes: int, trouble: str = "") -> Folder:
    return Folder("COTRAIN_SHARED", Path("/data"), free_bytes, 3 * GIB, trouble)


FINE = [
    checks.python((3, 11), "Linux", "x86_64"),
    checks.python((3, 14), "Linux", "x86_64"),
    checks.packages(["rich>=13.9"], {"rich>=13.9": "14.0"}),
    checks.packages(["rich>=13.9", 'asyncpg>=1; extra == "postgres"'], {"rich>=13.9": "13.9"}),
    checks.torch_build("2.13.0+cpu", None, 0),
    checks.torch_build("2.13.0", "12.6", 0),
    checks.torch_build("2.13.0", "12.6", 2),
    checks.gpu([], "", ""),
    checks.gpu(["NVIDIA H100"], "550.54", ""),
    checks.disk([folder(5 * GIB), folder(6 * GIB)]),
    checks.memory(None, 8 * GIB, 4 * GIB),
    checks.memory(NEED, 64 * GIB, 60 * GIB),
    checks.memory(GPU_NEED, 64 * GIB, 60 * GIB, gpu_bytes=80 * GIB),
    checks.shared_memory(None, GIB),
    checks.shared_memory(GIB, GIB),
    checks.shared_memory(GIB, 0),
    checks.agent(None, ""),
    checks.orphans([], None),
    checks.port("0.0.0.0", 0, ""),
    checks.port("0.0.0.0", 4001, ""),
    checks.coordinator("https://c.example", 0.1, None),
    checks.clock(0.2, 0.6),
    checks.session("tales", None),
    checks.offers("https://c.example", None, "tales: it lacks 1 node to begin"),
    *checks.reachable(Attachment(connection="direct", port=4001)),
    checks.reachable(Attachment(connection="relayed", port=4001))[1],
    checks.line(1e6, 10**6),
    checks.benchmark(1234.5, "cpu", 0),
    checks.benchmark(1234.5, "cuda", 1),
]
WARNINGS = [
    checks.packages([], {}),
    checks.torch_build("2.13.0+cpu", None, 2),
    checks.gpu([], "", "No devices were found"),
    checks.disk([folder(3 * GIB + 1)]),
    checks.memory(NEED, 64 * GIB, 2**20),
    checks.memory(None, 8 * GIB, 4 * GIB, unknown="model.source is not in the catalog"),
    checks.agent(4711, "tales"),
    checks.orphans([], 4711),
    checks.coordinator("https://c.example", 3.0, None),
    checks.clock(2.5, 0.6),
    checks.clock(-2.5, 0.6),
    checks.offers("https://c.example", nothing_open("https://c.example", Hardware(), {})),
    *checks.reachable(Attachment(connection="direct", port=4001, notice=UNKNOWN_REACH)),
    checks.reachable(Attachment(connection="relayed", port=4001))[0],
    *checks.reachable(Attachment(connection="outgoing", port=4001)),
    checks.line(1e3, 10**9),
    checks.benchmark(1234.5, "cpu", 1),
    checks.unanswered("disk", 6.0),
]
FAILURES = [
    checks.python((3, 10), "Linux", "x86_64"),
    checks.python((3, 12), "Darwin", "arm64"),
    checks.packages(["rich>=13.9", "torch>=2.6"], {"rich>=13.9": "13.8", "torch>=2.6": None}),
    checks.torch_build(None, None, 0),
    checks.disk([folder(GIB)]),
    checks.disk([folder(5 * GIB, "Read-only file system")]),
    checks.memory(NEED, GIB // 4, GIB // 4),
    checks.memory(GPU_NEED, 64 * GIB, 60 * GIB, gpu_bytes=GIB),
    checks.shared_memory(GIB - 1, GIB),
    checks.port("0.0.0.0", 4001, "another program has it"),
    checks.orphans([12, 13], 4711),
    checks.coordinator("https://c.example", 0.0, UnreachableError("no answer in time")),
    checks.clock(90.0, 0.6),
    checks.clock(-90.0, 0.6),
    checks.session("tales", ConflictError("a session that is draft cannot be joined", hint="start it first")),
    *checks.reachable(SwarmError("the peer-to-peer network could not be joined: timed out")),
    checks.line(0.0, 10**6),
    checks.line(0.0, 10**6, UnreachableError("the connection was closed")),
    checks.benchmark(0.0, "", 0, "it ended with exit code 1"),
]
TROUBLES = WARNINGS + FAILURES


def named(check: Check) -> str:
    return f"{check.name}-{check.state}"


@pytest.mark.parametrize(
    ("state", "found"), [("ok", FINE), ("warning", WARNINGS), ("failed", FAILURES)], ids=["ok", "warning", "failed"]
)
def test_facts_give_the_state_they_should(state: str, found: list[Check]) -> None:
    assert {named(check) for check in found if check.state != state} == set()


def test_every_check_is_told_and_can_be_fine() -> None:
    assert {check.name for check in FINE} == set(ORDER)
    assert {check.name for check in TROUBLES} == set(ORDER)
    assert len(ORDER) == len(set(ORDER))


@pytest.mark.parametrize("check", FINE + TROUBLES, ids=named)
def test_what_is_wrong_comes_with_what_mends_it_and_nothing_else_does(check: Check) -> None:
    assert check.detail
    assert bool(check.remedy) == (check.state != "ok")
    assert checks.line_of(check).startswith(f"{check.state:<8} {check.name}: {check.detail}")
    assert check.remedy in checks.line_of(check)


def test_the_remedy_of_an_error_is_its_own_hint() -> None:
    refused = checks.session("tales", ConflictError("it is a draft", hint="start it first"))
    assert refused.remedy == "start it first"
    assert checks.shared_memory(0, 1).remedy == SHARED_MEMORY_HINT
    closed = checks.reachable(Attachment(connection="outgoing", port=4001))
    assert all("--port 4001" in check.remedy for check in closed)


def test_packages_are_named_with_what_is_there_and_what_is_needed() -> None:
    found = checks.packages(
        ["rich>=13.9", "torch>=2.6", "typer"], {"rich>=13.9": "13.8", "torch>=2.6": None, "typer": "0.1"}
    )
    assert found.detail == "packages do not fit: rich is 13.8, >=13.9 is needed; torch is missing"


def test_a_pre_release_that_is_new_enough_fits() -> None:
    assert checks.packages(["torch>=2.6"], {"torch>=2.6": "2.14.0.dev1+cu126"}).state == "ok"


# ---------------------------------------------------------------------------------------------- laws
@given(free=st.integers(0, 2**50), needed=st.integers(0, 2**50), trouble=st.sampled_from(["", "Read-only"]))
def test_a_disk_fails_just_where_nothing_fits_or_may_be_written(free: int, needed: int, trouble: str) -> None:
    found = checks.disk([Folder("COTRAIN_HOME", Path("/home"), free, needed, trouble)])
    assert (found.state == "failed") == bool(trouble or free < needed)
    assert (found.state == "ok") == (not trouble and free >= needed + checks.SPARE_DISK_BYTES)


@given(frees=st.lists(st.integers(0, 8 * GIB), min_size=1, max_size=4))
def test_of_several_folders_the_worst_counts(frees: list[int]) -> None:
    worst = min((checks.disk([folder(free)]).state for free in frees), key=["failed", "warning", "ok"].index)
    assert checks.disk([folder(free) for free in frees]).state == worst


@given(total=st.integers(2**20, 2**45), share=st.floats(0, 1), gpu=st.none() | st.integers(2**20, 2**45))
def test_memory_fails_just_where_the_estimate_does_not_fit(total: int, share: float, gpu: int | None) -> None:
    need = GPU_NEED if gpu else NEED
    found = checks.memory(need, total, int(total * share), gpu_bytes=gpu)
    assert (found.state == "failed") == bool(fits(need, total, gpu))


@given(free=st.integers(0, 2**45), needed=st.integers(0, 2**45))
def test_shared_memory_fails_just_where_the_state_does_not_fit(free: int, needed: int) -> None:
    assert (checks.shared_memory(free, needed).state == "failed") == (free < needed)


@given(ahead=st.floats(-1e4, 1e4), doubt=st.floats(0, 100))
def test_a_clock_is_judged_alike_both_ways_and_never_beyond_doubt(ahead: float, doubt: float) -> None:
    state = checks.clock(ahead, doubt).state
    assert state == checks.clock(-ahead, doubt).state
    certain = abs(ahead) - doubt
    assert (state == "failed") == (certain > checks.MOST_CLOCK_S)
    if abs(ahead) <= checks.MUCH_CLOCK_S:
        assert state == "ok"


@given(found=st.lists(st.sampled_from(FINE + TROUBLES), max_size=6))
def test_the_exit_code_says_whose_fault_it_is(found: list[Check]) -> None:
    failed = {check.name for check in found if check.state == "failed"}
    expected = 0 if not failed else 69 if failed <= {"coordinator", "session", "reachable", "line"} else 78
    assert checks.exit_code(found) == expected


# ---------------------------------------------------------------------------------------------- the document
def rows() -> list[tuple[re.Pattern[str], str, str]]:
    """(what the line looks like, check, state) of each row of the table."""
    found = []
    for row in TABLE.read_text(encoding="utf-8").partition("\n| Line |")[2].splitlines()[2:]:
        if not row.startswith("|"):
            break
        line, name, state = [cell.strip() for cell in row.strip("|").split("|")][:3]
        pieces = [re.escape(piece) for piece in line.strip("`").split("…")]
        found.append((re.compile(".+".join(pieces)), name, state))
    return found


def is_about(row: tuple[re.Pattern[str], str, str], check: Check) -> bool:
    pattern, name, state = row
    return pattern.match(check.detail) is not None and name in (check.name, "any") and state == check.state


@pytest.mark.parametrize("check", TROUBLES, ids=named)
def test_every_trouble_is_in_the_table(check: Check) -> None:
    assert [row for row in rows() if is_about(row, check)], f"docs/troubleshooting.md lacks: {check.detail}"


def test_every_row_of_the_table_is_a_trouble_that_there_is() -> None:
    table = rows()
    assert len(table) > 25
    assert [row[0].pattern for row in table if not any(is_about(row, check) for check in TROUBLES)] == []
