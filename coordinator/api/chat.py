"""/v1: chats with the models of the registry, in OpenAI's form, and what is kept of them for learning."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import aiohttp
from aiohttp import hdrs, web
from pydantic import Field, TypeAdapter

from coordinator.api.callers import caller_address, caller_of
from coordinator.api.operations import CURSOR, LIMIT, NO_CONTENT, Answer, Parameter, operation
from coordinator.api.requests import encode_cursor, json_answer, page_limit, parse_model, read_body, read_cursor
from coordinator.api.seen import versions_seen
from coordinator.auth.permissions import VISITOR, Caller, require
from coordinator.auth.tokens import given_token
from coordinator.chat_log import Consent, Exchange, LoggedChat, Rating
from coordinator.chat_models import ServedVersion
from coordinator.chat_relay import RelayedAnswer, outcome_of, question_of, relayed
from coordinator.context import COORDINATOR, Coordinator
from coordinator.views import Page, iso_time
from cotrain.chat_protocol import (
    DONE,
    ChatCompletion,
    ChatRequest,
    ChatUnavailableError,
    ServedModel,
    ServedModels,
    error_of,
    parse_chat,
)
from cotrain.errors import CotrainError, NotFoundError
from cotrain.request import CamelModel
from cotrain.sections import LARGEST_INTEGER

routes = web.RouteTableDef()

_logger = logging.getLogger(__name__)

NOBODY = frozenset({"none", "-"})
"""What visitors give as their key, where a client wants one."""
_CONSENT_HEADER = "Cotrain-Consent"
_YES = "true"
_CONSENT = Parameter(
    _CONSENT_HEADER, {"type": "string"},
    "`true`: the last question and its answer may be kept, to learn from; as `consent` in the body", place="header",
)  # fmt: skip
_POSITION: TypeAdapter[int] = TypeAdapter(Annotated[int, Field(ge=0, le=LARGEST_INTEGER)])
_GONE_S = 0.5
"""How soon it is noticed that nobody waits for an answer any more."""
_SSE_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class Feedback(CamelModel):
    """What somebody thinks of an answer."""

    id: Annotated[str, Field(min_length=1, max_length=64)]
    """Of the answer."""
    rating: Rating
    """1: good, -1: bad, 0: taken back."""


class ChatView(CamelModel):
    """An exchange as it is kept: without personal data."""

    id: str
    question: str
    answer: str
    language: str
    model: str
    version: int
    rating: int
    created_at: str


class Deleted(CamelModel):
    """How many chats there were."""

    deleted: int


@routes.get("/v1/models")
@operation("chat", answers={200: Answer("all of them", ServedModels)}, errors=(401,))
async def list_models(request: web.Request) -> web.Response:
    """The models to chat with: each by its id, and each of its versions with a colon and its number behind it."""
    return json_answer(ServedModels(data=await _listed(request)))


@routes.get("/v1/models/{model}")
@operation("chat", answers={200: Answer("found", ServedModel)}, errors=(401,))
async def get_model(request: web.Request) -> web.Response:
    """One of them."""
    for model in await _listed(request):
        if model.id == request.match_info["model"]:
            return json_answer(model)
    raise NotFoundError("there is no such model to chat with", field="model", hint="GET /v1/models lists them")


@routes.post("/v1/chat/completions")
@operation(
    "chat", body=ChatRequest, parameters=(_CONSENT,), errors=(401, 404, 429, 503),
    answers={200: Answer("the answer; with `stream`, piece by piece", ChatCompletion, media="text/event-stream")},
)  # fmt: skip
async def complete(request: web.Request) -> web.StreamResponse:
    """Go on with a conversation. Nothing of it is kept without consent.

    A token is not needed for a public model; a client that wants a key is given `none`.
    """
    metrics = request.app[COORDINATOR].metrics
    try:
        return await _complete(request)
    except CotrainError as error:
        metrics.chat_ended(outcome_of(error.http_status))
        raise
    except (ConnectionError, asyncio.CancelledError):
        metrics.chat_ended("abandoned")
        raise


async def _complete(request: web.Request) -> web.StreamResponse:
    coordinator = request.app[COORDINATOR]
    caller = await _caller(request)
    wanted = parse_chat(await read_body(request))
    _check_enabled(coordinator)
    candidates = await coordinator.chat_models.resolve(wanted.model, await versions_seen(request))
    coordinator.limits.chat(caller_address(request), caller.account)
    chat = _Chat(request, caller, wanted)
    return await (chat.stream(candidates) if wanted.stream else chat.whole(candidates))


@routes.post("/v1/feedback")
@operation("chat", body=Feedback, answers={200: Answer("noted", Feedback)}, errors=(401, 404, 429))
async def rate(request: web.Request) -> web.Response:
    """What somebody thinks of an answer that is kept. Whoever has its id can say so, and change it."""
    coordinator, caller = request.app[COORDINATOR], await _caller(request)
    coordinator.limits.chat(caller_address(request), caller.account)
    feedback = parse_model(await read_body(request), Feedback)
    if not await coordinator.chat_log.rate(feedback.id, feedback.rating):
        raise _not_kept()
    return json_answer(feedback)


@routes.get("/v1/chats")
@operation("chat", who="account", answers={200: Answer("a page", Page[ChatView])}, parameters=(LIMIT, CURSOR))
async def export(request: web.Request) -> web.Response:
    """What is kept of the account's chats, oldest first."""
    account = await _account(request)
    after, limit = read_cursor(request, _POSITION) or 0, page_limit(request)
    found, following = await request.app[COORDINATOR].chat_log.export(account, after, limit)
    return json_answer(Page[ChatView](items=list(map(_view, found)), next_cursor=encode_cursor(following)))


