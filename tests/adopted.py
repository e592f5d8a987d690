"""Tables of a user's own, made adoptable: the bookkeeping columns and the claim's index."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import asyncpg
from psycopg import sql

from worker.sources.rows import Rows
from worker.tables.bookkeeping import NAMES, bookkeeping, due_expression
from worker.tables.catalog import describe_async
from worker.tables.names import parts_of
from worker.tables.spec import TableSpec, index_name

DONATIONS = """
create table donations (
    id      bigint generated always as identity primary key,
    next_at timestamptz default now(),
    status  text not null default 'active',
    amount  integer not null default 10,
    org     text,
    note    text
)
"""


@dataclasses.dataclass
class Donation:
    """The columns that most handlers here ask for."""

    id: int
    amount: int


async def adopt(
    connection: asyncpg.Connection,
    table: str,
    *,
    due: str = "next_at",
    where: str | None = None,
    fillfactor: int | None = None,
) -> None:
    """table: as a user writes it."""
    found = await describe_async(connection, table)
    of = sql.Identifier(found.schema, found.table)
    columns = sql.SQL(", ").join(
        sql.SQL(f"add column {column.definition}") for column in bookkeeping(found.types[due])
    )
    statements = [
        sql.SQL("alter table {} {}").format(of, columns),
        sql.SQL("create index {} on {} (({}))").format(
            sql.Identifier(index_name(parts_of(table)[-1])), of, due_expression(due)
        )
        + sql.SQL(f" where ({where})" if where else ""),
    ]
    if fillfactor is not None:
        statements.append(sql.SQL(f"alter table {{}} set (fillfactor = {fillfactor})").format(of))
    for one in statements:
        await connection.execute(one.as_string(None))


async def make_donations(connection: asyncpg.Connection, rows: int = 0, **adoption: Any) -> None:
    """The table `donations`, with so many due rows."""
    await connection.execute(DONATIONS)
    await adopt(connection, "donations", **adoption)
    await connection.execute(
        "insert into donations (amount, org)"
        " select i, 'org ' || i % 3 from generate_series(1, $1) i",
        rows,
    )


async def source(connection: asyncpg.Connection, spec: TableSpec, *reads: str) -> Rows:
    """The source itself, for what is asked of its statements."""
    return Rows(spec, await describe_async(connection, spec.table), reads)


async def one(connection: asyncpg.Connection, key: Any = 1, table: str = "donations") -> Any:
    """A row of the table, bookkeeping included."""
    record = await connection.fetchrow(f"select * from {table} where id = $1", key)
    assert record is not None, f"row {key} is gone"
    return record


async def theirs(connection: asyncpg.Connection, table: str = "donations") -> list[dict[str, Any]]:
    """Every row without our columns, in the order of the key `id`."""
    records = await connection.fetch(f"select * from {table} order by id")
    return [{c: v for c, v in r.items() if c not in NAMES} for r in records]


async def outcomes(connection: asyncpg.Connection, key: Any = 1) -> list[tuple[int, str]]:
    """(attempt, outcome) of a row's recorded attempts, in order."""
    records = await connection.fetch(
        "select attempt, outcome from worker.attempts where row_key = $1::text"
        " order by ended_at, token",
        str(key),
    )
    return [tuple(record) for record in records]


async def in_flight(connection: asyncpg.Connection, table: str = "donations") -> int:
    """How many rows are claimed."""
    count = await connection.fetchval(
        f"select count(*) from {table} where duerow_owner is not null"
    )
    return int(count)


def utc(*when: int) -> dt.datetime:
    return dt.datetime(*when, tzinfo=dt.UTC)  # type: ignore[misc, arg-type]


async def ghost(apg: asyncpg.Connection, *, silent: float = 3600) -> int:
    """A worker that has not been heard of for so many seconds."""
    return int(
        await apg.fetchval(
            "insert into worker.workers"
            " (name, host, pid, version, queues, kinds, slots, lease, heartbeat_at)"
            " values ('ghost', '', 0, '', '{}', '{}', 1, '1 s', now() - $1 * interval '1 s')"
            " returning id",
            silent,
        )
    )
