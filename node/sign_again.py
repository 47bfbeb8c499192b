"""`cotrain node sign-again`: a wallet in a browser signs the next statement for a node that trains on meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cotrain.errors import NotFoundError
from cotrain.membership.document import certificate_of, read_membership
from cotrain.paths import MEMBERSHIP_FILE
from cotrain.peer_key import PeerSigner
from node.admission import PEER_KEY
from node.browser import BrowserWallet, kept_path, read_kept
from node.client import CoordinatorClient
from node.job import JOB_FILE, read_job
from node.lock import AgentRecord
from node.registration import Applicant


async def sign_again(home: Path, agent: AgentRecord, notice: Callable[[str], None]) -> None:
    """Ask the wallet for the running agent's node; the agent finds what comes of it where it looks for it anyway.

    Raises NotFoundError where no wallet in a browser has let it in, and as `BrowserWallet.register` does.
    """
    kept = read_kept(kept_path(home, agent.session)) if agent.asks_browser else None
    if kept is None:
        raise NotFoundError(
            "the running node takes part by no wallet in a browser", field=agent.session,
            hint="one that has its own wallet signs by itself; with --browser, join first",
        )  # fmt: skip
    job = read_job(agent.run_dir / JOB_FILE)
    applicant = Applicant(
        PeerSigner(home / PEER_KEY), role=certificate_of(read_membership(agent.run_dir / MEMBERSHIP_FILE)).role,
        name=job.name, gpu_memory=job.limits.gpu_memory,
    )  # fmt: skip
    async with CoordinatorClient(kept.coordinator, on_wait=notice) as client:
        await BrowserWallet(client, agent.session, home, notice=notice).sign_again(applicant)
