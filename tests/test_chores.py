"""Housekeeping: what each chore does, and that one replica at a time does it."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from tests.facts import until
from tests.workers import job, put, running
from worker import App
from worker.chores import Chores, Retention
from worker.events import (
    ChoreRan,
    Event,
    Events,
    KindsUnclaimed,
    RowSwept,
    ServiceFailed,
    WorkerGone,
)
from worker.link import Link, LinkDown, Outage
from worker.source import Source
from worker.sources.jobs import Jobs
from worker.statements import statement
from worker.url import DatabaseURL

DAY = 86_400.0


class Replica:
    """One worker's chores, without the rest of it."""

    def __init__(self, url: str, number: int = 1, **options: Any) -> None:
        self.events: list[Event] = []
        told = Events((self.events.append,))
        self.link = Link(f"chores {number}", DatabaseURL.parse(url), Outage(told), timeout=20.0)
        given = {"lease": 30.0, "max_crashes": 3, "retention": Retention(14 * DAY, 30 * DAY, 7)}
        sources: list[Source] = [Jobs([("default", "work")])]
        self.chores = Chores(
            self.link, told, sources, worker=lambda: number, **{**given, **options}
        )

    async def run(self, name: str) -> None:
        """That chore alone, now, as far as this replica is concerned."""
        [chore] = [chore for chore in self.chores._chores if chore.name == name]
        await self.chores._attempt(chore)

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def ran(self) -> list[str]:
        return [event.chore for event in self.of(ChoreRan)]


@pytest.fixture
async def replica(db_url: str) -> AsyncIterator[Replica]:
    made = Replica(db_url)
    yield made
    await made.link.close()


async def due_again(apg: asyncpg.Connection) -> None:
    await apg.execute("update worker.chores set last_run_at = now() - interval '1 day'")


async def worker_row(apg: asyncpg.Connection, name: str, **columns: Any) -> int:
    """A row of worker.workers whose heartbeat is a minute old."""
    given = {"queues": ["default"], "kinds": ["work"], **columns}
    names = ", ".join(given)
    values = ", ".join(f"${n}" for n in range(2, len(given) + 2))
    key: int = await apg.fetchval(
        "insert into worker.workers (name, host, pid, version, slots, lease, heartbeat_at,"
        f" {names}) values ($1, 'h', 1, '0', 4, '1 s', now() - interval '1 minute', {values})"
        " returning id",
        name,
        *given.values(),
    )
    return key


# -- who does it, and when --------------------------------------------------------------------


async def test_of_two_replicas_one_does_it(db_url: str, apg: asyncpg.Connection) -> None:
    replicas = [Replica(db_url, number) for number in (1, 2)]
    await apg.execute("delete from worker.chores")
    for one in replicas:
        await one.link.connect()
    for _ in range(5):
        for name in ("partitions", "stats", "unclaimed", "retention", "tidy", "sweep", "orphans"):
            await asyncio.gather(*(one.run(name) for one in replicas))
        runs = await apg.fetch("select name, last_worker, last_ms from worker.chores")
        assert len(runs) == 7
        assert all(row["last_worker"] in (1, 2) for row in runs)
    await put(apg, "nobodys")
    for _ in range(5):
        await due_again(apg)
        before = sum(len(one.of(KindsUnclaimed)) for one in replicas)
        await asyncio.gather(*(one.run("unclaimed") for one in replicas))
        assert sum(len(one.of(KindsUnclaimed)) for one in replicas) == before + 1
    for one in replicas:
        await one.link.close()


async def test_it_is_not_done_again_before_its_time(
    replica: Replica, apg: asyncpg.Connection
) -> None:
    await put(apg, "nobodys")
    await replica.run("unclaimed")
    first = await apg.fetchval("select last_run_at from worker.chores where name = 'unclaimed'")
    await replica.run("unclaimed")
    assert len(replica.of(KindsUnclaimed)) == 1
    assert first == await apg.fetchval(
        "select last_run_at from worker.chores where name = 'unclaimed'"
    )
    await due_again(apg)
    await replica.run("unclaimed")
    assert len(replica.of(KindsUnclaimed)) == 2


async def test_while_one_is_at_it_the_others_pass(
    replica: Replica, db_url: str, apg: asyncpg.Connection
) -> None:
    await put(apg, "nobodys")
    other = await asyncpg.connect(db_url)
    transaction = other.transaction()
    await transaction.start()
    assert await other.fetch(statement("chores/begin"), "unclaimed", 60.0, 2)
    await asyncio.wait_for(replica.run("unclaimed"), 5)
    assert not replica.of(KindsUnclaimed)
    await transaction.rollback()  # it died on the way: nothing was done
    await replica.run("unclaimed")
    assert len(replica.of(KindsUnclaimed)) == 1
    await other.close()


