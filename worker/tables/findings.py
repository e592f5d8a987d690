"""What `worker tables check` found: a line for each thing that was looked at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from worker.tables.bookkeeping import NAMES
from worker.tables.description import Description, fillfactor_of
from worker.tables.facts import Backlog, Storage
from worker.tables.gaps import ABOUT, our_index
from worker.tables.problem import Problem
from worker.tables.spec import TableSpec

State = Literal["ok", "warning", "failed"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A line of `worker tables check`. check: what was looked at."""

    source: str
    check: str
    state: State
    what: str
    why: str = ""
    hint: str = ""


def findings(
    spec: TableSpec,
    table: Description,
    found: Sequence[Problem],
    facts: tuple[Backlog, Storage] | None,
) -> list[Finding]:
    """The problems, and in their places what is well. facts: None where nobody could count."""
    told = [*_ok(spec, table, {p.about for p in found}, facts), *problems_found(spec, found)]
    order = {"failed": 0, "warning": 1, "ok": 2}
    return sorted(told, key=lambda finding: order[finding.state])


def problems_found(spec: TableSpec, found: Iterable[Problem]) -> list[Finding]:
    return [
        Finding(spec.name, p.about, "failed" if p.fatal else "warning", p.what, p.why, p.hint)
        for p in found
    ]


def _ok(
    spec: TableSpec,
    table: Description,
    troubled: set[str],
    facts: tuple[Backlog, Storage] | None,
) -> Iterator[Finding]:
    for check, what in _good(spec, table, facts):
        if check not in troubled:
            yield Finding(spec.name, check, "ok", what)


def _good(
    spec: TableSpec, table: Description, facts: tuple[Backlog, Storage] | None
) -> Iterator[tuple[str, str]]:
    due = table.columns[spec.due]
    yield "kind", _kind(table)
    yield "key", f"({', '.join(spec.key)}) is unique and never null"
    yield "due", f"{spec.due} is {due.type}, {'never' if due.not_null else 'or'} null"
    yield "columns", f"all {len(NAMES)} are there"
    for which in spec.indexes:
        yield ABOUT[which], f"{our_index(spec, table, which)} is valid"
    yield "registration", f"worker.sources lists {spec.name}"
    yield "privileges", f"{table.role} may read, claim and record"
    yield "row security", f"does not apply to {table.role}"
    yield "triggers", "none fires at a claim or a settle"
    if facts is not None:
        rows, kept = facts
        share = fillfactor_of(table.options) or 100
        yield "storage", f"fillfactor {share}, {kept.live} rows, {kept.dead} dead row versions"
        yield "lag", f"{rows.due} due, {rows.claimed} claimed, {rows.dead} dead"


def _kind(table: Description) -> str:
    parts = f", {len(table.leaves)} partitions" if table.partitioned else ""
    return f"{table.written} is a table{parts}"