@routes.delete("/v1/chats")
@operation("chat", who="account", answers={200: Answer("all are gone", Deleted)})
async def delete_all(request: web.Request) -> web.Response:
    """Delete what is kept of the account's chats."""
    account = await _account(request)
    return json_answer(Deleted(deleted=await request.app[COORDINATOR].chat_log.delete(account)))


@routes.delete("/v1/chats/{chat}")
@operation("chat", answers=NO_CONTENT, errors=(401, 429))
async def delete_one(request: web.Request) -> web.Response:
    """Delete what is kept of one exchange; whoever has the answer's id can do so."""
    coordinator, caller = request.app[COORDINATOR], await _caller(request)
    coordinator.limits.chat(caller_address(request), caller.account)
    if not await coordinator.chat_log.remove(request.match_info["chat"]):
        raise _not_kept()
    return web.Response(status=204)


class _Chat:
    """One request, from the process that answers it to the client, and into the log."""

    def __init__(self, request: web.Request, caller: Caller, wanted: ChatRequest):
        self._request, self._caller, self._wanted = request, caller, wanted
        self._coordinator = request.app[COORDINATOR]
        self._answer = RelayedAnswer(wanted)

    async def whole(self, candidates: list[ServedVersion]) -> web.Response:
        """In one piece; nobody computes on for a client that has gone."""
        task = asyncio.create_task(self._fetch(candidates))
        try:
            while not (await asyncio.wait({task}, timeout=_GONE_S))[0]:
                if self._request.transport is None or self._request.transport.is_closing():
                    raise ConnectionResetError("the client has gone")
            return task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def stream(self, candidates: list[ServedVersion]) -> web.StreamResponse:
        """Piece by piece, each at once."""
        async with self._asking(candidates) as (version, answered):
            if answered.status != web.HTTPOk.status_code:
                return await self._passed_on(answered)
            response = web.StreamResponse(headers=_SSE_HEADERS)
            await response.prepare(self._request)
            try:
                async for line in answered.content:
                    if event := self._answer.take_line(line):
                        await response.write(event)
            except aiohttp.ClientError as error:
                _logger.warning("an answer of %s broke off: %s", version.name, type(error).__name__)
            await self._ended(version)
            await response.write(DONE if self._answer.whole else _as_event(_broken_off()))
            await response.write_eof()
            return response

    async def _fetch(self, candidates: list[ServedVersion]) -> web.Response:
        async with self._asking(candidates) as (version, answered):
            if answered.status != web.HTTPOk.status_code:
                return await self._passed_on(answered)
            try:
                body = await answered.read()
            except aiohttp.ClientError as error:
                raise _broken_off() from error
            self._answer.take_completion(body)
            await self._ended(version)
            return web.Response(body=body, content_type="application/json")

    @asynccontextmanager
    async def _asking(
        self, candidates: list[ServedVersion]
    ) -> AsyncIterator[tuple[ServedVersion, aiohttp.ClientResponse]]:
        async with self._coordinator.chat.asking(candidates, relayed(self._wanted)) as found:
            yield found

    async def _passed_on(self, answered: aiohttp.ClientResponse) -> web.Response:
        """What the process refuses, in its words, which are of the same form."""
        self._coordinator.metrics.chat_ended(outcome_of(answered.status))
        headers = {name: answered.headers[name] for name in (hdrs.RETRY_AFTER,) if name in answered.headers}
        return web.Response(
            body=await answered.read(), status=answered.status, content_type="application/json", headers=headers
        )

    async def _ended(self, version: ServedVersion) -> None:
        """Count it, and keep it where that is allowed: before the client hears of the end, so that it can rate it."""
        metrics, answer = self._coordinator.metrics, self._answer
        metrics.chat_ended("answered" if answer.whole else "failed")
        if answer.usage is not None:
            metrics.chat_tokens(answer.usage)
        question, consent = question_of(self._wanted), _consent(self._request, self._wanted)
        if consent is None or not answer.whole or not question.strip() or not answer.text.strip():
            return
        exchange = Exchange(
            question=question, answer=answer.text, consent=consent, id=answer.id, account=self._caller.account or "",
            model=version.model, version=version.version,
        )  # fmt: skip
        try:
            await self._coordinator.chat_log.add(exchange)
        except Exception:  # whoever asked has their answer all the same
            _logger.exception("a chat could not be kept")


