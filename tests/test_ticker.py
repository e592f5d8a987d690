"""Ticks become jobs: each once, whoever does it; policies, pauses, deploys and outages."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import time
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from typing import Any

import asyncpg
import psycopg
import pytest
import time_machine

from tests.facts import until
from tests.migrations import pgbouncer
from tests.postgres import Cluster
from tests.workers import drained, running
from worker import App, Schedule, add_schedule, remove_schedule
from worker.errors import UsageError
from worker.events import (
    Event,
    Events,
    RowStarted,
    ScheduleChanged,
    ScheduleFailed,
    ScheduleMissed,
    ScheduleOverlapped,
    ScheduleRetired,
    ScheduleTicked,
    ServiceFailed,
)
from worker.link import Link, LinkDown, Outage
from worker.migrate import upgrade
from worker.statements import statement
from worker.ticker import RETIRE_AFTER, Ticker
from worker.url import DatabaseURL

NEVER = "0 0 1 1 *"


class Replica:
    """One worker's ticker, without the rest of it; with a row in worker.workers that lives on."""

    def __init__(self, url: str, *schedules: Schedule) -> None:
        self.events: list[Event] = []
        told = Events((self.events.append,))
        self.link = Link("ticker", DatabaseURL.parse(url), Outage(told))
        self.id = 0
        self.ticker = Ticker(self.link, told, schedules, worker=lambda: self.id, hears=lambda: True)

    async def start(self, lease: float = 3600.0) -> Replica:
        values = ["replica", "here", 1, "0", ["default"], ["work"], 1, lease]
        [row] = await self.link.fetch(statement("workers/register"), *values)
        self.id = row["id"]
        return self

    async def tick(self) -> float:
        """Until there is nothing to do; the seconds that it would sleep."""
        self.ticker.looked.clear()
        while True:
            pause = await self.ticker.step()
            if self.ticker.looked.is_set():
                return pause

    async def declare(self) -> None:
        """As it does every minute."""
        self.ticker._declare_at = 0.0
        await self.tick()

    async def stop(self) -> None:
        await self.link.fetch(statement("workers/stop"), self.id, 0)
        await self.link.close()

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
async def replica(db_url: str) -> AsyncIterator[Replica]:
    made = await Replica(db_url).start()
    yield made
    await made.link.close()


def minutely(name: str = "minutely", **says: Any) -> Schedule:
    return Schedule(name, **{"kind": "work", "cron": "* * * * *", **says})


@pytest.fixture(autouse=True)
def early_in_a_minute(admin: psycopg.Connection[Any]) -> None:
    """No tick of a schedule of minutes comes by itself while a test runs."""
    admin.execute(
        "select pg_sleep(case when s > 45 then 60.01 - s else 0 end)"
        " from (select extract(second from clock_timestamp())::float8 as s) now"
    )


async def ago(apg: asyncpg.Connection, interval: str) -> None:
    """As if nobody had been there for that long. No minute ends soon after it."""
    await until(lambda: apg.fetchval("select extract(second from now()) < 52"))
    await apg.execute(
        "update worker.schedules set counts_from = counts_from - $1::text::interval,"
        " next_at = date_trunc('minute', now()) - $1::text::interval",
        interval,
    )


async def ticks(apg: asyncpg.Connection, name: str | None = None) -> list[asyncpg.Record]:
    return list(
        await apg.fetch(
            "select tick_at, outcome, count, job_id, worker from worker.schedule_ticks"
            " where schedule = coalesce($1, schedule) order by tick_at",
            name,
        )
    )


async def row(apg: asyncpg.Connection, name: str = "minutely") -> asyncpg.Record:
    found = await apg.fetchrow("select * from worker.schedules where name = $1", name)
    assert found is not None, f"no schedule {name}"
    return found


async def jobs(apg: asyncpg.Connection) -> list[asyncpg.Record]:
    return list(await apg.fetch("select * from worker.jobs order by id"))


# -- a tick -----------------------------------------------------------------------------------


