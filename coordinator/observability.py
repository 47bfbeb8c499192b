"""What Prometheus is told: the measures of one application, in a registry of its own.

Every label has a fixed set of values: no session, account or path is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from coordinator.chain.machine import ENTRY_STATES, EntryState
from coordinator.learning.rows import Outcome
from coordinator.lifecycle import STATES
from cotrain.chat_protocol import Usage
from cotrain.protocol import EventType
from cotrain.status import State

StreamKind = Literal["listener", "uplink"]
ChatOutcome = Literal["answered", "refused", "busy", "failed", "abandoned"]

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
"""Label of what is not in the set, or belongs to no route."""
ABORTED = "aborted"
"""In place of a status: the other side was gone before there was one."""
CLOSE_CODES = frozenset({1000, 1001, 1002, 1006, 1007, 1008, 1009, 1011, 1013})

_REQUEST_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_WRITE_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


@dataclass(frozen=True)
class LearningCounts:
    """What auto-learning has come to."""

    cycles: Mapping[Outcome, int]
    """That have ended, by their outcome."""
    samples: int
    """In the newest data."""


@dataclass(frozen=True)
class Standing:
    """How things stand at the moment of a scrape."""

    sessions: Mapping[State, int] | None
    """How many are in each state; None where the database does not answer."""
    learning: LearningCounts | None
    """As `sessions`."""
    participants_connected: int
    checkpointer_up: bool
    chain_entries: Mapping[EntryState, int] | None = None
    """How many entries of records are in each state; None where that is not known."""
    chain_last_error_at: float | None = None
    """When the chain's node last did not do its part, in Unix seconds."""


