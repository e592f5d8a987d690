"""Claims from a user's table of a million rows, one in a hundred of which is due.

First on the table as it is, then after as many updates by its owner as there are rows; then after
as many more while a snapshot is held open, so that nothing that they leave dead can be removed;
last, with it still open, each row that is due has been updated 25 times while it was: those leave
their dead index entries among what the claims walk over. The owner's updates change a column of any
row, one in four a due time that is yet to come.

A claim is a worker's: from the floor, and now and then from the beginning (the look). Beside it
stands what the owner's update of as many rows takes at that time, by key; and of both the CPU time
of their backend, which is the same on a busy machine.
"""

from __future__ import annotations

import asyncio
import math
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import psycopg

from benchmarks import server, ways
from tests.postgres import Cluster
from worker.url import DatabaseURL

LIMIT = 100
SHARE = 100  # one row in so many is due
FILLFACTOR = 80
STEP = 1000  # rows an update of the owner's
OFTEN = 25
Traffic = Callable[[], Awaitable[float]]

ANY = "update accounts set score = random() where id = any ($1)"
LATER = "update accounts set next_at = next_at + interval '1 h' where id = any ($1)"
DUE_AGAIN = """
update accounts set next_at = now() - make_interval(secs => random())
 where id = any (array(select i from generate_series($1::bigint, $2, $1) i))"""


@dataclass
class Claims:
    """ms of each claim. looks: of those that went from the beginning. updates: the owner's, each of
    as many rows. cpu, update_cpu: ms of them all, of the backend's CPU. updates_per_s: rows,
    beforehand; 0 if there were none."""

    name: str
    updates_per_s: float = 0.0
    floor: list[float] = field(default_factory=list)
    looks: list[float] = field(default_factory=list)
    updates: list[float] = field(default_factory=list)
    cpu: float = 0.0
    update_cpu: float = 0.0


