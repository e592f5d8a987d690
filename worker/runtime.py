"""The composition root: makes a worker out of its parts, runs it and stops it in order.

Stopping: claim no more -> give back what has not started -> wait for what runs -> at the grace's
end stop it and give it back -> write what was decided -> mark the worker as stopped -> close.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import platform
import secrets
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from worker import __version__, membership
from worker.adaptive import Pace
from worker.app import App
from worker.chores import Chores, Retention
from worker.claim import Claimer
from worker.claimers import Claimers
from worker.drain import Budget, Drain, count_left
from worker.errors import DatabaseUnreachable, UsageError
from worker.events import (
    Events,
    ServiceFailed,
    SlotsChanged,
    SourceCaution,
    WorkerDraining,
    WorkerFenced,
    WorkerStarted,
    WorkerStopped,
)
from worker.execute import Executor
from worker.flow.gatekeeper import Gatekeeper
from worker.heartbeat import ASK_AGAIN, GRACE_PASSED, Heartbeat
from worker.link import HOT_PATH_PLANNER, Link, LinkDown, Outage
from worker.listen import Listener
from worker.loop import Loop
from worker.outcome import Throttled
from worker.probe import Server, probe
from worker.redrive import Rule
from worker.row import Row
from worker.run import Run
from worker.service import Service, ServiceDied
from worker.sessions import Sessions
from worker.settings import Settings
from worker.settle import Settler
from worker.source import Source
from worker.sources.jobs import Jobs
from worker.statements import statement
from worker.ticker import Ticker
from worker.url import DatabaseURL, connect

if TYPE_CHECKING:
    from worker.health import Health

# While it stops, a worker's own threads must get the GIL from handlers that spin on it: each of
# them may keep it for this many seconds at a time (5 ms otherwise).
BUSY_SWITCH = 0.0005


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker did. code: 0, or 9 when rows had to be given back while they ran. left: after
    a drain, how many rows are due in what it serves and in nobody's hands; None if not known."""

    code: int
    settled: int
    failed: int
    released: int
    lost: int
    stuck: int
    left: int | None = None


