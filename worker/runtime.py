"""A worker's life: its parts are made, begin, and are stopped in order.

Stopping: claim no more -> give back what has not started -> wait for what runs -> at the grace's
end stop it and give it back -> write what was decided -> mark the worker as stopped -> close.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import secrets
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker import __version__, membership
from worker.app import App
from worker.drain import Budget, Drain, count_left
from worker.errors import DatabaseUnreachable, UsageError
from worker.events import (
    Events,
    ServiceFailed,
    SourceCaution,
    WorkerDraining,
    WorkerFenced,
    WorkerStarted,
    WorkerStopped,
)
from worker.handover import hand_over
from worker.heartbeat import ASK_AGAIN, GRACE_PASSED
from worker.link import LinkDown
from worker.parts import Parts
from worker.probe import Server, probe
from worker.redrive import Rule
from worker.run import Run
from worker.service import Service, ServiceDied
from worker.settings import Settings
from worker.sources.served import served
from worker.statements import statement
from worker.url import DatabaseURL

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
        self._pairs = [
            (queue, handler.kind)
            for handler in app.registry.jobs
            for queue in (queues or app.registry.queues)
        ]
        self.queues = queues or app.registry.queues
        self.kinds = tuple(sorted(handler.kind for handler in app.registry))
        self.name = settings.worker_name or unique_name()
        self.events = Events(app.observers)
        self.server: Server | None = None  # known once the run has begun
        self.health = self._make_health()
        self._parts: Parts | None = None  # assembled once the run has begun
        self._cautions: list[SourceCaution] = []
        self._event_loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
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
            hand_over(self._event_loop, self._stopping.set)

    def abandon(self, code: int) -> None:
        """Gives every row back and ends the process with `code`, from the heartbeat's thread:
        for somebody who will not wait for the grace. Safe in a signal handler."""
        if self._parts is None or self._parts.worker is None:
            os._exit(code)
        self._parts.heartbeat.exit_after(0, code)

    @property
    def parts(self) -> Parts:
        """What it is made of, once the run has begun."""
        assert self._parts is not None
        return self._parts

    @property
    def worker_id(self) -> int | None:
        """While it is registered."""
        return None if self._parts is None else self._parts.worker

    @property
    def running(self) -> list[Run]:
        """The runs under way, for people to look at."""
        return [] if self._parts is None else list(self._parts.executor.running)

    def ask(self, answer: Callable[[dict[str, Any]], None]) -> None:
        """Has `answer` called on the event loop with what /healthz would tell; never, while that
        is blocked. From any thread, once the worker has started."""
        if self._event_loop is not None:
            hand_over(self._event_loop, lambda: answer(self._health_told()))

    async def run(self, *, drain: Budget | None = None) -> Report:
        """Works until stopped, or with a budget until nothing is due."""
        self._event_loop = asyncio.get_running_loop()
        if self._stop_by is not None:
            self._stopping.set()
        self.server = server = await probe(self._url, self._settings.connect_timeout)
        self._parts = parts = await self._assembled(server)
        self._stop_heartbeat_in_time()
        await self._start()
        fence = Service("fence", self._watch_fence, self.events, link=parts.claim_link)
        services = [
            asyncio.create_task(service.run(), name=service.name)
            for service in (*parts.services(), fence)
        ]
        if drain is not None:  # no task has begun yet, so nothing is claimed
            budget = Drain(drain, parts.loop, parts.executor, parts.settler, parts.ticker)
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
        settler = parts.settler
        return Report(code, settler.settled, settler.failed, settler.released, settler.lost, left)

    def _make_health(self) -> Health | None:
        if self._settings.health is None:
            return None
        from worker.health import Health  # most workers tell nothing over HTTP

        return Health(self._settings.health, self._health_told)

    def _health_told(self) -> dict[str, Any]:
        """ready: it takes rows. pools: of sessions, by their kind."""
        parts, draining = self.parts, self._stop_by is not None
        return {
            "ready": parts.worker is not None and parts.claim_link.connected and not draining,
            "draining": draining,
            "worker": self.worker_id,
            "name": self.name,
            "slots": parts.loop.slots,
            "running": len(parts.executor.running),
            "settled": parts.settler.settled,
            "pools": parts.sessions.use(),
        }

    # --- running ---------------------------------------------------------------------------

    async def _assembled(self, server: Server) -> Parts:
        """Raises what is wrong with a source of its rows, before anything is claimed."""
        sources = await served(
            self._app.registry,
            self.queues,
            self._pairs,
            self._url,
            self._settings.connect_timeout,
            self._cautions.append,
        )
        return Parts(
            self._app,
            self._settings,
            self._url,
            server,
            sources,
            queues=self.queues,
            pairs=self._pairs,
            schedules=self._schedules,
            rules=self._rules,
            events=self.events,
        )

    async def _start(self) -> None:
        if self.health is not None:
            await self.health.start()
        await self.parts.sessions.start(
            handler.signature.session_kind
            for handler in self._app.registry
            if handler.signature.session_kind is not None
        )
        await self._declare_limits()
        self.parts.worker = worker = await self._register()
        self.parts.heartbeat.start(worker)
        self.events.emit(
            WorkerStarted(worker, self.name, self.queues, self.kinds, self._settings.slots)
        )
        for caution in self._cautions:
            self.events.emit(caution)

    async def _declare_limits(self) -> None:
        """What the code says of limits, where no operator has said otherwise."""
        for scope, rules in self._app.limits.rules.items():
            parts = (scope.queue, scope.kind, scope.tenant)
            try:
                await self.parts.claim_link.fetch(
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
                self.parts.claim_link,
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
            if self.worker_id is None and not self.parts.fenced.is_set():
                raise DatabaseUnreachable(
                    error.what, why=error.why, hint="worker db status"
                ) from error
            raise

    async def _watch_fence(self) -> float:
        """Starts over under a new id when this worker was declared dead."""
        parts = self.parts
        await parts.fenced.wait()
        if (old := parts.worker) is not None:
            parts.worker = None
            held = parts.executor.rows_running + parts.loop.buffered
            parts.loop.forget()
            parts.executor.stop_all("lost")
            self.events.emit(WorkerFenced(old, held))
        parts.worker = parts.heartbeat.worker = await self._register()
        parts.fenced.clear()
        parts.loop.wake.set()
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
        parts = self.parts
        grace = self._settings.grace
        stop_by = self._stop_by or time.monotonic() + grace
        self.events.emit(
            WorkerDraining(
                self.worker_id or 0, parts.executor.rows_running, parts.loop.buffered, grace
            )
        )
        parts.heartbeat.beat_now()
        parts.loop.close()
        margin = min(3.0, grace * 0.3)
        await parts.executor.wait_for_runs(stop_by - margin)
        code = GRACE_PASSED if parts.executor.running else 0
        if code:
            parts.executor.stop_all("stop", patience=margin / 3)
            # This loop may have been held up itself: what it has just asked to end, ends first.
            late = time.monotonic() + margin / 2
            await parts.executor.wait_for_runs(max(stop_by - margin / 2, late))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.2, stop_by - _last_margin(grace) - time.monotonic())):
                await parts.loop.idle.wait()  # a claim under way may still bring rows to return
                await parts.settler.idle.wait()
        return code

    async def _count_left(self) -> int | None:
        """For whoever reads what a drain has done; it must not keep the worker beyond its grace."""
        stop_by = self._stop_by or 0.0
        seconds = stop_by - 2 * _last_margin(self._settings.grace) - time.monotonic()
        return await count_left(self.parts.by_name.values(), self.parts.claim_link, seconds)

    def _stop_heartbeat_in_time(self) -> None:
        """Once there is a heartbeat and it was said when to stop, whichever comes last."""
        if self._parts is not None and self._stop_by is not None:
            self._parts.heartbeat.draining = True
            margin = _last_margin(self._settings.grace)
            left = max(0.0, self._stop_by - time.monotonic() - margin)
            self._parts.heartbeat.exit_after(left, within=0.8 * margin)

    async def _close(self, services: list[asyncio.Task[Any]]) -> None:
        parts = self.parts
        for task in services:
            task.cancel()
        await asyncio.wait(services, timeout=2)
        with contextlib.suppress(LinkDown):
            await self._leave()
        if self.health is not None:
            await self.health.close()
        await parts.sessions.close()
        parts.executor.close()
        for link in (parts.claim_link, parts.settle_link, parts.ear):
            await link.close()
        parts.heartbeat.stop()
        sys.setswitchinterval(self._switch_interval)
        self.events.emit(
            WorkerStopped(
                self.worker_id or 0,
                parts.settler.settled,
                parts.settler.released,
                parts.settler.lost,
            )
        )

    async def _leave(self) -> None:
        """Gives back whatever is still ours: a service has died, or the grace ended before
        everything was written. Then marks the worker as stopped."""
        parts = self.parts
        if (worker := self.worker_id) is None:
            return
        if parts.executor.running or not (parts.loop.idle.is_set() and parts.settler.idle.is_set()):
            await self._abandon_all(worker)
        await membership.stop(parts.claim_link, worker, parts.settler.settled)
        await parts.gates.leave()

    async def _abandon_all(self, worker: int) -> None:
        """Rows that somebody has locked are asked for again, for a moment."""
        until = time.monotonic() + _last_margin(self._settings.grace) / 2
        sources = list(self.parts.by_name.values())
        while sources:
            locked = []
            for source in sources:
                sql, params = source.abandon(worker)
                [record] = await self.parts.claim_link.fetch(sql, *params)
                self.parts.settler.released += record["released"]
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
