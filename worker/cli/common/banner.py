"""What a worker says of itself when it starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from worker import __version__
from worker.cli.common.terminal import say
from worker.duration import format_duration
from worker.events import WorkerStarted
from worker.observers.lean import structlog
from worker.runtime import Worker
from worker.settings import Settings
from worker.url import DatabaseURL


def banner(
    worker: Worker, settings: Settings, url: DatabaseURL, *, text: bool
) -> Callable[[WorkerStarted], None]:
    """For LogObserver: lines for a person, or one log line with the same facts."""

    def show(event: WorkerStarted) -> None:
        facts = _facts(worker, settings, url, event)
        if text:
            wide = max(map(len, facts))
            lines = (f"  {name:<{wide}}  {_readable(value)}" for name, value in facts.items())
            say("\n".join((f"worker {event.worker} started", *lines)))
        else:
            structlog.get_logger("duerow").info(event.name, **facts)

    return show


def _facts(
    worker: Worker, settings: Settings, url: DatabaseURL, event: WorkerStarted
) -> dict[str, Any]:
    server = worker.server
    assert server is not None
    sessions = settings.pool_size or settings.slots
    return {
        "worker": event.worker,
        "worker_name": event.worker_name,
        "version": __version__,
        "database": str(url),
        "postgres": server.version,
        "schema": server.installation.schema_version,
        "pooler": _pooler(settings, pooled=server.pooled),
        "queues": event.queues,
        "handlers": event.kinds,
        "slots": _slots(settings),
        "pool": f"up to {sessions} sessions for handlers, 4 connections of our own",
        "lease": format_duration(settings.lease),
        "grace": format_duration(settings.grace),
        **({} if worker.health is None else {"health": worker.health.address}),
    }


def _slots(settings: Settings) -> int | str:
    number = settings.concurrency
    return number if isinstance(number, int) else str(number)


def _pooler(settings: Settings, *, pooled: bool) -> str:
    if not pooled:
        return "none, LISTEN" if settings.listen else "none, polling"
    if settings.direct_url is not None:
        return "transaction pooler, LISTEN over the direct URL"
    return "transaction pooler, polling; set DUEROW_DIRECT_URL to be woken"


def _readable(value: Any) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)
