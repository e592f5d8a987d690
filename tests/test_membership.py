"""A worker's life in worker.workers: it registers, beats, is declared dead, starts over, stops."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import signal
import threading
import time

import asyncpg
import pytest

from tests.facts import until
from tests.postgres import Cluster
from tests.workers import Running, job, put, running
from worker import App, Context
from worker.events import (
    DatabaseLost,
    RowLost,
    RowsClaimed,
    RowSettled,
    RowStarted,
    ServiceFailed,
    WorkerFenced,
    WorkerGone,
)
from worker.migrate import upgrade


async def declare_dead(apg: asyncpg.Connection, worker: int) -> None:
    """As a sweep does: the worker is gone, its rows go back."""
    await apg.execute("update worker.workers set gone_at = now() where id = $1", worker)


async def test_what_it_says_of_itself(db_url: str, apg: asyncpg.Connection) -> None:
    app, release = App(), asyncio.Event()

    @app.handler("charge", queue="payments")
    async def charge() -> None:
        await release.wait()

    await put(apg, "charge", queue="payments", count=2)
    async with running(app, db_url, concurrency=3, lease=3.0, worker_name="web.7") as one:
        await until(lambda: len(one.worker.running) == 2)
        one.worker.parts.heartbeat.beat_now()
        await until(lambda: apg.fetchval("select running = 2 from worker.workers"))
        row = await apg.fetchrow(
            "select *, extract(epoch from lease) as seconds from worker.workers"
        )
        assert (row["name"], row["slots"], row["seconds"]) == ("web.7", 3, 3)
        assert (row["queues"], row["kinds"]) == (["payments"], ["charge"])
        assert row["stopped_at"] is row["gone_at"] is row["draining_at"] is None
        release.set()
        await until(lambda: len(one.seen.of(RowSettled)) == 2)
    row = await apg.fetchrow("select * from worker.workers")
    assert (row["running"], row["settled"], row["lost"]) == (0, 2, 0)
    assert row["stopped_at"] >= row["started_at"]
    assert row["gone_at"] is None


async def test_it_beats_while_a_handler_blocks_the_event_loop(
    db_url: str, apg: asyncpg.Connection
) -> None:
    """For three leases; then its result is accepted."""
    app = App()
    beats: list[dt.datetime] = []
    blocked: list[dt.datetime] = []

    @app.handler
    async def blocks() -> None:
        blocked.append(dt.datetime.now(dt.UTC))
        time.sleep(6.1)  # noqa: ASYNC251
        blocked.append(dt.datetime.now(dt.UTC))

    [key] = await put(apg, "blocks")
    watcher = threading.Thread(target=watch_beats, args=(db_url, beats))
    watcher.start()
    async with running(app, db_url, lease=2.0) as one:
        await until(lambda: one.seen.of(RowSettled), within=30)
    watcher.join()
    assert (await job(apg, key))["state"] == "done"
    assert one.report is not None
    assert one.report.lost == 0
    begun, ended = blocked
    # Nine, had it not to share the machine.
    assert len([beat for beat in beats if begun < beat < ended]) >= 3
    assert await apg.fetchval("select count(*) from worker.workers") == 1


def watch_beats(url: str, beats: list[dt.datetime]) -> None:
    """Notes each change of heartbeat_at until the worker has stopped."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(3000):
            row = connection.execute(
                "select heartbeat_at, stopped_at from worker.workers"
            ).fetchone()
            if row is not None and row[0] not in beats:
                beats.append(row[0])
            if row is not None and row[1] is not None:
                return
            time.sleep(0.02)