async def test_what_failed_is_not_told(replica: Replica, apg: asyncpg.Connection) -> None:
    """The sweep's transaction breaks at its end: nobody was declared dead."""
    gone = await worker_row(apg, "silent", gone_at=dt.datetime.now(dt.UTC))
    await put(apg, "work", owner=gone, token=1, attempt=1)
    await apg.execute(
        "create function no() returns trigger language plpgsql as $$ begin"
        " if new.last_result is not null then raise 'no'; end if; return new; end $$;"
        "create trigger no before update on worker.chores for each row execute function no()"
    )
    with pytest.raises(asyncpg.RaiseError):
        await replica.run("sweep")
    assert not replica.events
    assert await apg.fetchval("select owner from worker.jobs") == gone
    await apg.execute("drop trigger no on worker.chores")
    await replica.run("sweep")
    assert [event.outcome for event in replica.of(RowSwept)] == ["crashed"]


async def test_one_that_fails_does_not_keep_the_others(
    db_url: str, apg: asyncpg.Connection
) -> None:
    await apg.execute("alter table worker.stats rename to stats_gone")
    app = App()
    app.handler("work")(lambda: None)
    async with running(app, db_url, lease=0.6) as one:
        await until(lambda: one.seen.of(ServiceFailed))
        broken = {"stats", "tidy"}  # both touch the table
        others = [c.name for c in one.worker.parts.chores._chores if c.name not in broken]
        ran = "select array_agg(name) @> $1 from worker.chores where last_ms is not null"
        await until(lambda: apg.fetchval(ran, others))
        [key] = await put(apg, "work")
        await until(lambda: apg.fetchval("select count(*) = 1 from worker.jobs_finished"))
    assert (await job(apg, key))["state"] == "done"


async def test_a_cut_connection_is_an_outage(replica: Replica, apg: asyncpg.Connection) -> None:
    await replica.run("tidy")
    await apg.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where application_name = 'duerow chores 1' and datname = current_database()"
    )

    async def until_it_notices() -> None:
        while True:
            await due_again(apg)
            await replica.run("tidy")

    with pytest.raises(LinkDown):
        await asyncio.wait_for(until_it_notices(), 30)
    await replica.chores.step()
    assert replica.link.connected


# -- sweep ------------------------------------------------------------------------------------


async def test_sweep(replica: Replica, apg: asyncpg.Connection) -> None:
    silent = await worker_row(apg, "silent")
    alive = await worker_row(apg, "alive")
    await apg.execute(
        "update worker.workers set heartbeat_at = now(), lease = '1 h' where id = $1", alive
    )
    [mine] = await put(apg, "work", owner=alive, token=1, attempt=1)
    [first] = await put(apg, "work", owner=silent, token=4, attempt=2)
    [second] = await put(apg, "work", owner=silent, token=5, attempt=2, crashes=1)
    [third] = await put(apg, "work", owner=silent, token=6, attempt=2, crashes=2)
    [last] = await put(apg, "work", owner=silent, token=7, attempt=2, max_attempts=2)
    old_enough = "select pg_postmaster_start_time() < now() - interval '1 s'"
    await until(lambda: apg.fetchval(old_enough))  # before that nobody is declared dead
    await replica.run("sweep")
    assert [event.worker for event in replica.of(WorkerGone)] == [silent]
    told = {event.key: (event.outcome, event.crashes) for event in replica.of(RowSwept)}
    assert told == {
        first: ("crashed", 1),
        second: ("crashed", 2),
        third: ("dead", 3),
        last: ("dead", 1),
    }
    states = {key: await job(apg, key) for key in (mine, first, second, third, last)}
    assert states[mine]["worker"] == alive
    assert (states[first]["state"], states[first]["attempt"]) == ("due", 2)
    [was] = await apg.fetch(
        "select next_at, ended_at from worker.attempts where row_key = $1", str(second)
    )
    assert was["next_at"] - was["ended_at"] == dt.timedelta(seconds=3)
    assert states[second]["due_at"] == was["next_at"]
    assert states[third]["last_error"] == "the worker that ran it is gone, once too often"
    assert states[last]["state"] == "dead"
    assert await apg.fetchval("select count(*) from worker.attempts") == 4


