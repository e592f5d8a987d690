"""The statements of the steps, with a table's names put in.

Names are quoted here, by the driver's own quoting; the condition is the developer's SQL and is put
in as it stands.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from worker.statements import statement
from worker.tables.bookkeeping import Column, due_expression, turn_expression
from worker.tables.names import quoted
from worker.tables.spec import TableSpec, Which, index_name
from worker.tables.step import STATEMENT

TRIES = 20
"""How often a lock is tried for; the pauses between grow from 0.25 to 5 seconds."""


@dataclass(frozen=True, slots=True)
class Target:
    """The table that statements are for: its exact names, how SQL writes them, and which of our
    indexes they are about, by its name there."""

    schema: str
    table: str
    written: str
    index_name: str
    which: Which = "due"

    @property
    def name(self) -> str:
        return quoted((self.schema, self.table))

    def index(self, name: str | None = None) -> str:
        """An index of it, qualified and quoted; by default the one that this is about."""
        return quoted((self.schema, name or self.index_name))


@dataclass(frozen=True, slots=True)
class IndexBody:
    """on: what is indexed, expressions in parentheses; where: the condition, or None."""

    on: str
    where: str | None

    @property
    def clause(self) -> str:
        return "" if self.where is None else f" where ({self.where})"


def body_of(spec: TableSpec, which: Which = "due") -> IndexBody:
    due = due_expression(spec.due)
    if which == "due":
        return IndexBody(f"({due.as_string(None)})", spec.where)
    assert spec.tenant is not None
    turn = turn_expression(due).as_string(None)
    return IndexBody(f"{quoted((spec.tenant,))}, ({turn})", spec.where)


def interim_name(target: Target) -> str:
    """Of the index that is built before it takes the place of another."""
    return index_name(target.table, {"due": "new", "tenant": "newtenant"}[target.which])


# -- what needs a strong lock, and holds it for milliseconds ---------------------------------------


def add_columns(target: Target, columns: list[Column]) -> str:
    return _alter(target, [f"add column if not exists {column.definition}" for column in columns])


def drop_columns(target: Target, columns: list[str]) -> str:
    return _alter(target, [f"drop column if exists {column}" for column in columns])


def set_fillfactor(table: str, fillfactor: int | None) -> str:
    """table: as SQL writes it. None: back to the default."""
    change = "reset (fillfactor)" if fillfactor is None else f"set (fillfactor = {fillfactor})"
    return f"alter table if exists {table} {change}"


def rename_index(target: Target, interim: str) -> str:
    """Gives an index the name that ours has."""
    return f"alter index {target.index(interim)} rename to {quoted((target.index_name,))}"


def drop_index_of_partitions(target: Target) -> str:
    """Postgres drops the index of a partitioned table at once or not at all."""
    return f"drop index if exists {target.index()}"


def patiently(target: Target, lock_timeout: float, content: str) -> str:
    """The block that tries for a lock in short turns; see step.Plan.

    lock_timeout: seconds that one try may take. content: all that may be put into it, so that the
    quotes around the block are none that occur there.
    """
    return _filled(
        "patiently",
        content,
        statement=sql.SQL(STATEMENT),
        timeout=sql.Literal(f"{max(1, round(lock_timeout * 1000))}ms"),
        tries=sql.Literal(TRIES),
        table=sql.Literal(target.name),
    )


def _alter(target: Target, changes: list[str]) -> str:
    return f"alter table {target.name}\n    " + ",\n    ".join(changes)


# -- the index ------------------------------------------------------------------------------------


def create_index(target: Target, body: IndexBody, name: str | None = None) -> str:
    index = quoted((name or target.index_name,))
    return (
        f"create index concurrently {index}\n    on {target.name} using btree ({body.on})"
        f"{body.clause}"
    )


def drop_index(target: Target, name: str | None = None) -> str:
    return f"drop index concurrently if exists {target.index(name)}"


def index_partitions(target: Target, body: IndexBody, *, anew: bool = False) -> str:
    """A query: the statements that the partitions need. anew: as if they had no index yet."""
    return _filled(
        "index_partitions",
        body.clause,
        table=sql.Literal(target.name),
        index=sql.Literal(None if anew else target.index()),
        index_name=sql.Literal(target.index_name),
        prefix=sql.Literal(f"duerow_{target.which}_"),
        on=sql.Literal(body.on),
        where=sql.Literal(body.clause),
    )


# -- the list of adopted tables -------------------------------------------------------------------


def register(target: Target, by_tenant: Target | None, spec: TableSpec, again: str) -> str:
    """by_tenant: the same with the other index, if the table has one. again: the command that
    registers, for where the schema `worker` is not there yet."""
    there = [target] if by_tenant is None else [target, by_tenant]
    names = " or ".join(one.index_name for one in there)
    indexes = sql.SQL(", ").join(sql.Literal(one.index()) for one in there)
    return _filled(
        "register",
        spec.where or "",
        name=sql.Literal(spec.name),
        table=sql.Literal(target.name),
        written=sql.Literal(target.written),
        key=sql.SQL("array[{}]").format(sql.SQL(", ").join(map(sql.Literal, spec.key))),
        due=sql.Literal(spec.due),
        condition=sql.Literal(spec.where),
        tenant=sql.Literal(spec.tenant),
        indexes=sql.SQL("array[{}]").format(indexes),
        index_name=sql.Literal(target.index_name),
        tenant_index=sql.Literal(by_tenant and by_tenant.index_name),
        again=sql.Literal(again),
        lacking=sql.Literal(f"{target.written} is not registered: there is no schema worker"),
        unfinished=sql.Literal(f"the index {names} of {target.written} is missing or half done"),
    )


def unregister(name: str) -> str:
    return _filled("unregister", name, name=sql.Literal(name))


def _filled(template: str, content: str, **names: Any) -> str:
    """content: what may hold anything at all, so that the quotes around the block must not occur
    in it."""
    tag = "$duerow$"
    while tag in content:
        tag = f"$duerow_{hashlib.sha256((tag + content).encode()).hexdigest()[:8]}$"
    text = statement(f"tables/{template}").rstrip()
    return sql.SQL(text).format(tag=sql.SQL(tag), **names).as_string(None)
