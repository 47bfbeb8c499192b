"""What the handlers work with: the services of one coordinator, under one key of the application."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiohttp import web

from coordinator.asset_rate import AssetRates
from coordinator.auth.bonds import Bonds
from coordinator.auth.challenges import Challenges
from coordinator.auth.contract_wallets import ContractWallets
from coordinator.auth.limits import Limits
from coordinator.auth.links import Links
from coordinator.auth.login import Logins
from coordinator.auth.sign_ins import SignIns
from coordinator.auth.signatures import Signatures
from coordinator.catalog_entries import CatalogEntries
from coordinator.certificates import Certificates
from coordinator.chain.notes import Notes
from coordinator.chain.recorder import Recorder
from coordinator.chain.records import Records
from coordinator.chat_log import ChatLog
from coordinator.chat_models import ChatModels
from coordinator.chat_service import ChatService
from coordinator.checkpointer_messages import Exported, Judged, Saved, SaveFailed, SessionReport
from coordinator.checkpointer_process import CheckpointerProcess
from coordinator.cleanup import Cleanup
from coordinator.evaluations import Evaluations
from coordinator.hub import Hub
from coordinator.idempotency import Idempotency
from coordinator.ingest import Ingest
from coordinator.invitations import Invitations
from coordinator.jobs import Jobs
from coordinator.learning.service import Learning
from coordinator.observability import Metrics
from coordinator.participants import Participants
from coordinator.progress import ProgressPump
from coordinator.registry import Registry
from coordinator.retention import Retention
from coordinator.sessions import Sessions
from coordinator.settings import Settings
from coordinator.shared_answers import SharedAnswers
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
    recorder: Recorder
    records: Records
    registry: Registry
    retention: Retention
    cleanup: Cleanup
    jobs: Jobs
    evaluations: Evaluations
    learning: Learning
    participants: Participants
    ingest: Ingest
    challenges: Challenges
    sign_ins: SignIns
    contract_wallets: ContractWallets
    logins: Logins
    links: Links
    certificates: Certificates
    limits: Limits
    idempotency: Idempotency
    catalog: CatalogEntries
    asset_rates: AssetRates
    invitations: Invitations
    shared_answers: SharedAnswers
    metrics: Metrics
    chat: ChatService
    chat_models: ChatModels
    chat_log: ChatLog


COORDINATOR = web.AppKey("coordinator", Coordinator)


def build_coordinator(settings: Settings) -> Coordinator:
    """Wire the services together; nothing is started."""
    hub, uplinks, metrics = Hub(settings.listener_queue), Uplinks(), Metrics(__version__)
    store = Store(settings.resolved_database_url, _publisher(hub, metrics), metrics.database_written)
    pump = ProgressPump(store, uplinks, settings.progress_interval_s)

    # they know each other; the process calls back only once everything is wired
    async def on_report(report: SessionReport) -> None:
        if isinstance(report, Judged):
            await suspicions.on_judged(report)
        elif isinstance(report, Exported | SaveFailed):
            await jobs.on_report(report)
        else:
            await sessions.on_report(report)
        if isinstance(report, Saved | Exported):
            await retention.apply()

    checkpointer = CheckpointerProcess(settings, on_report=on_report, to_follow=lambda: sessions.to_follow())
    sign_in = settings.config.sign_in
    limiter = Limits(settings.config.limits, enforced=settings.limits_enforced)
    challenges = Challenges(
        store, public_url=settings.public_url, chains=sign_in.chains, lifetime_s=sign_in.challenge_lifetime_s
    )
    sign_ins = SignIns(store, lifetime_s=sign_in.token_lifetime_s)
    contract_wallets = ContractWallets(sign_in.rpc_urls)
    certificates, signatures = Certificates(store, settings.shared), Signatures(contract_wallets)
    registry = Registry(store, settings.shared)
    retention = Retention(store, settings.shared, settings.config.models.versions_kept)
    recorder = Recorder(store, settings.config.chain)
    notes = Notes(settings.config.chain, lambda: recorder.opener)
    sessions = Sessions(store, hub, uplinks, settings, limiter, certificates, registry, notes, checkpointer.send)
    jobs = Jobs(store, settings.shared, registry, checkpointer.send)
    chat_log = ChatLog(store, kept=settings.config.chat.kept)
    catalog = CatalogEntries(store, limiter, settings.shared)
    bonds = Bonds(store, signatures, public_url=settings.public_url)
    participants = Participants(store, uplinks, pump, bonds, certificates, limiter, lambda: checkpointer.initial_peers)
    suspicions = Suspicions(store, participants)
    return Coordinator(
        settings=settings, hub=hub, uplinks=uplinks, store=store, pump=pump, checkpointer=checkpointer,
        sessions=sessions, recorder=recorder, records=Records(store), registry=registry, retention=retention,
        cleanup=Cleanup(store, settings.shared), participants=participants, limits=limiter,
        ingest=Ingest(store, uplinks, pump, suspicions), logins=Logins(challenges, sign_ins, signatures),
        learning=Learning(store, settings, chat_log), sign_ins=sign_ins, contract_wallets=contract_wallets,
        links=Links(signatures, chains=sign_in.chains, interval_s=settings.link_interval_s), challenges=challenges,
        certificates=certificates, idempotency=Idempotency(store), shared_answers=SharedAnswers(store),
        catalog=catalog, metrics=metrics, jobs=jobs, evaluations=Evaluations(store, settings, registry, catalog),
        asset_rates=AssetRates(settings.config.limits.asset_bytes_per_s, enforced=settings.limits_enforced),
        invitations=Invitations(store, public_url=settings.public_url), chat=ChatService(settings),
        chat_models=ChatModels(store, settings.shared), chat_log=chat_log,
    )  # fmt: skip


def _publisher(hub: Hub, metrics: Metrics) -> Callable[[str, Sequence[Event]], None]:
    def publish(session: str, events: Sequence[Event]) -> None:
        for event in events:
            metrics.event_stored(event.type)
        hub.publish(session, events)

    return publish
