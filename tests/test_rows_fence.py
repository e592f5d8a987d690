"""Claims on adopted rows that end otherwise than by a result: workers that die, freeze or stop."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import asyncpg
import psycopg
import pytest

from tests.adopted import Donation, ghost, in_flight, make_donations, one, outcomes, source, theirs
from tests.facts import until
from tests.workers import drained, put, running
from worker import App, Context, Retry
from worker.events import RowLost, RowSettled, RowSwept, SourceFailed, WorkerFenced
from worker.sources.rows import FIRST
from worker.tables.spec import TableSpec

HOUR = dt.timedelta(hours=1)
SPEC = TableSpec("donations", "donations", due="next_at", where="status = 'active'")


def counting(**options: Any) -> tuple[App, list[Context]]:
    app, seen = App(), []

    @app.rows("donations", due="next_at", **{"where": SPEC.where, "every": HOUR, **options})
    async def charge(row: Donation, context: Context) -> None:
        seen.append(context)

    return app, seen


async def claim(apg: asyncpg.Connection, worker: int, count: int = 1000) -> list[Any]:
    """The rows that this worker takes."""
    rows = await source(apg, SPEC, "id")
    return list(await apg.fetch(rows.claim_sql, worker, count, FIRST, False))


# -- death ----------------------------------------------------------------------------------------


async def test_rows_of_a_dead_worker_run_elsewhere(db_url: str, apg: asyncpg.Connection) -> None:
    await make_donations(apg, 20, where=SPEC.where)
    before = await theirs(apg)
    assert len(await claim(apg, await ghost(apg), 15)) == 15
    app, seen = counting()
    async with running(app, db_url) as worker:
        await until(lambda: len(seen) == 20)
        await until(lambda: len(worker.seen.of(RowSettled)) == 20)
    assert sorted(c.attempt for c in seen) == [1] * 5 + [2] * 15
    swept = worker.seen.of(RowSwept)
    assert len(swept) == 15
    assert {(e.source, e.kind, e.queue, e.outcome, e.crashes) for e in swept} == {
        ("donations", "donations", "donations", "crashed", 1)
    }
    back = {int(e.key) for e in swept}
    for key in range(1, 21):
        expected = [(1, "crashed"), (2, "done")] if key in back else [(1, "done")]
        assert await outcomes(apg, key) == expected
    assert [{**row, "next_at": None} for row in await theirs(apg)] == [
        {**row, "next_at": None} for row in before
    ]
    assert (await one(apg))["duerow_crashes"] == 0, "done forgets them"


async def test_a_row_that_kills_its_workers_is_dead_after_three(
    db_url: str, apg: asyncpg.Connection
) -> None:
    await make_donations(apg, 1, where=SPEC.where)
    due = (await one(apg))["next_at"]
    rows = await source(apg, SPEC, "id")
    waits = []
    for crash in (1, 2, 3):
        worker = await ghost(apg)
        assert len(await claim(apg, worker)) == 1
        sql, params = rows.sweep([worker], 3)
        async with apg.transaction():  # in which now() stands still
            [swept] = await apg.fetch(sql, *params)
            row = await one(apg)
            now = await apg.fetchval("select now()")
        assert tuple(swept) == (
            "1",
            "donations",
            "donations",
            "crashed" if crash < 3 else "dead",
            crash,
        )
        assert (row["duerow_owner"], row["duerow_held_for"], row["next_at"]) == (None, due, due)
        if crash < 3:
            waits.append((row["duerow_retry_at"] - now).total_seconds())
            await apg.execute("update donations set duerow_retry_at = now()")
    assert waits == [0, 3]
    assert (row["duerow_state"], row["duerow_crashes"]) == ("dead", 3)
    assert await outcomes(apg) == [(1, "crashed"), (2, "crashed"), (3, "dead")]
    assert not await claim(apg, await ghost(apg, silent=0))


async def test_only_absent_workers_rows_are_swept(apg: asyncpg.Connection) -> None:
    await make_donations(apg, 6, where=SPEC.where)
    alive, dead = await ghost(apg, silent=0), await ghost(apg)
    await claim(apg, alive, 2)
    await claim(apg, dead, 2)
    rows = await source(apg, SPEC, "id")
    sql, params = rows.sweep([dead], 3)
    assert len(await apg.fetch(sql, *params)) == 2
    owners = await apg.fetch("select duerow_owner, count(*) from donations group by 1 order by 1")
    assert [tuple(owner) for owner in owners] == [(alive, 2), (None, 4)]


async def test_a_row_put_off_in_flight_is_found_when_it_is_due_again(
    db_url: str, apg: asyncpg.Connection
) -> None:
    """Its worker died long ago, so that no sweep lists it any more."""
    await make_donations(apg, 2, where=SPEC.where)
    worker = await ghost(apg)
    await claim(apg, worker)
    await apg.execute("update worker.workers set gone_at = now() - interval '1 hour'")
    await apg.execute(
        "update donations set next_at = next_at + interval '1 h' where id = 1;"
        "update donations set status = 'gone' where id = 2"
    )
    app, seen = counting()
    async with running(app, db_url) as worker_:
        chores = [c for c in worker_.worker.parts.chores._chores if c.name == "orphans donations"]
        await until(
            lambda: apg.fetchval(
                "select last_run_at from worker.chores where name = 'orphans donations'"
            )
        )
        assert await in_flight(apg) == 2, "neither is due, and neither is in anybody's way"
        await apg.execute(
            "update donations set status = 'active', next_at = '2026-01-01 00:00+00';"
            "update worker.chores set last_run_at = null"
        )
        chores[0].next_try = 0
        worker_.worker.parts.listener.wake.set()
        await until(lambda: sorted(c.id for c in seen) == [1, 2])
        await until(lambda: len(worker_.seen.of(RowSettled)) == 2)
    for key in (1, 2):
        assert await outcomes(apg, key) == [(1, "crashed"), (2, "done")]


@pytest.mark.parametrize("broken", ["locked", "without a column"])
async def test_a_table_that_cannot_be_swept_keeps_no_job_from_its_return(
    db_url: str, apg: asyncpg.Connection, broken: str
) -> None:
    await make_donations(apg, 1, where=SPEC.where)
    worker = await ghost(apg)
    await claim(apg, worker)
    [key] = await put(apg, "note")
    await apg.execute("update worker.jobs set owner = $1, token = 1, claimed_at = now()", worker)
    app, seen = counting()
    noted = []

    @app.handler
    async def note(context: Context) -> None:
        noted.append(context.id)

    other = await asyncpg.connect(db_url)
    async with running(app, db_url) as runs, other.transaction():
        if broken == "locked":
            await other.execute("lock table donations in access exclusive mode")
        else:
            await apg.execute("alter table donations rename duerow_owner to renamed")
        await until(lambda: noted == [key])
        if broken != "locked":
            await until(lambda: runs.seen.of(SourceFailed))
            await apg.execute("alter table donations rename renamed to duerow_owner")
        await other.execute("commit; begin")
        await until(lambda: seen)
    await other.close()


# -- the fence ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stolen",
    [
        "update donations set duerow_owner = null",
        "update donations set duerow_owner = -1",
        "update donations set duerow_token = duerow_token + 1",
    ],
)
async def test_a_result_is_accepted_from_the_current_claim_only(
    db_url: str, apg: asyncpg.Connection, stolen: str
) -> None:
    app, started, go = App(), asyncio.Event(), asyncio.Event()

    @app.rows("donations", due="next_at")
    async def charge(row: Donation) -> None:
        started.set()
        await go.wait()

    await make_donations(apg, 1)
    async with running(app, db_url) as worker:
        await started.wait()
        await apg.execute(f"{stolen}, next_at = '2031-01-01 00:00+00'")
        before = await one(apg)
        go.set()
        await until(lambda: worker.seen.of(RowLost))
        assert await one(apg) == before, "nothing was written"
        await until(lambda: outcomes(apg))
    assert await outcomes(apg) == [(1, "lost")]
    [counted] = await apg.fetch("select lost from worker.workers")
    assert counted["lost"] == 1


async def test_a_worker_that_was_declared_dead_starts_over(
    db_url: str, apg: asyncpg.Connection
) -> None:
    app, go = App(), asyncio.Event()
    seen: list[Context] = []

    @app.rows("donations", due="next_at", every=HOUR)
    async def charge(row: Donation, context: Context) -> None:
        seen.append(context)
        if len(seen) == 1:
            await go.wait()

    await make_donations(apg, 1)
    async with running(app, db_url) as worker:
        await until(lambda: seen)
        first = worker.id
        await apg.execute("update worker.workers set gone_at = now()")
        await until(lambda: worker.seen.of(WorkerFenced))
        await until(lambda: len(worker.seen.of(RowSettled)) == 1)
        [lost] = await until(lambda: worker.seen.of(RowLost))
        assert (lost.row.owner, seen[1].row.owner) == (first, worker.id)
        assert worker.id != first
    assert [c.attempt for c in seen] == [1, 2]
    assert sorted(await outcomes(apg)) == [(1, "crashed"), (1, "lost"), (2, "done")]


async def test_a_worker_declared_dead_claims_nothing(apg: asyncpg.Connection) -> None:
    await make_donations(apg, 1, where=SPEC.where)
    worker = await ghost(apg)
    await apg.execute("update worker.workers set gone_at = now()")
    assert not await claim(apg, worker)
    assert not await claim(apg, worker + 1), "nor does one that was never registered"


# -- stopping -------------------------------------------------------------------------------------


async def test_a_stop_gives_back_what_runs_and_what_waits(
    db_url: str, apg: asyncpg.Connection
) -> None:
    """Due as before, the attempt given back; a hold stays what it was."""
    await make_donations(apg, 1)
    await apg.execute("update donations set next_at = '2026-01-01 00:00+00'")
    app, started = App(), asyncio.Event()

    @app.rows("donations", due="next_at")
    async def charge(row: Donation, context: Context) -> None:
        if context.attempt == 1:
            raise Retry("first", after=0)
        started.set()
        await asyncio.Event().wait()

    woken: list[str] = []
    await apg.add_listener("duerow", lambda *said: woken.append(said[-1]))
    async with running(app, db_url, grace=1.0) as worker:
        await started.wait()
        held = await one(apg)
        report = await worker.stop()
    assert (report.code, report.released, report.lost) == (9, 1, 0)
    row = await one(apg)
    assert (row["duerow_owner"], row["duerow_attempt"], row["duerow_error"]) == (
        None,
        1,
        "the worker stopped",
    )
    for column in ("next_at", "duerow_held_for", "duerow_retry_at"):
        assert row[column] == held[column], column
    assert await outcomes(apg) == [(1, "retry"), (2, "released")]
    await until(lambda: woken == ["donations"])


async def test_rows_that_did_not_start_go_back_unrecorded(
    db_url: str, apg: asyncpg.Connection
) -> None:
    app, go = App(), asyncio.Event()
    ran = []

    @app.rows("donations", due="next_at")
    async def charge(row: Donation) -> None:
        ran.append(row.id)
        if len(ran) > 20:  # quick until now, so that rows are claimed ahead
            await go.wait()

    await make_donations(apg, 400)
    async with running(app, db_url, concurrency=2) as worker:
        await until(lambda: len(ran) == 22)
        await until(lambda: worker.worker.parts.loop.buffered)
        worker.worker.stop()
        await until(lambda: worker.worker.parts.settler.released)
        go.set()
    assert await in_flight(apg) == 0
    assert sorted(ran) == sorted(set(ran))
    assert await apg.fetchval("select count(*) from donations where next_at is null") == len(ran)
    assert await apg.fetchval("select max(duerow_attempt) from donations") == 0
    assert await apg.fetchval("select count(*) from worker.attempts") == len(ran)


async def test_the_last_act_of_a_blocked_worker(db_url: str, apg: asyncpg.Connection) -> None:
    """As the heartbeat's thread does it, over psycopg; it waits for nobody's lock."""
    await make_donations(apg, 4, where=SPEC.where)
    worker = await ghost(apg, silent=0)
    await claim(apg, worker, 3)
    rows = await source(apg, SPEC, "id")
    sql, params = rows.abandon(worker)
    async with apg.transaction():
        await apg.execute("select from donations where id = 2 for update")
        with psycopg.connect(db_url, autocommit=True) as connection:
            cursor = psycopg.RawCursor(connection)
            assert cursor.execute(sql.encode(), params).fetchone() == (2, 1)
    left = await apg.fetch("select id from donations where duerow_owner is not null")
    assert [row["id"] for row in left] == [2], "which is asked for again, and then for the sweep"
    assert await outcomes(apg, 1) == [(1, "released")]
    assert (await one(apg, 1))["duerow_attempt"] == 0


async def test_a_claim_whose_answer_never_came_is_given_back(
    db_url: str, apg: asyncpg.Connection
) -> None:
    app, go = App(), asyncio.Event()
    seen: list[Context] = []

    @app.rows("donations", due="next_at", where=SPEC.where)
    async def charge(row: Donation, context: Context) -> None:
        seen.append(context)
        await go.wait()

    await make_donations(apg, 1, where=SPEC.where)
    async with running(app, db_url) as worker:
        await until(lambda: seen)
        async with apg.transaction():  # so that the worker itself cannot take them first
            await apg.execute("insert into donations (amount) values (2), (3)")
            assert len(await claim(apg, worker.id)) == 2
        [claimer] = worker.worker.parts.loop._claimer._claimers

        def asked() -> bool:  # a claim that is under way knows nothing of a break
            claimer.unsure = True
            worker.worker.parts.loop.heard()
            return len(seen) == 3

        await until(asked)
        go.set()
        await until(lambda: len(worker.seen.of(RowSettled)) == 3)
    assert [c.attempt for c in seen] == [1, 1, 1], "the lost claim cost no attempt"
    assert len({c.row.token for c in seen}) == 3


async def test_a_session_that_settled_without_hearing_of_it(
    db_url: str, apg: asyncpg.Connection
) -> None:
    """The commit's answer is lost: the settle that follows finds its own attempt on record."""
    await make_donations(apg, 1)
    app = App()
    ran = []

    @app.rows("donations", due="next_at", every=HOUR)
    async def charge(row: Donation, context: Context, s: asyncpg.Connection) -> None:
        ran.append(context.row)
        await s.execute("select pg_advisory_xact_lock(1)")

    async with running(app, db_url) as worker:
        await until(lambda: worker.seen.of(RowSettled))
        [settled] = worker.seen.of(RowSettled)
        rows = worker.worker.parts.settler._outboxes["donations"].source
        [(sql, params)] = rows.settle(ran[0].owner, [_settlement(settled)])
        assert not await apg.fetch(sql, *params), "it is no longer ours"
        sql, params = rows.confirm(ran[0].owner, [_settlement(settled)])
        [told] = await apg.fetch(sql, *params)
        assert (rows.key(told), told["outcome"]) == (1, "done")
    assert await outcomes(apg) == [(1, "done")]


def _settlement(settled: RowSettled) -> Any:
    from worker.source import Settlement

    return Settlement(settled.row, settled.transition, settled.seconds)


async def test_an_empty_condition_table_drains_twice(db_url: str, apg: asyncpg.Connection) -> None:
    await make_donations(apg, 0, where=SPEC.where)
    app, seen = counting()
    await drained(app, db_url)
    assert seen == []
