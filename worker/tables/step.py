"""What is done to a table, and what takes it back: values, to be written out as SQL or Python."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

STATEMENT = "@statement@"


@dataclass(frozen=True, slots=True)
class Action:
    """One statement, without a semicolon. Each commits by itself: none keeps a lock any longer, and
    CONCURRENTLY is refused inside a transaction.

    patient: it needs a strong lock, and is tried for in the plan's way.
    each: it is a query that gives (patient, statement), to be run in turn: what they are depends on
        the database. `here` holds those of the one that was looked at.
    """

    sql: str
    patient: bool = False
    each: bool = False
    here: tuple[Action, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """title: what it does, for people. Every action may be run again after a failure."""

    title: str
    up: tuple[Action, ...]
    down: tuple[Action, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """patiently: the statement that a patient action is put into, where it says STATEMENT: it tries
    for the lock briefly and often, so that nobody behind it waits long."""

    steps: tuple[Step, ...]
    patiently: str

    def reversed(self) -> Plan:
        """What undoes it."""
        return Plan(way_back(self.steps), self.patiently)


def way_back(steps: Iterable[Step]) -> tuple[Step, ...]:
    """What undoes the steps, in the order in which it must be done."""
    back = (Step(f"undo: {step.title}", step.down, step.up) for step in steps if step.down)
    return tuple(reversed(tuple(back)))
