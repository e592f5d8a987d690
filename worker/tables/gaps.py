"""What is missing of what `worker tables add` adds. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from worker.tables.bookkeeping import Column, bookkeeping, deparsed_expression, folded
from worker.tables.description import Description, Index, Registration
from worker.tables.problem import Problem
from worker.tables.spec import TableSpec, Which, index_name

IndexState = Literal["right", "missing", "invalid", "different"]


@dataclass(frozen=True, slots=True)
class Deparsed:
    """Our indexes as this server tells them: the time that decides, the condition if any, and that
    time in the words of the index by tenant."""

    expression: str
    predicate: str | None
    turn: str | None = None


def missing_columns(spec: TableSpec, table: Description) -> list[Column]:
    due_type = table.columns[spec.due].base
    return [c for c in bookkeeping(due_type) if c.name not in table.columns]


def index_state(
    spec: TableSpec, table: Description, deparsed: Deparsed | None, which: Which = "due"
) -> IndexState:
    """Of one of our indexes, partitions included.

    deparsed: how the server tells the index that the spec asks for. Without it the expression is
    still compared; of the condition only whether there is one.
    """
    index = table.index(our_index(spec, table, which))
    if index is None:
        return "missing"
    if not _matches(index, spec, table, deparsed, which):
        return "different"
    if not index.valid:  # nor is that of a tree while one of its partitions has none
        return "invalid"
    return "right"


def our_index(spec: TableSpec, table: Description, which: Which = "due") -> str:
    """The name that one of our indexes has, or is to have. A table that was renamed since it was
    adopted keeps its indexes, under the old names."""
    usual = index_name(table.table, which)
    there = registration_of(spec, table)
    listed = there and (there.index if which == "due" else there.tenant_index)
    if table.index(usual) is None and listed and table.index(listed) is not None:
        return listed
    return usual


def columns_of(spec: TableSpec, which: Which) -> tuple[str | None, ...]:
    """As Index has them: None for the time that decides."""
    return (None,) if which == "due" else (spec.tenant, None)


def lacking_partitions(spec: TableSpec, table: Description, which: Which = "due") -> list[str]:
    """Partitions without a valid index that is attached to their parent's."""
    columns = columns_of(spec, which)
    attached = {i.table for i in table.indexes if i.valid and i.columns == columns}
    return [part.written for part in table.partitions if part.oid not in attached]


def _matches(
    index: Index, spec: TableSpec, table: Description, deparsed: Deparsed | None, which: Which
) -> bool:
    if index.method != "btree" or index.columns != columns_of(spec, which):
        return False
    if deparsed is not None:
        wanted = deparsed.expression if which == "due" else deparsed.turn
        return (folded(index.expression), folded(index.predicate)) == (
            folded(wanted),
            folded(deparsed.predicate),
        )
    due = table.columns[spec.due]
    expected = folded(deparsed_expression(due.quoted, due.base, turns=which == "tenant"))
    return folded(index.expression) == expected and (index.predicate is None) == (
        spec.where is None
    )


def registration_of(spec: TableSpec, table: Description) -> Registration | None:
    return next((r for r in table.registrations if r.name == spec.name), None)


def spec_of(registration: Registration) -> TableSpec:
    return TableSpec(
        name=registration.name,
        table=registration.table,
        key=registration.key,
        due=registration.due,
        where=registration.condition,
        tenant=registration.tenant,
        by_tenant=registration.tenant_index is not None,
    )


def registered(spec: TableSpec, table: Description) -> bool:
    """Whether worker.sources says of the table what the spec says."""
    wanted = Registration(
        name=spec.name,
        table=table.written,
        key=spec.key,
        due=spec.due,
        condition=spec.where,
        tenant=spec.tenant,
        index=our_index(spec, table),
        tenant_index=our_index(spec, table, "tenant") if spec.by_tenant else None,
    )
    return registration_of(spec, table) == wanted


def gaps(spec: TableSpec, table: Description, deparsed: Deparsed | None = None) -> list[Problem]:
    """What keeps a table that can be adopted from being claimed from."""
    found = [*_columns(spec, table)]
    for which in spec.indexes:
        found += _index(spec, table, deparsed, which)
    return [*found, *_registration(spec, table)]