async def test_a_tick_becomes_a_job(replica: Replica, apg: asyncpg.Connection) -> None:
    await add_schedule(
        apg,
        minutely(
            args={"what": "all"}, tick_as="tick", queue="reports", priority=5, tenant="org 3",
            max_attempts=4, tz="Asia/Kolkata",
        ),
    )  # fmt: skip
    wait = await replica.tick()
    assert 0 < wait <= 60
    planned = await row(apg)
    assert planned["next_at"] > dt.datetime.now(dt.UTC)
    assert await ticks(apg) == []
    await ago(apg, "0")
    due = (await row(apg))["next_at"]
    await replica.tick()
    [tick], [job] = await ticks(apg), await jobs(apg)
    assert tuple(tick) == (due, "enqueued", 1, job["id"], replica.id)
    expected = {
        "kind": "work", "queue": "reports", "priority": 5, "tenant": "org 3", "max_attempts": 4,
        "due_at": due, "unique_key": None,
    }  # fmt: skip
    assert {name: job[name] for name in expected} == expected
    args = json.loads(job["args"])
    assert args["what"] == "all"
    assert dt.datetime.fromisoformat(args["tick"]) == due
    assert args["tick"].endswith("+05:30")
    now = await row(apg)
    assert (now["last_tick_at"], now["last_job_id"]) == (due, job["id"])
    assert now["next_at"] == due + dt.timedelta(minutes=1)
    [event] = replica.of(ScheduleTicked)
    assert event == ScheduleTicked("minutely", due, "work", "reports", job["id"])


async def test_jitter_puts_the_job_off(replica: Replica, apg: asyncpg.Connection) -> None:
    await add_schedule(apg, minutely(jitter=40, catch_up="all"))
    await replica.tick()
    await ago(apg, "20 minutes")
    await replica.tick()
    off = [
        (job["due_at"] - tick["tick_at"]).total_seconds()
        for job, tick in zip(await jobs(apg), await ticks(apg), strict=True)
    ]
    assert len(off) == 21
    assert all(0 <= seconds <= 40 for seconds in off)
    assert max(off) - min(off) > 5


async def test_it_commits_with_its_job_or_not_at_all(
    replica: Replica, apg: asyncpg.Connection
) -> None:
    await add_schedule(apg, minutely())
    await replica.tick()
    await ago(apg, "0")
    before = await row(apg)
    await apg.execute(
        "create function no() returns trigger language plpgsql as $$ begin raise 'no'; end $$;"
        "create trigger no before insert on worker.jobs for each row execute function no()"
    )
    with pytest.raises(asyncpg.RaiseError):
        await replica.tick()
    assert await row(apg) == before
    assert await ticks(apg) == []
    assert replica.of(ScheduleTicked) == []
    await apg.execute("drop trigger no on worker.jobs")
    await replica.tick()
    assert len(await jobs(apg)) == 1


@pytest.mark.parametrize("seconds", [6.0, 13.5])
async def test_it_sleeps_until_the_next_tick(
    replica: Replica, apg: asyncpg.Connection, seconds: float
) -> None:
    await add_schedule(apg, minutely())
    await replica.tick()
    began = time.monotonic()
    await apg.execute(
        "update worker.schedules set next_at = now() + make_interval(secs => $1::float8)",
        seconds,
    )
    wait = await replica.tick()
    assert seconds - (time.monotonic() - began) - 0.01 <= wait <= 0.081 + seconds


async def test_a_tick_is_decided_within_a_tenth_of_a_second(
    db_url: str, apg: asyncpg.Connection
) -> None:
    """And a schedule that is made meanwhile does not wait for a poll."""
    app = App()
    app.handler("work")(lambda: None)
    async with running(app, db_url, poll_interval=5, poll_max=5) as one:
        await until(lambda: one.worker.parts.ticker.looked.is_set())
        await add_schedule(apg, Schedule("quick", kind="work", cron="* * * * * *"))
        await until(lambda: one.seen.of(ScheduleTicked), within=10)
        # A busy machine is late now and then, whoever waits for a poll nearly always.
        soon = "decided_at < tick_at + interval '0.1 s'"
        await until(
            lambda: apg.fetchval(f"select count(*) >= 3 from worker.schedule_ticks where {soon}")
        )
        await until(lambda: sum(_at_once(event) for event in one.seen.of(RowStarted)) >= 3)