async def test_a_worker_that_was_declared_dead_starts_over(
    db_url: str, apg: asyncpg.Connection
) -> None:
    """Its runs are cancelled, what they answer is refused and counted, their rows run again, and
    it goes on under a new id."""
    app = App()
    ended: list[str] = []

    @app.handler
    async def slow(context: Context) -> str:
        if context.row.token > 1:
            return "second"
        try:
            await asyncio.sleep(30)
        finally:
            ended.append("cancelled")
        return "first"

    [key] = await put(apg, "slow")
    async with running(app, db_url, concurrency=2, lease=3.0) as one:
        await until(lambda: one.worker.running)
        first = one.id
        await declare_dead(apg, first)
        one.worker.parts.heartbeat.beat_now()
        await until(lambda: one.seen.of(WorkerFenced))
        await until(lambda: one.seen.of(RowSettled))
        assert one.id > first
        assert ended == ["cancelled"]
        [lost] = one.seen.of(RowLost)
        assert (lost.row.key, lost.row.owner) == (key, first)
        row = await job(apg, key)
        assert (row["state"], row["result"], row["worker"], row["crashes"]) == (
            "done",
            '"second"',
            one.id,
            1,
        )
        counted = "select lost from worker.workers where id = $1"
        await until(lambda: apg.fetchval(counted, first))
    outcomes = await apg.fetch(
        "select outcome, worker from worker.attempts order by ended_at, outcome"
    )
    assert sorted(tuple(r) for r in outcomes) == [("crashed", first), ("lost", first)]


async def test_the_late_result_of_a_worker_that_was_declared_dead_is_refused(
    db_url: str, apg: asyncpg.Connection
) -> None:
    """The handler ends before the worker hears of its death; another has the row by then."""
    app, other_app = App(), App()
    go = asyncio.Event()

    @app.handler("work")
    async def late() -> str:
        await go.wait()
        return "late"

    @other_app.handler("work")
    async def elsewhere() -> str:
        return "elsewhere"

    [key] = await put(apg, "work")
    async with running(app, db_url, lease=60) as one:
        await until(lambda: one.worker.running)
        await declare_dead(apg, one.id)  # its next beat is far away
        async with running(other_app, db_url) as other:
            await until(lambda: other.seen.of(RowSettled))
            go.set()
            await until(lambda: one.seen.of(RowLost))
        assert one.worker.parts.settler.lost == 1
        row = await job(apg, key)
        assert (row["state"], row["result"]) == ("done", '"elsewhere"')
        lost = "select message from worker.attempts where outcome = 'lost'"
        assert await until(lambda: apg.fetchval(lost)) == "refused: done"


async def test_a_worker_that_was_declared_dead_claims_nothing_under_its_old_id(
    db_url: str, apg: asyncpg.Connection
) -> None:
    app = App()

    @app.handler
    async def work() -> None: ...

    async with running(app, db_url, lease=60) as one:
        await declare_dead(apg, one.id)
        first = one.id
        [key] = await put(apg, "work")
        asked = len(one.seen.of(RowsClaimed))
        await until(lambda: len(one.seen.of(RowsClaimed)) > asked + 2)
        assert (await job(apg, key))["state"] == "due"
        one.worker.parts.heartbeat.beat_now()
        await until(lambda: one.seen.of(RowSettled))
        assert (await job(apg, key))["worker"] == one.id > first


