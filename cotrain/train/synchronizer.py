"""What the inner loop asks of whoever synchronizes it with others; and the one for a run without others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from cotrain.train.diloco import OuterState, RoundLengths, RoundTotals
from cotrain.train.fragments import Fragments, take


@dataclass(frozen=True)
class LocalWork:
    """What this peer has done since its outer state.

    Attributes:
        steps: inner steps.
        samples: samples trained on.
        ranks: number of shares that it divided the data order into.
        warm: False in a late joiner's first round, which carries no weight.
    """

    steps: int
    samples: int
    ranks: int = 1
    warm: bool = True


@dataclass(frozen=True)
class ClosedRound:
    """A round that the swarm closed: the average is in the tensor that was given to `begin_round`.

    Attributes:
        totals: samples and positions, the same at every member.
        summary: facts for the log (members, seconds, bytes), JSON-serializable.
    """

    totals: RoundTotals
    bytes_sent: int = 0
    bytes_received: int = 0
    summary: dict[str, str | int | float | bool | list[str] | None] = field(default_factory=dict)


class RoundNotClosed(Exception):
    """The round could not be closed this time; local work is kept. The message says why."""


class StateOutdated(Exception):
    """The swarm holds another outer state; `resync` gets it. The message says which."""


class Synchronizer(Protocol):
    """The swarm as the inner loop sees it. No call waits unless its documentation says so."""

    def join(self, initial: OuterState) -> OuterState:
        """Wait until the swarm's outer state is here; `initial` is what a swarm of one begins with."""

    def resync(self, state: OuterState) -> OuterState:
        """Wait for the state that the swarm's majority holds."""

    def share(self) -> tuple[int, int]:
        """(rank, ranks): which share of the data order is mine in the round that begins."""

    @property
    def peers(self) -> int:
        """Peers that train, this one included."""

    def report(self, work: LocalWork, steps_per_s: float) -> None:
        """Tell the others how far this peer is."""

    def gather(self) -> None:
        """Wait, bounded, for the others before the first round."""

    def should_close(self, work: LocalWork, wait_s: float = 0.0) -> bool:
        """Whether the round is to be closed now; waits for news of the others for at most `wait_s` seconds.

        Raises StateOutdated if the swarm has gone on without this peer.
        """

    def begin_round(self, state: OuterState, local_parameters: Tensor, work: LocalWork) -> None:
        """Start averaging `state.parameters - local_parameters` ([n] float32, both on the CPU) in the background.

        Only the fragment that is due after `state` is averaged.
        """

    def poll_round(self, wait_s: float) -> ClosedRound | None:
        """The round begun, once it is closed; None while it runs. Waits at most `wait_s` seconds.

        Raises RoundNotClosed or StateOutdated if it failed.
        """

    def average(self) -> Tensor:
        """[m] float32: the averaged pseudo-gradient of the round that `poll_round` returned, of its fragment."""

    def next_buffers(self) -> tuple[Tensor, Tensor] | None:
        """Where the next outer state is to be written (parameters, momentum), or None for anywhere."""

    def publish(self, state: OuterState) -> tuple[OuterState, str]:
        """Serve this state to others from now on; returns it as stored, and its digest (empty without others)."""

    def set_active(self, active: bool) -> None:
        """A paused peer is not waited for."""

    def leave(self, final: OuterState | None) -> None:
        """Say good-bye. With a final state, wait (bounded) until the others have it."""


class LocalSynchronizer:
    """A run without others: every round is closed alone, with the pseudo-gradient as its own average."""

    def __init__(
        self, lengths: RoundLengths, samples_wanted: int | None = None, fragments: Fragments | None = None
    ):  # fmt: skip
        """Rounds have these lengths; the last one ends with the samples wanted, where they are known."""
        self._lengths, self._wanted, self._fragments = lengths, samples_wanted, fragments
        self._committed = 0
        self._average: Tensor | None = None
        self._totals = RoundTotals(0, 0)

    peers = 1

    def join(self, initial: OuterState) -> OuterState:
        self._committed = initial.samples
        return initial

    def resync(self, state: OuterState) -> OuterState:
        return state

    def share(self) -> tuple[int, int]:
        return 0, 1

    def report(self, work: LocalWork, steps_per_s: float) -> None:
        return None

    def gather(self) -> None:
        return None

    def should_close(self, work: LocalWork, wait_s: float = 0.0) -> bool:
        is_last = self._wanted is not None and self._committed + work.samples >= self._wanted
        return is_last or work.steps >= self._lengths.inner_steps_at(self._committed)

    def begin_round(self, state: OuterState, local_parameters: Tensor, work: LocalWork) -> None:
        due = None if self._fragments is None else self._fragments.due(state.round)
        gradient = state.parameters - local_parameters
        self._average = gradient if due is None else take(gradient, due)
        self._totals = RoundTotals(work.samples, work.samples)

    def poll_round(self, wait_s: float) -> ClosedRound | None:
        return ClosedRound(self._totals)

    def average(self) -> Tensor:
        assert self._average is not None
        return self._average

    def next_buffers(self) -> None:
        return None

    def publish(self, state: OuterState) -> tuple[OuterState, str]:
        self._committed = state.samples
        return state, ""

    def set_active(self, active: bool) -> None:
        return None

    def leave(self, final: OuterState | None) -> None:
        return None
