"""What a session would ask of its nodes, and what its owner should know: said before anything is stored."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from coordinator.catalog_entries import with_sources
from coordinator.scheduler import none_is_large_enough
from coordinator.session_paths import check_names
from coordinator.views import AdviceView, OutlookView, PreviewView, estimate_view
from cotrain.catalog import Catalog, CatalogEntry, match_entry
from cotrain.config import RunConfig, dump_config
from cotrain.estimate import Estimate, estimate, fits
from cotrain.model_facts import Known, model_facts
from cotrain.paths import SharedPaths
from cotrain.request import SessionRequest, request_field
from cotrain.sections import UNDERSTANDING_TASKS

PREVIEW_ID = "preview"
CONTAINER_SHARED_BYTES = 64 * 2**20
"""What Docker gives a container of shared memory, unless it is told otherwise."""


@dataclass(frozen=True)
class Surroundings:
    """What there is for whoever asks.

    Attributes:
        catalog: the entries that the request may name.
        known_nodes: memory of the nodes that have been here, bytes.
        hidden: folders of models and data that are not there for this caller.
    """

    shared: SharedPaths
    catalog: Catalog
    known_nodes: Sequence[int] = ()
    hidden: Collection[Path] = ()


def outlook(request: SessionRequest, around: Surroundings) -> OutlookView:
    """Estimate and advice for a request. Raises InvalidRequestError that names the request's field."""
    return _outlook(request.to_config(PREVIEW_ID), around)[0]


def preview(request: SessionRequest, around: Surroundings, memory_bytes: int) -> PreviewView:
    """The same with the TOML; `memory_bytes` is that of a node that would take part, 0 for none.

    Raises InvalidRequestError that names the request's field.
    """
    view, found = _outlook(request.to_config(PREVIEW_ID), around)
    config = with_sources(request, around.catalog, around.shared).to_config(PREVIEW_ID)
    shortage = fits(found.memory, memory_bytes) if found is not None and memory_bytes else ""
    return PreviewView(config=dump_config(config), estimate=view.estimate, advice=view.advice, shortage=shortage)


def _outlook(config: RunConfig, around: Surroundings) -> tuple[OutlookView, Estimate | None]:
    check_names(config, around.shared, around.catalog, around.hidden)
    known = model_facts(config, around.catalog.models)
    found = None if known.facts is None else estimate(config, known.facts)
    advice = list(advise(config, known, found, around.catalog, around.shared))
    if found is not None and (why := none_is_large_enough(found.memory, around.known_nodes)):
        advice.append(AdviceView(field="model", message=why, hint="it waits until larger nodes come"))
    return OutlookView(estimate=None if found is None else estimate_view(found), advice=advice), found


def advise(
    config: RunConfig, known: Known, found: Estimate | None, catalog: Catalog, shared: SharedPaths
) -> Iterator[AdviceView]:
    """What is no mistake, and yet worth knowing."""
    for key, message in known.unknown:
        yield _advice(key, message)
    named = {"model.source": config.model.source}
    if config.distillation.enabled:
        named["distillation.teacher"] = config.distillation.teacher
    for key, name in named.items():
        yield from _about_entry(key, match_entry(name or "", catalog.models))
    dataset = match_entry(config.data.dataset or "", catalog.datasets)
    yield from _about_entry("data.dataset", dataset)
    if dataset is not None and config.task in UNDERSTANDING_TASKS and dataset.task != config.task:
        yield _advice("training.task", f"{dataset.name} is made for {dataset.task}, not for {config.task}")
    path = config.data.data_path
    if path is not None and not Path(shared.datasets / path).exists():
        yield _advice("data.data_path", "is not there yet", "put it into the coordinator's datasets before the start")
    steps = config.train.max_steps
    if steps is not None and steps < config.diloco.round_steps:
        yield _advice(
            "diloco.inner_steps", f"a round has {config.diloco.round_steps} inner steps, the run {steps}",
            "with shorter rounds the nodes learn from each other",
        )  # fmt: skip
    if config.swarm.aggregation == "mean" and config.distributed.nodes > 1:
        yield _advice("swarm.aggregation", "mean believes every node: one that lies spoils the model", "take filter")
    if found is not None and found.memory.outer_state_bytes > CONTAINER_SHARED_BYTES:
        needed = -(-found.memory.outer_state_bytes // 2**20)
        yield AdviceView(
            field="", message=f"nodes in containers need {needed:,} MiB of shared memory",
            hint=f"docker run --ipc=host, or --shm-size={needed}m",
        )  # fmt: skip


def _about_entry(key: str, entry: CatalogEntry | None) -> Iterator[AdviceView]:
    if entry is not None and not entry.verified:
        yield _advice(key, f"id and licence of {entry.name} could not be verified", "look at its page on the hub")
    if entry is not None and entry.licence == "unknown":
        yield _advice(key, f"the licence of {entry.name} is not known", "ask its authors before you publish the model")


def _advice(key: str, message: str, hint: str = "") -> AdviceView:
    return AdviceView(field=request_field(key), message=message, hint=hint)
