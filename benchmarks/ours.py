"""This project under the contract of benchmarks.peers: python -m benchmarks.ours COMMAND ..."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

import asyncpg

from benchmarks.peers import contract
from benchmarks.peers.contract import Args
from worker import enqueue, enqueue_many
from worker.app import App
from worker.drain import Budget
from worker.job import Job
from worker.runtime import Worker
from worker.settings import Settings
from worker.url import DatabaseURL

app = App()
for kind in contract.KINDS.values():
    app.handler(kind)


class _Enqueuer:
    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def one(self, kind: str, args: Args) -> None:
        await enqueue(self._connection, Job(kind, args))

    async def many(self, kind: str, rows: list[Args]) -> None:
        async with self._connection.transaction():
            await enqueue_many(self._connection, [Job(kind, args) for args in rows])


class Ours:
    """Default settings but for the slots. A drain is `worker drain`, the rest `worker run`."""

    tables = ("worker.jobs", "worker.jobs_finished", "worker.attempts")
    unfinished = "select exists (select from worker.jobs)"
    finished = "select count(*) from worker.jobs_finished where state = 'done'"
    uvloop = True  # as `worker run`, where it is installed

    async def install(self, url: str) -> None:
        from worker.migrate import upgrade  # 20 MB that no worker needs

        upgrade(url)

    @contextlib.asynccontextmanager
    async def enqueuer(self, url: str) -> AsyncIterator[_Enqueuer]:
        connection = await asyncpg.connect(url)
        try:
            yield _Enqueuer(connection)
        finally:
            await connection.close()

    async def work(self, url: str, scenario: str, slots: int, stop: asyncio.Event) -> None:
        worker = Worker(app, Settings.load(concurrency=slots), DatabaseURL.parse(url))
        if scenario != "latency":
            await worker.run(drain=Budget())
            return
        running = asyncio.create_task(worker.run())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([running, stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        worker.stop()
        await running


if __name__ == "__main__":
    contract.main(Ours(), sys.argv[1:])
