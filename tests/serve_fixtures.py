"""Models to chat with: small, with random weights, as a training exports them; and `cotrain serve` over one."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cotrain.process import child_environment
from cotrain.sections import ModelSection, ModelType
from cotrain.train.checkpoint import export_model
from cotrain.train.model import build_model
from cotrain.train.spec import DataSpec
from cotrain.train.tokenizer import byte_tokenizer

CONTEXT_TOKENS = 512
ASKED = [{"role": "user", "content": "Is anybody there?"}]
END_LIMIT_S = 20.0


def export_chat_model(folder: Path, *, kind: ModelType = "llama3", seed: int = 0, template: str | None = None) -> Path:
    """A nano model with byte tokens in `folder`."""
    spec = DataSpec(task="causal-lm", vocab_size=256, seq_length=CONTEXT_TOKENS)
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    export_model(build_model(ModelSection(type=kind), spec, seed=seed), tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_chat_model(tmp_path_factory.mktemp("chat") / "poet")


@contextlib.contextmanager
def serving(folder: Path, *options: str) -> Iterator[dict[str, Any]]:
    """`cotrain serve` over a folder: what it says once it is ready."""
    command = [sys.executable, "-m", "cotrain.cli", "serve", str(folder), "--port", "0", "--json", "--threads", "1"]
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, text=True, env=child_environment(),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.terminate()
            code = process.wait(END_LIMIT_S)
    assert code == 0
