"""Logging of the programs of cotrain: to stderr, at the level of `COTRAIN_LOG_LEVEL`."""

from __future__ import annotations

import logging
import os
import sys

from cotrain.errors import ConfigError

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def level_from_env() -> str:
    """The level that `COTRAIN_LOG_LEVEL` names. Raises ConfigError for one that does not exist."""
    level = os.environ.get("COTRAIN_LOG_LEVEL", "INFO").upper()
    if level not in LEVELS:
        raise ConfigError(
            f"{level!r} is not a level", field="COTRAIN_LOG_LEVEL", hint=f"use one of {', '.join(LEVELS)}"
        )  # fmt: skip
    return level


def configure_logging() -> None:
    """Log to stderr. Raises ConfigError for a level that does not exist."""
    logging.basicConfig(
        level=level_from_env(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
