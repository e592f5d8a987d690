"""What an adopted table's rows and its storage look like right now, and what that is worth saying.

The table must have the bookkeeping columns and the index, or counting reads all of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import RawCursor, sql
from psycopg.rows import class_row

from worker.statements import statement
from worker.tables.bookkeeping import due_expression
from worker.tables.description import Description, fillfactor_of
from worker.tables.names import quoted
from worker.tables.problem import Problem
from worker.tables.spec import TableSpec

LATE = 300.0  # seconds that a row may wait before somebody should be told
MANY_DEAD = 10_000
DEAD_SHARE = 0.2
ENOUGH_UPDATES = 10_000
HOT_SHARE = 0.4
FULL_PAGES = 90


@dataclass(frozen=True, slots=True)
class Backlog:
    """due counts the claimed ones too; oldest_due_seconds: None if nobody waits."""

    due: int
    claimed: int
    dead: int
    oldest_due_seconds: float | None


@dataclass(frozen=True, slots=True)
class Storage:
    """Row versions, updates since the statistics were reset, bytes without indexes."""

    live: int
    dead: int
    updates: int
    hot: int
    bytes: int


def backlog(connection: psycopg.Connection[Any], spec: TableSpec, table: Description) -> Backlog:
    """Counted along the claim's index."""
    naive = table.types[spec.due].startswith("timestamp without")
    query = sql.SQL(statement("tables/facts")).format(
        table=sql.SQL(quoted((table.schema, table.table))),
        expression=due_expression(spec.due),
        condition=sql.SQL(spec.where or "true"),
        now=sql.SQL("(now() at time zone 'UTC')" if naive else "now()"),
    )
    with connection.cursor(row_factory=class_row(Backlog)) as cursor:
        found = cursor.execute(query).fetchone()
    assert found is not None
    return found


def storage(connection: psycopg.Connection[Any], table: Description) -> Storage:
    """From the statistics; of a partitioned table, all its partitions together."""
    oids = [part.oid for part in table.leaves] if table.partitioned else [table.oid]
    with RawCursor(connection, row_factory=class_row(Storage)) as cursor:
        found = cursor.execute(statement("tables/storage"), [oids]).fetchone()
    assert found is not None
    return found


def observations(table: Description, rows: Backlog, kept: Storage) -> list[Problem]:
    """Advice, never fatal."""
    return [*_lag(table, rows), *_bloat(table, kept), *_room(table, kept)]


def _lag(table: Description, rows: Backlog) -> Iterator[Problem]:
    if (rows.oldest_due_seconds or 0) > LATE:
        yield Problem(
            "lag",
            f"a row of {table.written} has been due for {rows.oldest_due_seconds:.0f} s",
            f"{rows.due - rows.claimed} rows are due, {rows.claimed} are being run",
            "worker workers list, and worker queues list for what is paused",
            fatal=False,
        )


def _bloat(table: Description, kept: Storage) -> Iterator[Problem]:
    if kept.dead > MANY_DEAD and kept.dead > DEAD_SHARE * (kept.live + kept.dead):
        yield Problem(
            "storage",
            f"{kept.dead} of {kept.live + kept.dead} row versions of {table.written} are dead",
            "an old transaction is open, or autovacuum does not keep up",
            f"worker audit run long_transactions, then: vacuum {table.written}",
            fatal=False,
        )


def _room(table: Description, kept: Storage) -> Iterator[Problem]:
    """Claims are HOT updates where the page has room for another version of the row."""
    if kept.updates < ENOUGH_UPDATES or kept.hot > HOT_SHARE * kept.updates:
        return
    if all(fillfactor >= FULL_PAGES for fillfactor in _fillfactors(table)):
        yield Problem(
            "storage",
            f"{100 * kept.hot / kept.updates:.0f} % of the updates of {table.written} found room "
            "on their page",
            "each of the others writes to every index of the table",
            "worker tables add ... --fillfactor 70   (for new pages; pg_repack or VACUUM FULL for "
            "the others)",
            fatal=False,
        )


def _fillfactors(table: Description) -> list[int]:
    options = [part.options for part in table.leaves] if table.partitioned else [table.options]
    return [fillfactor_of(one) or 100 for one in options]