def _at_once(event: RowStarted) -> bool:
    return event.row.claimed_at - event.row.due_at < dt.timedelta(seconds=0.1)


# -- once -------------------------------------------------------------------------------------


async def test_ten_replicas_at_once(db_url: str, apg: asyncpg.Connection) -> None:
    """All start with the same schedules, and come to the same ticks."""
    says = [minutely("one"), minutely("every", catch_up="all")]
    replicas = [Replica(db_url, *says) for _ in range(10)]
    await asyncio.gather(*(one.start() for one in replicas))
    await asyncio.gather(*(one.tick() for one in replicas))
    assert await apg.fetchval("select count(*) from worker.schedules") == 2
    assert sum(len(one.of(ScheduleChanged)) for one in replicas) == 2
    await ago(apg, "4 minutes")
    for _ in range(5):
        await asyncio.gather(*(one.tick() for one in replicas))
        await apg.execute("update worker.schedules set next_at = next_at - interval '1 minute'")
    decided = [event for one in replicas for event in one.of(ScheduleTicked)]
    assert len(decided) == len(await jobs(apg))
    every = [tick for tick in await ticks(apg, "every") if tick["outcome"] == "enqueued"]
    assert [tick["count"] for tick in await ticks(apg, "one")] == [4, 1]
    assert len(every) >= 5
    for one in replicas:
        await one.link.close()


async def test_whoever_comes_second_does_nothing(replica: Replica, apg: asyncpg.Connection) -> None:
    """What was worked out before another replica did it is worth nothing: the lost answer of a
    commit, sent again, changes nothing either."""
    await add_schedule(apg, minutely(overlap="allow"))
    await replica.tick()
    await ago(apg, "0")
    sent: list[tuple[Any, ...]] = []
    fetch = replica.link.fetch

    async def noted(sql: str, *params: Any) -> Any:
        if "$12" in sql:
            sent.append((sql, *params))
        return await fetch(sql, *params)

    replica.link.fetch = noted  # type: ignore[method-assign]
    await replica.tick()
    assert len(await jobs(apg)) == 1
    [call] = sent
    assert await fetch(*call) == []
    # Nor where only the version tells: somebody changed it after it was looked at.
    await apg.execute("update worker.schedules set next_at = $1, reason = ''", call[3][0])
    assert await fetch(*call) == []
    assert len(await jobs(apg)) == 1
    assert len(await ticks(apg)) == 1


async def test_the_same_tick_twice_is_refused_by_the_table(
    replica: Replica, apg: asyncpg.Connection
) -> None:
    """Somebody sets next_at back by hand."""
    await add_schedule(apg, minutely(overlap="allow"))
    await replica.tick()
    await ago(apg, "0")
    due = (await row(apg))["next_at"]
    await replica.tick()
    await apg.execute("update worker.schedules set next_at = $1", due)
    await replica.tick()
    assert len([tick for tick in await ticks(apg) if tick["tick_at"] == due]) == 1
    assert len(await jobs(apg)) == len(await ticks(apg))


async def test_a_locked_row_holds_up_no_other(
    replica: Replica, db_url: str, apg: asyncpg.Connection
) -> None:
    await add_schedule(apg, minutely("free"))
    await add_schedule(apg, minutely("locked"))
    await replica.tick()
    await ago(apg, "0")
    other = await asyncpg.connect(db_url)
    async with other.transaction():
        await other.execute("select from worker.schedules where name = 'locked' for update")
        await asyncio.wait_for(replica.tick(), 15)
        assert [event.schedule for event in replica.of(ScheduleTicked)] == ["free"]
    await replica.tick()
    assert [event.schedule for event in replica.of(ScheduleTicked)] == ["free", "locked"]
    await other.close()


