"""The columns that an adopted table gets, and the time by which its rows are due.

All are nullable or have a constant default, so that adding them rewrites nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

PREFIX = "duerow_"
DUE_TYPES = ("timestamp with time zone", "timestamp without time zone")


@dataclass(frozen=True, slots=True)
class Column:
    """type: as format_type tells it. rest: what follows the type in ADD COLUMN."""

    name: str
    type: str
    rest: str = ""

    @property
    def definition(self) -> str:
        return f"{self.name} {self.type} {self.rest}".rstrip()


def bookkeeping(due_type: str) -> tuple[Column, ...]:
    """The columns, for a due column of that type (one of DUE_TYPES)."""
    return (
        Column("duerow_owner", "bigint"),
        Column("duerow_token", "bigint", "not null default 0"),
        Column("duerow_attempt", "integer", "not null default 0"),
        Column("duerow_crashes", "smallint", "not null default 0"),
        Column("duerow_claimed_at", "timestamp with time zone"),
        Column("duerow_retry_at", due_type),
        Column("duerow_held_for", due_type),
        Column("duerow_state", "text"),
        Column("duerow_error", "text"),
    )


NAMES = tuple(column.name for column in bookkeeping(DUE_TYPES[0]))


def due_expression(due: str) -> sql.Composed:
    """When a row is due: at its hold's end while the hold is for the due time that stands in the
    row; else at that time. Once the user changes the due column, the hold is void."""
    return sql.SQL("case when duerow_held_for = {due} then duerow_retry_at else {due} end").format(
        due=sql.Identifier(due)
    )


def turn_expression(due_expression: sql.Composable) -> sql.Composed:
    """The same time, in words that the index on it alone has not: where tenants are few the planner
    takes that index for as good as the one on the tenant too, and walks over a large tenant's rows
    to find a small one's. Of a row that is never due it is infinity."""
    return sql.SQL("least({}, 'infinity')").format(due_expression)


def deparsed_expression(due_quoted: str, due_type: str, *, turns: bool = False) -> str:
    """The same as pg_get_expr tells it, but for white space; due_quoted: by quote_ident."""
    held = f"CASE WHEN (duerow_held_for = {due_quoted}) THEN duerow_retry_at ELSE {due_quoted} END"
    return f"LEAST( {held}, 'infinity'::{due_type})" if turns else held


def folded(text: str | None) -> str | None:
    """SQL with every run of white space as one space, for comparing."""
    return None if text is None else " ".join(text.split())
