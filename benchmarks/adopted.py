"""Rows of a user's own table: the ways to claim them, beside the built-in table.

    python -m benchmarks adopted [--rows N] [--rounds N] [--million]

Drains by two connections in one process, a hundred rows a claim, claims and settles at the same
time; then the writes of the table's owner, beside the same on the bare table. All ways take turns
in each round. `--million` looks at the claims alone, in a table of a million rows (million.py).
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

import asyncpg

from benchmarks import server, ways
from tests.postgres import Cluster
from worker.url import DatabaseURL

T = TypeVar("T")

BATCH = 100
AHEAD = 4  # batches that may wait to be settled
WRITES_SHARE = 2  # one row in so many is written by its owner, in each way
RECONCILES = 5

DRAINED: tuple[ways.Way, ...] = (
    ways.Builtin(),
    ways.Own(100),
    ways.Own(80),
    ways.Own(50),
    ways.Own(100, None),
    ways.Own(80, None),
    ways.Own(50, None),
    ways.Moved(100),
    ways.Moved(50),
    ways.Moved(100, None),
    ways.Side(),
    ways.Side(writes_due=False),
    ways.Side(None),
    ways.Side(None, writes_due=False),
)


WRITTEN = (
    ways.Bare(100),
    ways.Bare(80),
    ways.Bare(50),
    ways.Own(100),
    ways.Own(80),
    ways.Own(50),
    ways.Side(),
)
REFERENCE = DRAINED[0].name
COMPARED = ("rows_per_s", "us", "wal")

# SQL, and whether the rows are new.
WRITES = {
    "insert": (ways.INSERT, True),
    "update due": ("update accounts set next_at = $2 where id = $1", False),
    "update other": ("update accounts set score = random(), seen_at = $2 where id = $1", False),
    "delete": ("delete from accounts where id = $1 and $2::timestamptz is not null", False),
}


@dataclass(frozen=True, slots=True)
class Drain:
    """Of the server's CPU in us a row: us for claim and settle, vacuum for what it cleans up after
    them. wal: bytes a row, without the vacuum's. hot: claims that wrote no index, a share."""

    rows_per_s: float
    us: float
    vacuum: float
    wal: float
    hot: float


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one write: the server's CPU in us, WAL in bytes."""

    us: float
    wal: float


@dataclass(frozen=True, slots=True)
class Reconciled:
    """Of the side table with the user's: us a row. differ: rows that are not in step: none."""

    us: float
    differ: float


class Bench:
    def __init__(self, cluster: Cluster, connection: asyncpg.Connection, rows: int) -> None:
        self._cluster = cluster
        self._url = DatabaseURL.parse(cluster.url)
        self._connection = connection
        self._rows = rows

    async def drain(self, way: ways.Way) -> Drain:
        """All rows are due, and go through the way's claim and settle."""
        worker = await self._made(way, "now() - interval '1 h' + make_interval(secs => i / 1e3)")
        await self._connection.execute(
            "select pg_stat_reset_single_table_counters($1::regclass)", way.hot_of
        )
        await way.start(self._url, worker)
        cpu, wal, started = self._spent()
        settled = await drain(way)
        seconds = time.perf_counter() - started
        cpu_after, wal_after, _ = self._spent()
        await way.close()
        assert settled == self._rows, f"{way.name}: {settled} of {self._rows} rows were settled"
        vacuum = await self._vacuum({ways.TABLE, way.hot_of})
        return Drain(
            settled / seconds,
            1e6 * (cpu_after - cpu) / settled,
            1e6 * vacuum / settled,
            (wal_after - wal) / settled,
            await self._hot(way.hot_of) / settled,
        )

    async def writes(self, table: ways.Bare) -> dict[str, Cost]:
        """What its owner's writes of single rows cost, a hundred a transaction."""
        await self._made(table, "now() + make_interval(secs => i)")
        writes = self._rows // WRITES_SHARE
        now = await self._connection.fetchval("select now()")
        costs = {}
        for kind, (sql, new) in WRITES.items():
            given = [(new * self._rows + i * WRITES_SHARE, now) for i in range(1, writes + 1)]
            cpu, wal, _ = self._spent()
            for at in range(0, writes, 100):
                await self._connection.executemany(sql, given[at : at + 100])
            cpu_after, wal_after, _ = self._spent()
            costs[kind] = Cost(1e6 * (cpu_after - cpu) / writes, (wal_after - wal) / writes)
        return costs

    async def reconcile(self) -> Reconciled:
        side = ways.Side()
        await self._made(side, "now() + make_interval(secs => i)")
        cpu = server.cpu(self._cluster)
        for _ in range(RECONCILES):
            differ = await self._connection.fetchval(side.reconcile)
        spent = server.cpu(self._cluster) - cpu
        return Reconciled(1e6 * spent / RECONCILES / self._rows, differ)

    async def _made(self, way: ways.Way | ways.Bare, due: str) -> int:
        """The way's tables with all rows in them; the id of a worker."""
        await way.make(self._connection)
        await self._connection.execute(ways.fill(self._rows, due))
        await self._connection.execute(f"vacuum analyze {ways.TABLE}")
        await way.prepare(self._connection)
        await self._connection.execute("checkpoint")
        return await server.worker(self._connection)

    async def _vacuum(self, tables: set[str]) -> float:
        """Seconds of CPU."""
        cpu = server.cpu(self._cluster)
        for table in tables:
            await self._connection.execute(f"vacuum {table}")
        return server.cpu(self._cluster) - cpu

    def _spent(self) -> tuple[float, int, float]:
        return server.cpu(self._cluster), server.wal(self._cluster), time.perf_counter()

    async def _hot(self, table: str) -> int:
        """HOT updates that the server has been told of; a backend tells at its end."""
        found, before = 0, -1
        while found != before:
            await asyncio.sleep(0.2)
            found, before = (
                await self._connection.fetchval(
                    "select n_tup_hot_upd from pg_stat_all_tables where relid = $1::regclass", table
                ),
                found,
            )
        return found


