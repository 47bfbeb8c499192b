"""/api/v1/sessions/{id}/record: what of a session stands on a chain, and the proofs of who gave how much."""

from __future__ import annotations

from aiohttp import web

from coordinator.api.operations import Answer, operation
from coordinator.api.shared import shared
from coordinator.chain.records import RecordView, ShareProofView, SharesView
from coordinator.context import COORDINATOR

routes = web.RouteTableDef()


@routes.get("/api/v1/sessions/{id}/record")
@operation("records", answers={200: Answer("found", RecordView)})
@shared
async def get_record(request: web.Request) -> RecordView:
    """What is recorded of a session, and how far that is; `off` where nothing is. Outlives the session."""
    return await request.app[COORDINATOR].records.record(request.match_info["id"])


@routes.get("/api/v1/sessions/{id}/record/shares")
@operation("records", answers={200: Answer("all of them", SharesView)})
@shared
async def list_shares(request: web.Request) -> SharesView:
    """The samples of each wallet, once the session has ended: the recorded root is made of these, all on one page."""
    return await request.app[COORDINATOR].records.shares(request.match_info["id"])


@routes.get("/api/v1/sessions/{id}/record/shares/{account}")
@operation("records", answers={200: Answer("found", ShareProofView)})
@shared
async def get_share(request: web.Request) -> ShareProofView:
    """The samples of one wallet, with the Merkle proof that they are under the recorded root."""
    return await request.app[COORDINATOR].records.share(request.match_info["id"], request.match_info["account"])
