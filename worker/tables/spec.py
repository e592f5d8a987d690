"""What is said about a table that a user already has, before anybody looked at it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

Which = Literal["due", "tenant"]
"""Which of our indexes: on the time that decides, or on the tenant and that time."""

NAME_BYTES = 63  # NAMEDATALEN - 1: what is longer, Postgres cuts without a word


@dataclass(frozen=True)
class TableSpec:
    """An adopted table, as its user describes it.

    name: of the source, and of its rows' queue and kind.
    table: as the user wrote it: `donations`, `shop.orders`, `"Mixed Case"`, `shop."Orders"`.
    key: the columns that together name one row, exact names (no quotes).
    due: the column that says when a row is due, exact name.
    where: SQL condition on the table's own columns; rows that fail it are never due.
    tenant: the column whose value fairness and limits go by.
    order: the column by which due rows are taken, lowest first; by default the due time.
    by_tenant: tenants take turns, for which the table has a second index.
    """

    name: str
    table: str
    key: tuple[str, ...] = ("id",)
    due: str = "due_at"
    where: str | None = None
    tenant: str | None = None
    order: str | None = None
    by_tenant: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that the spec names, each once."""
        named = (*self.key, self.due, self.tenant, self.order)
        return tuple(dict.fromkeys(column for column in named if column))

    @property
    def indexes(self) -> tuple[Which, ...]:
        """What its claims need."""
        return ("due", "tenant") if self.by_tenant else ("due",)


def index_name(table: str, which: str = "due") -> str:
    """One of our indexes of a table, from its bare catalog name: `duerow_due_<table>`.

    A name that would not fit is cut, and the hash of the whole of it appended, so that the tables
    of a long common prefix get different indexes.
    """
    whole = f"duerow_{which}_{table}"
    if len(whole.encode()) <= NAME_BYTES:
        return whole
    mark = "_" + hashlib.sha256(table.encode()).hexdigest()[:8]
    cut = whole.encode()[: NAME_BYTES - len(mark)].decode(errors="ignore")
    return cut + mark
