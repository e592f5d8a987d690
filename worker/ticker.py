"""Turns the ticks of schedules into jobs, on whichever replica gets to it.

Each replica sleeps until the next tick that it knows of, looks what is due, works out the next
tick of each, and sends all of it as one statement (sql/schedules/decide.sql). That takes effect
once: it asks that nobody has moved the schedule on since the look. No lock is held while a worker
thinks, so one that dies, freezes or is cut off keeps nothing from the others. The clock is the
database's.

The replica that decided the last tick comes first to the next; the others come a little later and
find it done, or do it.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Sequence

from worker.events import (
    Event,
    Events,
    ScheduleChanged,
    ScheduleFailed,
    ScheduleMissed,
    ScheduleOverlapped,
    ScheduleRetired,
    ScheduleTicked,
)
from worker.link import Link, Record
from worker.schedules.plan import Plan, plan, standing
from worker.schedules.schedule import Schedule
from worker.statements import statement

AT_ONCE = 100  # schedules
TICKS_AT_ONCE = 1000
LOOK_MOST = 15.0  # seconds; sooner when told of a change
LOOK_UNTOLD = 2.0  # where no notification comes: behind a transaction pooler
SECOND_BEST = (0.03, 0.08)  # seconds after the tick that the other replicas come
DECLARE_EVERY = 60.0
RETIRE_AFTER = 3600.0  # seconds without a live worker whose code names it


class Ticker:
    """Decides the ticks that are due. `looked` is set once every tick that was due when it started
    has been decided.

    schedules: those in the code of this worker. worker: its id, 0 while it has none. hears: whether
    a change would be told.
    """

    def __init__(
        self,
        link: Link,
        events: Events,
        schedules: Sequence[Schedule],
        *,
        worker: Callable[[], int],
        hears: Callable[[], bool],
    ) -> None:
        self._link = link
        self._events = events
        self._declared = json.dumps([schedule.row() for schedule in schedules])
        self._worker = worker
        self._hears = hears
        self._declared_by = 0
        self._declare_at = 0.0
        self._first = False
        self._refused = 0
        self._taken: set[str] = set()
        self.looked = asyncio.Event()

    async def step(self) -> float:
        """Looks for ticks that are due and decides on them; seconds until the next look."""
        worker = self._worker()
        if not worker:  # declared dead, and not yet registered anew
            return 0.1
        if worker != self._declared_by or time.monotonic() >= self._declare_at:
            await self._declare(worker)
        records = await self._link.fetch(statement("schedules/look"), AT_ONCE)
        if records[0]["name"] is not None:
            return await self._decide(await _plans(records), worker)
        self._refused = 0
        self.looked.set()
        return self._until(records[0]["wait"])

    def _until(self, wait: float | None) -> float:
        """Seconds to sleep, when the next tick is `wait` seconds away."""
        most = LOOK_MOST if self._hears() else LOOK_UNTOLD
        most = min(most, max(0.0, self._declare_at - time.monotonic()))
        if wait is None or wait > most:
            return most
        late = 0.0 if self._first else random.uniform(*SECOND_BEST)
        return max(0.0, wait) + late

    async def _decide(self, plans: list[Plan], worker: int) -> float:
        ticks = [(p.standing.name, tick) for p in plans for tick in p.ticks]
        decided = await self._link.fetch(
            statement("schedules/decide"),
            [p.standing.name for p in plans],
            [p.standing.version for p in plans],
            [p.standing.next_at for p in plans],
            [p.next_at for p in plans],
            [p.problem for p in plans],
            [p.missed for p in plans],
            [p.missed_at for p in plans],
            [name for name, _ in ticks],
            [tick.at for _, tick in ticks],
            [tick.told for _, tick in ticks],
            [tick.put_off for _, tick in ticks],
            worker,
        )
        if not decided:
            # Another replica is at it and has not committed, or a row is locked.
            self._first = False
            self._refused += 1
            if self._refused > 5:
                self.looked.set()  # it is not for us to wait for
            return random.uniform(0.5, 1.0) * min(1.0, 0.02 * float(2 ** min(self._refused, 6)))
        self._refused = 0
        self._first = True
        by_name = {p.standing.name: p for p in plans}
        for row in decided:
            if (event := _told(row, by_name[row["name"]])) is not None:
                self._events.emit(event)
        return 0.0

    async def _declare(self, worker: int) -> None:
        """Says which schedules the code names, and retires those that nobody's does."""
        changed = await self._link.fetch(statement("schedules/declare"), worker, self._declared)
        retired = await self._link.fetch(statement("schedules/retire"), RETIRE_AFTER)
        self._declared_by = worker
        self._declare_at = time.monotonic() + DECLARE_EVERY * random.uniform(0.9, 1.0)
        for row in changed:
            if row["change"] != "taken":
                self._events.emit(ScheduleChanged(row["name"], row["change"]))
            elif row["name"] not in self._taken:
                self._taken.add(row["name"])
                why = "an operator's schedule has that name: worker schedules remove it, or rename"
                self._events.emit(ScheduleFailed(row["name"], why))
        for row in retired:
            self._events.emit(ScheduleRetired(row["name"]))


async def _plans(records: Sequence[Record]) -> list[Plan]:
    """Of the first of these schedules, no more than one statement should carry. After a long outage
    a plan takes up to a tenth of a second: handlers get their turn in between."""
    plans: list[Plan] = []
    ticks = 0
    for row in records:
        plans.append(plan(standing(row), row["now"]))
        ticks += len(plans[-1].ticks)
        if ticks > TICKS_AT_ONCE:
            break
        await asyncio.sleep(0)
    return plans


def _told(row: Record, plan: Plan) -> Event | None:
    """The event of what was decided; None for what was only planned."""
    name, tick_at = row["name"], row["tick_at"]
    if tick_at is None:
        return None if plan.problem is None else ScheduleFailed(name, plan.problem)
    match row["outcome"]:
        case "enqueued":
            return ScheduleTicked(name, tick_at, row["kind"], row["queue"], row["job_id"])
        case "overlapped":
            return ScheduleOverlapped(name, tick_at, row["kind"], row["queue"])
        case _:
            return ScheduleMissed(name, tick_at, row["count"], plan.at_least)
