"""Compares versions of models metric by metric. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from coordinator.model_views import VersionView
from cotrain.request import CamelModel

Better = Literal["lower", "higher"]

EVALUATED: Mapping[str, Better] = {
    "validationLoss": "lower", "accuracy": "higher", "f1": "higher", "exactMatch": "higher",
}  # fmt: skip
"""Metrics of evaluations: they depend on the samples."""
OF_FILES: Mapping[str, Better] = {"parameters": "lower", "sizeBytes": "lower"}
"""The smaller one is cheaper to run; what it has learnt is another matter."""


class MetricComparison(CamelModel):
    """One metric of several versions."""

    metric: str
    better: Better | None
    """null for a metric that it is not known of."""
    values: dict[str, float | None]
    """By version (`model:version`); null where it was not measured."""
    differences: dict[str, float]
    """From the first version that has a value; empty if they cannot be compared."""
    best: list[str]
    """All that share the best value; empty if they cannot be compared."""
    not_comparable: str
    """Why not; empty if they can be compared."""


class ComparisonView(CamelModel):
    """Versions, and how they compare."""

    versions: list[VersionView]
    metrics: list[MetricComparison]


def compare(versions: Sequence[VersionView]) -> ComparisonView:
    """Metric by metric: which version is better, and by how much. What was measured on other data is not compared."""
    named = {f"{version.model}:{version.version}": version for version in versions}
    measured = {name: {} if v.evaluation is None else v.evaluation.metrics for name, v in named.items()}
    metrics = dict.fromkeys(metric for values in measured.values() for metric in values)
    reason = _difference_in_data([v for v in versions if v.evaluation is not None])
    found = [
        _compare(metric, EVALUATED.get(metric), {name: measured[name].get(metric) for name in named}, reason)
        for metric in sorted(metrics)
    ]
    sizes = {
        "parameters": {name: float(v.parameters) if v.parameters else None for name, v in named.items()},
        "sizeBytes": {name: float(v.size_bytes) if v.size_bytes else None for name, v in named.items()},
    }
    found += [_compare(metric, OF_FILES[metric], values, "") for metric, values in sizes.items()]
    return ComparisonView(versions=list(named.values()), metrics=found)


def _compare(
    metric: str, better: Better | None, values: Mapping[str, float | None], reason: str
) -> MetricComparison:  # fmt: skip
    known = {name: value for name, value in values.items() if value is not None}
    if len(known) < 2:
        reason = "fewer than two versions have it"
    elif better is None and not reason:
        reason = "it is not known whether more of it is better"
    best: list[str] = []
    differences: dict[str, float] = {}
    if not reason:
        top = (min if better == "lower" else max)(known.values())
        first = next(iter(known.values()))
        best = [name for name, value in known.items() if value == top]
        differences = {name: value - first for name, value in known.items()}
    return MetricComparison(
        metric=metric, better=better, values=dict(values), differences=differences, best=best, not_comparable=reason
    )


def _difference_in_data(evaluated: Sequence[VersionView]) -> str:
    """Why their evaluations measure different things; empty if they measure the same."""
    fingerprints = {version.data_fingerprint for version in evaluated}
    if "" in fingerprints:
        return "it is not known of all versions which data they were evaluated on"
    if len(fingerprints) > 1:
        return "they were evaluated on different data"
    if len({version.evaluation.targets for version in evaluated if version.evaluation}) > 1:
        return "they were evaluated on different parts of the data"
    return ""
