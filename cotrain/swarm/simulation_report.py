"""What a simulation found: as JSON, as a table for people, and as a plot. Loads no torch."""

from __future__ import annotations

import io
import math
from importlib.util import find_spec
from itertools import pairwise

from pydantic import Field
from rich.table import Table

from cotrain.errors import CotrainError
from cotrain.request import CamelModel
from cotrain.sections import Aggregation

_RULES: dict[Aggregation, str] = {
    "filter": "weighted mean of what passes the filter", "centered-clip": "centered clipping",
    "median": "coordinate-wise median", "mean": "weighted mean",
}  # fmt: skip
PLOT_INCHES = (7.0, 4.5)
PLOT_DOTS_PER_INCH = 120


class MissingPackageError(CotrainError):
    """An optional package that is needed for what was asked is not installed."""

    code = "missing-package"
    exit_code = 78


class SimulatedRound(CamelModel):
    """One outer step; round 0 is the model before the first."""

    round: int
    time_s: float
    """Virtual seconds since the beginning."""
    samples: int
    """Committed by all peers in all rounds."""
    tokens: int
    """The same, in tokens."""
    training_loss: float | None = None
    """Mean over the inner steps that ended since the last round, of all peers; absent if it is not finite."""
    validation_loss: float | None = None
    """Of the outer parameters; absent where they were not evaluated, or if it is not finite."""
    peers: int = 0
    """Members whose contributions carried weight; some may be left out all the same."""
    steps: tuple[int, ...] = ()
    """Inner steps that each member announced."""
    weights: tuple[float, ...] = ()
    """Share of each member in the average, if it is not left out."""
    bytes_sent: int = 0
    """By all members together, as handed to the transport."""
    failed_attempts: int = 0
    """Times that too few peers met before this round could be closed."""
    dropped: dict[str, dict[str, int]] = Field(default_factory=dict)
    """Members that were left out: why, and of how many parts' averages."""


class BaselinePoint(CamelModel):
    """The data-parallel run after so many steps."""

    step: int
    samples: int
    tokens: int
    training_loss: float | None = None
    """Mean over the steps since the last point."""
    validation_loss: float | None = None


class SimulationReport(CamelModel):
    """DiLoCo with virtual peers beside data-parallel training on as many tokens: same model, data and schedule."""

    session: str
    seed: int
    parameters: int
    peers: int
    speeds: list[float]
    drop: float
    averaging_s: float
    liars: int
    lie: str | None
    aggregation: Aggregation
    """The rule that made averages of contributions."""
    codec: str
    inner_steps: int
    samples_wanted: int
    diverged: bool
    """The loss or a pseudo-gradient was no longer finite: the rounds end there."""
    rounds: list[SimulatedRound]
    data_parallel: list[BaselinePoint]
    validation_loss: float | None
    """Of the last outer parameters."""
    data_parallel_validation_loss: float | None
    ratio: float | None
    """The first over the second: above 1, DiLoCo is behind."""


def finite_or_none(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if math.isfinite(value) else None


# ---------------------------------------------------------------------------------------------- for people
def summary_lines(report: SimulationReport) -> list[str]:
    """Who was simulated, and how it ended."""
    liars = f", {report.liars} lying ({report.lie})" if report.liars else ""
    drop = f", {report.drop:.0%} of contributions dropped" if report.drop else ""
    ended = "DIVERGED" if report.diverged else f"validation loss {_figure(report.validation_loss)}"
    last, baseline = report.rounds[-1], report.data_parallel[-1]
    return [
        f"{report.peers} virtual peers{liars}{drop}; {report.parameters:,} parameters, codec {report.codec}, "
        f"averages by {_RULES[report.aggregation]}, seed {report.seed}",
        f"DiLoCo         {ended} after {last.tokens:,} tokens in {last.round} rounds",
        f"data-parallel  validation loss {_figure(report.data_parallel_validation_loss)} after "
        f"{baseline.tokens:,} tokens in {baseline.step} steps",
        f"ratio          {_figure(report.ratio)}",
        *_dropped_lines(report),
    ]


def _dropped_lines(report: SimulationReport) -> list[str]:
    """Who was left out of averages, in how many rounds, and why."""
    rounds: dict[tuple[str, str], int] = {}
    for row in report.rounds:
        for key in ((peer, reason) for peer, reasons in row.dropped.items() for reason in reasons):
            rounds[key] = rounds.get(key, 0) + 1
    return [
        f"left out       {peer} in {count} of {report.rounds[-1].round} rounds ({reason})"
        for (peer, reason), count in sorted(rounds.items())
    ]


def rounds_table(report: SimulationReport) -> Table:
    """A row for each round, the data-parallel validation loss at as many tokens beside it."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    titles = (
        "\nround", "virtual\ntime s", "\nsamples", "training\nloss", "validation\nloss", "of data-\nparallel",
        "peers\ncounted", "bytes\nsent",
    )  # fmt: skip
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for row in report.rounds:
        table.add_row(
            str(row.round), f"{row.time_s:.1f}", f"{row.samples:,}", _figure(row.training_loss),
            _figure(row.validation_loss), _figure(baseline_at(report, row.tokens)), str(row.peers),
            f"{row.bytes_sent:,}",
        )  # fmt: skip
    return table


def baseline_at(report: SimulationReport, tokens: int) -> float | None:
    """Validation loss of the data-parallel run after `tokens`, interpolated between its evaluations."""
    points = [(p.tokens, p.validation_loss) for p in report.data_parallel if p.validation_loss is not None]
    for (before, loss_before), (after, loss_after) in pairwise(points):
        if before <= tokens <= after:
            return loss_before + (loss_after - loss_before) * (tokens - before) / (after - before)
    return points[-1][1] if points and tokens >= points[-1][0] else None


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


# ---------------------------------------------------------------------------------------------- the plot
def require_plots() -> None:
    """Raise MissingPackageError, with the command that helps, if no plot could be drawn."""
    if find_spec("matplotlib") is None:
        raise MissingPackageError(
            "matplotlib is not installed, which draws the loss curves",
            hint="in the checkout: pip install -c constraints.txt -e '.[plots]'",
        )


def plot_curves(report: SimulationReport) -> bytes:
    """A PNG: validation loss over tokens, of DiLoCo and of data-parallel training."""
    from matplotlib.figure import Figure  # not pyplot: it would look for a display

    figure = Figure(figsize=PLOT_INCHES, layout="constrained")
    axes = figure.subplots()
    for name, points in (("DiLoCo", report.rounds), ("data-parallel", report.data_parallel)):
        evaluated = [(p.tokens, p.validation_loss) for p in points if p.validation_loss is not None]
        axes.plot([tokens for tokens, _ in evaluated], [loss for _, loss in evaluated], marker=".", label=name)
    axes.set(
        title=f"{report.peers} peers, {report.inner_steps} inner steps a round, {report.codec}",
        xlabel="tokens trained on", ylabel="validation loss, nats per target",
    )  # fmt: skip
    axes.grid(alpha=0.3)
    axes.legend()
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=PLOT_DOTS_PER_INCH)
    return png.getvalue()
