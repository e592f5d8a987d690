"""Workers in this process, on a test's own database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import asyncpg

from tests.facts import until
from worker.app import App
from worker.drain import Budget
from worker.events import Event
from worker.runtime import Report, Worker
from worker.settings import Settings
from worker.url import DatabaseURL

E = TypeVar("E", bound=Event)

# Quick to find out, and to end; but a lease outlasts a machine that stands still for seconds.
QUICK: dict[str, Any] = {
    "concurrency": 4,
    "lease": 6.0,
    "grace": 5.0,
    "poll_interval": 0.1,
    "poll_max": 0.5,
    "timeout": 20.0,
}


class InProcess(Worker):
    """A worker without the last resort of its heartbeat, which would end the tests' process."""

    def _stop_heartbeat_in_time(self) -> None:
        if self._assembled and self._stop_by is not None:
            self._heartbeat.draining = True


class Seen:
    """The events of one worker."""

    def __init__(self, worker: Worker) -> None:
        self.events: list[Event] = []
        worker.events.subscribe(self.events.append)

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]


class Running:
    """A worker under way. report: what it did, once it has ended."""

    def __init__(self, app: App, url: str, **settings: Any) -> None:
        self.settings = Settings.load(**{**QUICK, **settings})
        self.worker = InProcess(app, self.settings, DatabaseURL.parse(url))
        self.seen = Seen(self.worker)
        self.report: Report | None = None
        self._task: asyncio.Task[Report] | None = None

    @property
    def id(self) -> int:
        assert self.worker.worker_id is not None
        return self.worker.worker_id

    async def start(self, drain: Budget | None = None) -> None:
        self._task = asyncio.create_task(self.worker.run(drain=drain))
        await until(lambda: self.worker.worker_id or self._ended())

    async def stop(self) -> Report:
        assert self._task is not None
        self.worker.stop()
        self.report = await asyncio.wait_for(asyncio.shield(self._task), 30)
        return self.report

    def _ended(self) -> bool:
        assert self._task is not None
        if self._task.done():
            self._task.result()
        return False


@asynccontextmanager
async def running(app: App, url: str, **settings: Any) -> AsyncIterator[Running]:
    """A worker, stopped at the end of the block."""
    one = Running(app, url, **settings)
    await one.start()
    try:
        yield one
    finally:
        await one.stop()


async def drained(app: App, url: str, **settings: Any) -> Running:
    """A worker that has run until nothing was due."""
    one = Running(app, url, **settings)
    one.report = await one.worker.run(drain=Budget(max_seconds=30))
    return one


async def put(
    connection: asyncpg.Connection, kind: str, args: str = "{}", count: int = 1, **columns: Any
) -> list[int]:
    """Inserts rows into worker.jobs; their ids."""
    names = ["kind", "args", *columns]
    values = [f"${n}" for n in range(1, len(names) + 1)]
    records = await connection.fetch(
        f"insert into worker.jobs ({', '.join(names)}) select {', '.join(values)}"
        f" from generate_series(1, {count}) returning id",
        *(kind, args, *columns.values()),
    )
    return [record[0] for record in records]


async def job(connection: asyncpg.Connection, key: int) -> asyncpg.Record:
    """A row of worker.jobs or jobs_finished, with its state."""
    record = await connection.fetchrow("select * from worker.all_jobs where id = $1", key)
    assert record is not None, f"job {key} is nowhere"
    return record
