"""What the handlers work with: the services of one coordinator, under one key of the application."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from coordinator.auth.bonds import Bonds
from coordinator.auth.challenges import Challenges
from coordinator.auth.contract_wallets import ContractWallets
from coordinator.auth.limits import Limits
from coordinator.auth.login import Logins
from coordinator.auth.sign_ins import SignIns
from coordinator.auth.signatures import Signatures
from coordinator.certificates import Certificates
from coordinator.checkpointer_messages import Judged
from coordinator.checkpointer_process import CheckpointerProcess
from coordinator.hub import Hub
from coordinator.idempotency import Idempotency
from coordinator.ingest import Ingest
from coordinator.observability import Metrics
from coordinator.participants import Participants
from coordinator.progress import ProgressPump
from coordinator.sessions import Sessions
from coordinator.settings import Settings
from coordinator.store import Store
from coordinator.suspicions import Suspicions
from coordinator.uplinks import Uplinks
from cotrain import __version__
from cotrain.protocol import Event


@dataclass(frozen=True)
class Coordinator:
    """The services of one running coordinator."""

    settings: Settings
    hub: Hub
    uplinks: Uplinks
    store: Store
    pump: ProgressPump
    checkpointer: CheckpointerProcess
    sessions: Sessions
    participants: Participants
    ingest: Ingest
    challenges: Challenges
    sign_ins: SignIns
    contract_wallets: ContractWallets
    logins: Logins
    certificates: Certificates
    limits: Limits
    idempotency: Idempotency
    metrics: Metrics


COORDINATOR = web.AppKey("coordinator", Coordinator)


def build_coordinator(settings: Settings) -> Coordinator:
    """Wire the services together; nothing is started."""
    hub = Hub(settings.listener_queue)
    uplinks = Uplinks()
    metrics = Metrics(__version__)

    def publish(session: str, event: Event) -> None:
        metrics.event_stored(event.type)
        hub.publish(session, event)

    store = Store(settings.resolved_database_url, publish, metrics.database_written)
    pump = ProgressPump(store, uplinks, settings.progress_interval_s)
    checkpointer = CheckpointerProcess(
        settings,
        # they know each other; the process calls back only once everything is wired
        on_report=lambda report: (
            suspicions.on_judged(report) if isinstance(report, Judged) else sessions.on_report(report)
        ),
        to_follow=lambda: sessions.to_follow(),
    )
    sign_in, limits = settings.config.sign_in, settings.config.limits
    enforced = limits.on_loopback or not settings.only_this_machine
    limiter = Limits(limits, enforced=enforced)
    challenges = Challenges(
        store, public_url=settings.public_url, chains=sign_in.chains, lifetime_s=sign_in.challenge_lifetime_s
    )
    sign_ins = SignIns(store, lifetime_s=sign_in.token_lifetime_s)
    contract_wallets = ContractWallets(sign_in.rpc_urls)
    certificates = Certificates(store, settings.shared)
    signatures = Signatures(contract_wallets)
    bonds = Bonds(store, signatures, public_url=settings.public_url)
    sessions = Sessions(store, hub, uplinks, settings, limiter, certificates, checkpointer.send)
    participants = Participants(store, uplinks, pump, bonds, certificates, limiter, lambda: checkpointer.initial_peers)
    suspicions = Suspicions(store, participants)
    return Coordinator(
        settings=settings, hub=hub, uplinks=uplinks, store=store, pump=pump, checkpointer=checkpointer,
        sessions=sessions, participants=participants, ingest=Ingest(store, uplinks, pump, suspicions),
        challenges=challenges, sign_ins=sign_ins, contract_wallets=contract_wallets,
        logins=Logins(challenges, sign_ins, signatures), limits=limiter,
        certificates=certificates, idempotency=Idempotency(store), metrics=metrics,
    )  # fmt: skip
