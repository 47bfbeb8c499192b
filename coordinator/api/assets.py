"""/api/v1/sessions/{id}/assets and join.sh: what a volunteer's machine fetches."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import BinaryIO

from aiohttp import hdrs, web

from coordinator.api.callers import caller_address, reader_of
from coordinator.api.operations import IF_NONE_MATCH, Answer, Parameter, operation
from coordinator.api.requests import is_known, json_answer
from coordinator.asset_rate import AssetRates
from coordinator.auth.addresses import client_key
from coordinator.auth.tokens import given_token
from coordinator.byte_ranges import ByteRange, requested_range
from coordinator.context import COORDINATOR
from coordinator.join_script import join_script
from coordinator.models import SessionRow
from coordinator.views import Page, session_url
from cotrain.errors import NotFoundError
from cotrain.protocol import Asset

routes = web.RouteTableDef()

_RANGE = Parameter("Range", {"type": "string"}, "the bytes that are wanted, one range (RFC 9110, 14)", place="header")
_IF_RANGE = Parameter(
    "If-Range", {"type": "string"}, "an ETag: the range is wanted of this file, else all of the one that there is",
    place="header",
)  # fmt: skip
_FILE = "application/octet-stream"
_YEAR_S = 365 * 86400


@routes.get("/api/v1/sessions/{id}/assets")
@operation("assets", answers={200: Answer("all of them", Page[Asset])})
async def list_assets(request: web.Request) -> web.Response:
    """The files that every node of the session needs."""
    row = await request.app[COORDINATOR].sessions.row(request.match_info["id"])
    return json_answer(Page[Asset](items=[Asset.model_validate(asset) for asset in row.assets]))


@routes.get("/api/v1/sessions/{id}/join.sh")
@operation("assets", answers={200: Answer("the script", media="text/x-shellscript")})
async def join_sh(request: web.Request) -> web.Response:
    """A shell script that installs cotrain on a volunteer's machine and joins the session: `curl -fsSL … | sh`."""
    coordinator = request.app[COORDINATOR]
    row = await coordinator.sessions.row(request.match_info["id"])
    settings = coordinator.settings
    script = join_script(
        url=session_url(row.id, settings.public_url), name=row.name or row.id, package=settings.config.join.package
    )
    return web.Response(text=script, content_type="text/x-shellscript", headers={"Cache-Control": "no-cache"})


@routes.get("/api/v1/sessions/{id}/assets/{sha256}")
@operation(
    "assets", parameters=(_RANGE, _IF_RANGE, IF_NONE_MATCH), errors=(416,),
    answers={
        200: Answer("the file", media=_FILE, headers={"ETag": "its SHA-256"}),
        206: Answer("the range of it that was asked for", media=_FILE, headers={"Content-Range": "which one"}),
        304: Answer("it is known"),
    },
)  # fmt: skip
async def get_asset(request: web.Request) -> web.StreamResponse:
    """One of those files, by content; ranges are served. How fast is limited for each participant, by its token."""
    row = await request.app[COORDINATOR].sessions.row(request.match_info["id"])
    asset = _find(row, request.match_info["sha256"])
    headers = {"ETag": f'"{asset.sha256}"', "Cache-Control": f"{row.visibility}, max-age={_YEAR_S}, immutable"}
    if is_known(request, asset.sha256):
        return web.Response(status=304, headers=headers)
    # an asset's name holds no separator, so the path stays in the folder
    file = await asyncio.to_thread(_open, Path(row.asset_folder) / asset.name)
    try:
        return await _serve(request, file, asset, headers)
    finally:
        file.close()


def _find(row: SessionRow, sha256: str) -> Asset:
    """Raises NotFoundError."""
    for asset in map(Asset.model_validate, row.assets):
        if asset.sha256 == sha256:
            return asset
    raise _no_such_file()


def _open(path: Path) -> BinaryIO:
    """Raises NotFoundError."""
    try:
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise _no_such_file() from None


def _no_such_file() -> NotFoundError:
    return NotFoundError("the session has no such file", field="sha256", hint="…/assets lists the files")


async def _serve(
    request: web.Request, file: BinaryIO, asset: Asset, headers: dict[str, str]
) -> web.StreamResponse:  # fmt: skip
    size_bytes = os.fstat(file.fileno()).st_size
    part = requested_range(
        request.headers.get(hdrs.RANGE), request.headers.get(hdrs.IF_RANGE), etag=headers["ETag"],
        size_bytes=size_bytes,
    )  # fmt: skip
    response = web.StreamResponse(status=206 if part else 200, headers=headers)
    response.content_type = _FILE
    response.headers["Accept-Ranges"] = "bytes"
    response.headers["Content-Disposition"] = f'attachment; filename="{asset.name}"'
    if part is None:
        part = ByteRange(0, size_bytes - 1)
    else:
        response.headers["Content-Range"] = f"bytes {part.first}-{part.last}/{size_bytes}"
    response.content_length = part.size_bytes
    receiver = await _receiver(request)
    await response.prepare(request)
    if request.method != hdrs.METH_HEAD:
        await _send(response, file, part, request.app[COORDINATOR].asset_rates, receiver)
    return response


async def _send(
    response: web.StreamResponse, file: BinaryIO, part: ByteRange, rates: AssetRates, receiver: str
) -> None:  # fmt: skip
    file.seek(part.first)
    left = part.size_bytes
    while left:
        size_bytes = min(left, rates.piece_bytes)
        if wait_s := rates.take(receiver, size_bytes):
            await asyncio.sleep(wait_s)
        piece = await asyncio.to_thread(file.read, size_bytes)
        if not piece:  # somebody has cut the file: the connection is closed before all that was announced
            raise ConnectionResetError("the file has become shorter while it was sent")
        await response.write(piece)
        left -= len(piece)
    await response.write_eof()


async def _receiver(request: web.Request) -> str:
    """Whose rate this download counts under: a token that stands for nobody buys no rate of its own."""
    coordinator = request.app[COORDINATOR]
    if token := given_token(request.headers.get(hdrs.AUTHORIZATION)):
        participant = await coordinator.participants.holder(request.match_info["id"], token)
        if participant is not None:
            return participant
    reader = await reader_of(request)
    return reader.account or client_key(caller_address(request))