class Million:
    """A table that is claimed from as a worker would."""

    def __init__(self, cluster: Cluster, connection: asyncpg.Connection, rows: int) -> None:
        self._url = DatabaseURL.parse(cluster.url)
        self._connection = connection
        self._rows = rows
        self._chance = random.Random(1)
        self._way = ways.Own(FILLFACTOR)

    async def make(self) -> None:
        await self._way.make(self._connection)
        due = "now() + make_interval(secs => 86400 + i)"
        await self._connection.execute(ways.fill(self._rows, due))
        await self._connection.execute(f"vacuum analyze {ways.TABLE}")
        await self._way.prepare(self._connection)
        await self._way.start(self._url, await server.worker(self._connection))
        [claiming] = await self._way.claiming.fetch("select pg_backend_pid()")
        self._backends = (claiming[0], self._connection.get_server_pid())

    async def close(self) -> None:
        await self._way.close()

    async def measure(self, name: str, rounds: int, traffic: Traffic | None = None) -> Claims:
        """Claims and settles what is due, so many times; before that come the owner's updates."""
        found = Claims(name)
        for _ in range(rounds):
            await self._connection.execute(DUE_AGAIN, SHARE, self._rows)
            if traffic is not None and not found.updates_per_s:
                found.updates_per_s = await traffic()
            await self._claim_all(found)
        return found

    async def anywhere(self) -> float:
        """As many updates as there are rows; how many a second."""
        started = time.perf_counter()
        for i in range(self._rows // STEP):
            ids = [self._chance.randint(1, self._rows) for _ in range(STEP)]
            if i % 4:
                await self._connection.execute(ANY, ids)
            else:
                await self._connection.execute(LATER, [id_ for id_ in ids if id_ % SHARE])
        return self._rows / (time.perf_counter() - started)

    async def of_the_due(self) -> float:
        """Each row that is due, 25 times."""
        started = time.perf_counter()
        for _ in range(OFTEN):
            for first in range(SHARE, self._rows + 1, SHARE * STEP):
                last = min(self._rows + 1, first + SHARE * STEP)
                await self._connection.execute(ANY, list(range(first, last, SHARE)))
        return OFTEN * (self._rows // SHARE) / (time.perf_counter() - started)

    async def _claim_all(self, found: Claims) -> None:
        cpu, update_cpu = self._cpu()
        await self._claim_while_due(found)
        cpu_after, update_cpu_after = self._cpu()
        found.cpu += cpu_after - cpu
        found.update_cpu += update_cpu_after - update_cpu

    def _cpu(self) -> tuple[float, float]:
        """ms so far: of the backend that claims, and of the owner's."""
        claims, updates = map(server.backend_cpu, self._backends)
        return 1000 * claims, 1000 * updates

    async def _claim_while_due(self, found: Claims) -> None:
        settled = 0
        while settled < self._rows // SHARE:
            started = time.perf_counter()
            rows = await self._way.claim(LIMIT)
            took = 1000 * (time.perf_counter() - started)
            if len(rows) == LIMIT:
                (found.looks if self._way.claimer.looked else found.floor).append(took)
            settled += await self._way.settle(rows)
            if 4 * len(found.updates) <= len(found.floor):
                found.updates.append(await self._update())

    async def _update(self) -> float:
        """ms that the owner needs to update as many rows."""
        ids = [self._chance.randint(1, self._rows) for _ in range(LIMIT)]
        started = time.perf_counter()
        await self._connection.execute(ANY, ids)
        return 1000 * (time.perf_counter() - started)


def run(rows: int, rounds: int) -> dict[str, Any]:
    with server.server() as cluster:
        return asyncio.run(_run(cluster, rows, rounds))


async def _run(cluster: Cluster, rows: int, rounds: int) -> dict[str, Any]:
    connection = await asyncpg.connect(cluster.url)
    table = Million(cluster, connection, rows)
    try:
        await table.make()
        found = [
            await table.measure("as it is", rounds),
            await table.measure("after the owner's updates", rounds, table.anywhere),
        ]
        with _snapshot(cluster):
            again = "as many again, a snapshot open"
            found.append(await table.measure(again, rounds, table.anywhere))
            due = f"and each due row {OFTEN} times"
            found.append(await table.measure(due, 1, table.of_the_due))
    finally:
        await table.close()
        await connection.close()
    return show(rows, found)


@contextmanager
def _snapshot(cluster: Cluster) -> Iterator[None]:
    """A transaction that has looked once, and stays open."""
    with psycopg.connect(cluster.url) as connection:
        connection.execute("set transaction isolation level repeatable read")
        connection.execute("select 1")
        yield


def show(rows: int, found: list[Claims]) -> dict[str, Any]:
    print(
        f"{rows:,} rows of 1 KB, fillfactor {FILLFACTOR}, {rows // SHARE:,} of them due;"
        f" ms for claims of {LIMIT}, and for the owner's update of as many at that time"
    )
    heads = ("updates/s", "claims", "p50", "p99", "CPU", "looks", "p50", "an update", "CPU")
    print(f"{'':32}" + "".join(f"{head:>10}" for head in heads))
    figures = {}
    for one in found:
        claims = one.floor + one.looks
        p50, p99 = statistics.median(claims), _p99(claims)
        cpu, update_cpu = one.cpu / len(claims), one.update_cpu / len(one.updates)
        look, update = statistics.median(one.looks or [0.0]), statistics.median(one.updates)
        print(
            f"{one.name:32}{one.updates_per_s:10,.0f}{len(claims):10}{p50:10.2f}{p99:10.2f}"
            f"{cpu:10.2f}{len(one.looks):10}{look:10.2f}{update:10.2f}{update_cpu:10.2f}"
        )
        figures[one.name] = {
            "p50": p50,
            "p99": p99,
            "p99 without looks": _p99(one.floor),
            "look p50": look,
            "CPU": cpu,
            "an update, CPU": update_cpu,
            "an update, p50": update,
        }
    return {"rows": rows, "claims": figures}


def _p99(claims: list[float]) -> float:
    return sorted(claims)[math.ceil(0.99 * len(claims)) - 1] if claims else 0.0
