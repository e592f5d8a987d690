"""From a handler of a user's own table to a source of rows: asks the catalog once, at start."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from worker.errors import RegistrationError
from worker.events import SourceCaution
from worker.registry import Handler
from worker.sources.rows import Rows
from worker.tables.catalog import describe_async
from worker.tables.problems import fatal, problems

# What a user cannot see by looking at the rows. The rest of the advice is for `tables check`.
TOLD_AT_START = ("registration", "row security")


async def adopted(
    connection: Any, handler: Handler, tell: Callable[[SourceCaution], None] = lambda _: None
) -> Rows:
    """Raises NotFound, UsageError or RegistrationError for a table that cannot be claimed from."""
    assert handler.table is not None
    spec = handler.table.spec
    table = await describe_async(connection, spec.table)
    found = problems(spec, table)
    for problem in fatal(found):
        raise RegistrationError(problem.what, why=problem.why, hint=problem.hint)
    for problem in found:
        if problem.about in TOLD_AT_START:
            tell(SourceCaution(spec.name, problem.what, problem.why, problem.hint))
    reads = handler.table.row_type.columns(list(table.types))
    return Rows(spec, table, reads, handler.fair)


def refuse_shared(sources: Iterable[Rows]) -> None:
    """Raises RegistrationError where two sources are one table: they would share what stands in
    its rows of claims and attempts."""
    names: dict[int, str] = {}
    for source in sources:
        other = names.setdefault(source.oid, source.name)
        if other != source.name:
            raise RegistrationError(
                f"{other!r} and {source.name!r} are the same table",
                why="a row stands in one queue: its claim, attempts and retries are in the row",
                hint="let one handler take the rows of both, and tell them apart itself",
            )