@pytest.mark.parametrize("crashes", [5, 31, 600, 30_000])
async def test_no_number_of_crashes_overflows_a_timestamp(
    replica: Replica, apg: asyncpg.Connection, crashes: int
) -> None:
    """One such row would keep all the others from being returned, for ever."""
    gone = await worker_row(apg, "gone", gone_at=dt.datetime.now(dt.UTC))
    await put(apg, "work", owner=gone, token=1, attempt=1, crashes=crashes)
    await apg.fetch(statement("chores/sweep"), [gone], 32_000)
    wait = await apg.fetchval("select extract(epoch from due_at - now()) from worker.jobs")
    assert wait == pytest.approx(min(4**6 - 1, 4 ** min(crashes, 6) - 1, 3600), abs=60)


async def test_orphans(replica: Replica, apg: asyncpg.Connection) -> None:
    """Of a worker that stopped long ago, or that nobody knows."""
    long_ago = dt.datetime.now(dt.UTC) - dt.timedelta(days=2)
    stopped = await worker_row(apg, "stopped", stopped_at=long_ago)
    await put(apg, "work", owner=stopped, token=1, attempt=1)
    await put(apg, "work", owner=987_654, token=1, attempt=1)
    await replica.run("sweep")
    assert await apg.fetchval("select count(owner) from worker.jobs") == 2
    await replica.run("orphans")
    assert await apg.fetchval("select count(owner) from worker.jobs") == 0
    assert len(replica.of(RowSwept)) == 2


# -- partitions and retention -----------------------------------------------------------------

FINISHED = """
insert into worker.jobs_finished (id, finished_at, due_at, claimed_at, token, created_at, attempt,
                                  run_ms, priority, crashes, state, queue, kind, args)
select n, $1::timestamptz + make_interval(secs => n), $1,
       $1::timestamptz + make_interval(secs => n - 0.5), 1, $1, 1,
       20, 0, 0, $2, 'default', 'work', '{}'
  from generate_series(1, $3::int) n
"""


async def partitions(apg: asyncpg.Connection, parent: str) -> list[str]:
    records = await apg.fetch(
        "select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid"
        " where i.inhparent = ('worker.' || $1)::regclass order by 1",
        parent,
    )
    return [record[0] for record in records]


def day(ahead: int) -> dt.datetime:
    """Noon of that day."""
    today = dt.datetime.now(dt.UTC).replace(hour=12, minute=0, second=0, microsecond=0)
    return today + dt.timedelta(days=ahead)


def name_of(ahead: int, parent: str = "jobs_finished") -> str:
    return f"{parent}_{day(ahead):%Y%m%d}"


async def test_partitions_are_made_ahead(db_url: str, apg: asyncpg.Connection) -> None:
    replica = Replica(db_url, retention=Retention(14 * DAY, 30 * DAY, 10))
    await replica.run("partitions")
    assert name_of(10) in await partitions(apg, "jobs_finished")
    assert name_of(10, "attempts") in await partitions(apg, "attempts")
    assert name_of(11) not in await partitions(apg, "jobs_finished")
    [told] = replica.of(ChoreRan)
    assert f"made {name_of(8)}" in told.result
    await due_again(apg)
    await replica.run("partitions")
    assert len(replica.of(ChoreRan)) == 1, "the second time there is nothing to do"
    await replica.link.close()


async def test_what_the_default_partition_caught_is_moved(
    db_url: str, apg: asyncpg.Connection
) -> None:
    """Nobody made partitions for a while: settling went on all the same."""
    await apg.execute(FINISHED, day(9), "done", 5)
    await apg.execute(FINISHED, day(12), "done", 3)
    caught = "select count(*) from worker.jobs_finished_default"
    assert await apg.fetchval(caught) == 8
    replica = Replica(db_url, retention=Retention(14 * DAY, 30 * DAY, 10))
    await replica.run("partitions")
    assert await apg.fetchval(caught) == 3
    assert await apg.fetchval(f"select count(*) from worker.{name_of(9)}") == 5
    assert await apg.fetchval("select count(*) from worker.jobs_finished") == 8
    assert name_of(9) in await partitions(apg, "jobs_finished")
    await replica.link.close()


async def test_settling_goes_on_without_todays_partition(
    db_url: str, apg: asyncpg.Connection
) -> None:
    await apg.execute(f"drop table worker.{name_of(0)}, worker.{name_of(0, 'attempts')}")
    app = App()

    @app.handler
    async def work() -> None: ...

    [key] = await put(apg, "work")
    async with running(app, db_url) as one:
        await until(lambda: apg.fetchval("select count(*) = 1 from worker.jobs_finished"))
        # Its own chore makes the partition again, beside the settles.
        made = f"select to_regclass('worker.{name_of(0)}') is not null"
        await until(lambda: apg.fetchval(made), within=60)
        assert not one.seen.of(ServiceFailed)
    assert (await job(apg, key))["state"] == "done"


