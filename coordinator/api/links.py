"""/api/v1/links: a node without a wallet is let in by one in a browser elsewhere (after RFC 8628)."""

from __future__ import annotations

from functools import partial

from aiohttp import web

from coordinator.api.callers import caller_address
from coordinator.api.operations import NO_CONTENT, Answer, operation
from coordinator.api.requests import check_version, json_answer, parse_model, private, read_body
from coordinator.auth.links import LIFETIME_S, Signed, shown_code
from coordinator.context import COORDINATOR
from coordinator.views import iso_time
from cotrain.identity.account import Account
from cotrain.membership.bond import check_terms
from cotrain.protocol import (
    LinkAnswer,
    LinkCode,
    LinkPoll,
    LinkRequest,
    LinkSignature,
    LinkState,
    LinkStatement,
    LinkStatementRequest,
    LinkView,
)
from cotrain.status import now

routes = web.RouteTableDef()

PAGE = "/link"


@routes.post("/api/v1/links")
@operation("links", body=LinkRequest, answers={201: Answer("two codes", LinkAnswer)}, errors=(404, 409, 426, 429, 503))
async def start(request: web.Request) -> web.Response:
    """201 with a secret code for the node and a short one for its person, who signs with it on the page `/link`.

    A private session needs an invitation here, its owner's own node as well, unless the peer has joined before.
    """
    body = await read_body(request)
    check_version(body)
    wanted = parse_model(body, LinkRequest)
    coordinator = request.app[COORDINATOR]
    coordinator.limits.link(caller_address(request))
    public_url = coordinator.settings.public_url
    check_terms(wanted.terms, coordinator=public_url, now=now(), place="terms")
    brought = (wanted.invitation,) if wanted.invitation else ()
    is_seen = await coordinator.invitations.may_see(wanted.session, None, operator=False, tokens=brought)
    name = await coordinator.participants.expected(wanted.session, wanted.peer_id, is_seen=is_seen)
    device_code, link = coordinator.links.start(wanted, name)
    shown = shown_code(link.user_code)
    answer = LinkAnswer(
        device_code=device_code, user_code=shown, verification_uri=f"{public_url}{PAGE}",
        verification_uri_complete=f"{public_url}{PAGE}#{shown}", expires_in_s=LIFETIME_S, interval_s=link.interval_s,
    )  # fmt: skip
    return private(json_answer(answer, status=201))


@routes.post("/api/v1/links/poll")
@operation("links", body=LinkPoll, answers={200: Answer("as it is now", LinkState)}, errors=(404, 429))
async def poll(request: web.Request) -> web.Response:
    """Whether a wallet has signed: for the node, at most once in `intervalS`; 403 once it is certain that none will."""
    asked = parse_model(await read_body(request), LinkPoll)
    signed = request.app[COORDINATOR].links.poll(asked.device_code)
    if signed is None:
        return private(json_answer(LinkState(state="pending")))
    account, signature = str(signed.account), signed.signature
    return private(
        json_answer(LinkState(state="signed", account=account, signature=signature, public_key=signed.public_key))
    )


@routes.post("/api/v1/links/look")
@operation("links", body=LinkCode, answers={200: Answer("what would be signed", LinkView)}, errors=(404, 429))
async def look(request: web.Request) -> web.Response:
    """What the node with this short code wants to have signed."""
    typed = parse_model(await read_body(request), LinkCode)
    coordinator = request.app[COORDINATOR]
    coordinator.limits.link_code(caller_address(request))
    link = coordinator.links.find(typed.user_code)
    wanted = link.wanted
    return private(
        json_answer(
            LinkView(
                user_code=shown_code(link.user_code), session=wanted.session, session_name=link.session_name,
                peer_id=wanted.peer_id, name=wanted.name, coordinator=wanted.terms.coordinator,
                statement_expires_at=iso_time(float(wanted.terms.expires_at)),
            )
        )
    )  # fmt: skip


@routes.post("/api/v1/links/statement")
@operation("links", body=LinkStatementRequest, answers={200: Answer("to be signed", LinkStatement)}, errors=(404, 429))
async def statement(request: web.Request) -> web.Response:
    """The text that this account's wallet is to sign."""
    chosen = parse_model(await read_body(request), LinkStatementRequest)
    coordinator = request.app[COORDINATOR]
    coordinator.limits.link_code(caller_address(request))
    link = coordinator.links.find(chosen.user_code)
    text = coordinator.links.statement(link, Account.of(chosen.chain, chosen.address))
    return private(json_answer(LinkStatement(message=text)))


@routes.post("/api/v1/links/sign")
@operation("links", body=LinkSignature, answers=NO_CONTENT, errors=(401, 404, 429))
async def sign(request: web.Request) -> web.Response:
    """204: the node takes part as this account. It is given the signature, and nothing that acts for the account."""
    answered = parse_model(await read_body(request), LinkSignature)
    coordinator, address = request.app[COORDINATOR], caller_address(request)
    coordinator.limits.link_code(address)
    coordinator.limits.login(address)
    link = coordinator.links.find(answered.user_code)
    account = Account.of(answered.chain, answered.address)
    signed = Signed(account, answered.signature, answered.public_key)
    await coordinator.links.verify(link, signed)
    await coordinator.sign_ins.note(account, on_new_account=partial(coordinator.limits.new_account, address))
    coordinator.links.accept(link, signed)
    return web.Response(status=204)


@routes.post("/api/v1/links/decline")
@operation("links", body=LinkCode, answers=NO_CONTENT, errors=(404, 429))
async def decline(request: web.Request) -> web.Response:
    """204: nobody signs for the node with this short code; it is told so."""
    typed = parse_model(await read_body(request), LinkCode)
    coordinator = request.app[COORDINATOR]
    coordinator.limits.link_code(caller_address(request))
    coordinator.links.decline(typed.user_code)
    return web.Response(status=204)
