"""Fixtures that every test may ask for."""

from __future__ import annotations

from tests.databases import database_url, new_database_url, postgres_server

__all__ = ["database_url", "new_database_url", "postgres_server"]
