"""Looks at adopted tables on a database: what `tables check` and `tables list` tell."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from worker.errors import DuerowError, UsageError
from worker.tables.catalog import describe
from worker.tables.description import Description
from worker.tables.explain import Claims, Plan, explain_claim, faults
from worker.tables.facts import Backlog, Storage, backlog, observations, storage
from worker.tables.findings import Finding, findings, problems_found
from worker.tables.gaps import columns_of
from worker.tables.probe import deparsed
from worker.tables.problem import Problem
from worker.tables.problems import fatal, problems
from worker.tables.refusals import refusals
from worker.tables.spec import TableSpec, Which

BOUNDS = "set local statement_timeout = '30s'; set local lock_timeout = '5s'"
ROWS = 100  # that the claim takes whose plan is looked at

HINDRANCES = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.QueryCanceled,
    psycopg.errors.InsufficientPrivilege,
)

ClaimsOf = Callable[[TableSpec, Description], Claims]
"""The text of the claims: the sources know it, and lie above this layer."""


@contextmanager
def bounded(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """A transaction in which nothing waits long."""
    with connection.transaction():
        connection.execute(BOUNDS)
        yield


@dataclass(frozen=True, slots=True)
class Inspection:
    """Of tables, on one connection. claims_of: the statements that claim rows of one."""

    connection: psycopg.Connection[Any]
    claims_of: ClaimsOf

    def describe(self, spec: TableSpec) -> Description:
        """Raises UsageError, NotFound."""
        with bounded(self.connection):
            return describe(self.connection, spec.table)

    def check(self, spec: TableSpec) -> list[Finding]:
        """Everything that is worth telling, the worst first."""
        try:
            return self._check(spec, self.describe(spec))
        except DuerowError as error:
            return problems_found(spec, [Problem("kind", error.what, error.why, error.hint)])
        except HINDRANCES as error:
            return problems_found(spec, [_hindrance(spec, error)])

    def _check(self, spec: TableSpec, table: Description) -> list[Finding]:
        refused = refusals(spec, table)
        if refused:
            return problems_found(spec, refused)
        try:
            told = deparsed(self.connection, spec, table)
        except UsageError as error:
            return problems_found(spec, [Problem("where", error.what, error.why, error.hint)])
        found = problems(spec, table, told)
        facts = None
        if not fatal(found):
            facts = self._facts(spec, table)
            found += observations(table, *facts)
            for which in spec.indexes:
                found += self.explain(spec, table, ROWS, which)[1]
        return findings(spec, table, found, facts)

    def explain(
        self,
        spec: TableSpec,
        table: Description,
        limit: int,
        which: Which = "due",
        *,
        analyze: bool = False,
    ) -> tuple[Plan, list[Problem]]:
        """Of a claim of `limit` rows: from the beginning, or tenant by tenant."""
        naive = table.types[spec.due].startswith("timestamp without")
        beginning = dt.datetime(1, 1, 1, tzinfo=None if naive else dt.UTC)
        plan = explain_claim(
            self.connection,
            self.claims_of(spec, table),
            limit,
            beginning,
            analyze=analyze,
            turns=which == "tenant",
        )
        ordered = spec.order is not None and which == "due"
        return plan, faults(plan, table, columns=columns_of(spec, which), ordered=ordered)

    def summary(self, spec: TableSpec) -> dict[str, Any]:
        """What is registered, and the rows that are due, claimed and dead; or the problem that
        keeps them from being counted."""
        told: dict[str, Any] = {
            "name": spec.name,
            "table": spec.table,
            "key": list(spec.key),
            "due": spec.due,
            "where": spec.where,
            "tenant": spec.tenant,
        }
        nothing = ("rows", "due_rows", "claimed", "dead", "oldest_due_s", "problem")
        told |= dict.fromkeys(nothing)
        try:
            table = self.describe(spec)
            told["rows"] = max(0, round(table.rows))
            for problem in fatal(problems(spec, table))[:1]:
                return told | {"problem": problem.what}
            rows, _ = self._facts(spec, table)
        except DuerowError as error:
            return told | {"problem": error.what}
        except HINDRANCES as error:
            return told | {"problem": _hindrance(spec, error).what}
        return told | {
            "due_rows": rows.due,
            "claimed": rows.claimed,
            "dead": rows.dead,
            "oldest_due_s": rows.oldest_due_seconds,
        }

    def _facts(self, spec: TableSpec, table: Description) -> tuple[Backlog, Storage]:
        with bounded(self.connection):
            return backlog(self.connection, spec, table), storage(self.connection, table)


def _hindrance(spec: TableSpec, error: psycopg.Error) -> Problem:
    return Problem(
        "kind",
        f"{spec.table} could not be looked at: {error.diag.message_primary}",
        "somebody has it locked, it is too large to count in 30 s, or this role may not read it",
        "worker audit run long_transactions",
    )
