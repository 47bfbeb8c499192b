"""Parts that are missing are fetched from who holds them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from hivemind.utils import get_logger

from cotrain.errors import SwarmError
from cotrain.swarm.links import Links
from cotrain.swarm.parts import Manifest, PartLedger, digest_of

logger = get_logger(__name__)


class NoDecision(SwarmError):
    """Too few members answered: nothing is applied, local work is kept, the next round tries again."""

    def __init__(self, reducers: int):
        super().__init__(
            f"the {reducers} reducers of the group could not agree",
            hint="local work is kept and the round is tried again",
        )


async def fetch_missing(
    ledger: PartLedger, manifest: Manifest, holders: Iterable[str], links: Links, suspects: Collection[str],
    believes: Callable[[int, bytes], bool] = lambda index, encoded: True,
) -> None:  # fmt: skip
    """Fetch the parts of `manifest` that the ledger lacks from these peers, suspects last.

    `believes`: whether the bytes of a part may be held; what is decided is held whatever it is. Raises SwarmError if
    some parts are nowhere to be had.
    """
    for peer in sorted(dict.fromkeys(holders), key=suspects.__contains__):
        wanted = ledger.missing(manifest)
        if not wanted:
            return
        try:
            async for index, encoded in links.fetch(peer, wanted):
                if index in wanted and digest_of(encoded) == manifest[index] and believes(index, encoded):
                    ledger.replace(index, encoded)
        except Exception as error:
            logger.info(f"could not fetch parts from {peer}: {error!r}")
    if missing := ledger.missing(manifest):
        raise SwarmError(f"{len(missing)} decided parts could not be had from any member")
