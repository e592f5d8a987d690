"""The limit of latency: the two commits of a row that is enqueued and claimed, and nothing else.

Rows are inserted at the rate of the contest's `produce`; another connection, which need not be
told of them, claims each at once by its key. No queue that commits both can be quicker on the same
disk, and what this varies by, they all do.
"""

from __future__ import annotations

import asyncio
import json
import time

import asyncpg

from benchmarks.peers.contract import rows_of
from tests.postgres import Cluster

INSERT = "insert into worker.jobs (kind, args) values ('commits', $1) returning id"
CLAIM = "update worker.jobs set owner = 0, token = token + 1, attempt = 1 where id = $1"


def waits(cluster: Cluster, rows: int, rate: int) -> list[float]:
    """ms from before a row's insert until its claim is committed, of each."""
    return asyncio.run(_waits(cluster.url, rows, rate))


async def _waits(url: str, rows: int, rate: int) -> list[float]:
    found = []
    producer, claimer = await asyncpg.connect(url), await asyncpg.connect(url)
    try:
        await producer.execute("delete from worker.jobs where kind = 'commits'")
        began = time.perf_counter()
        for n, args in enumerate(rows_of(rows)):
            await asyncio.sleep(max(0.0, began + n / rate - time.perf_counter()))
            at = time.perf_counter()
            key = await producer.fetchval(INSERT, json.dumps(args))
            await claimer.execute(CLAIM, key)
            found.append(1000 * (time.perf_counter() - at))
    finally:
        await asyncio.gather(producer.close(), claimer.close())
    return found
