"""The processes behind chats: killed, changed over under load, ended for others, and never started for nothing."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from coordinator.chat_models import ServedVersion
from coordinator.chat_service import ChatService
from cotrain.chat_protocol import ChatRequest, ChatUnavailableError, parse_chat
from tests.integration.coordinator_fixtures import settings_for, until
from tests.serve_fixtures import ASKED, export_chat_model

LIMIT_S = 60.0
TOKENS = 60


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models."""
    root = tmp_path_factory.mktemp("served")
    return [export_chat_model(root / f"poet-{seed}", seed=seed) for seed in (1, 2)]


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[ChatService]:
    settings = settings_for(tmp_path)
    settings.shared.create()
    made = ChatService(settings)
    yield made
    pids = [pid for pid in made.processes.values() if pid is not None]
    await made.close()
    assert not any(map(psutil.pid_exists, pids))