# -- policies ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("says", "enqueued", "missed"),
    [
        ({"catch_up": "skip"}, 1, 1000 - 1),
        ({"catch_up": "one"}, 1, 1000 - 1),
        ({"catch_up": "all"}, 100, 1000 - 100),
        ({"catch_up": "all", "catch_up_limit": 12}, 12, 1000 - 12),
    ],
)
async def test_a_week_without_workers(
    replica: Replica, apg: asyncpg.Connection, says: dict[str, Any], enqueued: int, missed: int
) -> None:
    await add_schedule(apg, minutely(overlap="allow", **says))
    await replica.tick()
    await ago(apg, "7 days")
    await replica.tick()
    assert len(await jobs(apg)) == enqueued
    first, *rest = await ticks(apg)
    assert (first["outcome"], first["count"]) == ("missed", missed)
    assert [tick["outcome"] for tick in rest] == ["enqueued"] * enqueued
    steps = {b["tick_at"] - a["tick_at"] for a, b in zip([first, *rest], rest, strict=False)}
    assert steps == {dt.timedelta(minutes=1)}
    [event] = replica.of(ScheduleMissed)
    assert (event.count, event.at_least, event.tick) == (missed, True, first["tick_at"])
    assert (await row(apg))["next_at"] == rest[-1]["tick_at"] + dt.timedelta(minutes=1)


async def test_a_late_tick_is_skipped(replica: Replica, apg: asyncpg.Connection) -> None:
    await add_schedule(apg, minutely(cron=NEVER, catch_up="skip"))
    await replica.tick()
    await ago(apg, "2 minutes")
    await replica.tick()
    assert [tick["outcome"] for tick in await ticks(apg)] == ["missed"]
    assert await jobs(apg) == []
    assert (await row(apg))["last_tick_at"] is None


async def test_a_tick_while_the_last_job_is_live(replica: Replica, apg: asyncpg.Connection) -> None:
    await add_schedule(apg, minutely("skips"))
    await add_schedule(apg, minutely("allows", overlap="allow"))
    await replica.tick()
    await ago(apg, "1 minute")
    await apg.execute("update worker.schedules set next_at = next_at + interval '1 s'")
    await replica.tick()
    before = await apg.fetchval("select max(id) from worker.jobs")
    await apg.execute("update worker.schedules set next_at = now()")
    await replica.tick()
    [job] = [job for job in await jobs(apg) if job["id"] > before]
    [event] = replica.of(ScheduleOverlapped)
    assert (event.schedule, event.kind, event.queue) == ("skips", "work", "default")
    assert [t["outcome"] for t in await ticks(apg, "skips")][-1] == "overlapped"
    assert [t["job_id"] for t in await ticks(apg, "allows")][-1] == job["id"]
    await apg.execute("delete from worker.jobs")  # it has ended
    await apg.execute("update worker.schedules set next_at = now()")
    await replica.tick()
    assert [t["outcome"] for t in await ticks(apg, "skips")][-1] == "enqueued"


async def test_once(replica: Replica, apg: asyncpg.Connection) -> None:
    moment = await apg.fetchval("select now() + interval '4 seconds'")
    await add_schedule(apg, Schedule("once", kind="work", at=moment))
    assert 0 < await replica.tick() <= 4.1
    await until(lambda: apg.fetchval("select now() >= $1", moment))
    await replica.tick()
    [tick] = await ticks(apg)
    assert (tick["tick_at"], tick["outcome"]) == (moment, "enqueued")
    ended = await row(apg, "once")
    assert ended["ended_at"] is not None
    assert ended["next_at"] is None
    await replica.tick()
    assert len(await jobs(apg)) == 1


# -- paused, changed, broken ------------------------------------------------------------------


