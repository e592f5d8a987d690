"""The same migrations as SQL, for a database administrator to read and to run by hand."""

from __future__ import annotations

import io
from typing import Literal

from alembic import command

from worker.errors import UsageError
from worker.migrate import revisions
from worker.migrate.online import one_at_a_time

Direction = Literal["upgrade", "downgrade"]

_HEADER = """\
-- Duerow: {direction} of schema `worker` from {start} to {end}.
-- Run it with: psql -v ON_ERROR_STOP=1 -f

"""


def offline_sql(direction: Direction = "upgrade", range: str = "head") -> str:
    """A script, one transaction with its own lock, that does what `upgrade` or `downgrade` does.

    range: FROM:TO, or TO alone. FROM is the revision that the database is at, "base" for none;
        the script refuses any other. Left out it is base for an upgrade, head for a downgrade.
    Raises UsageError for unknown revisions, or a range that runs the other way.
    """
    start, _, end = range.rpartition(":")
    start = start or ("base" if direction == "upgrade" else "head")
    _require_order(direction, start, end)
    output = io.StringIO()
    with one_at_a_time:
        run = command.upgrade if direction == "upgrade" else command.downgrade
        run(revisions.config(output=output), f"{start}:{end}", sql=True)
    return _HEADER.format(direction=direction, start=start, end=end) + output.getvalue()


def _require_order(direction: Direction, start: str, end: str) -> None:
    steps = revisions.position(end) - revisions.position(start)
    if steps == 0 or (steps > 0) is not (direction == "upgrade"):
        raise UsageError(
            f"{start}:{end} is no {direction}",
            why="a range is FROM:TO, the revision that the database is at and the one to reach",
            hint="worker db sql base:head"
            if direction == "upgrade"
            else "worker db sql --downgrade head:base",
        )
