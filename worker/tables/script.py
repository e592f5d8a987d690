"""Steps as an SQL script, for psql or whatever runs a statement at a time."""

from __future__ import annotations

from collections.abc import Iterator

from worker.tables.step import STATEMENT, Action, Plan

SETTINGS = ("statement_timeout", "lock_timeout")
"""Set to 0 while the steps run: an index on a large table takes long, and CREATE INDEX
CONCURRENTLY, which blocks nobody, waits for every transaction that is older. What does block others
bounds its own waits."""


def script(command: str, plan: Plan) -> str:
    """command: what was typed, for the first line."""
    return "\n".join(_lines(command, plan)) + "\n"


def _lines(command: str, plan: Plan) -> Iterator[str]:
    yield f"-- {_one_line(command)}"
    yield "-- Each statement commits by itself: run it outside a transaction, e.g."
    yield "--   psql -X -v ON_ERROR_STOP=1 -f this.sql"
    yield "-- If it stops half way, run it again from the start."
    for name in SETTINGS:
        yield f"set {name} = 0;"
    for step in plan.steps:
        yield f"\n-- {_one_line(step.title)}"
        for action in step.up:
            yield from (f"{sql};" for sql in _statements(action, plan.patiently))
    yield ""
    for name in SETTINGS:
        yield f"reset {name};"


def _statements(action: Action, patiently: str) -> Iterator[str]:
    if action.each:
        for one in action.here:
            yield from _statements(one, patiently)
    elif action.patient:
        yield patiently.replace(STATEMENT, action.sql)
    else:
        yield action.sql


def _one_line(text: str) -> str:
    """A comment ends with its line; nothing in a name or a condition may."""
    return " ".join(text.split())
