"""When the ticks of a schedule are: cron where the clocks change, intervals, the last of many."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import RegistrationError
from worker.schedules.timing import Timing, check_cron, zone

HOUR = dt.timedelta(hours=1)
DAY = dt.timedelta(days=1)

# Zone -> noon, UTC, of the days on which its clocks change in 2026.
CHANGEOVERS = {
    "Europe/Berlin": ("2026-03-29", "2026-10-25"),
    "America/New_York": ("2026-03-08", "2026-11-01"),
    "Australia/Lord_Howe": ("2026-04-05", "2026-10-04"),
}
EXPRESSIONS = (
    "0 9 * * mon",
    "30 2 * * *",
    "0 2 * * *",
    "45 1 * * sun",
    "15,45 1-3 * * *",
    "0 0-4 * * *",
    "*/20 * * * *",
    "*/15 1-3 * * *",
    "10 */2 * * *",
    "0 0 1 * *",
    "0 0 L * *",
    "*/10 30 1,2 * * *",
    "0 0,30 * * * *",
)
# cronsim walks in whole hours, and that night has a half one: coming from before midnight it steps
# over 02:10, starting after 01:30 it does not. What ticks is what it says coming from the tick
# before.
QUIRK = ("Australia/Lord_Howe", "2026-04-05", "10 */2 * * *")
CASES = [
    (tz, day, cron) for tz, days in CHANGEOVERS.items() for day in days for cron in EXPRESSIONS
]


def utc(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def as_cronsim_says(cron: str, tz: str, start: dt.datetime) -> Iterator[dt.datetime]:
    """One walk, from long before."""
    for tick in CronSim(cron, start.astimezone(ZoneInfo(tz))):
        yield tick.astimezone(dt.UTC)


def around(tz: str, day: str, cron: str) -> tuple[list[dt.datetime], dt.datetime, dt.datetime]:
    """The ticks from three days before a changeover to three days after, and these bounds."""
    noon = utc(f"{day}T12:00")
    start, end = noon - 3 * DAY, noon + 3 * DAY
    ticks = []
    for tick in as_cronsim_says(cron, tz, start):
        if tick > end:
            break
        ticks.append(tick)
    return ticks, start, end


def test_the_clocks_change_on_these_days() -> None:
    for tz, days in CHANGEOVERS.items():
        for day in days:
            before, after = (
                (utc(f"{day}T12:00") + delta).astimezone(ZoneInfo(tz)).utcoffset()
                for delta in (-DAY, DAY)
            )
            assert before != after, (tz, day)


@pytest.mark.parametrize(("tz", "day", "cron"), CASES)
def test_each_tick_is_as_cronsim_says(tz: str, day: str, cron: str) -> None:
    """Each worked out from the one before, as it is read from the table."""
    expected, start, end = around(tz, day, cron)
    timing = Timing(cron, tz=tz)
    found = []
    tick = timing.after(start)
    while tick is not None and tick <= end:
        found.append(tick)
        tick = timing.after(tick)
    assert found == expected
    assert all(a < b for a, b in pairwise(found))


@pytest.mark.parametrize(("tz", "day", "cron"), [case for case in CASES if case != QUIRK])
def test_from_any_moment_it_is_the_next_of_the_same_ticks(tz: str, day: str, cron: str) -> None:
    """Also from within the hour that comes twice."""
    expected, _, end = around(tz, day, cron)
    timing = Timing(cron, tz=tz)
    moment = utc(f"{day}T12:00") - 30 * HOUR
    while moment < end - 2 * DAY:
        following = [tick for tick in expected if tick > moment]
        assert timing.after(moment) == (following[0] if following else timing.after(end))
        moment += dt.timedelta(minutes=17)


@pytest.mark.parametrize(
    ("tz", "cron", "since", "ticks"),
    [
        # 02:30 is left out: at its end, 03:00 CEST.
        (
            "Europe/Berlin",
            "30 2 * * *",
            "2026-03-28T12:00",
            ["2026-03-29T01:00", "2026-03-30T00:30"],
        ),
        # 02:30 comes twice: the first time, CEST.
        (
            "Europe/Berlin",
            "30 2 * * *",
            "2026-10-24T12:00",
            ["2026-10-25T00:30", "2026-10-26T01:30"],
        ),
        # Nine is nine, whatever the clocks did at night.
        (
            "Europe/Berlin",
            "0 9 * * *",
            "2026-10-24T12:00",
            ["2026-10-25T08:00", "2026-10-26T08:00"],
        ),
        (
            "Europe/Berlin",
            "0 9 * * *",
            "2026-10-23T12:00",
            ["2026-10-24T07:00", "2026-10-25T08:00"],
        ),
        # Every half hour follows the time that passes: the double hour has four.
        (
            "Europe/Berlin",
            "*/30 * * * *",
            "2026-10-24T23:59",
            [f"2026-10-25T{h:02}:{m}" for h in (0, 1, 2) for m in ("00", "30")],
        ),
        (
            "America/New_York",
            "15,45 2 * * *",
            "2026-03-07T12:00",
            ["2026-03-08T07:00", "2026-03-09T06:15", "2026-03-09T06:45"],
        ),
        (
            "America/New_York",
            "0 1 * * *",
            "2026-10-31T12:00",
            ["2026-11-01T05:00", "2026-11-02T06:00"],
        ),
        # Half an hour is left out there, from 02:00 to 02:30.
        (
            "Australia/Lord_Howe",
            "15 2 * * *",
            "2026-10-03T00:00",
            ["2026-10-03T15:30", "2026-10-04T15:15"],
        ),
        # ... and comes twice, from 01:30 to 02:00.
        (
            "Australia/Lord_Howe",
            "45 1 * * *",
            "2026-04-03T23:00",
            ["2026-04-04T14:45", "2026-04-05T15:15"],
        ),
    ],
)
def test_days_worked_out_by_hand(tz: str, cron: str, since: str, ticks: list[str]) -> None:
    timing = Timing(cron, tz=tz)
    found = timing.all_after(utc(since))
    assert [next(found) for _ in ticks] == [utc(tick) for tick in ticks]


def test_intervals_count_from_when_they_were_made() -> None:
    timing = Timing(every=90, counts_from=utc("2026-11-22T10:00:10"))
    assert timing.after(utc("2026-11-22T10:00:10")) == utc("2026-11-22T10:01:40")
    assert timing.after(utc("2026-11-22T10:01:39")) == utc("2026-11-22T10:01:40")
    assert timing.after(utc("2026-11-22T10:01:40")) == utc("2026-11-22T10:03:10")
    assert timing.after(utc("2026-11-23T10:00:00")) == utc("2026-11-23T10:00:10")


def test_once() -> None:
    timing = Timing(at=utc("2027-01-01T00:00"))
    assert timing.after(utc("2026-12-31T23:59")) == timing.at
    assert timing.after(utc("2027-01-01T00:00")) is None


# -- the last of many -------------------------------------------------------------------------


def counted(timing: Timing, first: dt.datetime, now: dt.datetime) -> list[dt.datetime]:
    ticks = [first]
    while (tick := timing.after(ticks[-1])) is not None and tick <= now:
        ticks.append(tick)
    return ticks


@given(
    st.sampled_from(
        [
            Timing("*/7 * * * *", tz="Europe/Berlin"),
            Timing("0 */3 * * sat,sun", tz="America/New_York"),
            Timing("30 1,2 * * *", tz="Australia/Lord_Howe"),
            Timing("*/10 5 * * * *"),
            Timing(every=700.0),
        ]
    ),
    st.integers(1, 40),
    st.integers(0, 5 * 86_400),
)
def test_the_last_of_the_ticks_that_were_missed(timing: Timing, wanted: int, seconds: int) -> None:
    first = timing.after(utc("2026-10-23T00:00"))
    assert first is not None
    now = first + dt.timedelta(seconds=seconds)
    every = counted(timing, first, now)
    found = timing.last(wanted, first, now, most=50)
    assert found.last == tuple(every[-wanted:])
    assert found.count == min(len(every), 50)
    assert found.at_least is (len(every) > 50)


def test_the_last_of_an_interval_that_was_changed_meanwhile() -> None:
    """`first` fell due by the old interval, and lies between two ticks of the new one."""
    timing = Timing(every=60, counts_from=utc("2026-11-22T10:00"))
    found = timing.last(5, utc("2026-11-22T10:00:30"), utc("2026-11-22T10:02:10"), most=50)
    assert [tick.isoformat()[14:19] for tick in found.last] == ["00:30", "01:00", "02:00"]
    assert found.count == 3


@pytest.mark.parametrize("cron", ["* * * * * *", "* * * jan *", "0 0 29 2 *"])
def test_years_of_ticks_cost_no_more_than_hours(cron: str) -> None:
    timing = Timing(cron, tz="Europe/Berlin")
    first = timing.after(utc("2010-01-01T00:00"))
    assert first is not None
    now = utc("2026-11-22T10:00")
    found = timing.last(100, first, now, most=1000)
    assert len(found.last) == (100 if found.at_least else 4)  # 2012, 2016, 2020, 2024
    assert timing.after(found.last[-1]) == timing.after(now)
    assert counted(timing, found.last[0], now) == list(found.last)


# -- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cron", "why"),
    [
        ("0 25 * * *", "Bad hour"),
        ("* * * *", "Wrong number of fields"),
        ("0 9 * * mondays", "Bad day-of-week"),
        ("", "Wrong number of fields"),
        ("@often", "Wrong number of fields"),
        ("0 0 30 2 *", "Bad day-of-month"),
    ],
)
def test_what_is_no_cron_expression(cron: str, why: str) -> None:
    with pytest.raises(RegistrationError) as refused:
        check_cron(cron)
    assert refused.value.what == f"{cron!r} is no cron expression"
    assert refused.value.why == why
    assert '"0 9 * * mon"' in refused.value.hint


def test_nicknames() -> None:
    assert Timing("@daily").after(utc("2026-11-22T10:00")) == utc("2026-11-23T00:00")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("Europe/Berln", "tz='Europe/Berlin'"), ("NewYork", "tz='America/New_York'"), ("/", "tz=")],
)
def test_what_is_no_time_zone(name: str, hint: str) -> None:
    with pytest.raises(RegistrationError) as refused:
        zone(name)
    assert hint in refused.value.hint


@pytest.mark.parametrize(
    "timing",
    [Timing(), Timing("0 9 * * *", every=60), Timing(every=0.5), Timing("0 9 * * *", tz="Mars")],
)
def test_what_could_never_tick(timing: Timing) -> None:
    with pytest.raises(RegistrationError):
        timing.check()
