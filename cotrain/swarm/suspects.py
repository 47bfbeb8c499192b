"""Members that have failed in a round, and why: nobody waits for them any more."""

from __future__ import annotations

NO_ANSWER = "did not answer in the agreement"


class Suspects(set[str]):
    """Peer ids; each with the first reason, where the reduction had one."""

    def __init__(self) -> None:
        super().__init__()
        self._reasons: dict[str, str] = {}

    def blame(self, member: str, why: str) -> None:
        """Suspect a member. `why` goes on from its name."""
        self.add(member)
        self._reasons.setdefault(member, why)

    def reasons(self) -> dict[str, str]:
        """Why each is suspected, in the order of the ids."""
        return {member: self._reasons.get(member, NO_ANSWER) for member in sorted(self)}
