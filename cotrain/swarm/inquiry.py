"""A contributor's side of an agreement: nobody can call it, so it asks what is decided and fetches the parts."""

from __future__ import annotations

from hivemind.utils import get_logger

from cotrain.errors import SwarmError
from cotrain.swarm.links import Answer, Links, Vote
from cotrain.swarm.parts import Manifest, PartLedger
from cotrain.swarm.repair import NoDecision, fetch_missing
from cotrain.swarm.votes import Decision, Electorate

logger = get_logger(__name__)

MIN_QUESTIONS = 4
"""However few the reducers: one answers when it has decided, or after four fifths of a vote's timeout."""


class Inquiry:
    """A contributor's side: it asks the reducers for their decision, and fetches the parts that it lacks."""

    def __init__(
        self, *, electorate: Electorate, ledger: PartLedger, links: Links, suspects: set[str], first: int
    ) -> None:
        """`first`: the number of the reducer that is asked first, so that contributors do not all ask the same."""
        self._electorate, self._ledger, self._links, self._suspects = electorate, ledger, links, suspects
        self._first = first
        self.decision: Decision | None = None

    async def decide(self) -> Manifest:
        """The decided manifest, all its bytes in the ledger. Raises NoDecision."""
        voters = self._electorate.voters
        for attempt in range(max(MIN_QUESTIONS, 2 * len(voters))):
            await self._ask(voters[(self._first + attempt) % len(voters)])
            if self.decision is not None:
                manifest = tuple(self.decision.manifest)
                await fetch_missing(self._ledger, manifest, voters, self._links, self._suspects)
                return manifest
        raise NoDecision(len(voters))

    async def handle(self, caller: str, vote: Vote) -> Answer:
        """Nobody can call a contributor; who does so all the same is refused."""
        raise SwarmError("a contributor takes no votes", field=caller)

    async def _ask(self, reducer: str) -> None:
        try:
            answer = await self._links.call(reducer, Vote(group=self._electorate.group, op="ask"))
            if answer.decision is None:
                return
            if len(answer.decision.manifest) != len(self._ledger.parts):
                raise SwarmError(f"a decision about {len(answer.decision.manifest)} parts", field=reducer)
            self._electorate.check_decision(answer.decision)
            self.decision = answer.decision
        except Exception as error:
            logger.info(f"{reducer} could not say what is decided: {error!r}")
            self._suspects.add(reducer)