async def test_a_pause_is_not_made_up_for(replica: Replica, apg: asyncpg.Connection) -> None:
    await add_schedule(apg, minutely(catch_up="all"))
    await replica.tick()
    await apg.execute("update worker.schedules set paused_at = now(), paused_by = 'ada'")
    await ago(apg, "1 hour")
    assert await replica.ticker.step() > 1  # it is not even looked at
    assert await ticks(apg) == []
    await apg.execute("update worker.schedules set paused_at = null")
    await replica.tick()
    assert await ticks(apg) == []
    assert (await row(apg))["next_at"] > dt.datetime.now(dt.UTC)


async def test_a_short_pause_leaves_the_next_tick_as_it_was(
    replica: Replica, apg: asyncpg.Connection
) -> None:
    await add_schedule(apg, minutely())
    await replica.tick()
    moment = (await row(apg))["next_at"] + dt.timedelta(seconds=1)
    await apg.execute("update worker.schedules set next_at = $1", moment)
    await apg.execute("update worker.schedules set paused_at = now()")
    await apg.execute("update worker.schedules set paused_at = null")
    await replica.tick()
    assert (await row(apg))["next_at"] == moment


async def test_what_no_worker_can_make_sense_of(replica: Replica, apg: asyncpg.Connection) -> None:
    await apg.execute("select worker.schedule('bad', 'work', cron => '0 25 * * *')")
    await add_schedule(apg, minutely())
    await replica.tick()
    [event] = replica.of(ScheduleFailed)
    assert event.schedule == "bad"
    assert "Bad hour" in event.why
    assert "Bad hour" in (await row(apg, "bad"))["problem"]
    await ago(apg, "0")
    await replica.tick()
    assert [tick.schedule for tick in replica.of(ScheduleTicked)] == ["minutely"]
    await apg.execute("update worker.schedules set cron = '0 5 * * *' where name = 'bad'")
    await replica.tick()
    mended = await row(apg, "bad")
    assert mended["problem"] is None
    assert mended["next_at"] > dt.datetime.now(dt.UTC)


# -- from SQL and Python ----------------------------------------------------------------------


def test_from_sql(pg: psycopg.Connection[Any]) -> None:
    made = "select worker.schedule('a', 'work', '{\"n\": 1}', every => interval '5 minutes')"
    assert pg.execute(made).fetchone() == (True,)
    assert pg.execute(made).fetchone() == (False,)
    found = pg.execute("select origin, every, overlap, args from worker.schedules").fetchall()
    assert found == [("operator", dt.timedelta(minutes=5), "skip", {"n": 1})]
    for bad, says in [
        ("'b', 'work'", "give one of cron, every and at"),
        ("'b', 'work', cron => '* * * * *', every => '1 s'", "give one of cron, every and at"),
        ("'b', 'work', cron => '* * * * *', tz => 'Mars'", 'time zone "Mars" not recognized'),
        ("'b', 'work', every => '0.5 s'", "check constraint"),
        ("'b', 'work', every => '1 month'", "check constraint"),
        ("'b', 'work', every => '1 h', catch_up => 'all', overlap => 'skip'", "schedules_all"),
        ("'b', 'work', '[]', every => '1 h'", "check constraint"),
    ]:
        with pytest.raises(psycopg.Error, match=says):
            pg.execute(f"select worker.schedule({bad})".encode())


async def test_from_python(pg: psycopg.Connection[Any], apg: asyncpg.Connection) -> None:
    assert await add_schedule(apg, minutely()) == "added"
    assert add_schedule(pg, minutely(args={"n": 1})) == "changed"
    with pytest.raises(UsageError, match="there is a schedule"):
        add_schedule(pg, minutely(), replace=False)
    assert remove_schedule(pg, "minutely", by="ada", reason="enough")
    assert not await remove_schedule(apg, "minutely")
    actions = pg.execute(
        "select action, target from worker.operator_actions order by id"
    ).fetchall()
    assert actions == [("add", "minutely"), ("change", "minutely"), ("remove", "minutely")]


# -- from code, over deploys ------------------------------------------------------------------


