"""@app.schedule: what it takes for a schedule, and what it refuses with which words."""

from __future__ import annotations

import datetime as dt
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from worker import App, PayloadInvalid, Schedule
from worker.app import Task
from worker.errors import DuerowError, RegistrationError, UsageError


def an_app() -> tuple[App, Task[Any, Any]]:
    app = App()

    @app.handler("report", queue="reports")
    def report(week: str = "last", tick: dt.datetime | None = None) -> str:
        return week

    return app, report


def test_above_a_handler() -> None:
    app = App()

    @app.schedule("0 18 * * fri", name="friday", args={"week": "this"})
    @app.schedule("0 9 * * mon", tz="Europe/Berlin")
    @app.handler("report", queue="reports")
    def report(week: str = "last") -> str:
        return week

    assert report("any") == "any"
    assert report.kind == "report"
    monday, friday = app.schedules["report"], app.schedules["friday"]
    assert (monday.cron, monday.tz, monday.kind) == ("0 9 * * mon", "Europe/Berlin", "report")
    assert (friday.cron, friday.kind, friday.args) == ("0 18 * * fri", "report", {"week": "this"})
    assert {schedule.queue for schedule in app.scheduled()} == {"reports"}


def test_by_itself() -> None:
    app, _ = an_app()
    made = app.schedule("nightly", cron="0 3 * * *", kind="report", args={"week": "all"})
    assert made == Schedule("nightly", kind="report", cron="0 3 * * *", args={"week": "all"})
    assert app.schedule("0 4 * * *", kind="elsewhere").name == "elsewhere"
    assert app.schedule("often", every=dt.timedelta(minutes=5), kind="report").every
    assert [each.queue for each in app.scheduled()] == ["reports", None, "reports"]


@pytest.mark.parametrize(
    ("at", "tz", "utc"),
    [
        (dt.datetime(2027, 1, 1, 9), "UTC", dt.datetime(2027, 1, 1, 9)),
        (dt.datetime(2027, 7, 1, 9), "Europe/Berlin", dt.datetime(2027, 7, 1, 7)),
        (
            dt.datetime(2027, 7, 1, 9, tzinfo=ZoneInfo("America/New_York")),
            "Europe/Berlin",
            dt.datetime(2027, 7, 1, 13),
        ),
    ],
)
def test_once_in_its_own_zone(at: dt.datetime, tz: str, utc: dt.datetime) -> None:
    assert Schedule("a", kind="k", at=at, tz=tz).timing.at == utc.replace(tzinfo=dt.UTC)


def test_all_allows_overlap_by_itself() -> None:
    assert Schedule("a", kind="k", every=60, catch_up="all").overlaps == "allow"
    assert Schedule("a", kind="k", every=60).overlaps == "skip"
    assert Schedule("a", kind="k", every=60, overlap="allow").overlaps == "allow"


@pytest.mark.parametrize(
    ("says", "what", "why", "hint"),
    [
        ({"cron": "0 25 * * *"}, "'0 25 * * *' is no cron expression", "Bad hour", "five fields"),
        ({"cron": "0 9 * * *", "every": 5}, "needs one of cron, every and at", "cron, every", "5"),
        ({}, "needs one of cron, every and at", "none", '"0 9 * * mon"'),
        ({"cron": "0 9 * * *", "tz": "Europe/Berln"}, "no time zone", "database", "Europe/Berlin"),
        ({"every": 0.5}, "every=0.5 is not between one second", "", "several rounds"),
        ({"every": "5m"}, "every is of type str", "", "a timedelta"),
        ({"every": 60, "jitter": 61}, "jitter=61 is not between 0 and 60", "beyond the next", ""),
        ({"every": 60, "jitter": -1}, "jitter=-1", "", ""),
        ({"every": 60, "catch_up": "some"}, "catch_up='some' is no policy", "", '"all"'),
        ({"every": 60, "overlap": "queue"}, "overlap='queue' is no policy", "", '"allow"'),
        (
            {"every": 60, "catch_up": "all", "overlap": "skip"},
            "contradict each other",
            "only the first would get a job",
            'overlap="allow"',
        ),
        ({"every": 60, "catch_up_limit": 0}, "catch_up_limit=0 is not between 1", "", ""),
        ({"every": 60, "at": dt.date(2027, 1, 1)}, "at is of type date", "", "a datetime"),
        ({"every": 60, "args": {"day": 1}, "tick_as": "day"}, "args has 'day'", "", ""),
        ({"every": 60, "args": [1]}, "args is of type list", "", "a dict"),
    ],
)
def test_what_could_never_work(says: dict[str, Any], what: str, why: str, hint: str) -> None:
    with pytest.raises(RegistrationError) as refused:
        Schedule("nightly", kind="cleanup", **says)
    assert refused.value.what.startswith("schedule 'nightly': ")
    assert what in refused.value.what
    assert why in refused.value.why
    assert hint in refused.value.hint


@pytest.mark.parametrize("name", ["", "x" * 201, "a\0b", 7])
def test_names(name: Any) -> None:
    with pytest.raises(RegistrationError, match="cannot be the name of a schedule"):
        Schedule(name, kind="cleanup", every=60)


@pytest.mark.parametrize(
    "says", [{"priority": 99_999}, {"args": {"a": "\0"}}, {"queue": "x" * 201}, {"max_attempts": 0}]
)
def test_jobs_that_cannot_be_enqueued(says: dict[str, Any]) -> None:
    with pytest.raises((UsageError, PayloadInvalid), match="cannot be enqueued"):
        Schedule("nightly", kind="cleanup", every=60, **says)


def test_two_of_one_name() -> None:
    app, report = an_app()
    app.schedule("@daily")(report)
    with pytest.raises(RegistrationError, match="two schedules 'report'") as refused:
        app.schedule("@hourly")(report)
    assert "name=" in refused.value.hint


def test_below_the_handler() -> None:
    app = App()
    with pytest.raises(RegistrationError, match="it is no handler") as refused:

        @app.handler("report")
        @app.schedule("@daily")
        def report() -> None: ...

    assert "above @app.handler" in refused.value.hint


def test_without_arguments() -> None:
    app, report = an_app()
    with pytest.raises(RegistrationError, match="must say when"):
        app.schedule(report)  # type: ignore[call-overload]


def test_arguments_that_do_not_fit_the_handler() -> None:
    app, report = an_app()
    with pytest.raises(PayloadInvalid, match="do not fit"):
        app.schedule("@daily", args={"month": "May"})(report)
    with pytest.raises(PayloadInvalid, match="do not fit"):
        app.schedule("@daily", tick_as="day")(report)
    app.schedule("@daily", tick_as="tick")(report)


def test_a_handler_that_is_registered_later_is_checked_at_the_start() -> None:
    app = App()
    app.schedule("@daily", kind="report", args={"month": "May"})

    @app.handler("report")
    def report() -> None: ...

    with pytest.raises(PayloadInvalid, match="do not fit"):
        app.scheduled()


def test_rows_of_a_table_are_not_scheduled() -> None:
    app = App()

    @app.rows("donations", due="due_at")
    def charge(row: dict[str, Any]) -> None: ...

    with pytest.raises(DuerowError, match="cannot be enqueued") as refused:
        app.schedule("@daily")(charge)
    assert "runs the rows of donations" in refused.value.why
