"""SAQ on Postgres, with what its documented options say:

* concurrency: so many tasks; a fetch takes as many rows as tasks wait. 100 in drain: 10 (its own
  benchmark's), 30 and 300 took no less CPU a row;
* psycopg's pool at its defaults (4 to 20 connections), listening rather than polling;
* ttl: finished rows are kept for the default of ten minutes, longer than a run;
* there is no bulk call on Postgres: many rows are enqueued 20 at a time with gather, as its own
  benchmark does.

Status writes cannot be buffered; there is no word of uvloop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import psycopg
from saq import Worker
from saq.queue.postgres import PostgresQueue

from benchmarks.peers.contract import KINDS, Args

DRAIN_CONCURRENCY = 100
AT_A_TIME = 20

logging.getLogger("saq").setLevel(logging.ERROR)


class _Enqueuer:
    def __init__(self, queue: PostgresQueue) -> None:
        self._queue = queue

    async def one(self, kind: str, args: Args) -> None:
        await self._queue.enqueue(kind, **args)

    async def many(self, kind: str, rows: list[Args]) -> None:
        left = iter(rows)

        async def some() -> None:
            for args in left:
                await self._queue.enqueue(kind, **args)

        await asyncio.gather(*[some() for _ in range(AT_A_TIME)])


class Peer:
    tables = ("saq_jobs", "saq_stats")
    unfinished = (
        "select exists (select from saq_jobs where status not in ('complete', 'failed', 'aborted'))"
    )
    finished = "select count(*) from saq_jobs where status = 'complete'"
    uvloop = False

    async def install(self, url: str) -> None:
        async with _queue(url):
            pass

    @contextlib.asynccontextmanager
    async def enqueuer(self, url: str) -> AsyncIterator[_Enqueuer]:
        async with _queue(url) as queue:
            yield _Enqueuer(queue)

    async def work(self, url: str, scenario: str, slots: int, stop: asyncio.Event) -> None:
        concurrency = DRAIN_CONCURRENCY if scenario == "drain" else slots
        async with _queue(url) as queue:
            functions = [(kind, _function(kind)) for kind in KINDS]
            worker: Any = Worker(queue, functions, concurrency=concurrency)
            worker.SIGNALS = []
            running = asyncio.create_task(worker.start())
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait([running, stopped], return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            if running.done():
                await running
            await _finished(url, self.unfinished)
            await worker.stop()
            await asyncio.gather(running, return_exceptions=True)


async def _finished(url: str, unfinished: str) -> None:
    """Its stop cancels what it has under way, and with it the write that ends a row."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as db:
        while True:
            found = await (await db.execute(unfinished.encode())).fetchone()
            if found is not None and not found[0]:
                return
            await asyncio.sleep(0.05)


def _function(kind: str) -> Any:
    handler = KINDS[kind]

    async def run(_context: Any, **args: Any) -> None:
        await handler(**args)

    return run


@contextlib.asynccontextmanager
async def _queue(url: str) -> AsyncIterator[PostgresQueue]:
    queue = PostgresQueue.from_url(url)
    await queue.connect()
    try:
        yield queue
    finally:
        await queue.disconnect()