async def test_code_is_written_down_at_the_start(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()

    @app.schedule("0 9 * * mon", tz="Europe/Berlin", args={"n": 1}, jitter=dt.timedelta(minutes=5))
    @app.handler("report", queue="reports")
    def report(n: int) -> None: ...

    app.schedule("hourly", every=3600, kind="report", args={"n": 2}, catch_up="all")
    async with running(app, db_url) as one:
        await until(lambda: one.worker.parts.ticker.looked.is_set())
        found = await apg.fetch("select * from worker.schedules order by name")
        held = await apg.fetchval("select schedules from worker.workers")
    assert [(each["name"], each["origin"], each["queue"]) for each in found] == [
        ("hourly", "code", "reports"), ("report", "code", "reports"),
    ]  # fmt: skip
    assert found[1]["jitter"] == dt.timedelta(minutes=5)
    assert found[0]["every"] == dt.timedelta(hours=1)
    assert (found[0]["catch_up"], found[0]["overlap"]) == ("all", "allow")
    assert held == ["hourly", "report"]
    assert not one.seen.of(ServiceFailed)


async def test_a_restart_loses_neither_pause_nor_next_tick(
    db_url: str, apg: asyncpg.Connection
) -> None:
    first = await Replica(db_url, minutely("a"), minutely("b")).start()
    await first.tick()
    await apg.execute(
        "update worker.schedules set paused_at = now(), paused_by = 'ada' where name = 'a'"
    )
    await apg.execute("update worker.schedules set next_at = next_at + interval '1 s'")
    before = await apg.fetch("select * from worker.schedules order by name")
    await first.stop()
    second = await Replica(db_url, minutely("a"), minutely("b")).start()
    await second.tick()
    assert await apg.fetch("select * from worker.schedules order by name") == before
    assert second.of(ScheduleChanged) == []
    await second.stop()


async def test_another_time_in_the_code(db_url: str, apg: asyncpg.Connection) -> None:
    first = await Replica(db_url, minutely(cron=NEVER)).start()
    await first.tick()
    await first.stop()
    second = await Replica(db_url, minutely(args={"n": 1})).start()
    await second.tick()
    [event] = second.of(ScheduleChanged)
    assert (event.schedule, event.change) == ("minutely", "changed")
    now = await row(apg)
    assert now["cron"] == "* * * * *"
    assert now["next_at"] - dt.datetime.now(dt.UTC) < dt.timedelta(minutes=1)
    await second.stop()


async def test_another_time_while_a_tick_is_due(db_url: str, apg: asyncpg.Connection) -> None:
    """The deploy came between the tick and its job: it still gets one."""
    first = await Replica(db_url, minutely(cron="0 * * * *")).start()
    await first.tick()
    await first.stop()
    await ago(apg, "1 minute")
    second = await Replica(db_url, minutely(cron=NEVER)).start()
    await second.tick()
    assert [tick["outcome"] for tick in await ticks(apg)] == ["enqueued"]
    await second.stop()


async def test_two_versions_of_the_code_at_once(db_url: str, apg: asyncpg.Connection) -> None:
    """A rolling deploy: `old` is only in the old version, `new` in the new one, `both` in both, at
    another time."""
    v1 = [minutely("old"), minutely("both", cron="1 1 * * *")]
    v2 = [minutely("new"), minutely("both", cron="2 2 * * *")]

    async def cron() -> str:
        return str((await row(apg, "both"))["cron"])

    a1, b1 = await Replica(db_url, *v1).start(), await Replica(db_url, *v1).start()
    await a1.tick()
    await b1.tick()
    a2 = await Replica(db_url, *v2).start()
    await a2.tick()
    assert await cron() == "2 2 * * *"  # of the worker that started last
    await a1.declare()
    assert await cron() == "2 2 * * *"
    await ago(apg, "0")
    await a2.tick()  # all of them tick, on whichever version's replica
    assert {event.schedule for event in a2.of(ScheduleTicked)} == {"old", "new", "both"}
    await b1.stop()
    c1 = await Replica(db_url, *v1).start()  # one of the old ones crashed, and was started again
    await c1.tick()
    assert await cron() == "1 1 * * *"
    await a1.stop()
    await c1.stop()
    await a2.declare()  # within a minute
    assert await cron() == "2 2 * * *"
    # The old version has gone: its own schedule ticks no more.
    await apg.execute("delete from worker.jobs")
    await apg.execute("update worker.schedules set next_at = now()")
    a2.events.clear()
    await a2.tick()
    assert {event.schedule for event in a2.of(ScheduleTicked)} == {"new", "both"}
    assert (await row(apg, "old"))["unheld_since"] is not None
    await a2.stop()


async def test_a_deploy_that_stops_all_first_misses_nothing(
    db_url: str, apg: asyncpg.Connection
) -> None:
    first = await Replica(db_url, minutely()).start()
    await first.tick()
    await first.stop()
    other = await Replica(db_url).start()  # of another app on the same database
    await ago(apg, "0")
    await other.tick()
    assert await ticks(apg) == []
    assert other.of(ScheduleRetired) == []
    second = await Replica(db_url, minutely()).start()
    await second.tick()
    assert len(await ticks(apg)) == 1
    assert (await row(apg))["unheld_since"] is None
    await other.stop()
    await second.stop()


async def test_what_has_gone_from_the_code_is_retired(db_url: str, apg: asyncpg.Connection) -> None:
    first = await Replica(db_url, minutely()).start()
    await first.tick()
    await first.stop()
    second = await Replica(db_url).start()
    await ago(apg, "2 hours")
    await second.tick()
    await apg.execute(
        "update worker.schedules set unheld_since = unheld_since - make_interval(secs => $1)",
        RETIRE_AFTER + 1,
    )
    await second.declare()
    assert [event.schedule for event in second.of(ScheduleRetired)] == ["minutely"]
    await second.declare()
    assert len(second.of(ScheduleRetired)) == 1
    assert await ticks(apg) == []
    third = await Replica(db_url, minutely(catch_up="all")).start()
    await third.tick()  # it begins anew, and makes up for nothing
    assert [event.change for event in third.of(ScheduleChanged)] == ["back"]
    assert await ticks(apg) == []
    back = await row(apg)
    assert back["retired_at"] is None
    assert back["next_at"] > dt.datetime.now(dt.UTC)
    await second.stop()
    await third.stop()


async def test_an_operators_schedule_of_the_same_name_stays(
    db_url: str, apg: asyncpg.Connection
) -> None:
    await add_schedule(apg, minutely(cron=NEVER))
    one = await Replica(db_url, minutely()).start()
    await one.tick()
    await one.declare()
    [event] = one.of(ScheduleFailed)
    assert "an operator's schedule has that name" in event.why
    found = await row(apg)
    assert (found["origin"], found["cron"]) == ("operator", NEVER)
    await one.stop()


async def test_code_is_changed_in_the_code_alone(db_url: str, apg: asyncpg.Connection) -> None:
    one = await Replica(db_url, minutely()).start()
    await one.tick()
    with pytest.raises(UsageError, match="it stands in the code"):
        await add_schedule(apg, minutely(cron=NEVER))
    with pytest.raises(UsageError, match="it stands in the code"):
        await remove_schedule(apg, "minutely")
    with pytest.raises(asyncpg.ObjectInUseError, match="stands in the code"):
        await apg.execute("select worker.schedule('minutely', 'work', every => '1 h')")
    await one.stop()
    assert await remove_schedule(apg, "minutely")


async def test_a_worker_that_was_declared_dead_names_its_schedules_anew(
    db_url: str, apg: asyncpg.Connection
) -> None:
    one = await Replica(db_url, minutely()).start()
    await one.tick()
    await apg.execute("update worker.workers set gone_at = now()")
    await ago(apg, "0")
    await one.tick()
    assert await ticks(apg) == []
    await one.start()
    await one.tick()
    assert len(await ticks(apg)) == 1
    await one.stop()


# -- in a worker ------------------------------------------------------------------------------


async def test_a_drain_runs_the_ticks_that_are_due(db_url: str, apg: asyncpg.Connection) -> None:
    """A fleet that is started by the clock of somebody else, now and then."""
    app = App()
    seen: list[dt.datetime] = []

    @app.schedule("* * * * *", tick_as="tick", catch_up="all")
    @app.handler("work")
    def work(tick: dt.datetime) -> None:
        seen.append(tick)

    await drained(app, db_url)
    await ago(apg, "3 minutes")
    seen.clear()
    await drained(app, db_url)
    assert len(seen) == 4
    assert sorted(seen) == [tick["tick_at"] for tick in await ticks(apg)][-4:]


async def test_a_cut_connection_is_an_outage(replica: Replica, apg: asyncpg.Connection) -> None:
    await add_schedule(apg, minutely())
    await replica.tick()
    await ago(apg, "0")
    await apg.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where application_name = 'duerow ticker' and datname = current_database()"
    )

    async def until_it_notices() -> None:
        while True:
            await replica.ticker.step()
            await ago(apg, "0")

    with pytest.raises(LinkDown):
        await asyncio.wait_for(until_it_notices(), 30)
    await replica.tick()
    assert len(await ticks(apg)) >= 1