async def test_a_row_that_is_settled_while_its_partition_is_made(
    db_url: str, apg: asyncpg.Connection
) -> None:
    """It was on its way into the default partition before the chore moved what was there."""
    await apg.execute(f"drop table worker.{name_of(0)}")
    settling = await asyncpg.connect(db_url)
    transaction = settling.transaction()
    await transaction.start()
    await settling.execute(FINISHED, day(0), "done", 1)
    watcher = await asyncpg.connect(db_url)
    make = "select worker.ensure_partitions('jobs_finished', 'finished_at', 1)"
    making = asyncio.create_task(apg.fetch(make))
    waits = (
        "select count(*) = 1 from pg_stat_activity"
        " where wait_event_type = 'Lock' and datname = current_database()"
    )
    await until(lambda: making.done() or watcher.fetchval(waits))
    await transaction.commit()
    assert [record[0] for record in await making] == [name_of(0)]
    assert await watcher.fetchval(f"select count(*) from worker.{name_of(0)}") == 1
    await settling.close()
    await watcher.close()


async def test_one_that_was_locked_out_is_tried_again_soon(
    db_url: str, apg: asyncpg.Connection
) -> None:
    await apg.execute(f"drop table worker.{name_of(0)}, worker.{name_of(0, 'attempts')}")
    app = App()
    app.handler("work")(lambda: None)
    other = await asyncpg.connect(db_url)
    transaction = other.transaction()
    await transaction.start()
    await other.execute("lock table worker.jobs_finished_default in share mode")
    async with running(app, db_url):
        later = "select exists (select from worker.chores where name = 'tidy')"
        await until(lambda: apg.fetchval(later))  # it has given up, and gone on to the others
        made = f"select to_regclass('worker.{name_of(0)}') is not null"
        assert not await apg.fetchval(made)
        await transaction.rollback()
        await until(lambda: apg.fetchval(made), within=40)
    await other.close()


async def test_retention_drops_whole_days(db_url: str, apg: asyncpg.Connection) -> None:
    replica = Replica(db_url, retention=Retention(3 * DAY, 5 * DAY, 1))
    for parent, key in (("jobs_finished", "finished_at"), ("attempts", "ended_at")):
        await apg.execute("select worker.ensure_partitions($1, $2, 1, $3)", parent, key, day(-8))
    for ago in (8, 4, 2, 0):
        await apg.execute(FINISHED, day(-ago), "done", 10)
    await apg.execute(FINISHED, day(-20), "done", 4)
    assert await apg.fetchval("select count(*) from worker.jobs_finished_default") == 4
    await apg.execute(
        "insert into worker.attempts (ended_at, row_key, queue, kind, attempt, token, outcome)"
        " select now() - make_interval(days => n), 'k', 'q', 'k', 1, 1, 'retry'"
        " from generate_series(0, 8) n"
    )
    await replica.run("retention")
    left = await apg.fetch(
        "select distinct (now() at time zone 'utc')::date - (finished_at at time zone 'utc')::date"
        " as ago from worker.jobs_finished order by 1"
    )
    assert [record["ago"] for record in left] == [0, 2]
    assert name_of(-4) not in await partitions(apg, "jobs_finished")
    assert name_of(-3) in await partitions(apg, "jobs_finished"), "not over by three days yet"
    assert await apg.fetchval("select count(*) from worker.jobs_finished_default") == 0
    assert await apg.fetchval("select max(now() - ended_at) < '7 days' from worker.attempts")
    assert name_of(-4, "attempts") in await partitions(apg, "attempts")
    [told] = replica.of(ChoreRan)
    assert f"dropped {name_of(-8)}" in told.result
    await replica.link.close()


# -- roll-ups ---------------------------------------------------------------------------------


async def test_stats(replica: Replica, apg: asyncpg.Connection) -> None:
    last = await apg.fetchval("select date_trunc('minute', now()) - interval '1 minute'")
    await apg.execute(FINISHED, last, "done", 40)
    await apg.execute(FINISHED, last, "dead", 3)
    await apg.execute(
        "insert into worker.attempts (ended_at, started_at, row_key, queue, kind, attempt, token,"
        " outcome) select $1::timestamptz + '10 s', $1::timestamptz + '8 s', n::text, 'default',"
        " 'work', 1, 1, o from generate_series(1, 5) n, unnest(array['retry', 'dead']) o",
        last,
    )
    await apg.execute(FINISHED, last + dt.timedelta(minutes=5), "done", 7)  # not over yet
    await replica.run("stats")
    rolled = await apg.fetch("select outcome, count, run_ms, wait_ms from worker.stats")
    assert {row["outcome"]: tuple(row)[1:] for row in rolled} == {
        "done": (40, 800, sum(n * 1000 - 500 for n in range(1, 41))),
        "dead": (3, 60, 500 + 1500 + 2500),
        "retry": (5, 10_000, 0),
    }
    before = await apg.fetch("select * from worker.stats order by outcome")
    await due_again(apg)
    await replica.run("stats")
    assert await apg.fetch("select * from worker.stats order by outcome") == before
    assert len(replica.of(ChoreRan)) == 1, "the second time nothing changed"


