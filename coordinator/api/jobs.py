"""/api/v1/jobs, and the requests that make them: saving a session, evaluating a model."""

from __future__ import annotations

from functools import partial

from aiohttp import web

from coordinator.api.callers import caller_of
from coordinator.api.operations import CURSOR, IDEMPOTENCY_KEY, LIMIT, Answer, operation
from coordinator.api.repeats import once
from coordinator.api.requests import (
    POSITION,
    SESSION_PARAMETER,
    encode_cursor,
    json_answer,
    page_limit,
    parse_model,
    read_body,
    read_cursor,
    session_parameter,
)
from coordinator.api.seen import versions_seen
from coordinator.api.sessions import require_of_session
from coordinator.auth.permissions import require
from coordinator.context import COORDINATOR
from coordinator.jobs import EvaluationRequest, JobView
from coordinator.views import Page

routes = web.RouteTableDef()

_ACCEPTED = {202: Answer("taken up", JobView, headers={"Location": "of the job"})}


@routes.post("/api/v1/sessions/{id}/save")
@operation("jobs", who="account", answers=_ACCEPTED, errors=(409,), parameters=(IDEMPOTENCY_KEY,))
async def save_session(request: web.Request) -> web.Response:
    """202 with a job: what the session has learnt so far becomes a version of its model, and the session goes on.

    By its owner. Asked twice in one round, it is one version. 409 unless the session is open to nodes.
    """
    account = await require_of_session(request, "steer")
    work = partial(request.app[COORDINATOR].jobs.save, request.match_info["id"], account)
    return _accepted(await once(request, account, JobView, work))


@routes.post("/api/v1/models/{model}/evaluate")
@operation(
    "jobs", who="account", body=EvaluationRequest, answers=_ACCEPTED, errors=(409,), parameters=(IDEMPOTENCY_KEY,)
)
async def evaluate_model(request: web.Request) -> web.Response:
    """202 with a job that evaluates a version, on the data that it was trained with or on a dataset of the catalog.

    On the part of the data that is held out of training. 409 if the version's files have been removed.
    """
    caller = await caller_of(request)
    require("evaluate", caller)
    wanted, account = parse_model(await read_body(request), EvaluationRequest), caller.account or ""
    ask, seen = request.app[COORDINATOR].evaluations.ask, await versions_seen(request)
    work = partial(ask, request.match_info["model"], wanted, account, seen)
    return _accepted(await once(request, account, JobView, work))


@routes.get("/api/v1/jobs")
@operation(
    "jobs", who="account", answers={200: Answer("a page", Page[JobView])}, errors=(403,),
    parameters=(SESSION_PARAMETER, LIMIT, CURSOR),
)  # fmt: skip
async def list_jobs(request: web.Request) -> web.Response:
    """The jobs that the caller has asked for, and those of its sessions, newest first."""
    caller = await caller_of(request)
    require("evaluate", caller)
    before, jobs = read_cursor(request, POSITION), request.app[COORDINATOR].jobs
    items, following = await jobs.newest_first(
        caller.account or "", session_parameter(request), before, page_limit(request)
    )
    return json_answer(Page[JobView](items=items, next_cursor=encode_cursor(following)))


@routes.get("/api/v1/jobs/{job}")
@operation("jobs", who="account", answers={200: Answer("found", JobView)}, errors=(403,))
async def get_job(request: web.Request) -> web.Response:
    """One of them: how far it is, and what has come of it."""
    caller = await caller_of(request)
    require("evaluate", caller)
    return json_answer(await request.app[COORDINATOR].jobs.get(request.match_info["job"], caller.account or ""))


def _accepted(view: JobView) -> web.Response:
    response = json_answer(view, status=202)
    response.headers["Location"] = f"/api/v1/jobs/{view.id}"
    return response