async def test_many_ticks_go_in_several_statements(
    replica: Replica, apg: asyncpg.Connection
) -> None:
    for number in range(4):
        await add_schedule(apg, minutely(f"s{number}", catch_up="all", catch_up_limit=600))
    await replica.tick()
    await ago(apg, "1 day")
    sizes = []
    fetch = replica.link.fetch

    async def noted(sql: str, *params: Any) -> Any:
        if "$12" in sql:
            sizes.append(len(params[7]))
        return await fetch(sql, *params)

    replica.link.fetch = noted  # type: ignore[method-assign]
    await replica.tick()
    assert sizes == [1200, 1200]
    assert len(await jobs(apg)) == 2400


async def test_a_worker_whose_clock_is_an_hour_off(db_url: str, apg: asyncpg.Connection) -> None:
    """The database's clock is the one that counts."""
    app = App()
    app.schedule("quick", cron="* * * * * *", kind="work")
    app.handler("work")(lambda: None)
    with time_machine.travel(dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)):
        async with running(app, db_url) as one:
            await until(lambda: len(one.seen.of(ScheduleTicked)) >= 2)
    late, missed = await apg.fetchrow(
        "select max(abs(extract(epoch from decided_at - tick_at))),"
        " sum(count) filter (where outcome = 'missed') from worker.schedule_ticks"
    )
    assert late < 60
    assert (missed or 0) < 60, (
        "a machine that stands still misses one or two, but not an hour of them"
    )


@pytest.mark.process
async def test_behind_a_transaction_pooler(postgres_tcp: str) -> None:
    """No notification comes through it, and every statement may go to another session."""
    with pgbouncer(postgres_tcp, pool=2) as pooled:
        app = App()
        app.handler("work")(lambda: None)
        apg = await asyncpg.connect(postgres_tcp)
        async with running(app, pooled) as one, running(app, pooled) as two:
            await until(lambda: one.worker.parts.ticker.looked.is_set())
            await add_schedule(
                apg, Schedule("quick", kind="work", cron="* * * * * *", catch_up="all")
            )
            seen = (one.seen, two.seen)
            await until(lambda: sum(len(each.of(ScheduleTicked)) for each in seen) >= 4, 30)
            assert not any(each.of(ServiceFailed) for each in seen)
        decided = [tick["tick_at"] for tick in await ticks(apg) if tick["outcome"] == "enqueued"]
        assert {b - a for a, b in pairwise(decided)} == {dt.timedelta(seconds=1)}
        await apg.close()


@pytest.fixture
def postgres_tcp() -> Iterator[str]:
    """A migrated database that is reached over TCP, as a pooler does."""
    with Cluster(tcp=True) as cluster:
        upgrade(cluster.url)
        yield cluster.tcp_url
