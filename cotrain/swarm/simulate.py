"""A whole swarm in one process, on a virtual clock: for choosing hyperparameters before volunteers are asked.

Virtual peers take real inner steps, one after another. Rounds close by the rules of `rounds.py`, pseudo-gradients
travel through the all-reduce of `all_reduce.py` without a network, and the outer step is the one of `diloco.py`. Beside
them, data-parallel training of the same model on as many tokens shows what the rare averaging costs.

Peers know at once how far the others are, and a round that is closing waits for the inner steps under way, however
long they take. Everything follows from config, scenario and seed: with one thread the same numbers come out twice, to
the bit. Early stopping is left out: both runs go their whole length.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from cotrain.config import RunConfig
from cotrain.errors import SwarmError
from cotrain.swarm.feedback import ErrorFeedback
from cotrain.swarm.peer import MINORITY_RETRY_S
from cotrain.swarm.rounds import (
    Announcement,
    PeerProgress,
    RoundLimits,
    averaging_weights,
    missing_for_majority,
    round_totals,
    should_close,
)
from cotrain.swarm.scenario import Scenario, data_parallel_config
from cotrain.swarm.simulated_lies import Speaker, announced_steps, spoken
from cotrain.swarm.simulated_peers import Averaged, VirtualPeer, average_in_memory, parts_of
from cotrain.swarm.simulated_training import InnerSteps, Material, validation_loss
from cotrain.swarm.simulation_report import BaselinePoint, SimulatedRound, SimulationReport, finite_or_none
from cotrain.train.codec import make_codec
from cotrain.train.diloco import OuterOptimizer, OuterState, RoundLengths, inner_learning_rate
from cotrain.train.fragments import Fragments

MOST_FAILED_ATTEMPTS = 100
"""In a row; then the simulation gives up."""

_LOSSES, _LIES = 0, 1
"""What random numbers are for: each purpose has its own."""

OnRound = Callable[[SimulatedRound], None]


def simulate(
    config: RunConfig, scenario: Scenario, material: Material, *, on_round: OnRound = lambda row: None,
    baseline: Sequence[BaselinePoint] | None = None,
) -> SimulationReport:  # fmt: skip
    """Train with the scenario's virtual peers, then data-parallel on as many tokens.

    Args:
        config: of `scenario.peers` nominal nodes (see `simulated_config`).
        material: its model is trained over and over, from the weights that it comes with; it ends with others.
        on_round: told of each round as it closes.
        baseline: the data-parallel run, if there is one already from the same weights on as many tokens.

    Raises SwarmError if no group finds a majority for long.
    """
    initial = material.parameters()
    with asyncio.Runner() as runner:
        swarm = SimulatedSwarm(config, scenario, material, OuterState.initial(initial.clone()), runner)
        swarm.run(on_round)
    if baseline is None:
        committed = swarm.wanted if swarm.diverged else swarm.state.samples
        baseline = train_data_parallel(config, material, initial, samples=committed, wanted=swarm.wanted)
    return _report(config, scenario, swarm, baseline)


def _report(
    config: RunConfig, scenario: Scenario, swarm: SimulatedSwarm, baseline: Sequence[BaselinePoint]
) -> SimulationReport:
    ours, theirs = swarm.rows[-1].validation_loss, baseline[-1].validation_loss
    return SimulationReport(
        session=config.session.id, seed=config.session.seed, parameters=swarm.state.parameters.numel(),
        peers=scenario.peers, speeds=[float(speed) for speed in scenario.speeds], drop=scenario.drop,
        averaging_s=float(scenario.averaging_s), liars=scenario.liars,
        lie=scenario.lie if scenario.liars else None, aggregation=config.swarm.aggregation,
        codec=config.diloco.codec, inner_steps=config.diloco.inner_steps, samples_wanted=swarm.wanted,
        diverged=swarm.diverged, rounds=swarm.rows, data_parallel=list(baseline), validation_loss=ours,
        data_parallel_validation_loss=theirs, ratio=None if ours is None or theirs is None else ours / theirs,
    )  # fmt: skip


@dataclass(frozen=True)
class _Meeting:
    """A round that is being averaged: who met, what they announced, and the virtual time at which it is done."""

    members: list[VirtualPeer]
    announcements: list[Announcement]
    average_arrives: Fraction


class SimulatedSwarm:
    """Virtual peers and the clock that they live by."""

    def __init__(
        self, config: RunConfig, scenario: Scenario, material: Material, state: OuterState, runner: asyncio.Runner
    ):
        self._config, self._scenario, self._material, self._runner = config, scenario, material, runner
        self.wanted = config.samples_wanted(len(material.train))
        self.state, self.diverged = state, False
        self.rows: list[SimulatedRound] = []
        self._fragments = Fragments.of_model(material.judge.model, config.diloco.fragments)
        self._outer = OuterOptimizer.from_config(config, self.wanted, self._fragments)
        self._lengths = RoundLengths.from_config(config, self.wanted)
        self._codec = make_codec(config.diloco.codec)
        self._digest = state.digest()
        self._limits = RoundLimits(config.swarm.max_round_s, config.swarm.grace)
        self._now = self._retry_at = self._round_began = Fraction(0)
        self._meeting: _Meeting | None = None
        self._failed_attempts = 0
        self._peers = [self._make_peer(number) for number in range(scenario.peers)]

    def _make_peer(self, number: int) -> VirtualPeer:
        scenario = self._scenario
        lies = number >= scenario.peers - scenario.liars
        return VirtualPeer(
            name=f"peer{number:04d}", rank=number, ranks=scenario.peers, speed=scenario.speeds[number],
            loop=InnerSteps(self._config, self._material), parameters=self.state.parameters.clone(),
            feedback=ErrorFeedback(self._fragments.count), lie=scenario.lie if lies else None,
        )  # fmt: skip

    def run(self, on_round: OnRound) -> None:
        """Train until the samples wanted are committed, or the loss is no longer finite."""
        self.rows.append(
            SimulatedRound(round=0, time_s=0.0, samples=0, tokens=0, validation_loss=finite_or_none(self._evaluate()))
        )
        while self.state.samples < self.wanted and not self.diverged:
            closed = len(self.rows)
            self._advance_clock()
            self._take_steps()
            self._advance_round()
            if len(self.rows) > closed:
                on_round(self.rows[-1])

    # ------------------------------------------------------------------------------------------ the clock
    def _advance_clock(self) -> None:
        """To the next moment at which something happens; peers that may train begin a step before."""
        committed = self.state.samples
        inner_steps, overlap = self._lengths.inner_steps_at(committed), self._lengths.overlap_at(committed)
        for peer in self._peers:
            if peer.step_ends is None and peer.may_step(inner_steps, overlap):
                peer.step_ends = self._now + 1 / peer.speed
        moments = [peer.step_ends for peer in self._peers if peer.step_ends is not None]
        if self._meeting is not None:
            moments.append(self._meeting.average_arrives)
        elif self._retry_at > self._now:
            moments.append(self._retry_at)
        self._now = min(moments)

    def _take_steps(self) -> None:
        for peer in self._peers:
            if peer.step_ends == self._now:
                peer.step_ends = None
                rate = inner_learning_rate(
                    self._config, committed=self.state.samples, local=peer.samples, peers=len(self._peers),
                    wanted=self.wanted,
                )  # fmt: skip
                peer.inner_step(self.state.cursor, rate)

    # ------------------------------------------------------------------------------------------ rounds
    def _advance_round(self) -> None:
        """Gather peers for a round, average once all are there, take the outer step when the average has arrived."""
        if self._meeting is None and self._now >= self._retry_at:
            while any(self._joins(peer) for peer in self._peers):
                pass  # who joins is seen by all: ask again until nobody else does
            if all(peer.begun is not None for peer in self._peers):
                self._meet()
        if self._meeting is not None and self._meeting.average_arrives == self._now:
            self._finish_round(self._meeting)

    def _joins(self, peer: VirtualPeer) -> bool:
        """Let a peer that is between two steps begin the round's average, if it is time for it."""
        if peer.begun is not None or peer.step_ends is not None:
            return False
        round_, now = self.state.round, float(self._now)
        others = [
            PeerProgress(round_, other.steps, float(other.speed), seen_at=now, closing=other.begun is not None)
            for other in self._peers
            if other is not peer
        ]
        inner_steps = self._lengths.inner_steps_at(self.state.samples)
        lasted_s = float(self._now - self._round_began)
        if not should_close(round_, peer.steps, others, inner_steps, now, lasted_s=lasted_s, limits=self._limits):
            return False
        peer.begin_round()
        return True

    def _meet(self) -> None:
        """Decide who is in the group. Too few close nothing: everybody keeps the work, and tries again later."""
        draws = self._generator(_LOSSES, self._failed_attempts).random(len(self._peers))
        members = [peer for peer, draw in zip(self._peers, draws, strict=True) if draw >= self._scenario.drop]
        announcements = [self._announcement(peer) for peer in members]
        if members and not missing_for_majority(announcements, self._config.swarm.min_peers):
            self._meeting = _Meeting(members, announcements, self._now + self._scenario.averaging_s)
            return
        for peer in self._peers:
            peer.begun = None
        self._failed_attempts += 1
        self._retry_at = self._now + Fraction(MINORITY_RETRY_S)
        if self._failed_attempts >= MOST_FAILED_ATTEMPTS:
            raise SwarmError(
                f"round {self.state.round + 1} found no majority of the {len(self._peers)} peers in "
                f"{self._failed_attempts} attempts",
                field="--drop", hint="lower it, or simulate more peers: a swarm that misses so many does not train",
            )  # fmt: skip

    def _announcement(self, peer: VirtualPeer) -> Announcement:
        assert peer.begun is not None
        work = peer.begun.work
        return Announcement(
            round=self.state.round, digest=self._digest, committed=self.state.samples,
            steps=announced_steps(peer.lie, work.steps), samples=work.samples, ranks=work.ranks,
            alive=len(self._peers),
        )  # fmt: skip

    def _finish_round(self, meeting: _Meeting) -> None:
        """Average, take the outer step, and let everybody go on from it."""
        self._meeting, due = None, self._outer.due(self.state)
        truths = [peer.pseudo_gradient(self.state, due) for peer in meeting.members]
        if not all(bool(torch.isfinite(truth).all()) for truth in truths):
            self.diverged = True
            return
        weights, totals = averaging_weights(meeting.announcements), round_totals(meeting.announcements)
        averaged = average_in_memory(
            meeting.members, self._spoken(meeting, truths), weights, self._codec, self._runner,
            round_=self.state.round, aggregation=self._config.swarm.aggregation,
            steps=[said.steps for said in meeting.announcements],
        )  # fmt: skip
        self._take_over(self._outer.step(self.state, averaged.values, totals))
        members = {peer.name for peer in meeting.members}
        for peer in self._peers:
            peer.finish_round(self.state, due)
            if peer.name not in members:  # as a peer that downloads the state which others made without it
                peer.feedback.forget()
        self._add_row(meeting, weights, averaged)
        self._failed_attempts = 0

    def _spoken(self, meeting: _Meeting, truths: Sequence[Tensor]) -> list[Tensor]:
        speakers = [
            Speaker(truth, said.steps, peer.lie, self._generator(_LIES, peer.rank))
            for peer, said, truth in zip(meeting.members, meeting.announcements, truths, strict=True)
        ]
        return spoken(speakers, parts_of(truths[0].numel(), [peer.name for peer in meeting.members]))

    def _take_over(self, state: OuterState) -> None:
        self.state, self._digest, self._round_began = state, state.digest(), self._now

    # ------------------------------------------------------------------------------------------ what comes out
    def _add_row(self, meeting: _Meeting, weights: Sequence[float], averaged: Averaged) -> None:
        training = _mean_loss(self._peers)
        validation = self._evaluate() if self._is_evaluated() else None
        self.diverged = not (math.isfinite(training) and (validation is None or math.isfinite(validation)))
        self.rows.append(
            SimulatedRound(
                round=self.state.round, time_s=float(self._now), samples=self.state.samples,
                tokens=self.state.samples * self._config.data.seq_length, training_loss=finite_or_none(training),
                validation_loss=None if validation is None else finite_or_none(validation),
                peers=sum(weight > 0 for weight in weights), steps=tuple(said.steps for said in meeting.announcements),
                weights=tuple(weight / sum(weights) for weight in weights), bytes_sent=averaged.bytes_sent,
                failed_attempts=self._failed_attempts, dropped=averaged.dropped,
            )
        )  # fmt: skip

    def _is_evaluated(self) -> bool:
        complete = self.state.samples >= self.wanted
        return complete or self._lengths.is_evaluated(self.state, self._config.monitoring.evaluation_rounds)

    def _evaluate(self) -> float:
        return validation_loss(self._config, self._material, self.state.parameters)

    def _generator(self, purpose: int, number: int) -> np.random.Generator:
        return np.random.default_rng([self._config.session.seed, self.state.round, purpose, number])


