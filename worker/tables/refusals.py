"""Why a table cannot be adopted as it is. Pure: a spec and a description go in, problems come out.

All that is said here holds before anything was added to the table.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from worker.errors import UsageError
from worker.tables.bookkeeping import DUE_TYPES, bookkeeping
from worker.tables.description import Column, Description, Index
from worker.tables.names import refuse_long
from worker.tables.problem import Problem
from worker.tables.spec import TableSpec

MOST_COLUMNS = 1600  # MaxHeapAttributeNumber; dropped columns count

_KINDS = {
    "v": ("a view", "a claim locks rows, and a view has none of its own", "adopt its table"),
    "m": (
        "a materialized view",
        "only REFRESH writes it, and a claim must write",
        "adopt the table that it reads from",
    ),
    "f": (
        "a foreign table",
        "its rows lie on another server, where FOR UPDATE SKIP LOCKED does not reach",
        "run the worker on the database that the table lies in",
    ),
    "S": ("a sequence", "it has no rows that fall due", "name a table"),
    "i": ("an index", "it has no rows of its own", "name its table"),
    "I": ("an index", "it has no rows of its own", "name its table"),
    "c": ("a composite type", "it has no rows", "name a table"),
    "t": ("a TOAST table", "it belongs to another table", "name that table"),
}
_OURS = {
    "worker": "the worker's own bookkeeping lies there; worker.jobs is claimed from as it is",
    "pg_catalog": "it belongs to Postgres",
    "information_schema": "it belongs to Postgres",
    "pg_toast": "it belongs to Postgres",
}
# Categories and types whose values are not told apart by equality, or do not survive an array.
_KEY_CATEGORIES = {"A": "an array", "c": "a composite type", "r": "a range", "m": "a multirange"}
_KEY_TYPES = {
    "real": "two spellings of one number may differ",
    "double precision": "two spellings of one number may differ",
    "interval": "30 days and 1 month are equal or not, depending on who compares",
    "json": "it has no equality",
}


def refusals(spec: TableSpec, table: Description) -> list[Problem]:
    """Why not, all of it that can be told; empty if the table can be adopted."""
    return (
        list(_of_kind(table))
        or list(_of_columns(spec, table))
        or [
            *_of_key(spec, table),
            *_of_due(spec, table),
            *_of_clashes(spec, table),
        ]
    )


def _of_kind(table: Description) -> Iterator[Problem]:
    name = table.written
    if table.schema in _OURS:
        yield Problem("kind", f"{name} cannot be adopted", _OURS[table.schema], "name your table")
        return
    if table.kind not in ("r", "p"):
        what, why, hint = _KINDS.get(table.kind, ("no table", "it has no rows", "name a table"))
        yield Problem("kind", f"{name} is {what}", why, hint)
        return
    if table.persistence == "t":
        yield Problem(
            "kind",
            f"{name} is a temporary table",
            "only the session that made it sees its rows, and a worker is another",
            "make it a table: create table ...",
        )
    if table.partition_of is not None:
        yield Problem(
            "kind",
            f"{name} is a partition of {table.partition_of}",
            "Postgres adds columns to the whole tree or not at all",
            f"adopt {table.partition_of}",
        )
    if table.inherited:
        yield Problem(
            "kind",
            f"other tables inherit from {name}",
            "a key is unique in one of them only, and no index covers them all",
            "adopt the tables that inherit from it, or make it a partitioned table",
        )
    if table.typed:
        yield Problem(
            "kind",
            f"{name} is a table OF a type",
            "Postgres adds no columns to it",
            f"alter table {name} not of",
        )
    if table.rules:
        yield Problem(
            "rules",
            f"{name} has rules on update: {', '.join(table.rules)}",
            "a rule rewrites the claim into something else",
            f"write a trigger in its place, then: drop rule {table.rules[0]} on {name}",
        )
    for part in table.partitions:
        if part.kind == "f":
            yield Problem(
                "kind",
                f"{part.written}, a partition of {name}, is a foreign table",
                "its rows lie on another server, where FOR UPDATE SKIP LOCKED does not reach",
                f"alter table {name} detach partition {part.written}",
            )


def _of_columns(spec: TableSpec, table: Description) -> Iterator[Problem]:
    if not spec.key:
        yield Problem("key", f"{spec.name}: no key is said", hint="--key id, or key=('id',)")
    if len(set(spec.key)) < len(spec.key):
        yield Problem("key", f"{spec.name}: the key {', '.join(spec.key)} names a column twice")
    for column in spec.columns:
        if column not in table.columns:
            yield _missing(column, table)


def _missing(column: str, table: Description) -> Problem:
    try:
        refuse_long(column, "column name")
    except UsageError as error:
        return Problem("columns", error.what, error.why, error.hint)
    plain = {name.lower().replace("_", ""): name for name in table.columns}
    alike = difflib.get_close_matches(column.lower().replace("_", ""), plain, 1)
    near = plain[alike[0]] if alike else None
    return Problem(
        "columns",
        f"{table.written} has no column {column!r}",
        f"it has {', '.join(name for name in table.columns if not name.startswith('duerow_'))}",
        f"write {near!r}" if near else "name one of these, exactly as it is spelled",
    )


def _of_key(spec: TableSpec, table: Description) -> Iterator[Problem]:
    name, key = table.written, ", ".join(spec.key)
    if spec.due in spec.key:
        yield Problem(
            "key",
            f"the key ({key}) of {name} holds its due column {spec.due!r}",
            "the due time changes with each run, and the key must stay what it was",
            "partition by another column, or move the due time to one that is not in the key"
            if spec.due in table.partition_key
            else "name a key without it",
        )
    for column in (table.columns[c] for c in spec.key):
        yield from _of_key_column(column, table)
    if spec.due not in spec.key and not any(_is_key(index, spec.key) for index in _usable(table)):
        yield _no_key(spec, table)


def _of_key_column(column: Column, table: Description) -> Iterator[Problem]:
    if column.not_null is False:
        yield Problem(
            "key",
            f"the key column {column.name!r} of {table.written} may be null",
            "a null is equal to nothing, so that the row could be claimed but never settled",
            f"alter table {table.written} alter column {column.quoted} set not null",
        )
    why = _KEY_CATEGORIES.get(column.category) and f"it is {_KEY_CATEGORIES[column.category]}"
    why = why or _KEY_TYPES.get(column.base, "")
    if why:
        yield Problem(
            "key",
            f"the key column {column.name!r} of {table.written} is {column.type}",
            why,
            "name a key of bigint, uuid, text or the like",
        )


def _usable(table: Description) -> list[Index]:
    """Indexes that make a key unique over the whole table."""
    return [
        i
        for i in table.own_indexes
        if i.unique and i.valid and i.predicate is None and None not in i.columns
    ]


def _is_key(index: Index, key: tuple[str, ...]) -> bool:
    return set(index.columns) == set(key)


def _no_key(spec: TableSpec, table: Description) -> Problem:
    name, key = table.written, ", ".join(spec.key)
    there = [index.columns for index in _usable(table)]
    columns = ", ".join(table.columns[c].quoted for c in spec.key)
    if not there:
        what = f"{name} has no primary key and no unique index that covers all of its rows"
        why = "without one, the row that was claimed cannot be told from its like"
    else:
        keys = " and ".join(f"({', '.join(map(str, one))})" for one in there)
        what = f"({key}) is not unique in {name}"
        why = f"the table's keys are {keys}"
        if (only := there[0]) and spec.due not in only and len(there) == 1:
            return Problem("key", what, why, f"--key {','.join(map(str, only))}")
    lacking = [c for c in table.partition_key if c is not None and c not in spec.key]
    if lacking:
        why += f"; a key of a partitioned table holds its partition key ({', '.join(lacking)})"
    if table.partitioned:
        return Problem("key", what, why, f"alter table {name} add primary key ({columns})")
    return Problem(
        "key", what, why, f"create unique index concurrently on {name} ({columns}), all not null"
    )


def _of_due(spec: TableSpec, table: Description) -> Iterator[Problem]:
    due, name = table.columns[spec.due], table.written
    if due.domain or due.base not in DUE_TYPES:
        domain = f", a domain over {due.base}" if due.domain else ""
        yield Problem(
            "due",
            f"the due column {spec.due!r} of {name} is {due.type}{domain}",
            "a due time is timestamptz, or timestamp, which is read as UTC",
            f"add a timestamptz column beside it, fill it from {due.quoted}, and name that one",
        )
    if due.generated:
        yield Problem(
            "due",
            f"the due column {spec.due!r} of {name} is generated",
            "the next due time is written to it, and Postgres lets nobody write it",
            f"alter table {name} alter column {due.quoted} drop expression",
        )


def _of_clashes(spec: TableSpec, table: Description) -> Iterator[Problem]:
    """Columns of our names that are not ours, or were made for a due column of another type."""
    due_type = table.columns[spec.due].base
    wanted = bookkeeping(due_type)
    for ours in wanted:
        there = table.columns.get(ours.name)
        if there is not None and there.type != ours.type:
            yield Problem(
                "columns",
                f"{table.written} has a column {ours.name} that is {there.type}, not {ours.type}",
                f"the due column {spec.due!r} is {due_type}"
                if ours.type == due_type
                else "it is needed for bookkeeping",
                f"rename yours: alter table {table.written} rename column {ours.name} to ..., "
                f"or take ours out first: worker tables remove {spec.name}",
            )
    missing = [ours for ours in wanted if ours.name not in table.columns]
    if table.width + len(missing) > MOST_COLUMNS:
        yield Problem(
            "columns",
            f"{table.written} has room for {MOST_COLUMNS - table.width} more columns, "
            f"and {len(missing)} are needed",
            f"a table has {MOST_COLUMNS} at most, and those that were dropped count",
            "move some of them to a table of their own",
        )
