"""One thread that answers: conversations that come while others are under way join them at the next step."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from cotrain.chat_protocol import BusyError, ChatUnavailableError, FinishReason
from cotrain.errors import CotrainError
from cotrain.serve.answer_text import AnswerText
from cotrain.serve.batch import Batch
from cotrain.serve.loading import LoadedModel
from cotrain.serve.sampling import Sampling, choose_token, generator_for

_logger = logging.getLogger(__name__)

_CLOSE_LIMIT_S = 10.0


@dataclass(frozen=True)
class Piece:
    """What has come of an answer."""

    text: str
    tokens: int
    """Of the whole answer, up to here; the one by which the model ends it is not counted."""
    finish: FinishReason | None = None
    """Of the last piece."""
    error: CotrainError | None = None
    """Why there will be no more; then it is the last piece, too."""


@dataclass(eq=False)
class Job:
    """An answer that is wanted.

    Attributes:
        prompt: token ids, at least one.
        most_tokens: of the answer.
        deliver: is given the pieces, in the engine's thread; it must not wait.
    """

    prompt: Sequence[int]
    most_tokens: int
    sampling: Sampling
    text: AnswerText
    deliver: Callable[[Piece], None]
    cancelled: threading.Event = field(default_factory=threading.Event)
    """To be set by whoever wants no more of it."""


class _Row:
    """A job under way."""

    def __init__(self, job: Job):
        self.job = job
        self.generator = generator_for(job.sampling)
        self.token = 0
        """Chosen last, and not yet read by the model."""
        self.tokens = 0


class Engine:
    """Answers jobs with one model.

    Args:
        running: conversations under way at a time; a model that cannot take several together has one.
        waiting: that may wait besides.
    """

    def __init__(self, loaded: LoadedModel, *, running: int, waiting: int):
        self._loaded = loaded
        self._most_running = running if loaded.batches else 1
        self._most = self._most_running + waiting
        self._batch = Batch(loaded)
        self._rows: list[_Row] = []
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self.steps = 0
        """Passes of the model over all rows at once."""
        self.most_rows = 0
        """That have taken a step together so far."""
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def under_way(self) -> int:
        """Jobs that are running or wait."""
        return len(self._rows) + len(self._waiting)

    def submit(self, job: Job) -> None:
        """Take on a job. Raises BusyError if there are as many as there may be."""
        with self._changed:
            if self._closing:
                raise ChatUnavailableError("the chat service is ending", hint="try again in a moment")
            if self.under_way >= self._most:
                raise BusyError(f"{self._most} chats are under way, no more are taken", hint="try again in a moment")
            self._waiting.append(job)
            self._changed.notify()

    def close(self) -> None:
        """End the thread; jobs that are not done hear of it."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(_CLOSE_LIMIT_S)

    def _run(self) -> None:
        while self._wait_for_work():
            try:
                self._round()
            except Exception as error:  # memory that ran out, for one: the next jobs may be shorter
                _logger.exception("a step of the model failed")
                self._fail_rows(ChatUnavailableError(
                    f"the model failed: {type(error).__name__}", hint="try a shorter conversation"
                ))  # fmt: skip
        ending = ChatUnavailableError("the chat service is ending", hint="try again in a moment")
        self._fail_rows(ending)
        for job in self._waiting:
            job.deliver(Piece("", 0, error=ending))

    def _wait_for_work(self) -> bool:
        """False once it is to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._waiting or self._rows)
            return not self._closing

    def _round(self) -> None:
        """Let go of whom nobody waits for, admit whom there is room for, and take one step with all."""
        self._keep([not row.job.cancelled.is_set() for row in self._rows])
        while len(self._rows) < self._most_running and (job := self._next_waiting()) is not None:
            self._admit(job)
        if self._rows:
            self._step()

    def _next_waiting(self) -> Job | None:
        with self._changed:
            while self._waiting:
                job = self._waiting[0]
                if not job.cancelled.is_set():
                    # a row before it is no waiting job any more: it is counted once at any moment
                    self._rows.append(_Row(job))
                    self._waiting.popleft()
                    return job
                self._waiting.popleft()
        return None

    def _admit(self, job: Job) -> None:
        row = self._rows[-1]
        assert row.job is job
        self._tell([(row, self._take(row, self._batch.add(job.prompt)))])

    def _step(self) -> None:
        logits = self._batch.step([row.token for row in self._rows])
        self.steps += 1
        self.most_rows = max(self.most_rows, len(self._rows))
        self._tell([(row, self._take(row, of_row)) for row, of_row in zip(self._rows, logits, strict=True)])

    def _take(self, row: _Row, logits: torch.Tensor) -> Piece | None:
        """Choose a row's next token; what it completes, None for nothing yet."""
        job = row.job
        known = len(self._loaded.tokenizer)  # a model may have room for tokens that nobody has
        row.token = choose_token(logits[:known], job.sampling, row.generator)
        if row.token in self._loaded.end_ids:
            return Piece(job.text.finish(), row.tokens, finish="stop")
        row.tokens += 1
        told = job.text.push(row.token)
        if job.text.stopped:
            return Piece(told, row.tokens, finish="stop")
        if row.tokens >= job.most_tokens:
            told += job.text.finish()
            return Piece(told, row.tokens, finish="stop" if job.text.stopped else "length")
        return Piece(told, row.tokens) if told else None

    def _tell(self, pieces: Sequence[tuple[_Row, Piece | None]]) -> None:
        """Deliver; first the places of those that are done come free, so that they can ask again at once."""
        done = {row for row, piece in pieces if piece is not None and piece.finish is not None}
        self._keep([row not in done for row in self._rows])
        for row, piece in pieces:
            if piece is not None:
                row.job.deliver(piece)

    def _keep(self, staying: Sequence[bool]) -> None:
        rows = [number for number, stays in enumerate(staying) if stays]
        if len(rows) < len(staying):
            self._batch.keep(rows)
            self._rows = [self._rows[row] for row in rows]

    def _fail_rows(self, error: CotrainError) -> None:
        rows, self._rows, self._batch = self._rows, [], Batch(self._loaded)
        for row in rows:
            row.job.deliver(Piece("", row.tokens, error=error))
