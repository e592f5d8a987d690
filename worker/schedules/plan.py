"""What to do about the ticks of a schedule that are due. Pure: every rule of catching up."""

from __future__ import annotations

import datetime as dt
import random
from dataclasses import dataclass
from typing import Any

from worker.errors import RegistrationError
from worker.schedules.schedule import CatchUp, told
from worker.schedules.timing import Timing

ON_TIME = dt.timedelta(minutes=1)
"""A tick that is later than this was missed: what catch_up="skip" leaves out."""

COUNTED_MOST = 1000
"""Missed ticks are counted up to this many."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A row of worker.schedules, as far as the plan goes by it. next_at: None before it has been
    planned, or after a pause. version: tells whether the row has been changed since it was read."""

    name: str
    version: str
    timing: Timing
    next_at: dt.datetime | None
    catch_up: CatchUp
    catch_up_limit: int
    tick_as: str | None
    jitter: float


@dataclass(frozen=True, slots=True)
class Tick:
    """One to enqueue a job for. told: as its handler is told. put_off: seconds that the job is due
    later."""

    at: dt.datetime
    told: str | None
    put_off: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done at once, in one transaction.

    ticks: to enqueue jobs for. next_at: the next tick after all of these; None when none is to
        come. missed: how many ticks get no job for being late, at_least: or more; missed_at: the
        last of them. problem: why nothing can be done.
    """

    standing: Standing
    next_at: dt.datetime | None = None
    ticks: tuple[Tick, ...] = ()
    missed: int = 0
    at_least: bool = False
    missed_at: dt.datetime | None = None
    problem: str | None = None


def plan(standing: Standing, now: dt.datetime) -> Plan:
    """For a schedule that was not planned yet, or whose `next_at` is not after `now`."""
    try:
        return _plan(standing, now)
    except RegistrationError as error:  # a row that nobody has checked
        return Plan(standing, problem=": ".join(filter(None, (error.what, error.why))))


def _plan(standing: Standing, now: dt.datetime) -> Plan:
    timing = standing.timing
    timing.check()
    next_at = timing.after(now)
    if standing.next_at is None:
        # Once, at a time that had passed before there was anybody to plan it: nothing is run.
        late = timing.at if next_at is None else None
        return Plan(standing, next_at, missed=int(late is not None), missed_at=late)
    wanted = standing.catch_up_limit if standing.catch_up == "all" else 1
    most = max(COUNTED_MOST, wanted)
    due = timing.last(wanted, standing.next_at, now, most=most)
    run = due.last
    if standing.catch_up == "skip" and now - run[-1] > ON_TIME:
        run = ()
    missed = due.count - len(run)
    missed_at = None
    if missed:
        missed_at = due.last[-1] if not run else _before(timing, standing.next_at, run[0])
    ticks = tuple(_tick(standing, at) for at in run)
    return Plan(standing, next_at, ticks, missed, due.at_least, missed_at)


def _before(timing: Timing, first: dt.datetime, tick: dt.datetime) -> dt.datetime:
    """The tick before this one."""
    return timing.last(1, first, tick - dt.timedelta(microseconds=1), most=1).last[-1]


def _tick(standing: Standing, at: dt.datetime) -> Tick:
    shown = None if standing.tick_as is None else told(at, standing.timing.tz)
    return Tick(at, shown, random.uniform(0, standing.jitter))


def standing(row: Any) -> Standing:
    """From a row of sql/schedules/look.sql."""
    timing = Timing(row["cron"], row["every"], row["at"], row["tz"], row["counts_from"])
    return Standing(
        row["name"],
        row["version"],
        timing,
        row["next_at"],
        row["catch_up"],
        row["catch_up_limit"],
        row["tick_as"],
        row["jitter"],
    )
