"""The claim's plan on the user's own data, and what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import psycopg
from psycopg import RawCursor
from psycopg.rows import tuple_row

from worker.link import HOT_PATH_PLANNER
from worker.statements import statement
from worker.tables.description import Description
from worker.tables.problem import Problem

Node = Mapping[str, Any]

TENANTS, VISIT, PER_TENANT = 10, 200, 10  # of the tenants whose turn it is, those explained
_WORKER: tuple[object, ...] = ("tables explain", "", 0, "", [], [], 0, 1.0)


class Claims(Protocol):
    """The statements of a source of rows; the last two only where it has a tenant."""

    claim_sql: str
    tenants_sql: str
    claim_tenants_sql: str


@dataclass(frozen=True, slots=True)
class Plan:
    """root: as EXPLAIN (FORMAT JSON) gives it. seconds, rows: measured, None without --analyze."""

    root: Node
    seconds: float | None
    rows: int | None

    @property
    def cost(self) -> float:
        return float(self.root["Total Cost"])

    @property
    def indexes(self) -> list[str]:
        """Names of the indexes that it reads, in the order in which they are met."""
        return list(dict.fromkeys(n["Index Name"] for n in nodes(self.root) if "Index Name" in n))

    def __str__(self) -> str:
        return "\n".join(_lines(self.root, 0))


def explain_claim(
    connection: psycopg.Connection[Any],
    claims: Claims,
    limit: int,
    floor: Any,
    *,
    analyze: bool,
    turns: bool = False,
) -> Plan:
    """Under the planner's settings of a worker's own connections.

    analyze: runs it, in a transaction that is rolled back: rows are locked for as long as it
    takes, and the table's update triggers fire. turns: the claim of the tenants whose turn it is.
    """
    with (
        connection.transaction(force_rollback=True),
        RawCursor(connection, row_factory=tuple_row) as cursor,
    ):
        for name, value in {**HOT_PATH_PLANNER, "statement_timeout": "30s"}.items():
            cursor.execute("select set_config($1, $2, true)", (name, value))
        worker = _register(cursor) if analyze else 0
        options = "format json, analyze, buffers" if analyze else "format json"
        params: tuple[Any, ...] = (worker, limit, floor)
        if turns:
            tenants = _tenants(cursor, claims)
            params = (*params, tenants, [PER_TENANT] * len(tenants))
        params = (*params, True)  # whatever gates are closed now
        claim = claims.claim_tenants_sql if turns else claims.claim_sql
        cursor.execute(f"explain ({options}) {claim}", params)
        [[said]] = cursor.fetchall()
    [found] = said if isinstance(said, list) else json.loads(said)
    root = found["Plan"]
    if not analyze:
        return Plan(root, None, None)
    return Plan(root, found["Execution Time"] / 1000, round(root["Actual Rows"]))


def _tenants(cursor: RawCursor[Any], claims: Claims) -> list[str]:
    cursor.execute(claims.tenants_sql, (None, TENANTS, VISIT))
    return [tenant for tenant, _, due in cursor.fetchall() if due]


def _register(cursor: RawCursor[Any]) -> int:
    """A claim gives nothing to a worker that is not registered; this one is rolled back too."""
    cursor.execute(statement("workers/register"), _WORKER)
    [[worker]] = cursor.fetchall()
    return int(worker)


def faults(
    plan: Plan,
    table: Description,
    *,
    columns: tuple[str | None, ...] = (None,),
    ordered: bool = False,
) -> list[Problem]:
    """Advice on a plan that reads more than it takes. columns: of the index that it is to read, as
    Index has them. ordered: the claim sorts by a column, of a bounded number of rows."""
    ours = {table.table, *(part.table for part in table.partitions)}
    due = {
        i.name
        for i in table.indexes
        if i.columns == columns and "duerow_held_for" in (i.expression or "")
    }
    hint = f"worker tables check, then: analyze {table.written}"
    whole = {
        n["Relation Name"]
        for n in nodes(plan.root)
        if n["Node Type"] == "Seq Scan" and n["Relation Name"] in ours
    }
    found = [
        _fault(
            f"the claim reads the whole of {name}",
            "the index that it needs is missing or invalid, or its condition differs",
            hint,
        )
        for name in sorted(whole)
    ]
    if not ordered and any(n["Node Type"].endswith("Sort") for n in nodes(plan.root)):
        found.append(
            _fault(
                "the claim sorts all that is due before it takes the first row",
                "the rows do not come from the due index, in its order",
                hint,
            )
        )
    if not whole and not due & set(plan.indexes):
        found.append(
            _fault(
                f"the claim reads {', '.join(plan.indexes) or 'no index'}",
                "it is not the index that was built for it",
                hint,
            )
        )
    return found


def _fault(what: str, why: str, hint: str) -> Problem:
    return Problem("plan", what, why, hint, fatal=False)


def nodes(root: Node) -> Iterator[Node]:
    yield root
    for child in root.get("Plans", ()):
        yield from nodes(child)


def _lines(node: Node, depth: int) -> Iterator[str]:
    """One line a node, in the words of EXPLAIN."""
    lead = "  " * depth + ("-> " if depth else "")
    words = [node["Node Type"] if node["Node Type"] != "ModifyTable" else node["Operation"]]
    if "Index Name" in node:
        words += ["using", node["Index Name"]]
    if "Relation Name" in node:
        words += ["on", node["Relation Name"]]
    said = [f"cost={node['Startup Cost']:.2f}..{node['Total Cost']:.2f} rows={node['Plan Rows']}"]
    if "Actual Total Time" in node:
        loops = node["Actual Loops"]
        said.append(f"took {node['Actual Total Time'] * loops:.3f} ms, {node['Actual Rows']} rows")
        blocks = node.get("Shared Hit Blocks", 0) + node.get("Shared Read Blocks", 0)
        said.append(f"{blocks} pages")
    yield f"{lead}{' '.join(words)}  ({'; '.join(said)})"
    for name in ("Index Cond", "Filter", "Rows Removed by Filter", "Sort Key"):
        value = node.get(name)
        if value:
            value = ", ".join(value) if isinstance(value, list) else value
            yield f"{'  ' * depth}     {name}: {value}"
    for child in node.get("Plans", ()):
        yield from _lines(child, depth + 1)
