"""What is done about ticks that are due: each policy of catching up, also after a week."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from worker.schedules.plan import COUNTED_MOST, Plan, Standing, plan
from worker.schedules.timing import Timing

WEEK = dt.timedelta(days=7)
NOW = dt.datetime(2026, 11, 22, 10, 0, 30, tzinfo=dt.UTC)
MINUTES = Timing("* * * * *", tz="Europe/Berlin")
SECONDS = Timing("* * * * * *")
DAILY = Timing("0 9 * * *", tz="Europe/Berlin")


def planned(timing: Timing, next_at: dt.datetime | None, now: dt.datetime, **says: Any) -> Plan:
    given = {"catch_up": "one", "catch_up_limit": 100, "tick_as": None, "jitter": 0.0, **says}
    return plan(Standing("a", "1", timing, next_at, **given), now)


def at(found: Plan) -> list[dt.datetime]:
    return [tick.at for tick in found.ticks]


def minutes_ago(*minutes: int) -> list[dt.datetime]:
    return [NOW.replace(second=0) - dt.timedelta(minutes=each) for each in minutes]


@pytest.mark.parametrize("catch_up", ["skip", "one", "all"])
@pytest.mark.parametrize("late", [0.0, 0.002, 29.0])
def test_one_tick_in_time_is_run_under_any_policy(catch_up: str, late: float) -> None:
    tick = NOW.replace(second=0)
    found = planned(MINUTES, tick, tick + dt.timedelta(seconds=late), catch_up=catch_up)
    assert at(found) == [tick]
    assert found.next_at == tick + dt.timedelta(minutes=1)
    assert found.missed == 0


@pytest.mark.parametrize("timing", [MINUTES, SECONDS, DAILY, Timing(every=60, counts_from=NOW)])
def test_a_new_one_begins_with_the_tick_to_come(timing: Timing) -> None:
    found = planned(timing, None, NOW)
    assert found.next_at == timing.after(NOW)
    assert found.ticks == ()
    assert found.missed == 0


@pytest.mark.parametrize(
    ("catch_up", "ticks", "missed"),
    [("skip", minutes_ago(0), 3), ("one", minutes_ago(0), 3), ("all", minutes_ago(3, 2, 1, 0), 0)],
)
def test_after_minutes(catch_up: str, ticks: list[dt.datetime], missed: int) -> None:
    [first] = minutes_ago(3)
    found = planned(MINUTES, first, NOW, catch_up=catch_up)
    assert at(found) == ticks
    assert found.missed == missed
    assert found.missed_at == (minutes_ago(1)[0] if missed else None)
    assert found.next_at == NOW.replace(second=0) + dt.timedelta(minutes=1)


@pytest.mark.parametrize(
    ("catch_up", "count", "missed"), [("skip", 0, 7), ("one", 1, 6), ("all", 7, 0)]
)
def test_after_a_week_a_daily_one(catch_up: str, count: int, missed: int) -> None:
    first = DAILY.after(NOW - WEEK)
    assert first is not None
    found = planned(DAILY, first, NOW, catch_up=catch_up)
    assert at(found) == [first + dt.timedelta(days=day) for day in range(7)][7 - count :]
    assert found.missed == missed
    last_missed = {"skip": first + dt.timedelta(days=6), "one": first + dt.timedelta(days=5)}
    assert found.missed_at == last_missed.get(catch_up)
    assert found.next_at == first + WEEK
    assert not found.at_least


@pytest.mark.parametrize("timing", [SECONDS, Timing(every=1, counts_from=NOW - 2 * WEEK)])
@pytest.mark.parametrize(
    ("catch_up", "limit", "count"),
    [("skip", 100, 1), ("one", 100, 1), ("all", 100, 100), ("all", 3, 3)],
)
def test_after_a_week_one_of_seconds(timing: Timing, catch_up: str, limit: int, count: int) -> None:
    """604,801 ticks are due: no more are worked out than are wanted."""
    found = planned(timing, NOW - WEEK, NOW, catch_up=catch_up, catch_up_limit=limit)
    assert at(found) == [NOW - dt.timedelta(seconds=s) for s in reversed(range(count))]
    assert found.missed == COUNTED_MOST - count
    assert found.at_least
    assert found.missed_at == NOW - dt.timedelta(seconds=count)
    assert found.next_at == NOW + dt.timedelta(seconds=1)


@pytest.mark.parametrize(("late", "count"), [(60, 1), (61, 0)])
def test_skip_leaves_out_what_is_over_a_minute_late(late: int, count: int) -> None:
    tick = DAILY.after(NOW)
    assert tick is not None
    found = planned(DAILY, tick, tick + dt.timedelta(seconds=late), catch_up="skip")
    assert (len(found.ticks), found.missed) == (count, 1 - count)
    assert found.missed_at == (None if count else tick)


def test_once() -> None:
    later = NOW + WEEK
    found = planned(Timing(at=later), None, NOW)
    assert (found.next_at, found.ticks) == (later, ())
    found = planned(Timing(at=later), later, later + WEEK)
    assert (found.next_at, at(found)) == (None, [later])
    found = planned(Timing(at=later), later, later + WEEK, catch_up="skip")
    assert (found.next_at, at(found), found.missed, found.missed_at) == (None, [], 1, later)


def test_what_had_passed_before_anybody_planned_it_is_not_run() -> None:
    """Old code in a new database."""
    found = planned(Timing(at=NOW - WEEK), None, NOW, catch_up="all")
    assert (found.next_at, found.ticks) == (None, ())
    assert (found.missed, found.missed_at) == (1, NOW - WEEK)


def test_another_time_meanwhile() -> None:
    """It fell due at nine; since then the code says every hour. That tick is still one."""
    hourly = Timing("0 * * * *", tz="Europe/Berlin")
    due = dt.datetime(2026, 11, 22, 9, 30, tzinfo=dt.UTC)
    found = planned(hourly, due, NOW, catch_up="all")
    assert at(found) == [due, NOW.replace(second=0)]


def test_the_handler_is_told_in_its_own_zone() -> None:
    [tick] = planned(DAILY, DAILY.after(NOW), NOW + dt.timedelta(days=1), tick_as="day").ticks
    assert tick.told == "2026-11-23T09:00:00+01:00"
    [tick] = planned(DAILY, DAILY.after(NOW), NOW + dt.timedelta(days=1)).ticks
    assert tick.told is None


def test_jitter() -> None:
    put_off = [
        tick.put_off
        for tick in planned(
            MINUTES, NOW.replace(second=0) - dt.timedelta(hours=1), NOW, catch_up="all", jitter=20.0
        ).ticks
    ]
    assert len(put_off) == 61
    assert all(0 <= seconds <= 20 for seconds in put_off)
    assert max(put_off) - min(put_off) > 5


@pytest.mark.parametrize(
    ("timing", "problem"),
    [
        (Timing("0 25 * * *"), "'0 25 * * *' is no cron expression: Bad hour"),
        (Timing("0 9 * * *", tz="Mars"), "there is no time zone 'Mars'"),
    ],
)
@pytest.mark.parametrize("next_at", [None, NOW - WEEK])
def test_a_row_that_makes_no_sense(
    timing: Timing, problem: str, next_at: dt.datetime | None
) -> None:
    found = planned(timing, next_at, NOW)
    assert found.problem is not None
    assert problem in found.problem
    assert (found.ticks, found.missed) == ((), 0)
