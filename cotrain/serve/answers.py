"""An engine's pieces as an answer in OpenAI's form, in one piece or as a stream."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator

from cotrain.chat_protocol import (
    DONE,
    Answer,
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    Choice,
    ChunkChoice,
    Delta,
    Usage,
    error_of,
)
from cotrain.errors import CotrainError
from cotrain.serve.answer_text import AnswerText
from cotrain.serve.engine import Engine, Job, Piece
from cotrain.serve.loading import LoadedModel
from cotrain.serve.prompts import Prompt, prompt_of
from cotrain.serve.sampling import Sampling
from cotrain.status import now


class RunningAnswer:
    """An answer that the engine works on, for an event loop.

    Raises what `prompt_of` and `Engine.submit` raise.
    """

    def __init__(self, request: ChatRequest, loaded: LoadedModel, engine: Engine, *, name: str):
        self._prompt = prompt_of(request, loaded)
        self._pieces: asyncio.Queue[Piece] = asyncio.Queue()
        self._wants_usage = request.wants_usage
        # whoever has the id of an exchange can rate and delete it
        self._facts = {"id": f"chatcmpl-{secrets.token_urlsafe(24)}", "created": int(now()), "model": name}
        self._job = _job_of(request, self._prompt, loaded)
        loop = asyncio.get_running_loop()
        self._job.deliver = lambda piece: _hand_over(loop, self._pieces, piece)
        engine.submit(self._job)

    def cancel(self) -> None:
        """Nobody waits for it any more; its place is free at the next step."""
        self._job.cancelled.set()

    async def whole(self) -> ChatCompletion:
        """All of it. Raises CotrainError if it fails."""
        texts: list[str] = []
        async for piece in self._until_finished():
            texts.append(piece.text)
        assert piece.finish is not None
        choice = Choice(message=Answer(content="".join(texts)), finish_reason=piece.finish)
        return ChatCompletion(**self._facts, choices=[choice], usage=self._usage(piece))

    async def events(self) -> AsyncIterator[bytes]:
        """Server-sent events; one that fails in the middle ends with an error event."""
        yield self._chunk(Delta(role="assistant", content=""))
        try:
            async for piece in self._until_finished():
                if piece.text:
                    yield self._chunk(Delta(content=piece.text))
                if piece.finish is not None:
                    yield self._chunk(Delta(), finish=piece.finish)
                    if self._wants_usage:
                        yield ChatChunk(**self._facts, choices=[], usage=self._usage(piece)).event()
        except CotrainError as error:
            yield b"data: " + error_of(error).model_dump_json().encode() + b"\n\n"
            return
        yield DONE

    async def _until_finished(self) -> AsyncIterator[Piece]:
        while True:
            piece = await self._pieces.get()
            if piece.error is not None:
                raise piece.error
            yield piece
            if piece.finish is not None:
                return

    def _chunk(self, delta: Delta, *, finish: str | None = None) -> bytes:
        return ChatChunk(**self._facts, choices=[ChunkChoice(delta=delta, finish_reason=finish)]).event()

    def _usage(self, last: Piece) -> Usage:
        read = len(self._prompt.tokens)
        return Usage(prompt_tokens=read, completion_tokens=last.tokens, total_tokens=read + last.tokens)


def _job_of(request: ChatRequest, prompt: Prompt, loaded: LoadedModel) -> Job:
    """The same as the engine takes it, still without somebody to deliver to."""
    text = AnswerText(
        lambda tokens: str(loaded.tokenizer.decode(list(tokens), skip_special_tokens=True)),
        (*request.stops, *prompt.stops), strip_start=prompt.strip_start,
    )  # fmt: skip
    sampling = Sampling(
        temperature=1.0 if request.temperature is None else request.temperature,
        top_p=1.0 if request.top_p is None else request.top_p, seed=request.seed,
    )  # fmt: skip
    return Job(prompt.tokens, prompt.most_tokens, sampling, text, deliver=_nobody)


def _nobody(_piece: Piece) -> None:
    raise AssertionError("a job was submitted without somebody to deliver to")


def _hand_over(loop: asyncio.AbstractEventLoop, pieces: asyncio.Queue[Piece], piece: Piece) -> None:
    """From the engine's thread; an event loop that has ended has nobody who waits."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(pieces.put_nowait, piece)
