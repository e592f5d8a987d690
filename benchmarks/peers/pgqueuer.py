"""PgQueuer, with the settings that its pages "Performance Tuning" and "Benchmarks" name:

* asyncpg, said to be 1.7 times as fast as psycopg, as a single direct connection, which is
  recommended for the worker, not a pool;
* batch_size: larger for short jobs. It is also the size at which finished rows are written, its
  buffer. 500 in drain: beyond 250 the CPU a row no longer falls (10, 50, 100, 250, 500, 1,000);
* `pgq autovac` after the installation (autovacuum, fillfactor 70), durability left durable;
* uvloop, on which its command line runs where that is installed;
* many rows as one call of `enqueue` with lists, one statement.

In io, batches of 50 under max_concurrent_tasks=100, which must be at least twice the batch; batches
of 5, 10 and 25 were no better, nor was concurrency_limit=100: a worker that is full looks for rows
again up to 0.1 s later. In latency, the default of 10. The payload is bytes; the handlers decode
the JSON that others are given decoded. The log, its history, is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from benchmarks.peers.contract import KINDS, Args

DRAIN_BATCH = 500


class _Enqueuer:
    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def one(self, kind: str, args: Args) -> None:
        await self._queries.enqueue(kind, json.dumps(args).encode())

    async def many(self, kind: str, rows: list[Args]) -> None:
        payloads = [json.dumps(args).encode() for args in rows]
        await self._queries.enqueue([kind] * len(rows), payloads, [0] * len(rows))


class Peer:
    tables = ("pgqueuer", "pgqueuer_log", "pgqueuer_statistics")
    unfinished = "select exists (select from pgqueuer)"
    finished = "select count(*) from pgqueuer_log where status = 'successful'"
    uvloop = True

    async def install(self, url: str) -> None:
        async with _connected(url) as connection:
            queries = Queries(AsyncpgDriver(connection))
            await queries.install()
            await queries.optimize_autovacuum()

    @contextlib.asynccontextmanager
    async def enqueuer(self, url: str) -> AsyncIterator[_Enqueuer]:
        async with _connected(url) as connection:
            yield _Enqueuer(Queries(AsyncpgDriver(connection)))

    async def work(self, url: str, scenario: str, slots: int, stop: asyncio.Event) -> None:
        options: dict[str, Any] = {
            "drain": {"batch_size": DRAIN_BATCH},
            "io": {"batch_size": slots // 2, "max_concurrent_tasks": slots},
            "latency": {},
        }[scenario]
        async with _connected(url) as connection:
            queuer = PgQueuer(AsyncpgDriver(connection))
            for kind in KINDS:
                _serve(queuer, kind)
            running = asyncio.create_task(queuer.run(**options))
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait([running, stopped], return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            queuer.shutdown.set()
            await running


def _serve(queuer: PgQueuer, kind: str) -> None:
    handler = KINDS[kind]

    @queuer.entrypoint(kind)
    async def run(job: Job) -> None:
        await handler(**json.loads(job.payload or b""))


@contextlib.asynccontextmanager
async def _connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()
