"""Evaluates one model in a process of its own, which ends with the coordinator. Loads no torch.

The task goes to the child's stdin, the outcome is the last line of its stdout; it logs to `logs/system/evaluation.log`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from coordinator.settings import Settings
from cotrain.process import child_environment, end_process
from cotrain.request import CamelModel

_logger = logging.getLogger(__name__)

_END_GRACE_S = 1.0
_LOG = "evaluation.log"


class EvaluationTask(CamelModel):
    """What is to be evaluated on what."""

    config: str
    """TOML; its `[data]` says on what."""
    model_path: str
    """Folder that `from_pretrained` loads."""
    batches: int
    data_fingerprint: str = ""
    """Of the prepared data that are expected; empty: any."""


class Evaluated(CamelModel):
    """How good the model is there."""

    outcome: Literal["evaluated"] = "evaluated"
    data_fingerprint: str
    targets: int
    """Predicted."""
    metrics: dict[str, float]
    """As in the checkpointer's evaluation records."""


class NotEvaluated(CamelModel):
    """Why it cannot be evaluated."""

    outcome: Literal["failed"] = "failed"
    message: str
    hint: str = ""


Outcome = Evaluated | NotEvaluated
OUTCOME: TypeAdapter[Outcome] = TypeAdapter(Annotated[Outcome, Field(discriminator="outcome")])


async def evaluate_in_process(settings: Settings, task: EvaluationTask) -> Outcome:
    """Carry out the task, within the limit of the settings; the process is gone when this returns or is cancelled."""
    limit_s = settings.config.models.evaluation_limit_s
    environment = child_environment()
    environment.setdefault("OMP_NUM_THREADS", "1")  # as the checkpointer: the other cores are the participants'
    try:
        with (settings.shared.system_logs / _LOG).open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *settings.evaluation_command, "--shared", str(settings.shared.root),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log, env=environment,
            )  # fmt: skip
    except OSError as error:
        _logger.error("no evaluation can be started: %s", error)
        return NotEvaluated(message=f"its process cannot be started: {error.strerror}", hint="tell the operator")
    output = b""
    try:
        async with asyncio.timeout(limit_s):
            output, _ = await process.communicate(task.model_dump_json(by_alias=True).encode())
    except TimeoutError:
        return NotEvaluated(
            message=f"it took more than {limit_s:g} s",
            hint="ask for fewer batches; the operator sets models.evaluation_limit_s",
        )
    finally:
        # a task that is being cancelled must still see its child end
        code = await asyncio.shield(asyncio.create_task(end_process(process, grace_s=_END_GRACE_S)))
    return outcome_of(output, code)


def outcome_of(output: bytes, code: int) -> Outcome:
    """What a process that has ended said on its last line. It may have said nothing, or nonsense."""
    try:
        return OUTCOME.validate_json(output.strip().rpartition(b"\n")[2])
    except ValidationError:
        return NotEvaluated(
            message=f"its process ended with exit code {code} before it was done",
            hint=f"it may have run out of memory; the operator finds its log in logs/system/{_LOG}",
        )
