"""How often somebody may do something. In memory: a restart forgets what was counted."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator

from coordinator.auth.addresses import block_key, client_key
from coordinator.config import LimitsSection
from coordinator.problem import RETRY_AFTER
from cotrain.errors import RateLimitedError

Clock = Callable[[], float]

_MOST_KEYS = 20_000
_MINUTE_S = 60.0
_HOUR_S = 3600.0
_FULL_RETRY_S = 60.0
_LINK_CODES_OF_ALL = 600
"""In a minute, from however many addresses: a code that waited all year would be guessed with a chance of 1 %."""


class SlidingWindow:
    """At most `most` events of a key in any `period_s` seconds.

    Args:
        most_keys: how many keys are remembered; the one that was silent for longest is forgotten first.
        clock: seconds that only rise.
    """

    def __init__(self, most: int, period_s: float, *, most_keys: int = _MOST_KEYS, clock: Clock = time.monotonic):
        self._most = most
        self._period_s = period_s
        self._most_keys = most_keys
        self._clock = clock
        self._events: OrderedDict[str, deque[float]] = OrderedDict()

    def __len__(self) -> int:
        """Keys that are remembered."""
        return len(self._events)

    def take(self, key: str) -> float:
        """Count an event: 0.0 if it is allowed, else the seconds until one will be, and it is not counted."""
        clock = self._clock()
        events = self._events.setdefault(key, deque(maxlen=self._most))
        self._events.move_to_end(key)
        wait_s = events[0] + self._period_s - clock if len(events) == self._most else 0.0
        if wait_s > 0.0:
            return wait_s
        events.append(clock)
        self._forget(clock)
        return 0.0

    def _forget(self, clock: float) -> None:
        """Drop keys whose events are all past, and the oldest ones of too many; the newest one stays."""
        while len(self._events) > self._most_keys or self._newest_of_oldest() + self._period_s <= clock:
            self._events.popitem(last=False)

    def _newest_of_oldest(self) -> float:
        return next(iter(self._events.values()))[-1]


class Limits:
    """The limits of one coordinator. Each method raises RateLimitedError, which says when to come back.

    Args:
        enforced: False where only this machine can reach the coordinator; then nothing is counted.
        clock: seconds that only rise.
    """

    def __init__(self, settings: LimitsSection, *, enforced: bool, clock: Clock = time.monotonic):
        self._settings = settings
        self._enforced = enforced
        self._challenges = SlidingWindow(settings.challenges_per_minute, _MINUTE_S, clock=clock)
        self._previews = SlidingWindow(settings.previews_per_minute, _MINUTE_S, clock=clock)
        self._logins = SlidingWindow(settings.logins_per_minute, _MINUTE_S, clock=clock)
        self._links = SlidingWindow(settings.links_per_minute, _MINUTE_S, clock=clock)
        self._link_codes = SlidingWindow(settings.link_codes_per_minute, _MINUTE_S, clock=clock)
        self._all_link_codes = SlidingWindow(_LINK_CODES_OF_ALL, _MINUTE_S, clock=clock)
        self._listeners: Counter[str] = Counter()
        self._accounts = SlidingWindow(settings.new_accounts_per_hour, _HOUR_S, clock=clock)
        self._chats = SlidingWindow(settings.chats_per_minute, _MINUTE_S, clock=clock)
        self._writes = SlidingWindow(settings.writes_per_minute, _MINUTE_S, clock=clock)

    def challenge(self, address: str) -> None:
        """A challenge is asked for from this client address."""
        self._count(self._challenges, client_key(address), "challenges from this address")

    def preview(self, address: str) -> None:
        """A preview, which takes some computing, is asked for from this client address."""
        self._count(self._previews, client_key(address), "previews from this address")

    def login(self, address: str) -> None:
        """A signature comes from this client address."""
        self._count(self._logins, client_key(address), "logins from this address")

    def link(self, address: str) -> None:
        """A node at this client address asks for a wallet in a browser."""
        self._count(self._links, client_key(address), "links from this address")

    def link_code(self, address: str) -> None:
        """Somebody at this client address uses a code, and may be guessing."""
        self._count(self._link_codes, client_key(address), "codes from this address")
        self._count(self._all_link_codes, "", "codes at the moment")

    @contextlib.contextmanager
    def listener(self, address: str) -> Iterator[None]:
        """An event stream to this client address, for as long as the context lasts."""
        key = client_key(address)
        if self._enforced and self._listeners[key] >= self._settings.listeners_per_address:
            raise _too_many("event streams to this address", _FULL_RETRY_S, hint="close one first")
        self._listeners[key] += 1
        try:
            yield
        finally:
            self._listeners[key] -= 1
            if not self._listeners[key]:
                del self._listeners[key]

    def new_account(self, address: str) -> None:
        """A wallet that has never been here signs in from this client address."""
        self._count(self._accounts, block_key(address), "new accounts from this part of the network")

    def write(self, account: str) -> None:
        """This account asks for a change."""
        self._count(self._writes, account, "changes by this account")

    def chat(self, address: str, account: str | None) -> None:
        """Somebody at this client address, who may have signed in, says something to a model."""
        self._count(self._chats, client_key(address), "chats from this address")
        if account is not None:
            self._count(self._chats, account, "chats of this account")

    def open_session(self, already_open: int) -> None:
        """An account that has `already_open` sessions which have not ended asks for one more."""
        if self._enforced and already_open >= self._settings.open_sessions_per_account:
            raise _too_many("open sessions of this account", _FULL_RETRY_S, hint="stop, cancel or delete one first")

    def participants(self, already_here: int) -> None:
        """An account that has `already_here` peers in a session registers one more."""
        if self._enforced and already_here >= self._settings.participants_per_account:
            raise _too_many("peers of this account in this session", _FULL_RETRY_S, hint="remove or reuse one first")

    def catalog_entry(self, already_there: int) -> None:
        """An account that has `already_there` entries in the catalog adds one more."""
        if self._enforced and already_there >= self._settings.catalog_entries_per_account:
            raise _too_many("entries of this account in the catalog", _FULL_RETRY_S, hint="delete one first")

    def _count(self, window: SlidingWindow, key: str, what: str) -> None:
        wait_s = window.take(key) if self._enforced else 0.0
        if wait_s > 0.0:
            raise _too_many(what, wait_s)


def _too_many(what: str, wait_s: float, *, hint: str = "") -> RateLimitedError:
    seconds = math.ceil(wait_s)
    return RateLimitedError(
        f"too many {what}", hint=hint or f"try again in {seconds} s", details={RETRY_AFTER: seconds}
    )
