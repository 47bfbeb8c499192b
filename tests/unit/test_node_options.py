"""What a volunteer sets: node.toml, the command line over it, and what the limits come to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cotrain.cli import execute
from cotrain.errors import ConfigError, InvalidRequestError
from cotrain.swarm.all_reduce import Timeouts
from cotrain.swarm.parts import PART_VALUES
from cotrain.train.codec import make_codec
from node.gpu_memory import GpuMemory, parse_gpu_memory, require_gpus, usable
from node.hardware import detect_hardware
from node.limits import Limits, limits_of, processors_for, processors_line
from node.options import NODE_FILE, JoinOptions, NodeOptions, join_options, over, read_node_file
from node.supervisor import MachineError
from node.units import LEAST_UPLOAD_BYTES_PER_S, parse_rate
from node.worker import bound_gpu_memory


def written(folder: Path, text: str) -> NodeOptions:
    (folder / NODE_FILE).write_text(text)
    return read_node_file(folder)


# ---------------------------------------------------------------------------------------------- the file
def test_options_are_read_from_the_file_and_paths_seen_from_its_folder(tmp_path: Path) -> None:
    options = written(
        tmp_path,
        '[node]\nname = "kitchen"\nport = 31000\nschedule = ["22:00-07:00", "Sat 00:00-24:00"]\nnice = 19\n'
        "max_cpu = 50\nskip_preflight = true\n"
        'wallet = "mine.json"\npassword_file = "/etc/password"\ninvitation = "secret-word"\n',
    )
    assert options.schedule == ("22:00-07:00", "Sat 00:00-24:00")
    assert (options.name, options.port, options.nice, options.max_cpu) == ("kitchen", 31000, 19, 50)
    assert (options.wallet, options.password_file) == (tmp_path / "mine.json", Path("/etc/password"))
    assert "secret-word" not in repr(options)
    assert join_options("url", options).skip_preflight


def test_without_a_file_or_a_table_nothing_is_set(tmp_path: Path) -> None:
    assert read_node_file(tmp_path) == NodeOptions()
    assert written(tmp_path, "") == NodeOptions()
    assert not join_options("url", NodeOptions()).skip_preflight


@pytest.mark.parametrize(
    ("text", "says", "where"),
    [
        ("[node]\nscedule = []", "unknown key 'scedule'", "node.scedule"),
        ("[nod]", "unknown key 'nod'", "nod"),
        ("[node]\nnice = 20", "less than or equal to 19", "node.nice"),
        ("[node]\nmax_cpu = 0", "greater than or equal to 1", "node.max_cpu"),
        ('[node]\nschedule = ["22-7"]', "'22-7' is no time window", "node.schedule"),
        ('[node]\nmax_upload = "9 apples"', "'9 apples' is no rate", "node.max_upload"),
        ('[node]\nmax_upload = "59kB/s"', "too little to take part", "node.max_upload"),
        ('[node]\nschedule = "22:00-07:00"', "valid tuple", "node.schedule"),
        ("[node", "not valid TOML", NODE_FILE),
        ("#" * 70_000, "more than", NODE_FILE),
    ],
)
def test_a_wrong_file_is_a_clear_error_with_its_place(tmp_path: Path, text: str, says: str, where: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        written(tmp_path, text)
    assert caught.value.field.startswith(str(tmp_path / NODE_FILE))
    assert caught.value.field.endswith(where)


def test_a_file_that_is_no_text_or_no_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / NODE_FILE).write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_node_file(tmp_path)
    (tmp_path / NODE_FILE).unlink()
    (tmp_path / NODE_FILE).mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        read_node_file(tmp_path)


# ---------------------------------------------------------------------------------------------- the command line
def test_the_command_line_wins_and_what_it_does_not_say_stays() -> None:
    file = NodeOptions(name="kitchen", nice=19, schedule=("22:00-07:00",))
    said: dict[str, Any] = {"name": None, "nice": 0, "schedule": []}
    assert over(said, file) == NodeOptions(name="kitchen", nice=0, schedule=("22:00-07:00",))
    assert over({"schedule": ["01:00-02:00"]}, file).schedule == ["01:00-02:00"]


def test_a_wallet_on_the_command_line_replaces_all_that_the_file_says_of_one() -> None:
    file = NodeOptions(wallet=Path("/a.json"), password_file=Path("/a.password"), port=1)
    assert over({"private_key_env": "KEY"}, file) == NodeOptions(private_key_env="KEY", port=1)
    assert over({"wallet": None}, file) == file
    assert over({"browser": True}, file) == NodeOptions(browser=True, port=1)


@pytest.mark.parametrize(
    "other", [{"wallet": Path("/a.json")}, {"password_file": Path("/a")}, {"private_key_env": "KEY"}]
)
def test_a_wallet_in_a_browser_goes_with_no_other(tmp_path: Path, other: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match="neither a keystore nor a private key") as caught:
        join_options("https://c.example/s/x", over({"browser": True, **other}, NodeOptions()))
    assert caught.value.field == "--browser"
    with pytest.raises(ConfigError) as in_file:
        written(tmp_path, '[node]\nbrowser = true\nprivate_key_env = "KEY"\n')
    assert in_file.value.field.endswith("node.browser")


@pytest.mark.parametrize(
    ("arguments", "file", "says"),
    [
        (["--schedule", "22-7"], "", "schedule: '22-7' is no time window"),
        (["--max-upload", "1kB"], "", "max_upload: '1kB' is too little"),
        ([], '[node]\nschedule = ["22-7"]', "node.schedule: '22-7' is no time window"),
        (["--nice", "3"], "[node]\nnice = -1", "node.nice"),
    ],
)
def test_wrong_options_end_a_join_before_anything_is_made(
    arguments: list[str], file: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("COTRAIN_HOME", str(tmp_path))
    (tmp_path / NODE_FILE).write_text(file)
    assert execute(["node", "join", "http://127.0.0.1:1/s/x", *arguments]) == 2
    assert says in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [NODE_FILE]


# ---------------------------------------------------------------------------------------------- limits
@pytest.mark.parametrize(
    ("text", "rate"),
    [("500kB", 500_000), ("2MB", 2_000_000), (" 1.5 mib/s", 1_572_864), ("60000", 60_000), ("1GB/s", 10**9)],
)
def test_a_rate_is_bytes_a_second(text: str, rate: int) -> None:
    assert join_options("url", NodeOptions(max_upload=text)).max_upload == rate


@given(st.text(max_size=12))
def test_any_text_is_a_rate_or_a_clear_error(text: str) -> None:
    try:
        rate = parse_rate(text, field="max_upload")
    except InvalidRequestError:
        return
    assert rate >= LEAST_UPLOAD_BYTES_PER_S


def test_a_limited_line_still_carries_a_part_before_its_reducer_gives_up() -> None:
    encoded_bytes = len(make_codec("int4").encode(torch.ones(PART_VALUES)))
    assert encoded_bytes / LEAST_UPLOAD_BYTES_PER_S < Timeouts().sender_s


@given(st.integers(1, 100), st.sets(st.integers(0, 500), min_size=1))
def test_a_share_of_the_processors_is_never_exceeded_but_by_the_first(percent: int, available: set[int]) -> None:
    chosen = processors_for(percent, available)
    assert set(chosen) <= available
    assert len(chosen) == max(1, len(available) * percent // 100)
    assert len(chosen) == 1 or 100 * len(chosen) <= percent * len(available)
    assert processors_for(100, available) == sorted(available)


# ---------------------------------------------------------------------------------------------- memory of GPUs
GPUS = [("small", 24 * 10**9), ("large", 80 * 10**9)]


@pytest.mark.parametrize(
    ("text", "of_24_gb"),
    [("50%", 12 * 10**9), (" 100 % ", 24 * 10**9), ("8GB", 8 * 10**9), ("7.5 GiB", 8053063680), ("90gb", 24 * 10**9)],
)
def test_an_amount_of_memory_is_a_share_or_a_size(text: str, of_24_gb: int) -> None:
    limit = join_options("url", NodeOptions(max_gpu_memory=text)).max_gpu_memory
    assert limit is not None
    assert limit.of(24 * 10**9) == of_24_gb
    assert usable(limit, 24 * 10**9) == of_24_gb
    assert Limits.model_validate_json(Limits(gpu_memory=limit).model_dump_json(by_alias=True)).gpu_memory == limit


@given(st.text(max_size=8) | st.from_regex(r"[0-9]{1,4} ?%?", fullmatch=True))
def test_any_text_is_an_amount_of_memory_or_a_clear_error(text: str) -> None:
    try:
        limit = parse_gpu_memory(text, field="max_gpu_memory")
    except InvalidRequestError:
        return
    assert 0 < limit.of(10**12) <= 10**12


@pytest.mark.parametrize(
    ("amount", "gpus", "cuda", "says"),
    [
        ("50%", [], "12.8", "there is no GPU here"),
        ("50%", GPUS, None, "of 2 GPUs none is used"),
        ("60GB", GPUS, "12.8", "60.0 GB are more than small has: 24.0 GB"),
    ],
)
def test_a_bound_that_would_bound_nothing_is_refused(
    amount: str, gpus: list[tuple[str, int]], cuda: str | None, says: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        require_gpus(parse_gpu_memory(amount, field=""), gpus, cuda)
    assert says in caught.value.message
    assert caught.value.field == "--max-gpu-memory"


@pytest.mark.parametrize(
    ("amount", "gpus", "of_each"),
    [
        ("100%", GPUS, [memory for _, memory in GPUS]), ("24GB", GPUS, [24 * 10**9] * 2),
        ("60GB", [("silent", 0)], [0]),
    ],
)  # fmt: skip
def test_a_bound_that_the_gpus_have_is_taken(amount: str, gpus: list[tuple[str, int]], of_each: list[int]) -> None:
    limit = parse_gpu_memory(amount, field="")
    require_gpus(limit, gpus, "12.8")
    assert [usable(limit, memory) for _, memory in gpus] == of_each


def test_a_node_that_gives_half_of_its_gpu_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho '550.54.15, 80000, NVIDIA H100'\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert detect_hardware().gpu_memory_bytes == 80_000 * 2**20
    assert detect_hardware(GpuMemory(percent=50)).gpu_memory_bytes == 40_000 * 2**20


def test_where_no_gpu_trains_the_training_process_does_not_begin() -> None:
    with pytest.raises(MachineError, match="torch trains on cpu"):
        bound_gpu_memory(torch.device("cpu"), GpuMemory(percent=50))


def test_limits_of_the_options() -> None:
    assert limits_of(JoinOptions("url"), {0, 1}) == Limits()
    options = JoinOptions("url", nice=5, max_cpu=50, max_upload=70_000, max_gpu_memory=GpuMemory(percent=50))
    assert limits_of(options, {0, 1, 2, 3}) == Limits(
        nice=5, processors=[2, 3], upload_bytes_per_s=70_000, gpu_memory=GpuMemory(percent=50)
    )
    assert processors_line(30, [3], range(4)) == ("--max-cpu 30: trains on 1 of 4 processors (25 %), whole ones only")


def test_a_process_keeps_to_its_limits_and_so_do_its_children() -> None:
    """In a process of its own, which leads its session like the training process does."""
    last = max(os.sched_getaffinity(0))
    script = (
        "import json, os, subprocess, sys\n"
        "from node.limits import Limits, apply_limits\n"
        "apply_limits(Limits.model_validate_json(sys.argv[1]))\n"
        "apply_limits(Limits(nice=1))\n"
        "look = 'import json, os; print(json.dumps([os.nice(0), sorted(os.sched_getaffinity(0))]))'\n"
        "subprocess.run([sys.executable, '-c', look], check=True)\n"
    )
    limits = Limits(nice=max(7, os.nice(0)), processors=[last])
    ended = subprocess.run(
        [sys.executable, "-c", script, limits.model_dump_json(by_alias=True)], capture_output=True, text=True,
        timeout=60, check=True, start_new_session=True,
    )  # fmt: skip
    assert json.loads(ended.stdout) == [limits.nice, [last]]


def test_processors_that_are_gone_are_not_waited_for() -> None:
    script = (
        "import os\n"
        "from node.limits import Limits, apply_limits\n"
        "before = os.sched_getaffinity(0)\n"
        "apply_limits(Limits(processors=[max(before) + 1000]))\n"
        "print(os.sched_getaffinity(0) == before)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "True\n"
    assert "not there any more" in ended.stderr
