"""Chancy, with what the docstrings of `Queue`, `AsyncExecutor` and `Worker` (its reference) name:

* the asyncio executor, "for large numbers of IO-bound jobs", not the default of processes;
* concurrency: a fetch takes as many rows as slots are free, so it is the batch too. 1,000 in drain:
  less CPU a row than 100 (the executor's default) or 300, and 3,000 took no less;
* eager_polling: fetches as rows end, "for queues where jobs are continuously available";
* status writes are buffered by design, 1,000 in one go; `send_outgoing_interval`, a documented
  attribute of the worker, from 1 s to 0.1 s, lest its rows end a second later;
* the default plugins, among them the pruner, which keeps finished rows for a while;
* many rows by `push_many`, 1,000 a transaction (the default).

psycopg is its only driver; there is no word of uvloop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

from chancy import Chancy, Queue, Worker, job

from benchmarks.peers import contract
from benchmarks.peers.contract import Args

DRAIN_CONCURRENCY = 1_000
FLUSH_EVERY = 0.1  # seconds
QUEUE = "default"


@job(queue=QUEUE)
async def noop(*, i: int, pad: str) -> None:
    await contract.noop(i, pad)


@job(queue=QUEUE)
async def wait(*, i: int, pad: str) -> None:
    await contract.wait(i, pad)


@job(queue=QUEUE)
async def stamp(*, i: int, pad: str, at: float) -> None:
    await contract.stamp(i, pad, at)


JOBS: dict[str, Any] = {"noop": noop, "wait": wait, "stamp": stamp}


class _Enqueuer:
    def __init__(self, chancy: Chancy) -> None:
        self._chancy = chancy

    async def one(self, kind: str, args: Args) -> None:
        await self._chancy.push(JOBS[kind].job.with_kwargs(**args))

    async def many(self, kind: str, rows: list[Args]) -> None:
        made = JOBS[kind].job
        async for _ in self._chancy.push_many([made.with_kwargs(**args) for args in rows]):
            pass


class Peer:
    tables = ("chancy_jobs",)
    unfinished = (
        "select exists (select from chancy_jobs where state in ('pending', 'running', 'retrying'))"
    )
    finished = "select count(*) from chancy_jobs where state = 'succeeded'"
    uvloop = False

    async def install(self, url: str) -> None:
        async with _chancy(url) as chancy:
            await chancy.migrate()

    @contextlib.asynccontextmanager
    async def enqueuer(self, url: str) -> AsyncIterator[_Enqueuer]:
        async with _chancy(url) as chancy:
            yield _Enqueuer(chancy)

    async def work(self, url: str, scenario: str, slots: int, stop: asyncio.Event) -> None:
        async with _chancy(url) as chancy:
            queue = Queue(
                name=QUEUE,
                concurrency=DRAIN_CONCURRENCY if scenario == "drain" else slots,
                executor=Chancy.Executor.Async,
                eager_polling=True,
            )
            await chancy.declare(queue, upsert=True)
            worker = Worker(chancy, register_signal_handlers=False)
            worker.send_outgoing_interval = FLUSH_EVERY
            async with worker:
                await stop.wait()
                await worker.flush()


def _chancy(url: str) -> Chancy:
    log = logging.getLogger("chancy")
    log.setLevel(logging.WARNING)
    return Chancy(url, log=log)
