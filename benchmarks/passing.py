"""Claims and settles by a worker's own claimer over its two connections, and no handler between."""

from __future__ import annotations

import time

import asyncpg

from benchmarks import server
from benchmarks.noop import backend_spent
from worker.claim import Claimer
from worker.events import Events
from worker.link import HOT_PATH_PLANNER, Link, Outage
from worker.row import Row
from worker.source import BEGINNING, Settlement, Stream
from worker.sources.jobs import Jobs
from worker.transition import Transition
from worker.url import DatabaseURL


class Passing:
    """Rows of the kind `noop`, as they pass through. passed: how many did."""

    def __init__(self, url: str) -> None:
        self._url = url
        address, events = DatabaseURL.parse(url), Events()
        self._claiming, self._settling = (
            Link(name, address, Outage(events), planner=HOT_PATH_PLANNER)
            for name in ("claim", "settle")
        )
        self._source = Jobs([("default", "noop")])
        self._claimer = Claimer(self._source, self._claiming, events)
        self.passed = 0

    async def start(self) -> None:
        connection = await asyncpg.connect(self._url)
        self._worker = await server.worker(connection)
        await connection.close()
        await self._claiming.connect()

    async def close(self) -> None:
        await self._claiming.close()
        await self._settling.close()

    async def step(self, limit: int) -> float:
        """ms of one claim, as a worker makes it; its rows are settled, which is not timed."""
        started = time.perf_counter()
        rows = await self._claimer.step(limit, self._worker)
        took = 1000 * (time.perf_counter() - started)
        await self._settle(rows)
        return took

    @property
    def looked(self) -> bool:
        """Whether the last step went over all that was due, from the beginning."""
        return self._claimer.looked

    async def from_the_beginning(self, limit: int) -> float:
        """ms of one claim without a floor, as most queues make it."""
        stream = Stream("default", "noop", 0, floor=BEGINNING)
        started = time.perf_counter()
        rows = await self._source.claim(self._claiming, [stream], False, limit, self._worker)
        took = 1000 * (time.perf_counter() - started)
        await self._settle(rows)
        return took

    def cpu(self) -> float:
        """ms that the backend which claims has spent so far."""
        return 1000 * backend_spent(self._claiming)

    async def _settle(self, rows: list[Row]) -> None:
        batch = [Settlement(row, Transition("done"), 0.001) for row in rows]
        if batch:
            for sql, params in self._source.settle(self._worker, batch):
                self.passed += len(await self._settling.fetch(sql, *params))