def _columns(spec: TableSpec, table: Description) -> Iterator[Problem]:
    missing = [column.name for column in missing_columns(spec, table)]
    if missing:
        yield Problem(
            "columns",
            f"{table.written} lacks {', '.join(missing)}",
            "it was not adopted yet, or a column was dropped since",
            add_command(spec),
        )


ABOUT: dict[Which, str] = {"due": "index", "tenant": "tenant index"}
"""What a check of our indexes is called."""

_WITHOUT: dict[Which, str] = {
    "due": "without it each claim reads the whole table",
    "tenant": "without it tenants can take no turns (per_tenant)",
}


def _index(
    spec: TableSpec, table: Description, deparsed: Deparsed | None, which: Which
) -> Iterator[Problem]:
    about, name, again = ABOUT[which], our_index(spec, table, which), add_command(spec)
    match index_state(spec, table, deparsed, which):
        case "missing":
            yield Problem(about, f"{table.written} lacks the index {name}", _WITHOUT[which], again)
        case "invalid":
            lacking = lacking_partitions(spec, table, which)
            where = f" in {', '.join(lacking[:3])}" if lacking else ""
            more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
            yield Problem(
                about,
                f"the index {name} of {table.written} is half done{where}{more}",
                "CREATE INDEX CONCURRENTLY was interrupted, and what it leaves behind is not used",
                f"{again}   (drops and builds it again)",
            )
        case "different":
            index = table.index(name)
            yield Problem(
                about,
                f"the index {name} of {table.written} is for another {_other(which)}",
                f"it is: {index.definition}" if index else "",
                f"{again}   (builds the right one, then drops this)",
            )


def _other(which: Which) -> str:
    return "due column or condition" if which == "due" else "tenant, due column or condition"


def _registration(spec: TableSpec, table: Description) -> Iterator[Problem]:
    there = registration_of(spec, table)
    if there is None:
        others = ", ".join(r.name for r in table.registrations)
        yield Problem(
            "registration",
            f"worker.sources does not list {spec.name!r}",
            f"it lists the table as {others}"
            if others
            else "so `tables list` does not show the table, and audits do not look at it",
            add_command(spec),
            fatal=False,
        )
    else:
        yield from redefinition(spec, table)


def redefinition(spec: TableSpec, table: Description) -> Iterator[Problem]:
    """Where the table was adopted under that name with another key, due column or condition."""
    there = registration_of(spec, table)
    if there is not None and not registered(spec, table):
        yield Problem(
            "registration",
            f"worker.sources describes {spec.name!r} differently",
            _difference(spec, there, table),
            add_command(spec),
            fatal=False,
        )


def _difference(spec: TableSpec, there: Registration, table: Description) -> str:
    pairs = {
        "table": (there.table, table.written),
        "key": (",".join(there.key), ",".join(spec.key)),
        "due": (there.due, spec.due),
        "where": (there.condition, spec.where),
        "tenant": (there.tenant, spec.tenant),
        "per tenant": (there.tenant_index is not None, spec.by_tenant),
    }
    return "; ".join(f"{n} is {a!r} there, {b!r} here" for n, (a, b) in pairs.items() if a != b)


def add_command(spec: TableSpec) -> str:
    """`worker tables add ...` as a shell would take it."""
    words = ["worker", "tables", "add", spec.table, "--key", _list(spec.key), "--due", spec.due]
    if spec.where is not None:
        words += ["--where", spec.where]
    if spec.tenant is not None:
        words += ["--tenant", spec.tenant]
    if spec.by_tenant:
        words.append("--per-tenant")
    words += ["--name", spec.name]
    return " ".join(map(in_shell, words))


def in_shell(word: str) -> str:
    """A word as a shell takes it; a condition reads best in double quotes."""
    if "'" in word and not set(word) & set('"$`\\!'):
        return f'"{word}"'
    return shlex.quote(word)


def _list(columns: tuple[str, ...]) -> str:
    return ",".join(f'"{c.replace(chr(34), chr(34) * 2)}"' if "," in c else c for c in columns)
