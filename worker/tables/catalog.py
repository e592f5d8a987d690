"""Resolves a table's name and describes what it finds, over whatever connection there is."""

from __future__ import annotations

from typing import Any

from worker.errors import NotFound
from worker.statements import statement
from worker.tables.description import Description, read
from worker.tables.names import parts_of, quoted

DESCRIBE = "sources/describe"


def question(table: str) -> tuple[str, list[Any]]:
    """What to ask about `table`, as its user wrote it: SQL with $1, and its parameters.

    Raises UsageError for a name that Postgres would not take as it stands.
    """
    return statement(DESCRIBE), [quoted(parts_of(table))]


def answer(table: str, record: Any) -> Description:
    """What the one row that came back says. Raises NotFound where there is no such table."""
    found = read(record[0])
    if isinstance(found, Description):
        return found
    raise NotFound(
        f"there is no table {table}",
        why=_why(table, found),
        hint=f"name it {_shell(found[0])}" if found else "worker tables list, or \\dt *.* in psql",
    )


def describe(connection: Any, table: str) -> Description:
    """Over a psycopg connection. Raises UsageError, NotFound."""
    from psycopg import RawCursor
    from psycopg.rows import tuple_row

    sql, params = question(table)
    with RawCursor(connection, row_factory=tuple_row) as cursor:
        return answer(table, cursor.execute(sql, params).fetchone())


async def describe_async(connection: Any, table: str) -> Description:
    """Over an asyncpg connection, or anything else whose `fetch(sql, *params)` gives records,
    such as a Link. Raises UsageError, NotFound."""
    sql, params = question(table)
    [record] = await connection.fetch(sql, *params)
    return answer(table, record)


def _why(table: str, near: tuple[str, ...]) -> str:
    if near:
        return f"but there is {', '.join(near)}"
    if len(parts_of(table)) == 1:
        return "no schema on the search path has one, whatever its case"
    return "neither this database's tables nor its views have that name"


def _shell(name: str) -> str:
    return f"'{name}'" if '"' in name else name
