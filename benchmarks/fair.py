"""Fair claims beside plain ones, from a million due rows of 10,000 tenants, half of them one's.

The large tenant's rows fell due before all others. Each round makes one claim in each way, so that
whatever else the machine does falls on all of them; what was claimed is settled, which is not
timed. A claim is a worker's, with its listings of tenants, its tenth in the order of due times, and
a look from the beginning every second.

Then: a tenant of 20 rows that falls due behind one of 10,000; and 10,000 tenants whose rows are all
to come, among whom two have due ones.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import asyncpg
import psycopg

from benchmarks import server
from tests.postgres import Cluster
from worker.claim import Claimer
from worker.demo.table import adopt
from worker.events import Events
from worker.fair import Fair
from worker.link import HOT_PATH_PLANNER, Link, Outage
from worker.row import Row
from worker.source import Settlement, Source
from worker.sources.jobs import Jobs
from worker.sources.rows import Rows
from worker.tables.catalog import describe_async
from worker.tables.spec import TableSpec
from worker.transition import Transition
from worker.url import DatabaseURL

LIMIT = 100
TENANTS = 10_000
BOUND = 5.0  # ms, for the median
WAYS = {"plain": None, "fair, k = 10": Fair(10), "fair, k = 1": Fair(1)}
SPEC = TableSpec("orders", "orders", due="next_at", tenant="client", by_tenant=True)
ORDERS = """
create table orders (
    id bigint generated always as identity primary key, client text, pad text, next_at timestamptz)
    with (fillfactor = 80)"""
LARGE = f"tenant {TENANTS // 2}"
WHOSE = f"case when i % 2 = 0 then '{LARGE}' else 'tenant ' || (i / 2) % {TENANTS} end"
SINCE = "now() - make_interval(secs => 1000 - i * 0.0001 + case when i % 2 = 0 then 500 else 0 end)"


class Table(Protocol):
    """Where rows are claimed from."""

    name: str

    async def make(self, connection: asyncpg.Connection) -> None: ...

    async def fill(self, connection: asyncpg.Connection, whose: str, due: str, rows: int) -> None:
        """Replaces all rows. whose, due: of the i-th, in SQL."""

    def source(self, fair: Fair | None) -> Source: ...


class OfJobs:
    name = "worker.jobs"

    async def make(self, connection: asyncpg.Connection) -> None: ...

    async def fill(self, connection: asyncpg.Connection, whose: str, due: str, rows: int) -> None:
        await connection.execute("truncate worker.jobs")
        await connection.execute(
            "insert into worker.jobs (kind, args, tenant, due_at)"
            f" select 'track', jsonb_build_object('i', i, 'pad', repeat('x', 90)), {whose}, {due}"
            f" from generate_series(1, {rows}) i"
        )
        await connection.execute("vacuum analyze worker.jobs")

    def source(self, fair: Fair | None) -> Source:
        return Jobs([("default", "track")], {} if fair is None else {"track": fair})


class OfOrders:
    name = "an adopted table"

    def __init__(self, url: str) -> None:
        self._url = url

    async def make(self, connection: asyncpg.Connection) -> None:
        await connection.execute(ORDERS)
        with psycopg.connect(self._url, autocommit=True) as other:
            adopt(other, SPEC)
        self._described = await describe_async(connection, SPEC.table)

    async def fill(self, connection: asyncpg.Connection, whose: str, due: str, rows: int) -> None:
        await connection.execute("truncate orders")
        await connection.execute(
            f"insert into orders (client, pad, next_at) select {whose}, repeat('x', 100), {due}"
            f" from generate_series(1, {rows}) i"
        )
        await connection.execute("vacuum analyze orders")

    def source(self, fair: Fair | None) -> Source:
        return Rows(SPEC, self._described, ("id", "pad"), fair)


@dataclass
class Claims:
    """ms of each, and ms of CPU, the server's and ours, which others on the machine do not add to;
    how many rows were the large tenant's."""

    ms: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    rows: int = 0
    large: int = 0


class Claiming:
    """A worker's claims from a table, and its settles."""

    def __init__(self, url: str, source: Source, worker: int) -> None:
        told, address = Events(()), DatabaseURL.parse(url)
        self._links = [
            Link(name, address, Outage(told), planner=HOT_PATH_PLANNER)
            for name in ("claim", "settle")
        ]
        self._claimer = Claimer(source, self._links[0], told)
        self._source, self._worker = source, worker

    async def claim(self) -> list[Row]:
        return await self._claimer.step(LIMIT, self._worker)

    def cpu(self) -> float:
        """ms so far, of the server's backend and of this process."""
        connection = self._links[0]._connection
        if connection is None:
            return 0.0
        spent = Path(f"/proc/{connection.get_server_pid()}/schedstat").read_text().split()[0]
        return int(spent) / 1e6 + 1000 * time.process_time()

    async def settle(self, rows: list[Row]) -> None:
        batch = [Settlement(row, Transition("done"), 0.0) for row in rows]
        for sql, params in self._source.settle(self._worker, batch):
            await self._links[1].fetch(sql, *params)

    async def close(self) -> None:
        for link in self._links:
            await link.close()


