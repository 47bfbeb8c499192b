"""What happens to the virtual peers of a simulation: how many, how fast, how reliable, how honest. Loads no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

from cotrain.config import RunConfig
from cotrain.errors import ConfigError, MemoryShortageError
from cotrain.sections import Aggregation, Optimizer

Lie = Literal["sign-flip", "noise", "scale", "zero", "inside-norm", "little"]
LIES: tuple[Lie, ...] = get_args(Lie)
AGGREGATIONS: tuple[Aggregation, ...] = get_args(Aggregation)

MOST_PEERS = 1000
MOST_SPEED = 1_000_000
_PEER_VECTORS, _SHARED_VECTORS = 5, 8
"""fp32 vectors of the model's size that each peer keeps beside its optimizer's moments, and that all have in common."""


@dataclass(frozen=True)
class Scenario:
    """A swarm that is simulated.

    Attributes:
        speeds: of each peer, inner steps in a virtual second; exact, so that peers of one speed stay in step.
        drop: probability that a peer misses a round: the group closes it without this peer, whose work is lost.
        liars: how many peers send `lie` in place of what they have learnt; the last ones. They know each other.
        averaging_s: virtual seconds that an average takes; inner steps go on meanwhile as `diloco.overlap_steps` lets.
    """

    speeds: tuple[Fraction, ...]
    drop: float = 0.0
    liars: int = 0
    lie: Lie = "sign-flip"
    averaging_s: Fraction = Fraction(0)

    @property
    def peers(self) -> int:
        return len(self.speeds)


def make_scenario(peers: int, *, speeds: str, drop: float, byzantine: str, averaging_s: float) -> Scenario:
    """Check what was asked for on the command line. Raises ConfigError that names the option."""
    if not 1 <= peers <= MOST_PEERS:
        raise ConfigError(f"{peers} peers cannot be simulated", field="--peers", hint=f"from 1 to {MOST_PEERS}")
    if not 0.0 <= drop < 1.0:
        raise ConfigError(
            f"{drop} is not a probability below 1",
            field="--drop",
            hint="for example 0.1: one peer in ten misses a round",
        )
    if not 0.0 <= averaging_s <= 1e6:
        raise ConfigError(f"{averaging_s} is not a number of seconds", field="--averaging-s", hint="0 or more")
    liars, lie = _parse_byzantine(byzantine, peers)
    return Scenario(_parse_speeds(speeds, peers), drop, liars, lie, _exact(averaging_s))


def _exact(value: float) -> Fraction:
    """The decimal number that was written: 0.1 is one tenth."""
    return Fraction(repr(value))


def _parse_speeds(text: str, peers: int) -> tuple[Fraction, ...]:
    """ "1,1,2,4" -> one speed for each peer; a shorter list is repeated."""
    hint = "numbers above 0 with commas between them, at most one for each peer, for example 1,1,2,4"
    try:
        speeds = [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"{text!r} is not a list of numbers", field="--speeds", hint=hint) from None
    if not all(1 / MOST_SPEED <= speed <= MOST_SPEED for speed in speeds):
        raise ConfigError(f"{text!r} holds a speed that is out of range", field="--speeds", hint=hint)
    if len(speeds) > peers:
        raise ConfigError(f"{len(speeds)} speeds for {peers} peers", field="--speeds", hint=hint)
    return tuple(_exact(speeds[number % len(speeds)]) for number in range(peers))


def _parse_byzantine(text: str, peers: int) -> tuple[int, Lie]:
    """ "1:sign-flip" -> (1, "sign-flip"); "" -> nobody."""
    if not text:
        return 0, "sign-flip"
    count, _, name = text.partition(":")
    lie = next((lie for lie in LIES if lie == name), None)
    if lie is None or not count.isascii() or not count.isdigit():
        raise ConfigError(
            f"{text!r} does not say how many peers tell which lie", field="--byzantine",
            hint=f"COUNT:LIE, for example 1:sign-flip; the lies are {', '.join(LIES)}",
        )  # fmt: skip
    if int(count) > peers:
        raise ConfigError(f"{int(count)} liars among {peers} peers", field="--byzantine", hint="at most all of them")
    return int(count), lie


def simulated_config(
    config: RunConfig, peers: int, *, rounds: int | None, seed: int | None, aggregation: str | None = None
) -> RunConfig:
    """The config that the virtual peers train from: `peers` nominal nodes, for so many nominal rounds, with this seed.

    Raises ConfigError for a config that is not one of a swarm of so many, and for a rule that there is not.
    """
    if config.distributed.strategy != "diloco":
        raise ConfigError(
            f"{config.distributed.strategy} joins the devices of one machine, which have no rounds to simulate",
            field="distributed.strategy", hint='set strategy = "diloco"',
        )  # fmt: skip
    if config.swarm.min_peers > peers:
        raise ConfigError(
            f"{config.swarm.min_peers} peers are needed to close a round, {peers} are simulated: none could ever close",
            field="swarm.min_peers", hint="simulate more peers with --peers, or lower it",
        )  # fmt: skip
    if aggregation is not None:
        config = _with_aggregation(config, aggregation)
    train, session = config.train, config.session
    if rounds is not None:
        train = train.model_copy(update={"max_steps": rounds * config.diloco.inner_steps})
    if seed is not None:
        session = session.model_copy(update={"seed": seed})
    distributed = config.distributed.model_copy(update={"nodes": peers})
    return config.model_copy(update={"train": train, "session": session, "distributed": distributed})


def _with_aggregation(config: RunConfig, name: str) -> RunConfig:
    rule = next((rule for rule in AGGREGATIONS if rule == name), None)
    if rule is None:
        raise ConfigError(
            f"{name!r} is no rule of averaging", field="--aggregation", hint=f"one of {', '.join(AGGREGATIONS)}"
        )
    return config.model_copy(update={"swarm": config.swarm.model_copy(update={"aggregation": rule})})


def data_parallel_config(config: RunConfig) -> RunConfig:
    """One trainer whose inner step takes the samples that one step of all nominal nodes takes."""
    nodes = config.distributed.nodes
    steps = config.train.gradient_accumulation_steps * nodes
    return config.model_copy(
        update={
            "train": config.train.model_copy(update={"gradient_accumulation_steps": steps}),
            "distributed": config.distributed.model_copy(update={"nodes": 1}),
        }
    )


def check_memory(numel: int, scenario: Scenario, optimizer: Optimizer, available_bytes: int) -> None:
    """Refuse a simulation of models of `numel` parameters that does not fit, whatever activations need beside it.

    A peer has its parameters, those it ended the round with, its contribution, and two residuals of the codec; all
    share the model, its gradients, the outer states before and after, an average and the first weights. Raises
    MemoryShortageError with the estimate.
    """
    each = _PEER_VECTORS + (1 if optimizer == "sgd" else 2)
    needed = 4 * numel * (scenario.peers * each + _SHARED_VECTORS)
    if needed > available_bytes:
        most = math.floor((available_bytes / (4 * numel) - _SHARED_VECTORS) / each)
        fits = f"--peers {most} would fit" if most >= 1 else "not even one peer of this model fits"
        raise MemoryShortageError(
            f"{scenario.peers} peers of {numel:,} parameters need {needed / 2**30:.1f} GiB, "
            f"{available_bytes / 2**30:.1f} GiB are free",
            field="--peers", hint=f"{fits}; a smaller model.size needs less",
        )  # fmt: skip
