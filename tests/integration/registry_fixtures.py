"""For tests of the registry: sessions that end with a model, and what the checkpointer would say of them."""

from __future__ import annotations

import io
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from coordinator.checkpointer_messages import Following, Saved
from cotrain.paths import SharedPaths
from cotrain.sections import ModelSection
from cotrain.train.checkpoint import export_model
from cotrain.train.model import build_model
from cotrain.train.spec import DataSpec
from cotrain.train.tokenizer import byte_tokenizer
from tests.integration.coordinator_fixtures import (
    Client,
    create_session,
    post_json,
    services,
    until_state,
)

SESSIONS = "/api/v1/sessions"
MODELS = "/api/v1/models"
KEY = "ab" * 32


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model as the checkpointer saves it."""
    folder = tmp_path_factory.mktemp("exported") / "final"
    model = build_model(ModelSection(), DataSpec(task="causal-lm", vocab_size=256, seq_length=32), seed=0)
    export_model(model, byte_tokenizer(), folder)
    return folder


def evaluation(round_: int, loss: float) -> dict[str, Any]:
    data = {"round": round_, "samples": 8 * round_, "validationLoss": loss, "targets": 100, "accuracy": 0.25}
    return {"number": round_, "time": 5.0, "kind": "evaluation", "message": "evaluated", "data": data}


async def finished_session(client: Client, root: Path, exported: Path | None, **wanted: Any) -> str:
    """A session that has reached its goal, with a final model on disk if there is one to copy."""
    session = await create_session(client, **({"name": "Poems"} | wanted))
    await post_json(client, f"{SESSIONS}/{session}/start")
    await until_state(client, session, "waiting")
    if exported is not None:
        shutil.copytree(exported, SharedPaths(root).final_model(session))
    (root / f"reached-{session}").touch()
    await until_state(client, session, "completed")
    return session


async def report(client: Client, message: Following | Saved) -> None:
    """What the checkpointer would say."""
    await services(client).sessions.on_report(message)


async def downloaded(client: Client, path: str) -> bytes:
    async with client.get(path) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "application/zip"
        return await response.read()


def weights_of(archive: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.testzip() is None
        return opened.read("model.safetensors")