class Metrics:
    """The measures of one coordinator."""

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._make_request_measures()
        self._make_stream_measures()
        self._make_record_measures()
        build = Gauge(
            "cotrain_build_info", "Always 1; says which version this is.", ["version"], registry=self.registry
        )
        build.labels(version).set(1)

    def _make_request_measures(self) -> None:
        self._requests = Counter(
            "cotrain_http_requests", "Requests that have been answered.", ["method", "route", "status"],
            registry=self.registry,
        )  # fmt: skip
        self._request_s = Histogram(
            "cotrain_http_request_duration_seconds", "Time to answer a request; streams are left out.",
            ["method", "route"], buckets=_REQUEST_BUCKETS_S, registry=self.registry,
        )  # fmt: skip
        self._answered: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}

    def _make_stream_measures(self) -> None:
        streams = Gauge("cotrain_open_streams", "Sockets and event streams.", ["kind"], registry=self.registry)
        self._streams: Mapping[StreamKind, Gauge] = {kind: streams.labels(kind) for kind in get_args(StreamKind)}
        self._uplinks_closed = Counter(
            "cotrain_uplinks_closed", "Uplinks that have ended, by WebSocket close code.", ["code"],
            registry=self.registry,
        )  # fmt: skip
        self.listeners_dropped = Counter(
            "cotrain_listeners_dropped", "Listeners that were let go because they were too slow.",
            registry=self.registry,
        )  # fmt: skip
        self._chats = Counter("cotrain_chats", "Chats, by how they ended.", ["outcome"], registry=self.registry)
        self._chat_tokens = Counter(
            "cotrain_chat_tokens", "Tokens of chats that were answered.", ["kind"], registry=self.registry
        )
        self._participants = Gauge(
            "cotrain_participants_connected", "Participants that have said hello on their uplink.",
            registry=self.registry,
        )  # fmt: skip

    def _make_record_measures(self) -> None:
        self._sessions = Gauge("cotrain_sessions", "Sessions in each state.", ["state"], registry=self.registry)
        events = Counter("cotrain_events_stored", "Events that are on disk.", ["type"], registry=self.registry)
        self._events: Mapping[EventType, Counter] = {kind: events.labels(kind) for kind in get_args(EventType)}
        self._write_s = Histogram(
            "cotrain_database_write_seconds", "Time of a transaction, from its begin to its commit.",
            buckets=_WRITE_BUCKETS_S, registry=self.registry,
        )  # fmt: skip
        self._database = Gauge("cotrain_database_up", "1 where the database answers.", registry=self.registry)
        self._learning = LearningCollector()
        self.registry.register(self._learning)
        self._checkpointer = Gauge("cotrain_checkpointer_up", "1 where the checkpointer is up.", registry=self.registry)
        self._chain_entries = Gauge(
            "cotrain_chain_entries", "Openings and ends of sessions on their way to a chain.", ["state"],
            registry=self.registry,
        )  # fmt: skip
        self._chain_error = Gauge(
            "cotrain_chain_last_error_timestamp_seconds", "When the chain's node last failed; 0: it never did.",
            registry=self.registry,
        )  # fmt: skip

    def answered(self, method: str, route: str, status: str, seconds: float | None) -> None:
        """Count an answered request.

        Args:
            route: the template of its route, or OTHER.
            status: three digits, or ABORTED.
            seconds: to the answer; None for a stream.
        """
        method = known_method(method)
        found = self._answered.get((method, route, status))
        if found is None:  # to find a measure by its labels takes longer than to count
            found = self._requests.labels(method, route, status), self._request_s.labels(method, route)
            self._answered[method, route, status] = found
        found[0].inc()
        if seconds is not None:
            found[1].observe(seconds)

    def stream(self, kind: StreamKind) -> Gauge:
        """The number of open streams of a kind."""
        return self._streams[kind]

    def uplink_closed(self, code: int | None) -> None:
        """Count an uplink that has ended; without a code the connection broke."""
        self._uplinks_closed.labels(close_code(code)).inc()

    def chat_ended(self, outcome: ChatOutcome) -> None:
        """Count a chat."""
        self._chats.labels(outcome).inc()

    def chat_tokens(self, usage: Usage) -> None:
        """Count the tokens of one that was answered."""
        self._chat_tokens.labels("prompt").inc(usage.prompt_tokens)
        self._chat_tokens.labels("completion").inc(usage.completion_tokens)

    def event_stored(self, kind: EventType) -> None:
        """Count an event that is on disk."""
        self._events[kind].inc()

    def database_written(self, seconds: float) -> None:
        """How long a transaction took."""
        self._write_s.observe(seconds)

    def exposition(self, standing: Standing) -> bytes:
        """Everything in Prometheus' text format 0.0.4."""
        self._participants.set(standing.participants_connected)
        self._checkpointer.set(standing.checkpointer_up)
        self._database.set(standing.sessions is not None)
        self._learning.counts = standing.learning
        self._sessions.clear()
        if standing.sessions is not None:
            for state in STATES:
                self._sessions.labels(state).set(standing.sessions.get(state, 0))
        self._chain_entries.clear()
        if standing.chain_entries is not None:
            for entry_state in ENTRY_STATES:
                self._chain_entries.labels(entry_state).set(standing.chain_entries.get(entry_state, 0))
        self._chain_error.set(standing.chain_last_error_at or 0)
        return generate_latest(self.registry)


class LearningCollector(Collector):
    """Cycles are counted in the database, which outlives this process, and in others' processes."""

    def __init__(self) -> None:
        self.counts: LearningCounts | None = None

    def collect(self) -> Iterator[Metric]:
        """Nothing where the database does not answer: a counter must not seem to begin anew."""
        if self.counts is None:
            return
        cycles = CounterMetricFamily(
            "cotrain_learning_cycles", "Cycles of auto-learning that have ended.", labels=["outcome"]
        )
        for outcome in get_args(Outcome):
            cycles.add_metric([outcome], self.counts.cycles.get(outcome, 0))
        yield cycles
        yield GaugeMetricFamily(
            "cotrain_learning_samples", "Samples in the newest data of auto-learning.", value=self.counts.samples
        )


def known_method(method: str) -> str:
    """The method as a label: clients may send any word."""
    return method if method in METHODS else OTHER


def close_code(code: int | None) -> str:
    """A close code as a label: clients may send any number."""
    code = 1006 if code is None else code
    return str(code) if code in CLOSE_CODES else OTHER
