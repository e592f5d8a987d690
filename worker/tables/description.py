"""What the catalog says of a table, as frozen values. Read from sql/sources/describe.sql."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Column:
    """type: with its modifiers; base: without them, and a domain's own type.
    category: pg_type's, or c, r, m for composite, range and multirange types.
    select, update: whether this role may.
    """

    name: str
    quoted: str
    type: str
    base: str
    domain: bool
    category: str
    not_null: bool
    generated: bool
    default: str | None
    select: bool
    update: bool


@dataclass(frozen=True, slots=True)
class Index:
    """columns: its key, None for an expression. table: the oid of the table that it is on, which
    may be a partition whose index is attached to this table's."""

    name: str
    table: int
    unique: bool
    primary: bool
    valid: bool
    method: str
    columns: tuple[str | None, ...]
    expression: str | None
    predicate: str | None
    definition: str


@dataclass(frozen=True, slots=True)
class Trigger:
    """One that fires on updates and is the user's own. columns: of UPDATE OF, else empty.
    when: it has a WHEN; guarded: which looks at duerow_owner, and so tells our updates apart."""

    name: str
    table: str
    function: str
    before: bool
    row: bool
    when: bool
    guarded: bool
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Partition:
    """A table below the root of a partition tree. level: 1 is right below the root."""

    oid: int
    table: str
    written: str
    kind: str
    leaf: bool
    level: int
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Registration:
    """The table's row in worker.sources."""

    name: str
    table: str
    key: tuple[str, ...]
    due: str
    condition: str | None
    tenant: str | None
    index: str
    tenant_index: str | None


@dataclass(frozen=True, slots=True)
class Description:
    """A table that exists.

    schema, table: exact names; written: as SQL writes them, quoted only where they must be.
    kind, persistence: pg_class's relkind and relpersistence.
    rows: an estimate, -1 where it was never analyzed.
    partition_key: None in it stands for an expression.
    role: who asked; select, record, schema_usage: whether it may read the table, insert into
        worker.attempts, use the schema; owned: whether it may alter the table.
    row_security: whether policies apply to this role.
    """

    oid: int
    schema: str
    table: str
    written: str
    kind: str
    persistence: str
    partition_of: str | None
    inherits: bool
    inherited: bool
    typed: bool
    width: int
    rules: tuple[str, ...]
    options: tuple[str, ...]
    rows: float
    columns: Mapping[str, Column]
    indexes: tuple[Index, ...]
    triggers: tuple[Trigger, ...]
    partition_key: tuple[str | None, ...]
    partitions: tuple[Partition, ...]
    row_security: bool
    role: str
    owner: str
    owned: bool
    schema_usage: bool
    select: bool
    record: bool
    registrations: tuple[Registration, ...]

    @property
    def partitioned(self) -> bool:
        return self.kind == "p"

    @property
    def leaves(self) -> tuple[Partition, ...]:
        return tuple(part for part in self.partitions if part.leaf)

    @property
    def types(self) -> dict[str, str]:
        """The SQL type of each column, by exact name, without modifiers."""
        return {column.name: column.base for column in self.columns.values()}

    def index(self, name: str) -> Index | None:
        """An index of this table by its name."""
        return next((i for i in self.own_indexes if i.name == name), None)

    @property
    def own_indexes(self) -> tuple[Index, ...]:
        return tuple(i for i in self.indexes if i.table == self.oid)


def read(text: str) -> Description | tuple[str, ...]:
    """From what describe.sql gives. For a name that is unknown: the names that are near it."""
    said: dict[str, Any] = json.loads(text)
    near: list[str] = said.pop("near")
    if said["oid"] is None:
        return tuple(near)
    said["columns"] = {c["name"]: Column(**c) for c in said["columns"]}
    said["indexes"] = tuple(Index(**_tuples(i)) for i in said["indexes"])
    said["triggers"] = tuple(Trigger(**_tuples(t)) for t in said["triggers"])
    said["partitions"] = tuple(Partition(**_tuples(p)) for p in said["partitions"])
    said["registrations"] = tuple(Registration(**_tuples(r)) for r in said["registrations"])
    return Description(**_tuples(said))


def _tuples(said: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(v) if isinstance(v, list) else v for name, v in said.items()}


def fillfactor_of(options: tuple[str, ...]) -> int | None:
    """From pg_class.reloptions; None where it is the default."""
    said = dict(option.split("=", 1) for option in options)
    return int(said["fillfactor"]) if "fillfactor" in said else None
