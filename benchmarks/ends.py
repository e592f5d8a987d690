"""The two ends of a queue that is in use, each a process of its own: a producer and a worker.

Each tells the others in shared memory how many rows it has had. No more is imported here than they
need: it counts against neither, but they start the later for it.
"""

from __future__ import annotations

import asyncio
import signal
from multiprocessing.sharedctypes import Synchronized
from typing import Any, TypeAlias

import asyncpg

from benchmarks.noop import app, new_loop
from worker import Job, enqueue_many
from worker.runtime import Worker
from worker.settings import Settings
from worker.url import DatabaseURL

CALL = 500  # jobs
TOLD_EVERY = 0.01  # seconds, of what a worker has settled

Count: TypeAlias = "Synchronized[int]"  # rows: written by one process, read by others


def work(url: str, slots: int, settled: Count) -> None:
    """A worker that runs until SIGTERM, and counts what it has settled."""

    async def body() -> None:
        worker = Worker(app, Settings.load(concurrency=slots), DatabaseURL.parse(url))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
        running = asyncio.create_task(worker.run())
        while not running.done():
            await asyncio.wait([running], timeout=TOLD_EVERY)
            if worker.worker_id is not None:
                settled.value = worker.parts.settler.settled
        report = await running
        settled.value = report.settled

    _run(body())


def produce(url: str, most: int, enqueued: Count, settled: list[Count]) -> None:
    """Enqueues until SIGTERM, and counts it."""

    async def body() -> None:
        stopping = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
        connection = await asyncpg.connect(url)
        pad = "x" * 90
        while not stopping.is_set():
            if waiting(enqueued, settled) > most - CALL:
                await asyncio.sleep(0.002)
                continue
            first = enqueued.value
            jobs = [Job("noop", {"i": first + i, "pad": pad}) for i in range(CALL)]
            await enqueue_many(connection, jobs)
            enqueued.value = first + CALL
        await connection.close()

    _run(body())


def waiting(enqueued: Count, settled: list[Count]) -> int:
    """Rows that are not settled yet, as far as has been told."""
    return int(enqueued.value) - sum(int(count.value) for count in settled)


def _run(body: Any) -> None:
    with asyncio.Runner(loop_factory=new_loop()) as runner:
        runner.run(body)
