"""The parts of one worker, made and joined: who hands what to whom. None has begun yet."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import Any

from worker.adaptive import Pace
from worker.app import App
from worker.chores import Chores, Retention
from worker.claim import Claimer
from worker.claimers import Claimers
from worker.events import Events, SlotsChanged
from worker.execute import Executor
from worker.flow.gatekeeper import Gatekeeper
from worker.handover import call_in, hand_over
from worker.heartbeat import Heartbeat
from worker.link import HOT_PATH_PLANNER, Link, Outage
from worker.listen import Listener
from worker.loop import Loop
from worker.outcome import Throttled
from worker.probe import Server
from worker.redrive import Rule
from worker.row import Row
from worker.schedules.schedule import Schedule
from worker.service import Service
from worker.sessions import Sessions
from worker.settings import Settings
from worker.settle import Settler
from worker.source import Source
from worker.ticker import Ticker
from worker.url import DatabaseURL


class Parts:
    """To be made on the event loop that the worker runs on.

    pairs: the (queue, kind) pairs of the jobs that it takes. worker: its id while it is registered,
    else None. fenced: set when the heartbeat finds that it was declared dead.
    """

    def __init__(
        self,
        app: App,
        settings: Settings,
        url: DatabaseURL,
        server: Server,
        sources: Sequence[Source],
        *,
        queues: tuple[str, ...],
        pairs: Sequence[tuple[str, str]],
        schedules: Sequence[Schedule],
        rules: Sequence[Rule],
        events: Events,
    ) -> None:
        self.worker: int | None = None
        self.fenced = asyncio.Event()
        self._events = events
        direct_url = settings.direct_url or url
        outage = Outage(events)
        hot: dict[str, Any] = {
            "planner": HOT_PATH_PLANNER,
            "pooled": server.pooled,
            "timeout": settings.statement_timeout,
            "connect_timeout": settings.connect_timeout,
        }
        self.claim_link = Link("claim", url, outage, **hot)
        self.settle_link = Link("settle", url, outage, **hot)
        self.by_name = by_name = {source.name: source for source in sources}
        self.settler = Settler(by_name, self.settle_link, events)
        self.gates = gates = Gatekeeper(
            [*pairs, *((s.name, s.name) for s in sources if s.name != "jobs")],
            self.claim_link,
            events,
        )
        claimers = Claimers(
            [Claimer(source, self.claim_link, events, gates) for source in sources],
            events,
        )
        self.sessions = Sessions(
            url,
            settings.pool_size or settings.slots,
            pooled=server.pooled,
            timeout=settings.statement_timeout,
        )
        self.loop = Loop(
            claimers,
            self.settler,
            gates,
            pace=Pace(settings.concurrency, settings.claim_batch),
            batching={handler.kind: handler.batching for handler in app.registry},
            poll=(settings.poll_interval, settings.poll_max),
            max_crashes=settings.max_crashes,
            worker=lambda: self.worker,
            hears=lambda: self.listener.live,
        )
        gates.held = lambda: chain.from_iterable(self.loop.held().values())
        gates.on_change = self.loop.gates_changed
        gates.on_work = self.loop.wake.set
        self.loop.on_paced = self._paced
        self.settler.on_written = self.loop.look_for_room
        self.settler.on_postponed = self.loop.expect
        self.settler.on_failed = claimers.rest
        self.executor = self.loop.executor = Executor(
            app.registry,
            by_name,
            self.sessions,
            server.installation.id,
            events,
            default_timeout=settings.timeout,
            settle=self.settler.add,
            committed=self.settler.note_committed,
            lost=self.settler.add_lost,
            finished=self.loop.finished,
            throttled=partial(call_in, asyncio.get_running_loop(), self._throttle),
        )
        self.listener = Listener(queues, self.loop.heard, self._called, self.gates.notified)
        listens = settings.listen and not (server.pooled and settings.direct_url is None)
        self.ear = Link(
            "listen",
            direct_url if listens else url,
            outage,
            pooled=server.pooled and settings.direct_url is None,
            timeout=60.0,
            on_connect=self.listener.attach if listens else None,
        )
        self.chores = Chores(
            self.ear,
            events,
            sources,
            worker=lambda: self.worker or 0,
            lease=settings.lease,
            max_crashes=settings.max_crashes,
            retention=Retention(
                settings.retention, settings.attempts_retention, settings.partitions_ahead
            ),
            rules=rules,
        )
        self.ticker = Ticker(
            self.ear,
            events,
            schedules,
            worker=lambda: self.worker or 0,
            hears=lambda: self.listener.live,
        )
        loop = asyncio.get_running_loop()
        self.heartbeat = Heartbeat(
            direct_url,
            settings.lease,
            sources,
            pooled=server.pooled and settings.direct_url is None,
            status=lambda: (self.executor.rows_running, self.settler.settled),
            gone=lambda: hand_over(loop, self.fenced.set),
            cancels=lambda claims: hand_over(loop, self.executor.cancel, claims),
            trouble=lambda why: outage.report("heartbeat", why, 1.0),
        )

    def services(self) -> list[Service]:
        """What steps until the worker ends."""
        events = self._events
        return [
            Service("claim", self.loop.step, events, link=self.claim_link, wake=self.loop.wake),
            Service(
                "settle",
                self.settler.step,
                events,
                link=self.settle_link,
                wake=self.settler.wake,
            ),
            Service("chores", self.chores.step, events, link=self.ear, wake=self.listener.wake),
            Service(
                "schedules",
                self.ticker.step,
                events,
                link=self.ear,
                wake=self.listener.rescheduled,
            ),
        ]

    def _throttle(self, row: Row, answer: Throttled) -> None:
        seconds = answer.seconds(dt.datetime.now(dt.UTC))
        why = answer.reason or ""
        self.gates.throttle(row, seconds, why, queue=answer.queue, key=answer.key)

    def _paced(self, before: int, slots: int, why: str) -> None:
        self._events.emit(SlotsChanged(self.worker or 0, slots, before, why))

    def _called(self, worker: str) -> None:
        """An operator has asked the worker of that id for something; its heartbeat tells what."""
        if worker == str(self.worker):
            self.heartbeat.beat_now()
