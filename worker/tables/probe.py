"""Asks the server how it would tell the claim's index, by building it on an empty stand-in.

The stand-in is a temporary table inside a transaction that is rolled back: nothing stays, and the
user's table is only read from the catalog. So a condition that no index can have is found before
anything is written, in the server's own words, and an index that is there is compared exactly.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from worker.errors import UsageError
from worker.tables.description import Description
from worker.tables.gaps import Deparsed, missing_columns
from worker.tables.names import quoted
from worker.tables.spec import TableSpec
from worker.tables.statements import IndexBody, body_of

_STAND_IN = "duerow_stand_in"
_TOLD = """
select pg_get_expr(i.indexprs, i.indrelid), pg_get_expr(i.indpred, i.indrelid),
       (select pg_get_expr(t.indexprs, t.indrelid) from pg_catalog.pg_index t
         where t.indexrelid = to_regclass('pg_temp.duerow_stand_in_tenant'))
  from pg_catalog.pg_index i where i.indexrelid = 'pg_temp.duerow_stand_in_index'::regclass"""


def deparsed(
    connection: psycopg.Connection[Any], spec: TableSpec, table: Description
) -> Deparsed | None:
    """None where this role may make no temporary table, or the server is read-only.

    The table must have passed `refusals`. Raises UsageError for a condition that cannot be indexed.
    """
    try:
        with connection.transaction(force_rollback=True):
            connection.execute("set local lock_timeout = '5s'")
            _make_stand_in(connection, spec, table)
            _index(connection, spec)
            if spec.by_tenant:
                _index_by_tenant(connection, spec)
            row = connection.execute(_TOLD).fetchone()
            assert row is not None
            return Deparsed(*row)
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction):
        return None


def _make_stand_in(
    connection: psycopg.Connection[Any], spec: TableSpec, table: Description
) -> None:
    columns = [f", {column.definition}" for column in missing_columns(spec, table)]
    connection.execute(
        sql.SQL("create temporary table {} (like {}{}) on commit drop").format(
            sql.Identifier(_STAND_IN),
            sql.SQL(quoted((table.schema, table.table))),
            sql.SQL("".join(columns)),
        )
    )


def _index(connection: psycopg.Connection[Any], spec: TableSpec) -> None:
    """The condition stands in brackets first: one that closes the parentheses around it, and so
    means something else in the claim than by itself, is no expression there."""
    where = sql.SQL(spec.where or "true")
    try:
        connection.execute(
            sql.SQL("select from pg_temp.{} where (array[{}])[1]").format(
                sql.Identifier(_STAND_IN), where
            ),
            prepare=True,  # one statement only
        )
        _build(connection, "duerow_stand_in_index", body_of(spec))
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        raise UsageError(
            f"the condition {spec.where!r} cannot be used",
            why=f"{error.diag.message_primary} (it becomes the index's WHERE)",
            hint="write one on the table's own columns, with neither subqueries nor now(): "
            "\"status = 'active'\"",
        ) from None


def _index_by_tenant(connection: psycopg.Connection[Any], spec: TableSpec) -> None:
    try:
        _build(connection, "duerow_stand_in_tenant", body_of(spec, "tenant"))
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        raise UsageError(
            f"the tenant's column {spec.tenant!r} cannot be indexed",
            why=error.diag.message_primary or "",
            hint="name one of bigint, uuid, text or the like, or leave --per-tenant out",
        ) from None


def _build(connection: psycopg.Connection[Any], name: str, body: IndexBody) -> None:
    connection.execute(
        sql.SQL("create index {} on pg_temp.{} using btree ({}){}").format(
            sql.Identifier(name),
            sql.Identifier(_STAND_IN),
            sql.SQL(body.on),
            sql.SQL(body.clause),
        )
    )
