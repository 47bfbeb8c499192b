"""The six tasks behind one shape; what a task is stands in `base`, each task in its own module."""

from __future__ import annotations

from cotrain.errors import ConfigError
from cotrain.sections import FieldsSection, TaskName
from cotrain.train.spec import DataSpec
from cotrain.train.tasks.answers import QuestionAnswering
from cotrain.train.tasks.base import Task
from cotrain.train.tasks.labels import TextClassification, TokenClassification
from cotrain.train.tasks.language import CausalLanguageModeling, MaskedLanguageModeling, SourceToTarget, SpanCorruption

_TASKS: dict[TaskName, type[Task]] = {
    "causal-lm": CausalLanguageModeling,
    "masked-lm": MaskedLanguageModeling,
    "seq2seq-lm": SpanCorruption,
    "text-classification": TextClassification,
    "token-classification": TokenClassification,
    "question-answering": QuestionAnswering,
}


def make_task(name: TaskName, spec: DataSpec, *, seed: int, fields: FieldsSection) -> Task:
    """The task of this name on the data of `spec`; `seed` is the session's.

    Raises ConfigError if the data was prepared for another task or other fields.
    """
    if spec.task != name:
        raise ConfigError(
            f"the data was prepared for {spec.task}, not for {name}", field="train.task", hint="prepare the data again"
        )
    if name != "seq2seq-lm":
        return _TASKS[name](spec, seed=seed)
    if spec.with_targets != (fields.target is not None):
        raise ConfigError(
            f"the data was prepared {'with' if spec.with_targets else 'without'} targets", field="data.fields.target",
            hint="prepare the data again",
        )  # fmt: skip
    return (SourceToTarget if spec.with_targets else SpanCorruption)(spec, seed=seed)
