"""Distillation (Hinton et al., arXiv:1503.02531): the student learns from a teacher's predictions beside the data."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from cotrain.errors import ConfigError
from cotrain.sections import DistillationSection, ModelSection
from cotrain.train.model import build_model
from cotrain.train.spec import DataSpec
from cotrain.train.tasks.base import Task
from cotrain.train.tasks.metrics import IGNORE, Batch, Prediction

FIELD = "distillation.teacher"
_TOKENIZER_FILE = "tokenizer.json"
_SAME_TOKENIZER = "name a teacher that was trained with data.tokenizer, or set data.tokenizer to the teacher's"


class DistillationLoss:
    """`(1 - alpha) x cross-entropy + alpha x T^2 x KL(teacher || student)` at temperature T, summed over the targets.

    T^2 keeps the teacher's gradients as large as the data's, whatever T is.
    """

    def __init__(self, teacher: PreTrainedModel, *, temperature: float, alpha: float):
        """The teacher stays where it is, is frozen, and no longer drops anything out."""
        self.model = teacher.eval().requires_grad_(False)
        self._temperature, self._alpha = temperature, alpha

    def loss_sum(self, task: Task, batch: Batch, predictions: list[Prediction]) -> Tensor:
        """Nats, a scalar in fp32 that has the student's gradients.

        Args:
            task: what both learnt; its `predictions` gives the teacher's view of the batch.
            batch: of any device.
            predictions: the student's, of the same batch: logits [m, classes], targets [m].

        Under the caller's autocast the teacher computes as the student does.
        """
        moved = {name: tensor.to(self.model.device, non_blocking=True) for name, tensor in batch.items()}
        with torch.no_grad():
            taught = task.predictions(self.model, moved)
        parts = [
            self._one(student, teacher, targets)
            for (student, targets), (teacher, _) in zip(predictions, taught, strict=True)
        ]
        return torch.stack(parts).sum()

    def _one(self, student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
        wanted = targets != IGNORE
        student, teacher, targets = student[wanted].float(), teacher[wanted].float(), targets[wanted]
        from_data = F.cross_entropy(student, targets, reduction="sum")
        classes = min(student.shape[-1], teacher.shape[-1])  # models may have room for more tokens than there are
        ours, theirs = (F.log_softmax(logits[:, :classes] / self._temperature, dim=-1) for logits in (student, teacher))
        from_teacher = F.kl_div(ours, theirs, reduction="sum", log_target=True)
        return (1 - self._alpha) * from_data + self._alpha * self._temperature**2 * from_teacher


def load_teacher(
    section: DistillationSection, spec: DataSpec, device: torch.device, *,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> DistillationLoss | None:  # fmt: skip
    """The teacher that the config names (a local folder or a Hugging Face id), on `device`; None if there is none.

    `tokenizer` is the student's; where it is given and the teacher's folder has one, they are compared token for token.
    Raises ConfigError if the teacher cannot be loaded or predicts something else than the student.
    """
    source = section.teacher
    if not section.enabled or source is None:
        return None
    try:
        teacher = build_model(ModelSection(source=source), spec, seed=0)
    except ConfigError as error:
        raise ConfigError(error.message, field=FIELD, hint=error.hint, details=error.details) from error
    published = AutoConfig.from_pretrained(source, local_files_only=Path(source).is_dir(), trust_remote_code=False)
    check_teacher(published, type(teacher).__name__, spec, source=source, tokenizer=tokenizer)
    return DistillationLoss(teacher.to(device), temperature=section.temperature, alpha=section.alpha)


def check_teacher(
    config: PretrainedConfig, kind: str, spec: DataSpec, *, source: str,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> None:  # fmt: skip
    """Raises ConfigError, with the reason, if a teacher does not predict what a student of this data does.

    Args:
        config: as the teacher was published: loading it for the data has changed its classes.
        kind: the class that it was loaded as; a head of another class would be made up, and teach nothing.
        source: where it comes from.
        tokenizer: the student's.
    """
    saved_as = config.architectures or [kind]
    if kind not in saved_as and not any(name.endswith("ForPreTraining") for name in saved_as):
        raise ConfigError(
            f"{source} is a {saved_as[0]}, which was never trained for {spec.task}", field=FIELD,
            hint=f"name a teacher that was trained as a {kind}",
        )  # fmt: skip
    names = tuple(str(config.id2label[number]) for number in sorted(config.id2label))
    if spec.labels and names != spec.labels:
        raise ConfigError(
            f"{source} tells {', '.join(names)} apart, the data has {', '.join(spec.labels)}", field=FIELD,
            hint="name a teacher that was trained on the same classes, in the same order",
        )  # fmt: skip
    file = Path(source) / _TOKENIZER_FILE
    if tokenizer is not None and file.is_file():
        _check_tokens(file, tokenizer)
    elif (size := config.get_text_config().vocab_size) != spec.vocab_size:
        raise ConfigError(
            f"{source} knows {size} tokens, the student {spec.vocab_size}: what one predicts means nothing to the "
            "other", field=FIELD, hint=_SAME_TOKENIZER,
        )  # fmt: skip


def _check_tokens(file: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Compare two vocabularies by what each id stands for. Raises ConfigError at the first that differs."""
    theirs, ours = (
        {number: token for token, number in vocabulary.items()}
        for vocabulary in (Tokenizer.from_file(str(file)).get_vocab(), tokenizer.get_vocab())
    )
    differing = sorted(number for number in theirs.keys() | ours.keys() if theirs.get(number) != ours.get(number))
    if differing:
        first = differing[0]
        raise ConfigError(
            f"token {first} is {theirs.get(first)!r} to the teacher and {ours.get(first)!r} to the student "
            f"({len(differing)} tokens differ)", field=FIELD, hint=_SAME_TOKENIZER,
        )  # fmt: skip
