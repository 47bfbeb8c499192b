"""Fixtures that every test may ask for, and how hypothesis tries its examples."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from tests.databases import database_url, new_database_url, postgres_server

__all__ = ["database_url", "new_database_url", "postgres_server"]

# other processes may hold the processor for a while: that an example takes long says nothing
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