def run(rows: int, rounds: int) -> dict[str, Any]:
    with server.server() as cluster:
        return asyncio.run(_run(cluster, rows, rounds))


async def _run(cluster: Cluster, rows: int, rounds: int) -> dict[str, Any]:
    connection = await asyncpg.connect(cluster.url)
    worker = await server.worker(connection)
    figures: dict[str, Any] = {"rows": rows}
    try:
        for table in (OfJobs(), OfOrders(cluster.url)):
            await table.make(connection)

            def start(fair: Fair | None, table: Table = table) -> Claiming:
                return Claiming(cluster.url, table.source(fair), worker)

            await table.fill(connection, WHOSE, SINCE, rows)
            found = await _measure(start, rounds)
            await table.fill(
                connection,
                f"case when i % 500 = 0 then 'small' else '{LARGE}' end",
                "now() - make_interval(secs => case when i % 500 = 0 then 1 else 60 end)",
                10_000,
            )
            turns = {name: await _claims_until_small(start(fair)) for name, fair in WAYS.items()}
            await table.fill(
                connection,
                f"case when i > {TENANTS} then 'tenant ' || i % 2 * 7000 else 'tenant ' || i end",
                f"now() + case when i > {TENANTS} then interval '-1 h' else '1 h' end",
                TENANTS + 2 * LIMIT * rounds * len(WAYS),
            )
            idle = await _measure(start, rounds)
            figures[table.name] = show(table.name, rows, found, turns, idle)
    finally:
        await connection.close()
    return figures


async def _measure(start: Callable[[Fair | None], Claiming], rounds: int) -> dict[str, Claims]:
    claiming = {name: start(fair) for name, fair in WAYS.items()}
    found = {name: Claims() for name in WAYS}
    for turn in range(rounds + 5):
        for name, one in claiming.items():
            cpu, started = one.cpu(), time.perf_counter()
            rows = await one.claim()
            ms, cpu = 1000 * (time.perf_counter() - started), one.cpu() - cpu
            await one.settle(rows)
            if turn >= 5:  # the first ones prepare statements
                found[name].ms.append(ms)
                found[name].cpu.append(cpu)
                found[name].rows += len(rows)
                found[name].large += sum(row.tenant == LARGE for row in rows)
    for one in claiming.values():
        await one.close()
    return found


async def _claims_until_small(claiming: Claiming) -> int:
    """Claims until the small tenant's 20 rows are taken. Gives all back."""
    taken: list[Row] = []
    claims = 0
    while Counter(row.tenant for row in taken)["small"] < 20:
        taken += await claiming.claim()
        claims += 1
    batch = [
        Settlement(row, Transition("released", refund=1, recorded=False), 0.0) for row in taken
    ]
    for sql, params in claiming._source.settle(claiming._worker, batch):
        await claiming._links[1].fetch(sql, *params)
    await claiming.close()
    return claims


def show(
    name: str, rows: int, found: dict[str, Claims], turns: dict[str, int], idle: dict[str, Claims]
) -> dict[str, Any]:
    print(
        f"{name}: {rows:,} due rows of {TENANTS:,} tenants, half of them one's;"
        f" ms for {LIMIT} rows; the median must be under {BOUND:g}"
    )
    heads = ("claims", "p50", "p99", "CPU p50", "the large one's", "20 beside 10,000")
    heads += ("idle: p50", "p99", "CPU p50")
    print(f"{'':14}" + "".join(f"{head:>{len(head) + 3}}" for head in heads))
    figures = {}
    for way, claims in found.items():
        p50, p99 = statistics.median(claims.ms), _p99(claims.ms)
        idle_p50, idle_p99 = statistics.median(idle[way].ms), _p99(idle[way].ms)
        cpu, idle_cpu = statistics.median(claims.cpu), statistics.median(idle[way].cpu)
        large = claims.large / claims.rows
        print(
            f"{way:14}{len(claims.ms):9}{p50:6.2f}{p99:6.2f}{cpu:10.2f}{large:18.0%}"
            f"{turns[way]:12} claims{idle_p50:12.2f}{idle_p99:6.2f}{idle_cpu:10.2f}"
            f"  {'ok' if p50 < BOUND else 'MISSED'}"
        )
        figures[way] = {
            "p50": p50,
            "p99": p99,
            "CPU p50": cpu,
            "the large tenant's share": large,
            "claims until 20 rows beside 10,000 are taken": turns[way],
            "p50 among tenants that are idle": idle_p50,
            "p99 among tenants that are idle": idle_p99,
            "CPU p50 among tenants that are idle": idle_cpu,
        }
    return figures


def _p99(claims: list[float]) -> float:
    return statistics.quantiles(claims, n=100, method="inclusive")[98]