class Worker:
    """One worker. `run()` it once; `stop()` it from anywhere.

    queues: which queues to serve; () for every queue that the app's handlers name.
    """

    def __init__(
        self, app: App, settings: Settings, url: DatabaseURL, *, queues: tuple[str, ...] = ()
    ) -> None:
        if not len(app.registry):
            raise UsageError(
                "the app has no handler",
                why="none of the imported modules registers one",
                hint="decorate a function with @app.handler('...')",
            )
        self._app = app
        self._settings = settings
        self._rules = _rules(app, settings)
        self._schedules = app.scheduled()
        self._url = url
        self._direct_url = settings.direct_url or url
        self._pairs = [
            (queue, handler.kind)
            for handler in app.registry.jobs
            for queue in (queues or app.registry.queues)
        ]
        self.queues = queues or app.registry.queues
        self.kinds = tuple(sorted(handler.kind for handler in app.registry))
        self.name = settings.worker_name or unique_name()
        self.events = Events(app.observers)
        self.worker_id: int | None = None
        self.server: Server | None = None  # known once the run has begun
        self.health = self._make_health()
        self._assembled = False
        self._cautions: list[SourceCaution] = []
        self._event_loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._fenced = asyncio.Event()
        self._stop_by: float | None = None
        self._switch_interval = sys.getswitchinterval()

    def stop(self) -> None:
        """Begins to drain; the grace runs from the first call, further calls do nothing.

        Safe from any thread and in a signal handler, before the run and while a handler blocks
        the event loop: then the heartbeat's thread ends the process when the grace has passed.
        """
        if self._stop_by is not None:
            return
        self._stop_by = time.monotonic() + self._settings.grace
        sys.setswitchinterval(BUSY_SWITCH)
        self._stop_heartbeat_in_time()
        if self._event_loop is not None:
            _tell(self._event_loop, self._stopping.set)

    def abandon(self, code: int) -> None:
        """Gives every row back and ends the process with `code`, from the heartbeat's thread:
        for somebody who will not wait for the grace. Safe in a signal handler."""
        if not self._assembled or self.worker_id is None:
            os._exit(code)
        self._heartbeat.exit_after(0, code)

    @property
    def running(self) -> list[Run]:
        """The runs under way, for people to look at."""
        return list(self._executor.running) if self._assembled else []

    def ask(self, answer: Callable[[dict[str, Any]], None]) -> None:
        """Has `answer` called on the event loop with what /healthz would tell; never, while that
        is blocked. From any thread, once the worker has started."""
        if self._event_loop is not None:
            _tell(self._event_loop, lambda: answer(self._health_told()))

    async def run(self, *, drain: Budget | None = None) -> Report:
        """Works until stopped, or with a budget until nothing is due."""
        self._event_loop = asyncio.get_running_loop()
        if self._stop_by is not None:
            self._stopping.set()
        self.server = server = await probe(self._url, self._settings.connect_timeout)
        self._assemble(server, await self._sources())
        await self._start(server)
        services = [asyncio.create_task(s.run(), name=s.name) for s in self._services()]
        if drain is not None:  # no task has begun yet, so nothing is claimed
            budget = Drain(drain, self._loop, self._executor, self._settler, self._ticker)
            services.append(asyncio.create_task(self._watch(budget), name="budget"))
        try:
            try:
                await self._until_stopped(services)
            except ServiceDied:  # the rows must not wait for a sweep, nor run twice meanwhile
                self.stop()
                await self._drain()
                raise
            code = await self._drain()
            left = None if drain is None else await self._count_left()
        finally:
            await self._close(services)
        return Report(
            code,
            self._settler.settled,
            self._settler.failed,
            self._settler.released,
            self._settler.lost,
            self._executor.rows_running,
            left,
        )

    def _make_health(self) -> Health | None:
        if self._settings.health is None:
            return None
        from worker.health import Health  # most workers tell nothing over HTTP

        return Health(self._settings.health, self._health_told)

    # --- assembling ------------------------------------------------------------------------

    async def _sources(self) -> list[Source]:
        """The sources of the rows that this app has handlers for. Raises what is wrong with an
        adopted table, before anything is claimed."""
        fair = {h.kind: h.fair for h in self._app.registry.jobs if h.fair is not None}
        sources: list[Source] = [Jobs(self._pairs, fair)] if self._pairs else []
        handlers = [handler for handler in self._app.registry if handler.queue in self.queues]
        tables = [handler for handler in handlers if handler.table is not None]
        if tables:
            # 0.7 MB that a worker of jobs alone can do without
            from worker.sources.adopt import adopted, refuse_shared

            connection = await connect(self._url, timeout=self._settings.connect_timeout)
            try:
                tell = self._cautions.append
                rows = [await adopted(connection, handler, tell) for handler in tables]
            finally:
                await connection.close(timeout=2)
            refuse_shared(rows)
            sources += rows
        if not sources:
            raise UsageError(
                f"no handler serves the queues {', '.join(self.queues)}",
                why=f"the app's handlers name {', '.join(self._app.registry.queues)}",
                hint="leave --queues out, or name some of these",
            )
        return sources

    def _assemble(self, server: Server, sources: list[Source]) -> None:
        settings = self._settings
        outage = Outage(self.events)
        hot: dict[str, Any] = {
            "planner": HOT_PATH_PLANNER,
            "pooled": server.pooled,
            "timeout": settings.statement_timeout,
            "connect_timeout": settings.connect_timeout,
        }
        self._claim_link = Link("claim", self._url, outage, **hot)
        self._settle_link = Link("settle", self._url, outage, **hot)
        self._by_name = by_name = {source.name: source for source in sources}
        self._settler = Settler(by_name, self._settle_link, self.events)
        self._gates = gates = Gatekeeper(
            [*self._pairs, *((s.name, s.name) for s in sources if s.name != "jobs")],
            self._claim_link,
            self.events,
        )
        claimers = Claimers(
            [Claimer(source, self._claim_link, self.events, gates) for source in sources],
            self.events,
        )
        self._sessions = Sessions(
            self._url,
            settings.pool_size or settings.slots,
            pooled=server.pooled,
            timeout=settings.statement_timeout,
        )
        self._loop = Loop(
            claimers,
            self._settler,
            gates,
            pace=Pace(settings.concurrency, settings.claim_batch),
            batching={handler.kind: handler.batching for handler in self._app.registry},
            poll=(settings.poll_interval, settings.poll_max),
            max_crashes=settings.max_crashes,
            worker=lambda: self.worker_id,
            hears=lambda: self._listener.live,
        )
        gates.held = lambda: chain.from_iterable(self._loop.held().values())
        gates.on_change = self._loop.gates_changed
        gates.on_work = self._loop.wake.set
        self._loop.on_paced = self._paced
        self._settler.on_written = self._loop.look_for_room
        self._settler.on_postponed = self._loop.expect
        self._settler.on_failed = claimers.rest
        self._executor = self._loop.executor = Executor(
            self._app.registry,
            by_name,
            self._sessions,
            server.installation.id,
            self.events,
            default_timeout=settings.timeout,
            settle=self._settler.add,
            committed=self._settler.note_committed,
            lost=self._settler.add_lost,
            finished=self._loop.finished,
            throttled=partial(_call_in, asyncio.get_running_loop(), self._throttle),
        )
        self._listener = Listener(self.queues, self._loop.heard, self._called, self._gates.notified)
        listens = settings.listen and not (server.pooled and settings.direct_url is None)
        self._ear = Link(
            "listen",
            self._direct_url if listens else self._url,
            outage,
            pooled=server.pooled and settings.direct_url is None,
            timeout=60.0,
            on_connect=self._listener.attach if listens else None,
        )
        self._chores = Chores(
            self._ear,
            self.events,
            sources,
            worker=lambda: self.worker_id or 0,
            lease=settings.lease,
            max_crashes=settings.max_crashes,
            retention=Retention(
                settings.retention, settings.attempts_retention, settings.partitions_ahead
            ),
            rules=self._rules,
        )
        self._ticker = Ticker(
            self._ear,
            self.events,
            self._schedules,
            worker=lambda: self.worker_id or 0,
            hears=lambda: self._listener.live,
        )
        loop = asyncio.get_running_loop()
        self._heartbeat = Heartbeat(
            self._direct_url,
            settings.lease,
            sources,
            pooled=server.pooled and settings.direct_url is None,
            status=lambda: (self._executor.rows_running, self._settler.settled),
            gone=lambda: _tell(loop, self._fenced.set),
            cancels=lambda claims: _tell(loop, self._executor.cancel, claims),
            trouble=lambda why: outage.report("heartbeat", why, 1.0),
        )
        self._assembled = True
        self._stop_heartbeat_in_time()

    def _services(self) -> list[Service]:
        events = self.events
        return [
            Service("claim", self._loop.step, events, link=self._claim_link, wake=self._loop.wake),
            Service(
                "settle",
                self._settler.step,
                events,
                link=self._settle_link,
                wake=self._settler.wake,
            ),
            Service("chores", self._chores.step, events, link=self._ear, wake=self._listener.wake),
            Service(
                "schedules",
                self._ticker.step,
                events,
                link=self._ear,
                wake=self._listener.rescheduled,
            ),
            Service("fence", self._watch_fence, events, link=self._claim_link),
        ]

    def _health_told(self) -> dict[str, Any]:
        """ready: it takes rows. pools: of sessions, by their kind."""
        draining = self._stop_by is not None
        return {
            "ready": self.worker_id is not None and self._claim_link.connected and not draining,
            "draining": draining,
            "worker": self.worker_id,
            "name": self.name,
            "slots": self._loop.slots,
            "running": len(self._executor.running),
            "settled": self._settler.settled,
            "pools": self._sessions.use(),
        }

    # --- running ---------------------------------------------------------------------------

    async def _start(self, server: Server) -> None:
        if self.health is not None:
            await self.health.start()
        await self._sessions.start(
            handler.signature.session_kind
            for handler in self._app.registry
            if handler.signature.session_kind is not None
        )
        await self._declare_limits()
        self.worker_id = await self._register()
        self._heartbeat.start(self.worker_id)
        self.events.emit(
            WorkerStarted(self.worker_id, self.name, self.queues, self.kinds, self._settings.slots)
        )
        for caution in self._cautions:
            self.events.emit(caution)

    async def _declare_limits(self) -> None:
        """What the code says of limits, where no operator has said otherwise."""
        for scope, rules in self._app.limits.rules.items():
            parts = (scope.queue, scope.kind, scope.tenant)
            try:
                await self._claim_link.fetch(
                    statement("operate/limit"), *parts, *rules.parameters(), "code", None, True
                )
            except LinkDown as error:
                raise DatabaseUnreachable(
                    error.what, why=error.why, hint="worker doctor"
                ) from error

    async def _register(self) -> int:
        settings = self._settings
        try:
            return await membership.register(
                self._claim_link,
                name=self.name,
                host=platform.node() or socket.gethostname(),
                pid=os.getpid(),
                version=__version__,
                queues=list(self.queues),
                kinds=list(self.kinds),
                slots=settings.slots,
                lease=settings.lease,
            )
        except LinkDown as error:
            if self.worker_id is None and not self._fenced.is_set():
                raise DatabaseUnreachable(
                    error.what, why=error.why, hint="worker db status"
                ) from error
            raise

    def _throttle(self, row: Row, answer: Throttled) -> None:
        seconds = answer.seconds(dt.datetime.now(dt.UTC))
        why = answer.reason or ""
        self._gates.throttle(row, seconds, why, queue=answer.queue, key=answer.key)

    def _paced(self, before: int, slots: int, why: str) -> None:
        self.events.emit(SlotsChanged(self.worker_id or 0, slots, before, why))

    def _called(self, worker: str) -> None:
        """An operator has asked the worker of that id for something; its heartbeat tells what."""
        if worker == str(self.worker_id):
            self._heartbeat.beat_now()

    async def _watch_fence(self) -> float:
        """Starts over under a new id when this worker was declared dead."""
        await self._fenced.wait()
        if (old := self.worker_id) is not None:
            self.worker_id = None
            held = self._executor.rows_running + self._loop.buffered
            self._loop.forget()
            self._executor.stop_all("lost")
            self.events.emit(WorkerFenced(old, held))
        self.worker_id = await self._register()
        self._heartbeat.worker = self.worker_id
        self._fenced.clear()
        self._loop.wake.set()
        return 0.0

    async def _watch(self, drain: Drain) -> None:
        """Stops the worker once the drain is over."""
        await drain.over()
        self.stop()

    async def _until_stopped(self, services: list[asyncio.Task[Any]]) -> None:
        """Until stop() is called. A service that ends of itself, or was cancelled, ends the
        worker: it must never be healthy but idle."""
        stopping = asyncio.create_task(self._stopping.wait())
        done, _ = await asyncio.wait((stopping, *services), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        for task in done - {stopping}:
            if task.get_name() == "budget" and not task.cancelled() and not task.exception():
                continue
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
            cause = error or ServiceDied(f"{task.get_name()} ended")
            self.events.emit(ServiceFailed(task.get_name(), cause))
            raise ServiceDied(f"the service {task.get_name()!r} has ended") from cause

    # --- stopping --------------------------------------------------------------------------

    async def _drain(self) -> int:
        """The exit code."""
        grace = self._settings.grace
        stop_by = self._stop_by or time.monotonic() + grace
        self.events.emit(
            WorkerDraining(
                self.worker_id or 0, self._executor.rows_running, self._loop.buffered, grace
            )
        )
        self._heartbeat.beat_now()
        self._loop.close()
        margin = min(3.0, grace * 0.3)
        await self._executor.wait_for_runs(stop_by - margin)
        code = GRACE_PASSED if self._executor.running else 0
        if code:
            self._executor.stop_all("stop", patience=margin / 3)
            # This loop may have been held up itself: what it has just asked to end, ends first.
            late = time.monotonic() + margin / 2
            await self._executor.wait_for_runs(max(stop_by - margin / 2, late))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.2, stop_by - _last_margin(grace) - time.monotonic())):
                await self._loop.idle.wait()  # a claim under way may still bring rows to return
                await self._settler.idle.wait()
        return code

    async def _count_left(self) -> int | None:
        """For whoever reads what a drain has done; it must not keep the worker beyond its grace."""
        stop_by = self._stop_by or 0.0
        seconds = stop_by - 2 * _last_margin(self._settings.grace) - time.monotonic()
        return await count_left(self._by_name.values(), self._claim_link, seconds)

    def _stop_heartbeat_in_time(self) -> None:
        """Once there is a heartbeat and it was said when to stop, whichever comes last."""
        if self._assembled and self._stop_by is not None:
            self._heartbeat.draining = True
            margin = _last_margin(self._settings.grace)
            left = max(0.0, self._stop_by - time.monotonic() - margin)
            self._heartbeat.exit_after(left, within=0.8 * margin)

    async def _close(self, services: list[asyncio.Task[Any]]) -> None:
        for task in services:
            task.cancel()
        await asyncio.wait(services, timeout=2)
        with contextlib.suppress(LinkDown):
            await self._leave()
        if self.health is not None:
            await self.health.close()
        await self._sessions.close()
        self._executor.close()
        for link in (self._claim_link, self._settle_link, self._ear):
            await link.close()
        self._heartbeat.stop()
        sys.setswitchinterval(self._switch_interval)
        self.events.emit(
            WorkerStopped(
                self.worker_id or 0,
                self._settler.settled,
                self._settler.released,
                self._settler.lost,
            )
        )

    async def _leave(self) -> None:
        """Gives back whatever is still ours: a service has died, or the grace ended before
        everything was written. Then marks the worker as stopped."""
        if (worker := self.worker_id) is None:
            return
        if self._executor.running or not (self._loop.idle.is_set() and self._settler.idle.is_set()):
            await self._abandon_all(worker)
        await membership.stop(self._claim_link, worker, self._settler.settled)
        await self._gates.leave()

    async def _abandon_all(self, worker: int) -> None:
        """Rows that somebody has locked are asked for again, for a moment."""
        until = time.monotonic() + _last_margin(self._settings.grace) / 2
        sources = list(self._by_name.values())
        while sources:
            locked = []
            for source in sources:
                sql, params = source.abandon(worker)
                [record] = await self._claim_link.fetch(sql, *params)
                locked += [source] if record["left_over"] else []
            sources = locked if time.monotonic() < until else []
            if sources:
                await asyncio.sleep(ASK_AGAIN)


