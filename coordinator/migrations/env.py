"""Run by alembic: migrates over the connection that the store has opened."""

from __future__ import annotations

from alembic import context

import coordinator.chain.rows
import coordinator.chat_rows
import coordinator.learning.rows
import coordinator.model_rows  # noqa: F401 - its tables are compared, too
from coordinator.models import Base

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
