"""When a node may train: texts of windows, the clock on the wall, and the wish that follows from them."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotrain.errors import InvalidRequestError
from cotrain.status import Control
from node.schedule import DAYS, Schedule, parse_schedule, parse_window
from node.timetable import follow_schedule

MONDAY = datetime(2026, 11, 2)
BERLIN = ZoneInfo("Europe/Berlin")

times = st.builds(lambda hour, minute: f"{hour:02d}:{minute:02d}", st.integers(0, 23), st.integers(0, 59))
moments = st.datetimes(datetime(2026, 1, 1), datetime(2028, 1, 1))


@st.composite
def windows(draw: st.DrawFn) -> str:
    begin, end = draw(times), draw(times.filter(lambda text: text != "00:00") | st.just("24:00"))
    days = draw(st.sampled_from(["", "Mon ", "Sat,Sun ", "Mon-Fri ", "Fri-Mon ", "Mon-Tue,Thu "]))
    return f"{days}{begin}-{end}" if begin != end else f"{days}00:00-24:00"


schedules = st.lists(windows(), min_size=1, max_size=4)


def schedule(*texts: str) -> Schedule:
    found = parse_schedule(texts)
    assert found is not None
    return found


def at(day: str, clock: str) -> datetime:
    hour, minute = map(int, clock.split(":"))
    return MONDAY + timedelta(days=DAYS.index(day), hours=hour, minutes=minute)


def test_no_windows_are_no_schedule() -> None:
    assert parse_schedule([]) is None


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("09:00-17:00", [("Mon", "09:00"), ("Sun", "16:59")], [("Mon", "08:59"), ("Mon", "17:00")]),
        ("22:00-7:00", [("Mon", "22:00"), ("Tue", "06:59"), ("Mon", "00:00")], [("Tue", "07:00"), ("Tue", "21:59")]),
        ("Mon-Fri 18:00-08:00", [("Fri", "18:00"), ("Sat", "07:59")], [("Sat", "18:00"), ("Mon", "07:59")]),
        ("sat,SUN 00:00-24:00", [("Sat", "00:00"), ("Sun", "23:59")], [("Fri", "23:59"), ("Mon", "00:00")]),
        ("Sun 23:00-01:00", [("Mon", "00:30")], [("Sun", "00:30"), ("Mon", "01:00")]),
        ("Fri-Mon 10:00 - 11:00", [("Sun", "10:30"), ("Mon", "10:30")], [("Tue", "10:30")]),
    ],
)
def test_a_window_is_what_its_text_says(
    text: str, inside: list[tuple[str, str]], outside: list[tuple[str, str]]
) -> None:
    for when in inside:
        assert schedule(text).is_open(at(*when)), when
    for when in outside:
        assert not schedule(text).is_open(at(*when)), when


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no time window"),
        ("22:00", "no time window"),
        ("22-7", "no time window"),
        ("Mon Fri 10:00-11:00", "no time window"),
        ("24:01-07:00", "no time of day"),
        ("10:60-11:00", "no time of day"),
        ("10:00-25:00", "no time of day"),
        ("10:00-10:00", "no length"),
        ("24:00-07:00", "no length"),
        ("Mo 10:00-11:00", "'Mo' is no day"),
        ("Mon-Wed-Fri 10:00-11:00", "no range of days"),
    ],
)
def test_what_is_no_window_is_refused_with_an_example(text: str, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says) as caught:
        parse_window(text, field="node.toml")
    assert caught.value.field == "node.toml"
    assert caught.value.hint


@given(st.text(max_size=30))
def test_any_text_is_a_window_or_a_clear_error(text: str) -> None:
    try:
        window = parse_window(text)
    except InvalidRequestError:
        return
    assert 0 < window.length <= 24 * 60


@given(schedules, moments)
def test_several_windows_are_open_when_any_of_them_is(texts: list[str], local: datetime) -> None:
    assert schedule(*texts).is_open(local) == any(schedule(text).is_open(local) for text in texts)


@given(schedules, moments)
def test_a_week_later_is_the_same_and_seconds_do_not_count(texts: list[str], local: datetime) -> None:
    found = schedule(*texts)
    assert found.is_open(local) == found.is_open(local + timedelta(weeks=1))
    assert found.is_open(local) == found.is_open(local.replace(second=0, microsecond=0))


@given(schedules, moments)
def test_a_closed_schedule_opens_when_it_says_and_not_before(texts: list[str], local: datetime) -> None:
    found = schedule(*texts)
    if found.is_open(local):
        assert found.reason(local) == ""
        return
    opening = found.next_opening(local)
    assert timedelta(0) < opening - local <= timedelta(weeks=1)
    assert found.is_open(opening)
    assert not found.is_open(opening - timedelta(minutes=1))
    step = (opening - local) / 50
    assert not any(found.is_open(local + number * step) for number in range(50))
    assert found.reason(local).endswith(f"{opening:%H:%M}")


def test_the_reason_names_the_day_only_where_it_is_another() -> None:
    assert schedule("22:00-07:00").reason(at("Tue", "12:00")) == "outside of 22:00-07:00, until 22:00"
    weekdays = schedule("Mon-Fri 18:00-23:00")
    assert weekdays.reason(at("Sat", "12:00")) == "outside of Mon-Fri 18:00-23:00, until Mon 18:00"


def open_minutes(found: Schedule, day: datetime) -> int:
    """Minutes in the 24 hours of a night, as they pass, in which a machine in Berlin trains."""
    start = day.replace(tzinfo=UTC)
    passing = (start + timedelta(minutes=number) for number in range(24 * 60))
    return sum(found.is_open(moment.astimezone(BERLIN)) for moment in passing)


def test_a_window_lasts_an_hour_less_or_more_when_clocks_change() -> None:
    night = schedule("01:00-05:00")
    ordinary, forward, back = (open_minutes(night, datetime(2026, month, day, 12)) for month, day in
                               [(3, 20), (3, 28), (10, 24)])  # fmt: skip
    assert (ordinary, forward, back) == (240, 180, 300)
    begins_in_the_hour_left_out = schedule("02:30-04:00")
    assert open_minutes(begins_in_the_hour_left_out, datetime(2026, 3, 28, 12)) == 60


async def test_the_wish_to_rest_ends_when_the_window_begins() -> None:
    told: list[Control] = []
    started = time.monotonic()

    def clock() -> datetime:
        return at("Mon", "21:59") + timedelta(seconds=59.8 + time.monotonic() - started)

    opened = asyncio.Event()

    def tell(control: Control) -> None:
        told.append(control)
        if control.wish == "run":
            opened.set()

    following = asyncio.create_task(follow_schedule(schedule("22:00-07:00"), tell, clock=clock))
    try:
        await asyncio.wait_for(opened.wait(), 5)
    finally:
        following.cancel()
    assert told[0] == Control(wish="pause", reason="outside of 22:00-07:00, until 22:00")
    assert told[-1] == Control()
