"""When an adopted row is due, and when it is due again."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import asyncpg
import pytest

from tests.adopted import DONATIONS, Donation, adopt, make_donations, one, outcomes, utc
from tests.facts import until
from tests.workers import drained, running
from worker import App, Context, Retry, Snooze
from worker.errors import RegistrationError
from worker.events import RowSettled
from worker.recurrence import Recurrence

HOUR = dt.timedelta(hours=1)


def app_of(result: Any = None, **options: Any) -> tuple[App, list[dt.datetime]]:
    """An app whose handler answers `result` (or what it gives when called); the occurrences that
    the handler saw."""
    app, seen = App(), []

    @app.rows("donations", due="next_at", **options)
    async def charge(row: Donation, context: Context) -> Any:
        assert context.row.occurrence is not None
        seen.append(context.row.occurrence)
        return result() if callable(result) else result

    return app, seen


# -- recurrence, pure -----------------------------------------------------------------------------

NOON = utc(2026, 1, 1, 12)


@pytest.mark.parametrize(
    ("recurrence", "late", "next_at", "next_in"),
    [
        (Recurrence(), 1, None, None),
        (Recurrence(300), 1, NOON + dt.timedelta(seconds=300), None),
        (Recurrence(300), 299.9, NOON + dt.timedelta(seconds=300), None),
        (Recurrence(300), 300, NOON + dt.timedelta(seconds=600), None),
        (Recurrence(300), 86_400 * 365 + 1, NOON + dt.timedelta(days=365, seconds=300), None),
        (Recurrence(300), -5, NOON + dt.timedelta(seconds=300), None),
        (Recurrence(300, catch_up=True), 3000, NOON + dt.timedelta(seconds=300), None),
        (Recurrence(300, from_="now"), 3000, None, 300),
    ],
)
def test_the_next_due_time(
    recurrence: Recurrence, late: float, next_at: dt.datetime | None, next_in: float | None
) -> None:
    done = recurrence.after(NOON, NOON + dt.timedelta(seconds=late), None)
    assert (done.next_at, done.next_in, done.put_off) == (next_at, next_in, 0)


def test_jitter_holds_back_and_never_moves_the_due_time() -> None:
    recurrence = Recurrence(300, jitter=30)
    due, held = NOON, []
    for _ in range(1000):
        done = recurrence.after(due, due + dt.timedelta(seconds=40), None)
        assert done.next_at is not None
        due = done.next_at
        held.append(done.put_off)
    assert due == NOON + 1000 * dt.timedelta(seconds=300)
    assert all(0 <= one <= 30 for one in held)
    assert len(set(held)) > 900
    assert abs(sum(held) / 1000 - 15) < 2


@pytest.mark.parametrize("bad", [{"every": 0}, {"every": -1}, {"every": 5, "jitter": 6}])
def test_recurrences_that_mean_nothing(bad: dict[str, Any]) -> None:
    with pytest.raises(RegistrationError):
        Recurrence(**bad)


# -- on a table -----------------------------------------------------------------------------------


async def test_never_again(db_url: str, apg: asyncpg.Connection) -> None:
    await make_donations(apg, 2)
    app, seen = app_of()
    await drained(app, db_url)
    assert len(seen) == 2
    assert (await one(apg))["next_at"] is None


async def test_every_hour_from_due_without_what_was_missed(
    db_url: str, apg: asyncpg.Connection
) -> None:
    await make_donations(apg, 1)
    due = await apg.fetchval(
        "update donations set next_at = now() - interval '200 minutes' returning next_at"
    )
    app, seen = app_of(every=HOUR)
    await drained(app, db_url)
    assert seen == [due]
    row = await one(apg)
    assert row["next_at"] == due + 4 * HOUR
    assert row["duerow_retry_at"] is row["duerow_held_for"] is None
    assert (row["duerow_attempt"], row["duerow_crashes"]) == (0, 0)


async def test_catching_up_runs_what_was_missed(db_url: str, apg: asyncpg.Connection) -> None:
    await make_donations(apg, 1)
    due = await apg.fetchval(
        "update donations set next_at = now() - interval '200 minutes' returning next_at"
    )
    app, seen = app_of(every=HOUR, catch_up=True)
    await drained(app, db_url)
    assert seen == [due + n * HOUR for n in range(4)]
    assert (await one(apg))["next_at"] == due + 4 * HOUR


async def test_every_hour_from_now(db_url: str, apg: asyncpg.Connection) -> None:
    await make_donations(apg, 1)
    await apg.execute("update donations set next_at = now() - interval '1 day'")
    before = await apg.fetchval("select clock_timestamp()")
    app, _ = app_of(every=3600, from_="now")
    await drained(app, db_url)
    after = await apg.fetchval("select clock_timestamp()")
    assert before + HOUR <= (await one(apg))["next_at"] <= after + HOUR


async def test_jitter_on_a_table(db_url: str, apg: asyncpg.Connection) -> None:
    await make_donations(apg, 50)
    due = await apg.fetchval(
        "with d as (select now() - interval '1 s' as at) update donations set next_at = d.at from d"
        " returning next_at"
    )
    app, _ = app_of(every=HOUR, jitter=1800)
    await drained(app, db_url)
    rows = await apg.fetch("select * from donations")
    assert {row["next_at"] for row in rows} == {due + HOUR}, "on the grid"
    assert {row["duerow_held_for"] for row in rows} == {due + HOUR}
    runs_at = sorted(row["duerow_retry_at"] for row in rows)
    assert due + HOUR <= runs_at[0] < runs_at[-1] <= due + 1.5 * HOUR
    assert len(set(runs_at)) == 50
    await apg.execute(
        "update donations set next_at = next_at - interval '90 minutes' where id = 1;"
        "update donations set duerow_retry_at = now() where id = 2"
    )
    app, seen = app_of(every=HOUR)
    await drained(app, db_url)
    assert sorted(seen) == [due - 0.5 * HOUR, due + HOUR], "the held one counts from its due time"
    assert await outcomes(apg, 2) == [(1, "done"), (1, "done")]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (utc(2031, 2, 3, 4, 5, 6, 7), utc(2031, 2, 3, 4, 5, 6, 7)),
        (
            dt.datetime(2031, 2, 3, tzinfo=dt.timezone(dt.timedelta(hours=5))),
            utc(2031, 2, 2, 19),
        ),
        (dt.timedelta(days=2), dt.timedelta(days=2)),
    ],
)
async def test_a_time_that_the_handler_returns(
    db_url: str, apg: asyncpg.Connection, answer: Any, expected: Any
) -> None:
    await make_donations(apg, 1)
    app, _ = app_of(answer, every=HOUR)
    before = await apg.fetchval("select clock_timestamp()")
    await drained(app, db_url)
    found = (await one(apg))["next_at"]
    if isinstance(expected, dt.timedelta):
        assert before + expected <= found <= before + expected + dt.timedelta(minutes=1)
    else:
        assert found == expected


async def test_a_time_in_the_past_runs_at_once_and_zero_too(
    db_url: str, apg: asyncpg.Connection
) -> None:
    await make_donations(apg, 1)
    answers = [dt.timedelta(seconds=-5), utc(2020, 1, 1), None]
    app, seen = app_of(lambda: answers.pop(0))
    await drained(app, db_url)
    assert len(seen) == 3
    assert seen[2] == utc(2020, 1, 1)


async def test_a_time_without_a_zone_is_dead_at_once(db_url: str, apg: asyncpg.Connection) -> None:
    """The handler has done its work; running it again would not mend the answer."""
    await make_donations(apg, 1)
    app, seen = app_of(dt.datetime(2030, 1, 1))
    await drained(app, db_url)
    assert len(seen) == 1
    row = await one(apg)
    assert (row["duerow_state"], row["duerow_attempt"]) == ("dead", 1)
    assert "without a time zone, 2030-01-01T00:00:00" in row["duerow_error"]


# -- a due column without a time zone -------------------------------------------------------------

NAIVE = DONATIONS.replace("next_at timestamptz default now()", "next_at timestamp")


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/New_York"])
async def test_a_due_column_without_a_zone_holds_utc(
    db_url: str, apg: asyncpg.Connection, zone: str
) -> None:
    """Whatever zone the server or a session thinks it is in."""
    name = db_url.partition("/duerow_test")[2].partition("?")[0]
    await apg.execute(f"alter database duerow_test{name} set timezone to '{zone}'")
    await apg.execute(NAIVE)
    await adopt(apg, "donations")
    await apg.execute(
        "insert into donations (next_at) select (now() at time zone 'UTC') + m * interval '1 min'"
        " from unnest(array[-90, -1, 1, 90]) m"
    )
    answers: list[Any] = [Retry(after=3600), utc(2031, 1, 1)]
    app, seen = app_of(lambda: answers.pop(0))
    ran = await drained(app, db_url)
    now = await apg.fetchval("select now()")
    assert [round((now - at).total_seconds() / 60) for at in seen] == [90, 1]
    waits = [e.wait for e in ran.seen.of(RowSettled)]
    assert 5300 < waits[0] < 5600
    first, second = await one(apg, 1), await one(apg, 2)
    in_an_hour = (now + HOUR).replace(tzinfo=None)
    assert abs((first["duerow_retry_at"] - in_an_hour).total_seconds()) < 60
    assert first["duerow_held_for"] == first["next_at"]
    assert second["next_at"] == dt.datetime(2031, 1, 1)
    recorded = await apg.fetchval("select next_at from worker.attempts where row_key = '1'")
    assert abs((recorded - now - HOUR).total_seconds()) < 60


async def test_every_and_backoff_on_a_column_without_a_zone(
    db_url: str, apg: asyncpg.Connection
) -> None:
    await apg.execute(NAIVE)
    await adopt(apg, "donations")
    due = await apg.fetchval(
        "insert into donations (next_at) values ((now() at time zone 'UTC') - interval '1 min')"
        " returning next_at"
    )
    answers: list[Any] = [Retry(after=0), Snooze(after=0), None]
    app, seen = app_of(lambda: answers.pop(0), every=HOUR, jitter=60)
    await drained(app, db_url)
    assert len(seen) == 3
    row = await one(apg)
    assert row["next_at"] == row["duerow_held_for"] == due + HOUR
    assert due + HOUR <= row["duerow_retry_at"] <= due + HOUR + dt.timedelta(minutes=1)
    assert await outcomes(apg) == [(1, "retry"), (2, "snooze"), (2, "done")]


# -- what is never due ----------------------------------------------------------------------------


@pytest.mark.parametrize("table", [DONATIONS, NAIVE])
async def test_null_and_the_infinities_are_never_due(
    db_url: str, apg: asyncpg.Connection, table: str
) -> None:
    await apg.execute(table)
    await adopt(apg, "donations")
    await apg.execute(
        "insert into donations (next_at) select d from"
        " unnest('{null,infinity,-infinity,0044-03-15 BC,1999-12-31 00:00+00}'::timestamp[]) d"
    )
    app, seen = app_of()
    await drained(app, db_url)
    assert seen == [utc(1999, 12, 31)]


async def test_rows_out_of_the_condition_are_never_due(
    db_url: str, apg: asyncpg.Connection
) -> None:
    """A condition may hold whatever SQL does, a comment at its end included."""
    condition = "status = 'active' and note is distinct from '100 % {} $1' -- only these"
    await make_donations(apg, 4, where=condition.partition(" --")[0])
    await apg.execute(
        "update donations set status = 'gone' where id = 2;"
        "update donations set note = '100 % {} $1' where id = 3"
    )
    ran = []
    app = App()

    @app.rows("donations", due="next_at", where=condition)
    async def charge(row: Donation) -> None:
        ran.append(row.id)

    await drained(app, db_url)
    assert sorted(ran) == [1, 4]


async def test_a_row_runs_when_it_falls_due_while_the_worker_is_idle(
    db_url: str, apg: asyncpg.Connection
) -> None:
    """Well before the longest poll: the worker knows when the next is due."""
    await make_donations(apg, 1)
    await apg.execute("update donations set next_at = now() + interval '1500 ms'")
    app, seen = app_of()
    async with running(app, db_url, poll_interval=30.0, poll_max=30.0) as worker:
        await until(lambda: seen)
        [event] = await until(lambda: worker.seen.of(RowSettled))
    assert event.wait < 10


async def test_order_takes_the_first_of_the_oldest_thousand(
    db_url: str, apg: asyncpg.Connection
) -> None:
    await make_donations(apg)
    await apg.execute(
        "insert into donations (amount, next_at)"
        " select i % 7 * 1000 + i, now() - interval '1 day' + i * interval '1 s'"
        " from generate_series(1, 1500) i"
    )
    app, ran = App(), []

    @app.rows("donations", due="next_at", order="amount")
    async def charge(row: Donation) -> None:
        ran.append(row)

    @app.observe
    def stop(event: Any) -> None:
        if len(ran) == 20:
            worker.worker.stop()

    async with running(app, db_url, concurrency=1, claim_batch=20) as worker:
        await until(lambda: len(ran) >= 20)
    found = [(row.amount, row.id) for row in ran[:20]]
    expected = sorted((i % 7 * 1000 + i, i) for i in range(1, 1001))[:20]
    assert found == expected, "by amount, of the thousand that have been due longest"
    await drained(app, db_url)
    assert len({row.id for row in ran}) == 1500


async def test_an_ordered_source_with_two_workers_runs_each_row_once(
    db_url: str, apg: asyncpg.Connection
) -> None:
    await make_donations(apg, 600)
    app, ran = App(), []

    @app.rows("donations", due="next_at", order="amount")
    async def charge(row: Donation) -> None:
        ran.append(row.id)
        await asyncio.sleep(0)

    await asyncio.gather(*(drained(app, db_url, claim_batch=50) for _ in range(3)))
    assert sorted(ran) == list(range(1, 601))