async def drain(way: ways.Way) -> int:
    """Claims until nothing is due, settles at the same time; how many were settled."""
    taken: asyncio.Queue[list[Any]] = asyncio.Queue(AHEAD)

    async def claim() -> None:
        while rows := await way.claim(BATCH):
            await taken.put(rows)
        await taken.put([])

    claiming = asyncio.create_task(claim())
    settled = 0
    while rows := await taken.get():
        settled += await way.settle(rows)
    await claiming
    return settled


# -- what is printed ------------------------------------------------------------------------------


def run(rows: int, rounds: int) -> dict[str, Any]:
    with server.server() as cluster:
        return asyncio.run(_run(cluster, rows, rounds))


async def _run(cluster: Cluster, rows: int, rounds: int) -> dict[str, Any]:
    drains: dict[str, list[Drain]] = {}
    writes: dict[str, list[dict[str, Cost]]] = {}
    reconciles: list[Reconciled] = []
    connection = await asyncpg.connect(cluster.url)
    try:
        await _without_autovacuum(connection)
        bench = Bench(cluster, connection, rows)
        for _ in range(rounds):
            for way in DRAINED:
                drains.setdefault(way.name, []).append(await bench.drain(way))
            for table in WRITTEN:
                writes.setdefault(table.name, []).append(await bench.writes(table))
            reconciles.append(await bench.reconcile())
    finally:
        await connection.close()
    figures = {
        "rows": rows,
        "rounds": rounds,
        "drains": {
            name: {
                **asdict(_middle(found)),
                "x": {of: _ratio(of, found, drains[REFERENCE]) for of in COMPARED},
                "lowest": min(one.rows_per_s for one in found),
                "highest": max(one.rows_per_s for one in found),
            }
            for name, found in drains.items()
        },
        "writes": {
            name: {kind: asdict(_middle([one[kind] for one in found])) for kind in WRITES}
            for name, found in writes.items()
        },
        "reconcile": asdict(_middle(reconciles)),
    }
    show(figures)
    return figures


async def _without_autovacuum(connection: asyncpg.Connection) -> None:
    """It would fall upon one way or another by chance; the vacuum is measured for itself."""
    await connection.execute("alter system set autovacuum = off")
    await connection.execute("select pg_reload_conf()")


def _middle(found: Sequence[T]) -> T:
    """The median of each figure."""
    return type(found[0])(
        *(statistics.median(getattr(one, f.name) for one in found) for f in fields(found[0]))
    )


def _ratio(of: str, found: list[Drain], reference: list[Drain]) -> float:
    """The median of the ratios to the reference of the same round."""
    pairs = zip(found, reference, strict=True)
    return statistics.median(getattr(one, of) / getattr(other, of) for one, other in pairs)


def show(figures: dict[str, Any]) -> None:
    rows, rounds = figures["rows"], figures["rounds"]
    print(f"{rows:,} rows of 1 KB and 20 columns, four indexes and a key; {BATCH} a claim;")
    print(f"medians of {rounds} rounds (lowest to highest); x: times the reference, worker.jobs")
    print(
        f"\n{'drain':46}{'rows/s':>7}{'':18}{'x':>5}{'server us':>11}{'x':>6}"
        f"{'vacuum us':>11}{'WAL bytes':>11}{'x':>6}{'HOT claims':>12}"
    )
    for name, f in figures["drains"].items():
        x, spread = f["x"], f"({f['lowest']:,.0f} to {f['highest']:,.0f})"
        print(
            f"{name:46}{f['rows_per_s']:7,.0f} {spread:17}{x['rows_per_s']:5.2f}"
            f"{f['us']:11.1f}{x['us']:6.2f}{f['vacuum']:11.1f}"
            f"{f['wal']:11,.0f}{x['wal']:6.2f}{f['hot']:12.0%}"
        )
    print(f"\n{'a write of the owner: server us (x), WAL bytes (x); x: times the bare table':64}")
    print(f"{'':46}" + "".join(f"{kind:>26}" for kind in WRITES))
    for table in WRITTEN:
        costs = figures["writes"][table.name]
        bare = figures["writes"][ways.Bare(table.fillfactor).name]
        print(f"{table.name:46}" + "".join(_cost(costs[kind], bare[kind]) for kind in WRITES))
    f = figures["reconcile"]
    print(f"\nthe side table's reconcile: {f['us']:.2f} us a row of the table, each time")


def _cost(cost: dict[str, float], bare: dict[str, float]) -> str:
    us = f"{cost['us']:.0f} ({cost['us'] / max(bare['us'], 1e-9):.2f})"
    wal = f"{cost['wal']:,.0f} ({cost['wal'] / max(bare['wal'], 1e-9):.2f})"
    return f"{us:>11}{wal:>15}"
