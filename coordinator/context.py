"""What the handlers work with: the services of one coordinator, under one key of the application."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from coordinator.checkpointer_process import CheckpointerProcess
from coordinator.hub import Hub
from coordinator.ingest import Ingest
from coordinator.participants import Participants
from coordinator.progress import ProgressPump
from coordinator.sessions import Sessions
from coordinator.settings import Settings
from coordinator.store import Store
from coordinator.uplinks import Uplinks


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


COORDINATOR = web.AppKey("coordinator", Coordinator)


def build_coordinator(settings: Settings) -> Coordinator:
    """Wire the services together; nothing is started."""
    hub = Hub(settings.listener_queue)
    uplinks = Uplinks()
    store = Store(settings.resolved_database_url, hub.publish)
    pump = ProgressPump(store, uplinks, settings.progress_interval_s)
    checkpointer = CheckpointerProcess(
        settings,
        # the two know each other; the process calls back only once everything is wired
        on_report=lambda report: sessions.on_report(report),
        to_follow=lambda: sessions.to_follow(),
    )
    sessions = Sessions(store, hub, uplinks, settings, checkpointer.send)
    participants = Participants(store, uplinks, pump, lambda: checkpointer.initial_peers)
    return Coordinator(
        settings=settings, hub=hub, uplinks=uplinks, store=store, pump=pump, checkpointer=checkpointer,
        sessions=sessions, participants=participants, ingest=Ingest(store, uplinks, pump),
    )  # fmt: skip