# ---------------------------------------------------------------------------------------------- the baseline
def train_data_parallel(
    config: RunConfig, material: Material, initial: Tensor, *, samples: int, wanted: int
) -> list[BaselinePoint]:
    """Data-parallel training from `initial` ([n] float32) on about `samples`, a step taking what all peers' steps take.

    The schedule is the swarm's own, over `wanted` samples. Evaluated as often as the swarm: every
    `monitoring.evaluation_rounds` x `diloco.inner_steps` steps, and at the end.
    """
    config = data_parallel_config(config)
    per_step = config.train.samples_per_step
    peer = VirtualPeer(
        name="data-parallel", rank=0, ranks=1, speed=Fraction(1), loop=InnerSteps(config, material),
        parameters=initial.clone(), feedback=ErrorFeedback(1),
    )  # fmt: skip
    steps = max(1, round(samples / per_step))
    interval = config.monitoring.evaluation_rounds * config.diloco.inner_steps
    points = [_baseline_point(config, material, peer)]
    for step in range(1, steps + 1):
        peer.inner_step(0, inner_learning_rate(config, committed=peer.samples, local=0, peers=1, wanted=wanted))
        if step % interval == 0 or step == steps:
            points.append(_baseline_point(config, material, peer))
    return points


def _baseline_point(config: RunConfig, material: Material, peer: VirtualPeer) -> BaselinePoint:
    return BaselinePoint(
        step=peer.total_steps, samples=peer.samples, tokens=peer.samples * config.data.seq_length,
        training_loss=finite_or_none(_mean_loss([peer])),
        validation_loss=finite_or_none(validation_loss(config, material, peer.parameters)),
    )  # fmt: skip


def _mean_loss(peers: Sequence[VirtualPeer]) -> float:
    """Of the inner steps since the last call; steps that were not finite are skipped. NaN if there are no others."""
    losses = [loss for peer in peers for loss in peer.losses if math.isfinite(loss)]
    for peer in peers:
        peer.losses.clear()
    return math.fsum(losses) / len(losses) if losses else math.nan
