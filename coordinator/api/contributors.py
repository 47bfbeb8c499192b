"""/api/v1/contributors: who gave how much, over all sessions or to one."""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from pydantic import Field, TypeAdapter
from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncSession

from coordinator.api.operations import CURSOR, LIMIT, Answer, operation
from coordinator.api.requests import SESSION_PARAMETER, encode_cursor, page_limit, read_cursor, session_parameter
from coordinator.api.shared import shared_by_reader
from coordinator.auth.permissions import Caller
from coordinator.context import COORDINATOR
from coordinator.contributors import ContributorTotals, most_first
from coordinator.invitations import visible_to
from coordinator.models import SessionRow
from coordinator.sessions import no_such_session
from coordinator.views import Page
from cotrain.sections import Count

routes = web.RouteTableDef()

_POSITION: TypeAdapter[tuple[int, str]] = TypeAdapter(tuple[Count, Annotated[str, Field(max_length=128)]])


@routes.get("/api/v1/contributors")
@operation(
    "participants", answers={200: Answer("a page", Page[ContributorTotals])}, errors=(404,),
    parameters=(SESSION_PARAMETER, LIMIT, CURSOR),
)  # fmt: skip
@shared_by_reader
async def list_contributors(request: web.Request, reader: Caller) -> Page[ContributorTotals]:
    """The wallets that gave something to the sessions that the caller may see, or to one, the most first."""
    after, limit, session = read_cursor(request, _POSITION), page_limit(request), session_parameter(request)
    seen = visible_to(reader.account, operator=reader.operator)
    async with request.app[COORDINATOR].store.read() as rows:
        if session is not None:
            seen &= SessionRow.id == session
            await _require(rows, seen)
        items, following = await most_first(rows, after, limit, seen)
    return Page[ContributorTotals](items=items, next_cursor=encode_cursor(following))


async def _require(rows: AsyncSession, which: ColumnElement[bool]) -> None:
    """Raises NotFoundError where that is no session."""
    if await rows.scalar(select(SessionRow.id).where(which)) is None:
        raise no_such_session()
