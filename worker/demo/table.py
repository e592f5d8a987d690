"""The user's table of the demo: made and filled, then adopted as `worker tables add` would."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import sql

from worker.demo.app import charge
from worker.tables.catalog import describe
from worker.tables.gaps import add_command
from worker.tables.plan import Planner
from worker.tables.probe import deparsed
from worker.tables.spec import TableSpec
from worker.tables.statements import unregister
from worker.tables.step import STATEMENT, Plan

CREATE = """
create schema {schema};
create table {table} (
    id             uuid primary key default gen_random_uuid(),
    donor          text not null,
    cents          integer not null,
    status         text not null default 'active',
    created_at     timestamptz not null default now(),
    next_charge_at timestamptz not null default now()
);
"""
FILL = """
insert into {table} (donor, cents)
select 'donor ' || n, 500 + n * 37 %% 9500 from generate_series(1, %s) n
returning id::text, cents
"""


class Donations:
    """The table `donations` in a schema of its own. The source of its rows is called as the schema.

    connection: autocommit.
    """

    def __init__(self, connection: psycopg.Connection[Any], schema: str) -> None:
        self._connection = connection
        self.schema = schema

    def create(self, rows: int) -> dict[str, int]:
        """As its owner made it: nothing in it is there for Duerow. Cents by donation; all due."""
        self._connection.execute(self.filled(CREATE))
        return dict(self._connection.execute(self.filled(FILL), [rows]).fetchall())

    def adopt(self) -> tuple[str, Plan]:
        """See below."""
        return adopt(self._connection, self._spec())

    def drop(self) -> None:
        """With all that adopting it has left. What was attempted stays on record."""
        self._connection.execute(self.filled("drop schema if exists {schema} cascade"))
        self._connection.execute(unregister(self.schema).encode())

    def filled(self, query: str) -> sql.Composed:
        """The query with {table} and {schema} put in."""
        return sql.SQL(query).format(
            schema=sql.Identifier(self.schema), table=sql.Identifier(self.schema, "donations")
        )

    def _spec(self) -> TableSpec:
        """What the app says of the table, in this schema."""
        assert charge.handler.table is not None
        table = f"{self.schema}.donations"
        return dataclasses.replace(charge.handler.table.spec, name=self.schema, table=table)


def adopt(connection: psycopg.Connection[Any], spec: TableSpec) -> tuple[str, Plan]:
    """Runs what `worker tables add --sql` would print: the command, and what it does.

    connection: autocommit. The table must be one that `worker tables add` would not refuse.
    """
    described = describe(connection, spec.table)
    planner = Planner(spec, described, listing=lambda _: ())
    plan = planner.to_add(deparsed(connection, spec, described))
    for statement in _statements(plan):
        connection.execute(statement.encode())
    return add_command(spec), plan


def _statements(plan: Plan) -> Iterator[str]:
    """Each commits by itself."""
    for step in plan.steps:
        for action in step.up:
            yield plan.patiently.replace(STATEMENT, action.sql) if action.patient else action.sql
