"""Oban for Python (not Pro), with what its pages "Defining Queues" and "Ready for Production" name:

* limit: so many rows at a time, and a fetch takes as many as are free. 500 in drain: less CPU a row
  than 10, 20 (its own benchmark's) or 100, and 2,000 took no less;
* debounce_interval: between two fetches. The default of 5 ms gathers ends of rows and their
  acknowledgements, which are sent together, but row by row;
* a pool of 2 to 10 connections, which it calls comfortable: a worker needs few;
* finished rows are kept for a day (the pruner's default);
* uvloop, on which its command line runs where that is installed;
* many rows by `enqueue_many`, in one transaction, row by row.

psycopg is its only driver. It asks for Python 3.12, so it may run on a newer one than the others.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from oban import Oban, job
from oban.schema import install

from benchmarks.peers import contract
from benchmarks.peers.contract import Args

DRAIN_LIMIT = 500


@job()
async def noop(i: int, pad: str) -> None:
    await contract.noop(i, pad)


@job()
async def wait(i: int, pad: str) -> None:
    await contract.wait(i, pad)


@job()
async def stamp(i: int, pad: str, at: float) -> None:
    await contract.stamp(i, pad, at)


JOBS: dict[str, Any] = {"noop": noop, "wait": wait, "stamp": stamp}


class _Enqueuer:
    def __init__(self, oban: Oban) -> None:
        self._oban = oban

    async def one(self, kind: str, args: Args) -> None:
        await self._oban.enqueue(JOBS[kind].new(**args))

    async def many(self, kind: str, rows: list[Args]) -> None:
        made = JOBS[kind]
        await self._oban.enqueue_many([made.new(**args) for args in rows])


class Peer:
    tables = ("oban_jobs",)
    unfinished = (
        "select exists (select from oban_jobs"
        " where state in ('available', 'scheduled', 'executing', 'retryable'))"
    )
    finished = "select count(*) from oban_jobs where state = 'completed'"
    uvloop = True

    async def install(self, url: str) -> None:
        async with _pool(url) as pool:
            await install(pool)

    @contextlib.asynccontextmanager
    async def enqueuer(self, url: str) -> AsyncIterator[_Enqueuer]:
        async with _pool(url) as pool, Oban(pool=pool) as oban:
            yield _Enqueuer(oban)

    async def work(self, url: str, scenario: str, slots: int, stop: asyncio.Event) -> None:
        limit = DRAIN_LIMIT if scenario == "drain" else slots
        async with _pool(url) as pool, Oban(pool=pool, queues={"default": limit}):
            await stop.wait()


@contextlib.asynccontextmanager
async def _pool(url: str) -> AsyncIterator[Any]:
    pool = await Oban.create_pool(dsn=url, min_size=2, max_size=10)
    try:
        yield pool
    finally:
        await pool.close()
