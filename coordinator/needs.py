"""What a session asks of its nodes and which data it trains on, from its config."""

from __future__ import annotations

import hashlib
import logging
from functools import lru_cache

from coordinator.scheduler import Needs
from coordinator.session_paths import inside
from cotrain.catalog import load_datasets, load_models, match_entry
from cotrain.config import RunConfig, parse_config
from cotrain.errors import ConfigError
from cotrain.estimate import estimate_memory
from cotrain.model_facts import model_facts
from cotrain.paths import SharedPaths

_logger = logging.getLogger(__name__)

_KEPT = 256


@lru_cache(maxsize=_KEPT)
def needs_of(config: str) -> Needs:
    """The needs of a stored session, from its TOML, which never changes.

    Nothing is known of a config that this version cannot read: the session may be older than its rules.
    """
    try:
        parsed = parse_config(config)
        facts = model_facts(parsed, load_models()).facts
    except ConfigError as error:
        _logger.warning("nothing is known of what a session needs: %s", error)
        return Needs(memory=None, min_peers=1)
    return Needs(None if facts is None else estimate_memory(parsed, facts), parsed.swarm.min_peers)


def dataset_key(config: RunConfig, shared: SharedPaths) -> str:
    """64 characters, the same for the same data; empty for the built-in corpus, which is nobody's.

    Raises ConfigError for a path out of the data folder.
    """
    data = config.data
    if data.dataset is not None:
        entry = match_entry(data.dataset, load_datasets())
        hub_id = data.dataset if entry is None or entry.hugging_face_id is None else entry.hugging_face_id
        name = f"hub:{hub_id.strip().casefold()}"
    elif data.data_path is not None:
        folder = shared.datasets
        path = inside(folder, data.data_path, field="data.data_path")
        name = f"path:{path.relative_to(folder.resolve())}"
    else:
        return ""
    return hashlib.sha256(name.encode()).hexdigest()
