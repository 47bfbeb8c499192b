"""Keeping an outer state up to date without having been in the round: by the round's average, or by a download.

The average of a round is an eighth of the state's size with the default codec, so whoever is one round behind fetches
that and takes the outer step itself; the digest must be the one that the swarm announces.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from hivemind.p2p import P2P
from hivemind.utils import get_logger

from cotrain.swarm.dht import SwarmView
from cotrain.swarm.results import FetchedRound, fetch_round
from cotrain.swarm.state import SharedState, download_state
from cotrain.train.codec import Codec
from cotrain.train.diloco import OuterOptimizer, OuterState

logger = get_logger(__name__)

ROUND_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Followed:
    """How the state was brought up to date last.

    Attributes:
        by: the round's `average`, or a `download` of the whole state.
        bytes_received: of what led to it.
        donor: who gave the average; empty for a download, which may have several.
        fetched: the round with its decision, which is unchecked; None for a download.
    """

    by: Literal["average", "download"]
    bytes_received: int
    donor: str = ""
    fetched: FetchedRound | None = None

    @property
    def zeroed_parts(self) -> int | None:
        """Of the average; None for a download."""
        return None if self.fetched is None else self.fetched.header.zeroed_parts


class StateFollower:
    """Brings a SharedState to what the swarm holds."""

    def __init__(
        self, *, session: str, shared: SharedState, optimizer: OuterOptimizer, codec: Codec,
        view: Callable[[], SwarmView], progress: Callable[[float], None] = lambda share: None,
    ):  # fmt: skip
        self._session, self._shared, self._optimizer, self._codec = session, shared, optimizer, codec
        self._view, self._progress = view, progress
        self.bytes_received = 0
        self.last: Followed | None = None

    async def catch_up(
        self, p2p: P2P, state: OuterState | None, *, timeout_s: float, needed: Callable[[], bool] = lambda: True
    ) -> tuple[OuterState, str]:
        """The swarm's newest state (published in the SharedState) and its digest. Raises SwarmError.

        `state` is what is held now, None before the first download; once it is not `needed` any more the download is
        given up, with a SwarmError.
        """
        if state is not None and (newer := await self._advance_one_round(p2p, state)) is not None:
            return newer
        at_least = 0 if state is None else state.round
        downloaded = await download_state(
            p2p, lambda: self._view().donors(at_least), self._session, self._shared.numel,
            timeout_s=timeout_s, progress=self._progress, needed=needed,
        )  # fmt: skip
        self.bytes_received += 8 * self._shared.numel
        self.last = Followed("download", 8 * self._shared.numel)
        digest = downloaded.digest()
        return self._shared.publish(downloaded, digest), digest

    async def _advance_one_round(self, p2p: P2P, state: OuterState) -> tuple[OuterState, str] | None:
        """The next state by the average of the round that closed, if the swarm is exactly one round ahead."""
        donors = self._view().donors(state.round + 1)
        if not donors or donors[0][1] != state.round + 1:
            return None
        expected = donors[0][2]
        average = torch.empty(sum(stop - start for start, stop in self._optimizer.due(state)))
        for peer, _, digest in donors:
            if digest != expected:
                continue
            try:
                found = await fetch_round(
                    p2p, peer, self._session, state.round, self._codec, average, timeout_s=ROUND_TIMEOUT_S
                )
            except Exception as error:
                logger.info(f"round {state.round} could not be fetched from {peer}: {error!r}")
                continue
            if found is None:
                continue
            size = self._codec.encoded_bytes(average.numel())
            self.bytes_received += size
            newer = self._optimizer.step(state, average, found.header.totals, out=self._shared.next_buffers())
            if newer.digest() == expected:
                self.last = Followed("average", size, peer, found)
                return self._shared.publish(newer, expected), expected
            logger.warning(f"the average of round {state.round} from {peer} does not lead to the announced digest")
        return None