async def test_declared_dead_while_it_drains(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()

    @app.handler
    async def slow() -> None:
        await asyncio.sleep(30)

    [key] = await put(apg, "slow")
    async with running(app, db_url, lease=3.0, grace=3.0) as one:
        await until(lambda: one.worker.running)
        stopping = asyncio.create_task(one.stop())
        await until(lambda: apg.fetchval("select draining_at is not null from worker.workers"))
        await declare_dead(apg, one.id)
        one.worker.parts.heartbeat.beat_now()
        report = await stopping
    assert not one.seen.of(ServiceFailed)
    assert report.lost + report.released == 1
    states = await apg.fetch("select state, worker from worker.all_jobs where id = $1", key)
    assert len(states) == 1


async def test_a_silent_worker_is_declared_dead_by_another(
    db_url: str, apg: asyncpg.Connection
) -> None:
    app = App()

    @app.handler
    async def work() -> None: ...

    silent = await apg.fetchval(
        "insert into worker.workers (name, host, pid, version, queues, kinds, slots, lease,"
        " heartbeat_at) values ('silent', 'h', 1, '0', '{}', '{}', 1, '1 s',"
        " now() - interval '1 minute') returning id"
    )
    [key] = await put(apg, "work", owner=silent, token=3, attempt=2, crashes=0)
    # Nobody is declared dead for the first seconds of a server's life, or of a lease.
    async with running(app, db_url) as one:
        await until(lambda: one.seen.of(RowSettled))
    assert (silent, "silent") in [(e.worker, e.worker_name) for e in one.seen.of(WorkerGone)]
    row = await job(apg, key)
    assert (row["state"], row["attempt"], row["token"], row["crashes"]) == ("done", 3, 4, 1)
    assert await apg.fetchval(
        "select gone_at is not null from worker.workers where id = $1", silent
    )


async def test_a_frozen_backend_of_the_heartbeat_does_not_cost_the_lease(
    postgres_server: Cluster,
) -> None:
    """It has taken the beat and never answers, and the network says that all is well."""
    url = postgres_server.url
    await asyncio.to_thread(upgrade, url)
    app = App()

    @app.handler
    async def work() -> None: ...

    apg = await asyncpg.connect(url)
    async with running(app, url, lease=12.0) as one:
        find = "select pid from pg_stat_activity where application_name = 'duerow heartbeat'"
        backend = await until(lambda: apg.fetchval(find))
        # Not inside a beat: it would hold what everybody waits for.
        rests = "select state = 'idle' and now() - state_change < '1 s'"
        await until(lambda: apg.fetchval(f"{rests} from pg_stat_activity where pid = {backend}"))
        try:
            os.kill(backend, signal.SIGSTOP)
            beats = "select count(*) from worker.workers where heartbeat_at > $1"
            frozen_at = await apg.fetchval("select now()")
            one.worker.parts.heartbeat.beat_now()
            await until(lambda: apg.fetchval(beats, frozen_at))
            assert await apg.fetchval("select count(*) from worker.workers") == 1
            assert not one.seen.of(WorkerFenced)
            assert [event.link for event in one.seen.of(DatabaseLost)] == ["heartbeat"]
        finally:
            os.kill(backend, signal.SIGCONT)
    await apg.close()


async def test_two_workers_share_the_rows(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()
    ran: list[int] = []
    workers: set[int] = set()

    @app.handler
    async def work(context: Context) -> None:
        ran.append(context.id)
        workers.add(context.row.owner)
        await until(lambda: len(workers) == 2)  # neither may have done it all by itself

    one, other = Running(app, db_url), Running(app, db_url)
    await one.start()
    await other.start()
    keys = await put(apg, "work", count=200)
    await until(lambda: apg.fetchval("select count(*) = 200 from worker.jobs_finished"))
    reports = [await one.stop(), await other.stop()]
    assert sorted(ran) == sorted(keys)
    assert sum(report.settled for report in reports) == 200
    assert {event.row.owner for event in one.seen.of(RowStarted)} == {one.id}
    assert workers == {one.id, other.id}


@pytest.mark.parametrize("crashes", [0, 1, 2])
async def test_a_row_that_takes_its_workers_down_ends(
    db_url: str, apg: asyncpg.Connection, crashes: int
) -> None:
    app = App()
    started = asyncio.Event()

    @app.handler
    async def kills() -> None:
        started.set()
        await asyncio.sleep(30)

    [key] = await put(apg, "kills", crashes=crashes)
    async with running(app, db_url, lease=60, max_crashes=3, grace=0.5) as one:
        await until(started.is_set)
        await declare_dead(apg, one.id)
        async with running(app, db_url, max_crashes=3, grace=0.5) as other:
            if crashes == 2:
                await until(lambda: apg.fetchval("select count(*) = 1 from worker.jobs_finished"))
                row = await job(apg, key)
                assert (row["state"], row["crashes"], row["run_ms"]) == ("dead", 3, None)
            else:
                swept = "select owner is null or token > 1 from worker.jobs where id = $1"
                await until(lambda: apg.fetchval(swept, key))
                row = await job(apg, key)
                assert row["crashes"] == crashes + 1
                if crashes:
                    assert row["due_at"] > row["created_at"], "the second crash costs a wait"
            await other.stop()
