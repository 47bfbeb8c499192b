"""The coordinator under load, beside a bare aiohttp server on the same core: what is lost, how late, how much it takes.

    python -m benchmarks.coordinator NAME [--quick] [--json FILE]

NAME is one of those below, or `all`. Needs two cores: the coordinator gets one of them, the load the other. Prints a
line for each figure, with what is wanted of it. `--quick` tries each measure on a small case: it shows that the measure
works, its figures mean nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import contextlib
import os
import platform
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import uvloop

from benchmarks.coordinator_load import (
    Faults,
    Heard,
    Listener,
    Uplink,
    connected,
    send_each_second,
    settle,
    snapshot_template,
)
from benchmarks.coordinator_reads import reads_per_s
from benchmarks.coordinator_stage import Cores, Seat, Served, bare_server, coordinator, seat
from benchmarks.swarm import write_report
from benchmarks.swarm_figures import Figure

MIB = 2**20


@dataclass(frozen=True)
class Size:
    """How large a case is; the defaults are what is wanted."""

    participants: int = 10_000
    sessions: int = 50
    uplinks: int = 1000
    crowd: int = 500
    """Listeners on one session; each other session has one."""
    steady_s: float = 60.0
    saturated_s: float = 15.0
    in_flight: int = 16
    """Snapshots of an uplink that are sent and not acknowledged, where they come as quickly as they can."""
    few_uplinks: int = 10
    reads_s: float = 5.0
    turns: int = 3
    starts: int = 5


QUICK = Size(
    participants=200, sessions=5, uplinks=50, crowd=20, steady_s=4.0, saturated_s=2.0, few_uplinks=5, reads_s=2.0,
    turns=1, starts=1,
)  # fmt: skip
RECORD_EVERY = 5
"""A node has something to log now and then; its other snapshots only move the progress."""


@contextlib.contextmanager
def stage(size: Size, cores: Cores) -> Iterator[tuple[Served, list[list[Seat]]]]:
    """A coordinator on an SQLite file, with everybody registered."""
    with tempfile.TemporaryDirectory(prefix="cotrain-bench-") as folder:
        seats = uvloop.run(seat(Path(folder), sessions=size.sessions, participants=size.participants))
        with coordinator(Path(folder), cores) as served:
            yield served, seats


def spread(seats: Sequence[Sequence[Seat]], count: int) -> list[Seat]:
    """So many participants, taken from the sessions in turn."""
    return [seats[number % len(seats)][number // len(seats)] for number in range(count)]


def percentile(values: Sequence[float], percent: int) -> float:
    """NaN if there are none."""
    return statistics.quantiles(values, n=100)[percent - 1] if len(values) > 1 else float("nan")


# ---------------------------------------------------------------------------------------------- steady
def steady(size: Size, cores: Cores) -> list[Figure]:
    """Every uplink sends its status each second, as nodes do."""
    with stage(size, cores) as (served, seats):
        return uvloop.run(_steady(size, served, seats))


async def _steady(size: Size, served: Served, seats: Sequence[Sequence[Seat]]) -> list[Figure]:
    faults, heard = Faults(), Heard()
    uplinks = [Uplink(one, faults) for one in spread(seats, size.uplinks)]
    sessions = list(dict.fromkeys(uplink.seat.session for uplink in uplinks))
    listeners = [Listener(session, heard, faults, first=True) for session in sessions]
    listeners += [Listener(sessions[0], heard, faults, first=False) for _ in range(size.crowd - 1)]
    async with connected(served.url, uplinks, listeners):
        cpu_before, began = served.cpu_s(), time.monotonic()
        late_s = await send_each_second(uplinks, size.steady_s, RECORD_EVERY)
        share = (served.cpu_s() - cpu_before) / (time.monotonic() - began)
        await settle(uplinks, listeners, faults)
        peak, cpu_s = served.peak_bytes(), served.cpu_s() - cpu_before
    statuses, records = sum(one.sent for one in uplinks), sum(one.records for one in uplinks)
    states_missing = len(uplinks) + len(sessions) - heard.states["participant.state"] - heard.states["session.state"]
    setting = (
        f"{size.uplinks} uplinks of {size.participants} participants, {size.sessions} sessions, {size.crowd} listeners "
        "on one"
    )
    return [
        Figure(
            f"events lost or out of order: {setting}, a status each second for {size.steady_s:.0f} s",
            faults.total(), 0.0,
            details={"statuses": statuses, "records": records, "records heard": len(heard.record_delays_s),
                     **vars(faults), "the coordinator's share of its core": round(share, 2),
                     "its computing until all was heard, s": round(cpu_s, 2),
                     "latest sending, s": round(late_s, 3)},
        ),
        Figure("changes of state that a listener did not hear", abs(states_missing), 0.0, details=dict(heard.states)),
        Figure(
            "seconds from an uplink to a listener, 99th percentile of the records",
            percentile(heard.record_delays_s, 99), 0.25,
            details={"median": round(percentile(heard.record_delays_s, 50), 4),
                     "most": round(max(heard.record_delays_s, default=float("nan")), 3)},
        ),
        _progress_rate(heard),
        Figure(
            "seconds from writing progress to a listener, 99th percentile",
            percentile([came - at for times in heard.progress_times.values() for at, came in times], 99),
        ),
        Figure("memory of the coordinator at most, MiB", peak / MIB, 400.0),
    ]  # fmt: skip


def _progress_rate(heard: Heard) -> Figure:
    """The most in any second that begins with one."""
    most = 0
    for times in heard.progress_times.values():
        written = [at for at, _ in times]
        most = max([most, *(bisect.bisect_left(written, at + 1.0) - index for index, at in enumerate(written))])
    events = sum(map(len, heard.progress_times.values()))
    return Figure("progress events of one session in a second, at most", most, 4.0, details={"events": events})


# ---------------------------------------------------------------------------------------------- saturated
@dataclass(frozen=True)
class Flood:
    """What a coordinator took that got more than it could take."""

    events_per_s: float
    cpu_s_per_event: float
    share: float
    """Of its core."""
    faults: Faults


def saturated(size: Size, cores: Cores) -> list[Figure]:
    """Every snapshot brings a record, which is stored and told, and is followed by the next as soon as it may be."""
    middle = (size.few_uplinks + size.uplinks) // 10
    with stage(size, cores) as (served, seats):
        floods = {
            count: uvloop.run(_flood(size, served, spread(seats, count)))
            for count in (size.few_uplinks, middle, size.uplinks)
        }
        template = snapshot_template(seats[0][0]).replace("@SEQ@", "1").replace("@RECORDS@", "[]")
    bare = _bare_messages_per_s(template, size.reads_s, cores)
    few, many = floods[size.few_uplinks], floods[size.uplinks]
    return [
        Figure(
            f"events a second stored and told to a listener of their session, {size.uplinks} uplinks",
            many.events_per_s, 5000.0, "at least",
            details={"share of its core": round(many.share, 2), "lost or out of order": many.faults.total(),
                     "bare receipt of such snapshots, a second": round(bare)},
        ),
        Figure(
            f"seconds of computing for an event, {size.uplinks} uplinks over {size.few_uplinks}",
            many.cpu_s_per_event / few.cpu_s_per_event, 1.25,
            details={f"microseconds, {count} uplinks": round(flood.cpu_s_per_event * 1e6)
                     for count, flood in floods.items()}
            | {f"a second, {count} uplinks": round(flood.events_per_s) for count, flood in floods.items()},
        ),
    ]  # fmt: skip


async def _flood(size: Size, served: Served, seats: Sequence[Seat]) -> Flood:
    faults, heard = Faults(), Heard()
    uplinks = [Uplink(one, faults) for one in seats]
    sessions = dict.fromkeys(one.session for one in seats)
    listeners = [Listener(session, heard, faults, first=True) for session in sessions]
    async with connected(served.url, uplinks, listeners):
        cpu_before, began = served.cpu_s(), time.monotonic()
        await asyncio.gather(*(uplink.flood(began + size.saturated_s, size.in_flight) for uplink in uplinks))
        await settle(uplinks, listeners, faults)  # what is still under way counts, and its time
        took_s, cpu_s = time.monotonic() - began, served.cpu_s() - cpu_before
    return Flood(heard.records / took_s, cpu_s / max(1, heard.records), cpu_s / took_s, faults)


def _bare_messages_per_s(message: str, duration_s: float, cores: Cores) -> float:
    async def flood(url: str) -> float:
        async with aiohttp.ClientSession() as http, http.ws_connect(f"{url}/stream") as socket:
            began = time.monotonic()
            while time.monotonic() - began < duration_s:
                for _ in range(100):
                    await socket.send_str(message)
            await socket.send_str("?")
            count = int(await socket.receive_str(timeout=60))
            return count / (time.monotonic() - began)

    with tempfile.NamedTemporaryFile() as body, bare_server(Path(body.name), cores) as served:
        return uvloop.run(flood(served.url))


# ---------------------------------------------------------------------------------------------- reads, start
def reads(size: Size, cores: Cores) -> list[Figure]:
    """GETs of what people and scripts read most, and of the same bytes from a bare handler, in turns."""
    figures = []
    with stage(size, cores) as (served, seats):
        session = seats[0][0].session
        for name in (f"sessions/{session}", f"sessions/{session}/progress", "sessions?limit=50"):
            url = f"{served.url}/api/v1/{name}"
            figures.append(_reads_of(url, name.replace(session, "{id}"), size, cores))
    return figures


def _reads_of(url: str, name: str, size: Size, cores: Cores) -> Figure:
    with tempfile.TemporaryDirectory() as folder:
        body = Path(folder) / "body"
        with urllib.request.urlopen(url, timeout=60) as response:  # noqa: S310 - our own server
            body.write_bytes(response.read())
        ours, bare = [], []
        with bare_server(body, cores) as server:
            for _ in range(size.turns):
                bare.append(uvloop.run(reads_per_s(f"{server.url}/answer", size.reads_s)))
                ours.append(uvloop.run(reads_per_s(url, size.reads_s)))
        length = body.stat().st_size
    return Figure(
        f"GET {name}: rate over that of a bare handler with the same bytes", statistics.median(ours) /
        statistics.median(bare), 0.5, "at least",
        details={"a second": [round(rate) for rate in ours], "bare": [round(rate) for rate in bare], "bytes": length},
    )  # fmt: skip


def start(size: Size, cores: Cores) -> list[Figure]:
    """From the start of the process to its ready line, with the participants of the other measures in its database."""
    with tempfile.TemporaryDirectory(prefix="cotrain-bench-") as folder:
        uvloop.run(seat(Path(folder), sessions=size.sessions, participants=size.participants))
        took: list[float] = []
        for _ in range(size.starts):
            with coordinator(Path(folder), cores) as served:
                took.append(served.start_s)
    details = {"seconds": [round(one, 2) for one in took]}
    return [Figure("seconds from start to ready, median", statistics.median(took), 1.0, details=details)]


# ---------------------------------------------------------------------------------------------- command line
@dataclass(frozen=True)
class Measure:
    """One subcommand; `minutes`: about how long it takes on two quiet cores."""

    run: Callable[[Size, Cores], list[Figure]]
    about: str
    minutes: int


MEASURES = {
    "steady": Measure(steady, "events lost, delays and memory with many uplinks and listeners", 2),
    "saturated": Measure(saturated, "events a second, and the cost of one with few and with many uplinks", 2),
    "reads": Measure(reads, "REST reads beside a bare handler", 2),
    "start": Measure(start, "seconds from start to ready", 1),
}


def main() -> None:
    """Measure and print."""
    listed = "\n".join(f"  {name:12} {one.about} (about {one.minutes} min)" for name, one in MEASURES.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\n{listed}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=[*MEASURES, "all"], metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="a small case, to see that it works")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    arguments = parser.parse_args()
    cores = Cores.of_this_machine()
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version(),
               "aiohttp": aiohttp.__version__, "load_average": os.getloadavg()[0]}  # fmt: skip
    report = {"quick": arguments.quick, "machine": machine, "figures": []}
    for name in MEASURES if arguments.name == "all" else [arguments.name]:
        started = time.monotonic()
        with cores.apart():
            figures = MEASURES[name].run(QUICK if arguments.quick else Size(), cores)
        for figure in figures:
            report["figures"].append({"name": name, **figure.as_json()})
            print(figure.line(), flush=True)
        print(f"  ({name}: {time.monotonic() - started:.0f} s)", flush=True)
        if arguments.json is not None:  # after each: a later one that fails loses none
            write_report(arguments.json, report)


if __name__ == "__main__":
    main()
