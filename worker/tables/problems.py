"""Everything that is to be said of a table and a spec. Pure: the CLI and the worker both ask it."""

from __future__ import annotations

from worker.tables.cautions import cautions
from worker.tables.description import Description
from worker.tables.gaps import Deparsed, gaps
from worker.tables.problem import Problem
from worker.tables.refusals import refusals
from worker.tables.spec import TableSpec

__all__ = ["Problem", "fatal", "problems"]


def problems(
    spec: TableSpec, table: Description, deparsed: Deparsed | None = None
) -> list[Problem]:
    """The fatal ones first. Where the table cannot be adopted at all, only why.

    deparsed: see gaps.index_state.
    """
    refused = refusals(spec, table)
    if refused:
        return refused
    found = [*gaps(spec, table, deparsed), *cautions(spec, table)]
    return sorted(found, key=lambda problem: not problem.fatal)


def fatal(found: list[Problem]) -> list[Problem]:
    return [problem for problem in found if problem.fatal]
