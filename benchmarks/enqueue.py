"""How fast jobs go in: one at a time, in bulk, and the bare drivers' INSERT and COPY beside it.

    python -m benchmarks.enqueue [--rows N] [--rounds N]

All ways take turns in each round on one durable server; each figure is the median of the rounds,
with the lowest and the highest. Args take about 120 bytes of JSON. `client` is the CPU time of this
process per row. The bare ways insert the same kind and args, already written as JSON, and do no
more: no checks, no ids, no notification.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import psycopg
from psycopg import RawCursor

from benchmarks.server import server
from worker import batch, enqueue, enqueue_many
from worker.job import Job

SINGLE_SHARE = 20  # of so many rows, one is enqueued on its own
COLUMNS = ["kind", "args"]
BARE_INSERT = "insert into worker.jobs (kind, args) select $1, a::jsonb from unnest($2::text[]) a"
BARE_ROW = "insert into worker.jobs (kind, args) values ($1, $2::text::jsonb)"
IDS = "select array_agg(nextval('worker.jobs_id_seq')) from generate_series(1, $1)"
NOTIFY = "select pg_notify('duerow', 'default')"

Way = Callable[[], Awaitable[None]]


def args_of(n: int) -> dict[str, Any]:
    return {
        "donation_id": n,
        "amount": "12.50",
        "currency": "EUR",
        "note": "charge it now please",
        "donor": {"id": 7 * n, "name": f"A B {n}"},
    }


class Ways:
    """Every way to get the rows in, each in its own transactions, committed."""

    def __init__(self, rows: int, apg: asyncpg.Connection, pg: psycopg.Connection) -> None:
        self.apg, self.pg = apg, pg
        self.jobs = [Job("charge", args_of(n)) for n in range(rows)]
        self.keyed = [Job("charge", args_of(n), unique_key=f"donation {n}") for n in range(rows)]
        self.mixed = [
            Job("charge", args_of(n), tenant=f"org {n % 1000}", priority=n % 3, delay=n % 60)
            for n in range(rows)
        ]
        self.texts = [json.dumps(args_of(n), separators=(",", ":")) for n in range(rows)]

    def singles(self) -> dict[str, Way]:
        few = len(self.jobs) // SINGLE_SHARE

        async def autocommit() -> None:
            for job in self.jobs[:few]:
                await enqueue(self.apg, job)

        async def bare_autocommit() -> None:
            for text in self.texts[:few]:
                await self.apg.execute(BARE_ROW, "charge", text)

        async def one_transaction() -> None:
            async with self.apg.transaction():
                await autocommit()

        async def bare_one_transaction() -> None:
            async with self.apg.transaction():
                await bare_autocommit()

        async def psycopg_autocommit() -> None:
            for job in self.jobs[:few]:
                enqueue(self.pg, job)
                self.pg.commit()

        async def bare_psycopg_autocommit() -> None:
            with RawCursor(self.pg) as cursor:
                for text in self.texts[:few]:
                    cursor.execute(BARE_ROW, ["charge", text])
                    self.pg.commit()

        return {
            "bare INSERT, a commit each, asyncpg": bare_autocommit,
            "enqueue, a commit each, asyncpg": autocommit,
            "bare INSERT, a commit each, psycopg": bare_psycopg_autocommit,
            "enqueue, a commit each, psycopg": psycopg_autocommit,
            "bare INSERT, one transaction, asyncpg": bare_one_transaction,
            "enqueue, one transaction, asyncpg": one_transaction,
        }

    def bulks(self) -> dict[str, Way]:
        ways: dict[str, Way] = {
            "bare COPY, asyncpg": self._bare_copy,
            "bare COPY, psycopg": self._bare_copy_psycopg,
            "COPY with ids and NOTIFY, asyncpg": self._copy_with_ids,
            "bare INSERT from unnest, asyncpg": self._bare_insert,
        }
        for size in (1_000, 5_000, 20_000, 50_000):
            ways[f"enqueue_many, {size:,} a statement, asyncpg"] = self._asyncpg(self.jobs, size)
        default = batch.CHUNK_ROWS
        return ways | {
            "enqueue_many, psycopg": self._psycopg(self.jobs, default),
            "enqueue_many, all columns differ, asyncpg": self._asyncpg(self.mixed, default),
            "enqueue_many, all columns differ, psycopg": self._psycopg(self.mixed, default),
            "enqueue_many, unique keys, asyncpg": self._asyncpg(self.keyed, default),
            "enqueue_many, unique keys, psycopg": self._psycopg(self.keyed, default),
        }

    def _asyncpg(self, jobs: list[Job], chunk: int) -> Way:
        async def way() -> None:
            batch.CHUNK_ROWS = chunk
            async with self.apg.transaction():
                await enqueue_many(self.apg, jobs)

        return way

    def _psycopg(self, jobs: list[Job], chunk: int) -> Way:
        async def way() -> None:
            batch.CHUNK_ROWS = chunk
            enqueue_many(self.pg, jobs)
            self.pg.commit()

        return way

    async def _bare_insert(self) -> None:
        await self.apg.execute(BARE_INSERT, "charge", self.texts)

    async def _bare_copy(self) -> None:
        await self.apg.copy_records_to_table(
            "jobs",
            schema_name="worker",
            columns=COLUMNS,
            records=[("charge", text) for text in self.texts],
        )

    async def _bare_copy_psycopg(self) -> None:
        lines = "\n".join(["charge\t" + text for text in self.texts]).replace("\\", "\\\\")
        with (
            self.pg.cursor() as cursor,
            cursor.copy("copy worker.jobs (kind, args) from stdin") as copy,
        ):
            copy.write(lines)
        self.pg.commit()

    async def _copy_with_ids(self) -> None:
        """What a COPY that does all that enqueue_many does would have to do."""
        async with self.apg.transaction():
            made = batch.Batch(self.jobs, None, batch.CHUNK_BYTES)
            texts = made.params(range(len(made)), ())[0].split("\n")
            ids = await self.apg.fetchval(IDS, len(texts))
            rows = [f"{id_}\tcharge\t{text}" for id_, text in zip(ids, texts, strict=True)]
            await self.apg.copy_to_table(
                "jobs",
                schema_name="worker",
                columns=["id", *COLUMNS],
                source=io.BytesIO("\n".join(rows).replace("\\", "\\\\").encode()),
            )
            await self.apg.execute(NOTIFY)


async def measure(
    ways: dict[str, Way], rows: int, rounds: int, apg: asyncpg.Connection
) -> dict[str, dict[str, float]]:
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            await apg.execute("truncate worker.jobs")
            began, used = time.perf_counter(), time.process_time()
            await way()
            taken[name].append((time.perf_counter() - began, time.process_time() - used))
    figures = {}
    for name, times in taken.items():
        speeds = sorted(rows / seconds for seconds, _ in times)
        figures[name] = {
            "rows_per_s": statistics.median(speeds),
            "lowest": speeds[0],
            "highest": speeds[-1],
            "client_us": statistics.median(cpu for _, cpu in times) / rows * 1e6,
        }
    return figures


def show(figures: dict[str, dict[str, float]]) -> None:
    first = next(iter(figures.values()))["rows_per_s"]
    print(f"{'':48} {'rows/s':>9} {'lowest':>9} {'highest':>9} {'client':>8}  of the first")
    for name, f in figures.items():
        print(
            f"{name:48} {f['rows_per_s']:9,.0f} {f['lowest']:9,.0f} {f['highest']:9,.0f}"
            f" {f['client_us']:5.1f} us  {f['rows_per_s'] / first:8.2f}"
        )


async def _run(url: str, rows: int, rounds: int) -> dict[str, Any]:
    apg = await asyncpg.connect(url)
    with psycopg.connect(url) as pg:
        ways = Ways(rows, apg, pg)
        single = await measure(ways.singles(), rows // SINGLE_SHARE, rounds, apg)
        print(f"-- {rows // SINGLE_SHARE:,} rows, one at a time")
        show(single)
        bulk = await measure(ways.bulks(), rows, rounds, apg)
        print(f"-- {rows:,} rows in bulk")
        show(bulk)
    await apg.close()
    return {"single": single, "bulk": bulk}


def run(rows: int, rounds: int) -> dict[str, Any]:
    with server() as cluster:
        return asyncio.run(_run(cluster.url, rows, rounds))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.enqueue")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--url", help="a migrated database to empty, instead of a server of its own"
    )
    given = parser.parse_args()
    if given.url:
        asyncio.run(_run(given.url, given.rows, given.rounds))
    else:
        run(given.rows, given.rounds)


if __name__ == "__main__":
    main()