async def _caller(request: web.Request) -> Caller:
    """Who asks. Raises as `caller_of`; what stands for no key is a visitor's."""
    if given_token(request.headers.get(hdrs.AUTHORIZATION)) in NOBODY:
        return VISITOR
    return await caller_of(request)


async def _account(request: web.Request) -> str:
    caller = await _caller(request)
    require("recall", caller)
    assert caller.account is not None
    return caller.account


async def _listed(request: web.Request) -> list[ServedModel]:
    await _caller(request)
    coordinator = request.app[COORDINATOR]
    if not coordinator.settings.config.chat.enabled:
        return []
    return await coordinator.chat_models.listed(await versions_seen(request))


def _check_enabled(coordinator: Coordinator) -> None:
    if not coordinator.settings.config.chat.enabled:
        raise NotFoundError(
            "this coordinator offers no chats", hint="its operator sets chat.enabled; cotrain serve does without it"
        )


def _consent(request: web.Request, wanted: ChatRequest) -> Consent | None:
    if wanted.consent:
        return "request"
    return "header" if request.headers.get(_CONSENT_HEADER, "").lower() == _YES else None


def _broken_off() -> ChatUnavailableError:
    return ChatUnavailableError("the answer broke off: the model's process has ended", hint="ask again")


def _as_event(error: CotrainError) -> bytes:
    return b"data: " + error_of(error).model_dump_json().encode() + b"\n\n"


def _not_kept() -> NotFoundError:
    return NotFoundError(
        "no such chat is kept", field="id", hint="only chats with consent are, and until they have been learnt from"
    )


def _view(chat: LoggedChat) -> ChatView:
    return ChatView(
        id=chat.id, question=chat.question, answer=chat.answer, language=chat.language, model=chat.model,
        version=chat.version, rating=chat.rating, created_at=iso_time(chat.created_at),
    )  # fmt: skip
