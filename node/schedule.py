"""When a node may train: windows of local time, as `22:00-07:00` or `Mon-Fri 18:00-08:00`. Pure.

A window is what the clock on the wall shows. In the night when clocks go forward it is an hour shorter, and one that
would begin in the hour left out begins when that is over; when they go back, an hour that comes twice counts twice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cotrain.errors import InvalidRequestError

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
DAY_MINUTES = 24 * 60
WEEK_MINUTES = len(DAYS) * DAY_MINUTES
_HINT = "for example 22:00-07:00, Mon-Fri 18:00-08:00 or Sat,Sun 00:00-24:00"
_FORM = re.compile(r"(?:(?P<days>[A-Za-z]+(?:[-,][A-Za-z]+)*) +)?(?P<begin>\d\d?:\d\d) ?- ?(?P<end>\d\d?:\d\d)")


@dataclass(frozen=True)
class Window:
    """Minutes of the week (0: Monday 00:00) in which a node may train: `length` of them from each of `begins` on."""

    text: str
    begins: tuple[int, ...]
    length: int

    def holds(self, minute: int) -> bool:
        """Whether this minute of the week is in it."""
        return any((minute - begin) % WEEK_MINUTES < self.length for begin in self.begins)


@dataclass(frozen=True)
class Schedule:
    """Windows in which a node may train; it rests outside of all of them."""

    windows: tuple[Window, ...]

    def __str__(self) -> str:
        return ", ".join(window.text for window in self.windows)

    def is_open(self, local: datetime) -> bool:
        """Whether the node may train at this local time."""
        return any(window.holds(_minute_of_week(local)) for window in self.windows)

    def next_opening(self, local: datetime) -> datetime:
        """The next local time, to the minute, at which a window begins; this minute itself is one, too."""
        minute = _minute_of_week(local)
        wait = min((begin - minute) % WEEK_MINUTES for window in self.windows for begin in window.begins)
        return local.replace(second=0, microsecond=0) + timedelta(minutes=wait)

    def reason(self, local: datetime) -> str:
        """Why the node rests at this local time, empty if it may train."""
        if self.is_open(local):
            return ""
        opening = self.next_opening(local)
        day = "" if opening.date() == local.date() else f"{DAYS[opening.weekday()]} "
        return f"outside of {self}, until {day}{opening:%H:%M}"


def parse_schedule(texts: Sequence[str], *, field: str = "schedule") -> Schedule | None:
    """The schedule of these windows, None for none. Raises InvalidRequestError, in which `field` stands."""
    return Schedule(tuple(parse_window(text, field=field) for text in texts)) if texts else None


def parse_window(text: str, *, field: str = "schedule") -> Window:
    """A window from its text. The days are those on which it begins; one that ends before it begins ends a day later.

    Raises InvalidRequestError, in which `field` stands.
    """
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise InvalidRequestError(f"{text!r} is no time window", field=field, hint=_HINT)
    days = _days(match["days"], field) if match["days"] else range(len(DAYS))
    begin, end = _minute_of_day(match["begin"], field), _minute_of_day(match["end"], field)
    if begin in (DAY_MINUTES, end):
        raise InvalidRequestError(f"the window {text!r} has no length", field=field, hint=_HINT)
    length = end - begin if end > begin else DAY_MINUTES - begin + end
    return Window(" ".join(text.split()), tuple(day * DAY_MINUTES + begin for day in days), length)


def _days(text: str, field: str) -> list[int]:
    """`Mon-Wed,Fri` -> 0, 1, 2, 4. A range may go over Sunday."""
    found: set[int] = set()
    for piece in text.split(","):
        first, *more = (_day(name, field) for name in piece.split("-"))
        if len(more) > 1:
            raise InvalidRequestError(f"{piece!r} is no range of days", field=field, hint=_HINT)
        last = more[0] if more else first
        found |= {(first + number) % len(DAYS) for number in range((last - first) % len(DAYS) + 1)}
    return sorted(found)


def _day(name: str, field: str) -> int:
    if name.capitalize() not in DAYS:
        raise InvalidRequestError(f"{name!r} is no day", field=field, hint=f"days are {', '.join(DAYS)}")
    return DAYS.index(name.capitalize())


def _minute_of_day(text: str, field: str) -> int:
    hour, minute = (int(part) for part in text.split(":"))
    if minute > 59 or 60 * hour + minute > DAY_MINUTES:
        raise InvalidRequestError(f"{text!r} is no time of day", field=field, hint=_HINT)
    return 60 * hour + minute


def _minute_of_week(local: datetime) -> int:
    return local.weekday() * DAY_MINUTES + local.hour * 60 + local.minute
