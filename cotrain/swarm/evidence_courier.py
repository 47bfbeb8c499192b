"""Brings what a peer has found to the checkpointer; what cannot be delivered is kept, bounded, for the next round."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hivemind.dht import DHT
from hivemind.utils import get_logger

from cotrain.swarm.dht import SwarmView
from cotrain.swarm.evidence import Evidence
from cotrain.swarm.evidence import Testimony as WitnessTestimony
from cotrain.swarm.evidence_service import Answer, submit_evidence
from cotrain.swarm.loop import LoopThread

logger = get_logger(__name__)

MOST_PROOFS = 4
"""That wait to be delivered: each may have some megabytes."""
MOST_TESTIMONIES = 16


class Outbox:
    """Evidence that waits to be delivered: one proof, or one testimony, against each peer; the oldest go. Pure."""

    def __init__(self) -> None:
        self._proofs: dict[str, Evidence] = {}
        self._testimonies: dict[str, Evidence] = {}

    def __len__(self) -> int:
        return len(self._proofs) + len(self._testimonies)

    def add(self, evidence: Evidence) -> None:
        """Keep it, unless as much is held against the accused already. A proof makes testimonies needless."""
        accused, is_testimony = evidence.accused, isinstance(evidence.body, WitnessTestimony)
        if accused in self._proofs or (is_testimony and accused in self._testimonies):
            return
        if is_testimony:
            _put(self._testimonies, evidence, MOST_TESTIMONIES)
        else:
            self._testimonies.pop(accused, None)
            _put(self._proofs, evidence, MOST_PROOFS)

    def waiting(self) -> list[Evidence]:
        """Proofs first, the oldest first."""
        return [*self._proofs.values(), *self._testimonies.values()]

    def settle(self, evidence: Evidence) -> None:
        """It needs no more delivery."""
        for held in (self._proofs, self._testimonies):
            if held.get(evidence.accused) is evidence:
                del held[evidence.accused]


def _put(held: dict[str, Evidence], evidence: Evidence, most: int) -> None:
    while len(held) >= most:
        del held[next(iter(held))]
    held[evidence.accused] = evidence


class EvidenceCourier:
    """A training peer's way to the checkpointer; nothing waits for it."""

    def __init__(
        self, dht: DHT, loop: LoopThread, session: str, *, view: Callable[[], SwarmView], tell: Callable[[str], None]
    ):
        """`tell`: what the volunteer should know; called in the loop's thread."""
        self._dht, self._loop, self._session, self._view, self._tell = dht, loop, session, view, tell
        self._outbox = Outbox()
        self._under_way = False

    def take(self, found: Iterable[Evidence]) -> None:
        """After each round: evidence that is new; what is left of before is tried again. Does not wait."""
        self._loop.start(self._deliver(list(found)))

    async def _deliver(self, found: list[Evidence]) -> None:
        for evidence in found:
            self._outbox.add(evidence)
        if self._under_way or not len(self._outbox):
            return
        observers = [peer for peer, record in self._view().peers.items() if record.role == "observe"]
        if not observers:
            logger.warning(f"{len(self._outbox)} pieces of evidence wait: no checkpointer is in view")
            return
        self._under_way = True
        try:
            p2p = await self._dht.replicate_p2p()
            for evidence in self._outbox.waiting():
                self._settle(evidence, await submit_evidence(p2p, observers[0], self._session, evidence))
        except Exception as error:
            logger.warning(f"{len(self._outbox)} pieces of evidence wait: {error}")
        finally:
            self._under_way = False

    def _settle(self, evidence: Evidence, answer: Answer) -> None:
        if answer.result == "later":
            logger.info(f"{evidence} waits: {answer.reason}")
            return
        self._outbox.settle(evidence)
        what = f"{answer.result}: {answer.reason}" if answer.reason else answer.result
        self._tell(f"{evidence} was brought to the checkpointer: {what}")
