"""What does not keep a table from being adopted, and should be known. Pure.

Privileges stand here too, and are fatal: they are the role's, not the table's, and the role that
adds the columns is often not the one that claims.
"""

from __future__ import annotations

from collections.abc import Iterator

from worker.tables.bookkeeping import NAMES
from worker.tables.description import Description, Trigger
from worker.tables.problem import Problem
from worker.tables.spec import TableSpec

# What the claim and the settle write; a trigger of UPDATE OF fires for those it names.
_CLAIM = frozenset(NAMES[:5])


def cautions(spec: TableSpec, table: Description) -> list[Problem]:
    """Advice; and, fatal, what this role may not do."""
    return [
        *_privileges(spec, table),
        *_row_security(table),
        *_triggers(spec, table),
        *_due(spec, table),
        *_storage(table),
    ]


def _privileges(spec: TableSpec, table: Description) -> Iterator[Problem]:
    role, name = table.role, table.written
    if not table.schema_usage:
        yield _lacks(table, f"use schema {table.schema}", f"usage on schema {table.schema}")
    read = [c for c in (*spec.columns, *NAMES) if (col := table.columns.get(c)) and not col.select]
    if read:
        yield _lacks(table, f"read {', '.join(read)} of {name}", f"select on {name}")
    write = [c for c in (spec.due, *NAMES) if (col := table.columns.get(c)) and not col.update]
    if write:
        columns = ", ".join(table.columns[c].quoted for c in write)
        yield _lacks(table, f"write {', '.join(write)} of {name}", f"update ({columns}) on {name}")
    if not read and not table.select:
        yield Problem(
            "privileges",
            f"role {role} may read some columns of {name} only",
            "a condition or a handler that names others fails",
            f"grant select on {name} to {role}",
            fatal=False,
        )
    if not table.record:
        yield _lacks(table, "record attempts", "insert on worker.attempts")


def _lacks(table: Description, what: str, privilege: str) -> Problem:
    return Problem(
        "privileges",
        f"role {table.role} may not {what}",
        f"claims and results are written as {table.role}; the table is {table.owner}'s",
        f"grant {privilege} to {table.role}",
    )


def _row_security(table: Description) -> Iterator[Problem]:
    if table.row_security:
        yield Problem(
            "row security",
            f"row level security of {table.written} applies to role {table.role}",
            "rows that its policies hide are never claimed, and nobody is told",
            f"alter role {table.role} bypassrls, or: create policy duerow on {table.written} "
            f"to {table.role} using (true)",
            fatal=False,
        )


def _triggers(spec: TableSpec, table: Description) -> Iterator[Problem]:
    for trigger in table.triggers:
        at = _fires_at(trigger, spec)
        if at:
            yield Problem(
                "triggers",
                f"trigger {trigger.name} of {trigger.table} fires at each {at}",
                f"it calls {trigger.function}() {'before' if trigger.before else 'after'} "
                f"every update{' of ' + ', '.join(trigger.columns) if trigger.columns else ''}"
                f"{' for which its WHEN holds' if trigger.when else ''}",
                _trigger_hint(trigger),
                fatal=False,
            )


def _fires_at(trigger: Trigger, spec: TableSpec) -> str:
    if trigger.guarded:
        return ""
    named = set(trigger.columns)
    claim = not named or named & _CLAIM
    settle = not named or named & {spec.due, *NAMES}
    return " and ".join(w for w, fires in (("claim", claim), ("settle", settle)) if fires)


def _trigger_hint(trigger: Trigger) -> str:
    if not trigger.row:
        return "if that is not wanted: create it with UPDATE OF and the columns that it is about"
    return (
        "if that is not wanted: create it with UPDATE OF and the columns that it is about, or "
        "with when (old.duerow_owner is not distinct from new.duerow_owner)"
    )


def _due(spec: TableSpec, table: Description) -> Iterator[Problem]:
    due, name = table.columns[spec.due], table.written
    if due.not_null:
        yield Problem(
            "due",
            f"the due column {spec.due!r} of {name} is not null",
            "a row that is never due again has null in it, so each success must name a next time",
            f"say every=..., or: alter table {name} alter column {due.quoted} drop not null",
            fatal=False,
        )
    for index in table.own_indexes:
        if index.unique and spec.due in index.columns:
            yield Problem(
                "due",
                f"the unique index {index.name} of {name} holds the due column {spec.due!r}",
                "a next due time that another row has already cannot be written",
                "let the handler name times that differ, or drop the index",
                fatal=False,
            )


def _storage(table: Description) -> Iterator[Problem]:
    name = table.written
    if table.persistence == "u":
        yield Problem(
            "storage",
            f"{name} is unlogged",
            "it is empty after a crash of the server, and on every standby",
            f"alter table {name} set logged   (rewrites it)",
            fatal=False,
        )
    options = [*table.options, *(o for part in table.leaves for o in part.options)]
    if any(option.lower() == "autovacuum_enabled=false" for option in options):
        yield Problem(
            "storage",
            f"autovacuum is off for {name}",
            "each run leaves two dead row versions, which nobody would remove",
            f"alter table {name} reset (autovacuum_enabled)",
            fatal=False,
        )
