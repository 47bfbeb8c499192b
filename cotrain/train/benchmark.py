"""How fast this machine takes inner steps: `python -m cotrain.train.benchmark` prints one line of JSON."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from cotrain.config import RunConfig
from cotrain.model_facts import BYTE_TOKENS
from cotrain.process import bind_to_parent
from cotrain.sections import TrainSection

SECONDS, MOST_STEPS = 3.0, 50
NANO = RunConfig(train=TrainSection(gradient_accumulation_steps=1))
"""The preset of the defaults, in steps that a slow machine ends soon."""
_SAMPLES = 256


def measure(config: RunConfig, folder: Path, seconds: float) -> tuple[str, float]:
    """The device, and tokens per second of inner steps on random bytes, whose file goes into `folder`.

    No step begins once `seconds` (more than 0) have passed. The first step is not counted: it allocates. Raises what
    building a model and training raise.
    """
    from cotrain.train.data.samples import SampleWriter, TaskDataset
    from cotrain.train.inner import InnerLoop
    from cotrain.train.model import build_model
    from cotrain.train.parallel import ParallelGroup
    from cotrain.train.spec import DataSpec
    from cotrain.train.tasks.registry import make_task

    spec = DataSpec(task=config.task, vocab_size=BYTE_TOKENS, seq_length=config.data.seq_length)
    with SampleWriter(folder / "train.safetensors", spec) as writer:
        random = np.random.default_rng(config.session.seed)
        writer.add_tokens(random.integers(0, BYTE_TOKENS, size=_SAMPLES * spec.seq_length))
        writer.finish({})
    task = make_task(spec.task, spec, seed=config.session.seed, fields=config.data.fields)
    dataset = TaskDataset(folder / "train.safetensors", task)
    model = build_model(config.model, spec, seed=config.session.seed)
    inner = InnerLoop(config, model, dataset, ParallelGroup.from_environment())
    each = config.train.samples_per_step
    inner.step(np.arange(each), config.train.learning_rate)
    tokens, steps, started = 0, 0, time.monotonic()
    while steps < MOST_STEPS and time.monotonic() - started < seconds:
        steps += 1
        tokens += inner.step(np.arange(steps * each, (steps + 1) * each), config.train.learning_rate).tokens
    return inner.group.device.type, tokens / (time.monotonic() - started)


def main(config: RunConfig = NANO, seconds: float = SECONDS) -> int:
    """Measure, print, and return the exit code."""
    bind_to_parent()
    with tempfile.TemporaryDirectory(prefix="cotrain-benchmark-") as folder:
        device, tokens_per_s = measure(config, Path(folder), seconds)
    print(json.dumps({"device": device, "tokens_per_s": tokens_per_s}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