def _rules(app: App, settings: Settings) -> list[Rule]:
    """Raises UsageError for one that history is not kept long enough for."""
    rules = [
        Rule("jobs" if handler.table is None else handler.kind, handler.kind, handler.redrive)
        for handler in app.registry
        if handler.redrive is not None
    ]
    for rule in rules:
        rule.refuse_forgetful(finished=settings.retention, attempts=settings.attempts_retention)
    return rules


def unique_name() -> str:
    """Unique among the processes of a fleet: a platform's own name for it need not be."""
    base = os.environ.get("DYNO") or os.environ.get("HOSTNAME") or socket.gethostname()
    return f"{base}.{os.getpid()}.{secrets.token_hex(2)}"


def _last_margin(grace: float) -> float:
    """Seconds before the end of the grace at which rows are given back come what may."""
    return min(1.0, grace * 0.1)


def _call_in(loop: asyncio.AbstractEventLoop, call: Any, *args: Any) -> None:
    """At once if that loop's thread asks: what comes after it may depend on it."""
    try:
        here = asyncio.get_running_loop() is loop
    except RuntimeError:
        here = False
    if here:
        call(*args)
    else:
        _tell(loop, call, *args)


def _tell(loop: asyncio.AbstractEventLoop, call: Any, *args: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: the worker has stopped
        loop.call_soon_threadsafe(call, *args)
