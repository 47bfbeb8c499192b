"""Evidence that the checkpointer has found to hold, as files in the session's folder: whoever doubts it can repeat it.

Loaded by the checkpointer's process only: reading evidence takes torch.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

from pydantic import ValidationError

from cotrain.status import replace_file
from cotrain.swarm.evidence import Evidence
from cotrain.swarm.judgement import Judgement, judgement_of

logger = logging.getLogger(__name__)

MOST_PROOFS = 16
"""One against each peer; each may have some megabytes."""
MOST_TESTIMONIES = 64
_PROOF = re.compile(r"proof-([1-9A-HJ-NP-Za-km-z]+)\.json")


class EvidenceFiles:
    """The evidence of one session: JSON as it came in."""

    def __init__(self, folder: Path):
        self._folder = folder

    def keep(self, content: bytes, judgement: Judgement) -> None:
        """Write it down, if there is room; what is there already stays. Raises OSError."""
        accused, witness = judgement.accused, judgement.witness
        if judgement.verdict == "proof":
            name, most, like = f"proof-{accused}.json", MOST_PROOFS, "proof-*.json"
        else:
            name, most, like = f"testimony-{accused}-{witness}.json", MOST_TESTIMONIES, "testimony-*.json"
        self._folder.mkdir(parents=True, exist_ok=True)
        if (self._folder / name).exists():
            return
        if len(list(self._folder.glob(like))) >= most:
            logger.warning("%s already holds %d files like %s: this one is not kept", self._folder, most, like)
            return
        replace_file(self._folder / name, content)

    def proofs(self) -> list[Judgement]:
        """The proofs that are kept; a file that cannot be read is passed over."""
        found = []
        for path in sorted(self._folder.glob("proof-*.json")):
            if _PROOF.fullmatch(path.name):
                try:
                    found.append(judgement_of(Evidence.model_validate_json(path.read_bytes()), "proof"))
                except (OSError, ValidationError) as error:
                    logger.warning("%s cannot be read: %s", path, type(error).__name__)
        return found