async def test_a_minute_at_the_edge_of_the_hour_keeps_its_figure(
    replica: Replica, apg: asyncpg.Connection
) -> None:
    """Nothing happened for an hour: the last minute rolled up is the first that is looked at
    again, and half of it is older than an hour."""
    edge = await apg.fetchval("select date_trunc('minute', now() - interval '1 hour')")
    await apg.execute(FINISHED, edge - dt.timedelta(seconds=1), "done", 60)
    await apg.execute(
        "insert into worker.stats (minute, queue, kind, outcome, count)"
        " values ($1, 'default', 'work', 'done', 60)",
        edge,
    )
    await replica.run("stats")
    assert await apg.fetchval("select count from worker.stats where minute = $1", edge) == 60


async def test_what_came_late_is_counted(replica: Replica, apg: asyncpg.Connection) -> None:
    last = await apg.fetchval("select date_trunc('minute', now()) - interval '2 minutes'")
    await apg.execute(FINISHED, last, "done", 5)
    await replica.run("stats")
    await apg.execute(FINISHED, last, "done", 2)
    await due_again(apg)
    await replica.run("stats")
    assert await apg.fetchval("select count from worker.stats") == 7


# -- the rest ---------------------------------------------------------------------------------


async def test_kinds_that_nobody_claims(replica: Replica, apg: asyncpg.Connection) -> None:
    alive = await worker_row(apg, "alive")
    await worker_row(apg, "gone", kinds=["orphaned"], gone_at=dt.datetime.now(dt.UTC))
    await put(apg, "work", count=20)
    await put(apg, "orphaned", count=20)
    await put(apg, "work", queue="elsewhere")
    await replica.run("unclaimed")
    [told] = replica.of(KindsUnclaimed)
    assert told.kinds == (("default", "orphaned"), ("elsewhere", "work"))
    await apg.execute(
        "update worker.workers set kinds = '{work,orphaned}', queues = '{default,elsewhere}'"
        " where id = $1",
        alive,
    )
    await due_again(apg)
    await replica.run("unclaimed")
    assert len(replica.of(KindsUnclaimed)) == 1


async def test_tidy(replica: Replica, apg: asyncpg.Connection) -> None:
    ago = dt.datetime.now(dt.UTC) - dt.timedelta(days=31)
    old = await worker_row(apg, "old", stopped_at=ago)
    holds = await worker_row(apg, "holds a row", gone_at=ago)
    recent = await worker_row(apg, "recent", stopped_at=dt.datetime.now(dt.UTC))
    alive = await worker_row(apg, "alive")
    await put(apg, "work", owner=holds, token=1, attempt=1)
    await apg.execute(
        "insert into worker.unique_keys values ('work', 'over', 1, now() - interval '1 s'),"
        " ('work', 'kept', 2, now() + interval '1 h');"
        "insert into worker.stats (minute, queue, kind, outcome, count) values"
        " (now() - interval '91 days', 'q', 'k', 'done', 1), (now(), 'q', 'k', 'done', 1);"
        "insert into worker.operator_actions (at, action, target) values"
        " (now() - interval '31 days', 'cancel', '1'), (now(), 'cancel', '2')"
    )
    await replica.run("tidy")
    workers = {record["id"] for record in await apg.fetch("select id from worker.workers")}
    assert workers == {holds, recent, alive}
    assert old not in workers
    assert await apg.fetchval("select array_agg(unique_key) from worker.unique_keys") == ["kept"]
    assert await apg.fetchval("select count(*) from worker.stats") == 1
    assert await apg.fetchval("select array_agg(target) from worker.operator_actions") == ["2"]


async def test_a_workers_chores_run_by_themselves(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()
    app.handler("work")(lambda: None)
    await apg.execute("delete from worker.chores")
    async with running(app, db_url):
        names = "select count(*) from worker.chores where last_ms is not null"
        await until(lambda: apg.fetchval(f"select ({names}) >= 7"))
