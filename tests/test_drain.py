"""A worker that ends of itself: once nothing is due, or when its budget is spent."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import pytest
import tenacity

from tests.facts import until
from tests.workers import Running, drained, job, put
from worker import App, Context, RetryPolicy, Snooze
from worker.drain import Budget
from worker.events import SourceFailed
from worker.runtime import Report

LONG = 60.0  # seconds; no machine stands still so long that what was claimed ahead goes back


def counting(app: App, seconds: float = 0.0) -> list[int]:
    ran: list[int] = []

    @app.handler
    async def work(context: Context) -> None:
        await asyncio.sleep(seconds)
        ran.append(context.id)

    return ran


async def drain(app: App, url: str, budget: Budget, **settings: object) -> tuple[Running, Report]:
    one = Running(app, url, **settings)
    return one, await asyncio.wait_for(one.worker.run(drain=budget), 30)


@pytest.mark.parametrize("count", [0, 1, 37, 1500])
async def test_until_nothing_is_due(
    db_url: str, apg: asyncpg.Connection, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.loop.BUFFER_AGE_MOST", LONG)
    app = App()
    ran = counting(app)
    keys = await put(apg, "work", count=count) if count else []
    [later] = await put(apg, "work", due_at=await apg.fetchval("select now() + '1 hour'"))
    one = await drained(app, db_url)
    assert sorted(ran) == sorted(keys)
    assert one.report is not None
    assert (one.report.settled, one.report.released, one.report.code) == (count, 0, 0)
    assert (await job(apg, later))["state"] == "scheduled"
    assert await apg.fetchval("select count(owner) from worker.jobs") == 0


async def test_what_falls_due_meanwhile_is_run_too(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()
    answers = [ValueError("again"), Snooze(after=0), None]

    @app.handler(retry=RetryPolicy(wait=tenacity.wait_none()))
    async def work(context: Context) -> object:
        answer = answers.pop(0)
        if isinstance(answer, ValueError):
            raise answer
        if answer is None:
            await apg.execute("insert into worker.jobs (kind) values ('last')")
        return answer

    last: list[int] = []

    @app.handler("last")
    async def run_last() -> None:
        last.append(1)

    await put(apg, "work")
    one = await drained(app, db_url)
    assert last == [1]
    assert one.report is not None
    assert one.report.settled == 4


@pytest.mark.parametrize("most", [1, 7, 30, 3000])
async def test_no_more_rows_than_it_may(db_url: str, apg: asyncpg.Connection, most: int) -> None:
    app = App()
    ran = counting(app)
    await put(apg, "work", count=most + 20)
    _, report = await drain(app, db_url, Budget(max_rows=most), concurrency=10)
    assert (len(ran), report.settled) == (most, most)
    left = "select count(*), max(attempt), max(token), count(owner) from worker.jobs"
    assert tuple(await apg.fetchrow(left)) == (20, 0, 0, 0)


async def test_as_many_rows_as_it_may_when_they_wait_for_a_slot(
    db_url: str, apg: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were claimed ahead count as well: none goes back."""
    monkeypatch.setattr("worker.loop.BUFFER_AGE_MOST", LONG)
    app = App()
    ran = counting(app, 0.005)
    await put(apg, "work", count=1_500)
    _, report = await drain(app, db_url, Budget(max_rows=1_000), concurrency=10)
    assert (len(ran), report.settled, report.released, report.left) == (1_000, 1_000, 0, 500)


async def test_as_many_rows_as_it_may_though_some_went_back_meanwhile(
    db_url: str, apg: asyncpg.Connection
) -> None:
    """Rows that were claimed ahead of a handler that then took a second: they do not count."""
    app = App()
    ran: list[int] = []

    @app.handler
    async def work(context: Context) -> None:
        ran.append(context.id)
        await asyncio.sleep(2.5 if len(ran) in (100, 101) else 0)

    await put(apg, "work", count=1_500)
    _, report = await drain(app, db_url, Budget(max_rows=1_000), concurrency=2)
    assert report.released > 0, "none has gone back"
    assert (len(ran), report.settled, report.left) == (1_000, 1_000, 500)


async def test_no_longer_than_it_may(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()
    ran = counting(app, 0.05)
    await put(apg, "work", count=2000)
    began = time.monotonic()
    _, report = await drain(app, db_url, Budget(max_seconds=2), concurrency=2)
    assert time.monotonic() - began < 20, "all would take 50 s"
    assert report.code == 0
    assert 0 < len(ran) < 2000
    left = "select count(*), max(attempt), count(owner) from worker.jobs"
    assert tuple(await apg.fetchrow(left)) == (2000 - len(ran), 0, 0)


async def test_a_handler_that_outlasts_the_budget_has_the_grace(
    db_url: str, apg: asyncpg.Connection
) -> None:
    app = App()

    @app.handler
    async def slow() -> None:
        await asyncio.sleep(60)

    [key] = await put(apg, "slow")
    _, report = await drain(app, db_url, Budget(max_seconds=2), grace=1.0)
    assert (report.code, report.released) == (9, 1)
    assert (await job(apg, key))["attempt"] == 0


async def test_a_table_that_is_locked_is_not_an_empty_one(
    db_url: str, apg: asyncpg.Connection
) -> None:
    app = App()
    ran = counting(app)
    [key] = await put(apg, "work")
    one = Running(app, db_url)
    async with apg.transaction():
        await apg.execute("lock table worker.jobs in access exclusive mode")
        task = asyncio.create_task(one.worker.run(drain=Budget(max_seconds=25)))
        await until(lambda: one.seen.of(SourceFailed))
        assert not task.done()
    report = await asyncio.wait_for(task, 30)
    assert (ran, report.settled) == ([key], 1)


async def test_a_paused_queue_is_left_alone(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()
    ran = counting(app)
    await put(apg, "work")
    await apg.execute("insert into worker.gates (queue, paused_at) values ('default', now())")
    one = await drained(app, db_url)
    assert not ran
    assert one.report is not None
    assert one.report.settled == 0


async def test_stopped_before_it_began(db_url: str, apg: asyncpg.Connection) -> None:
    """A signal while the worker was still connecting."""
    app = App()
    ran = counting(app)
    await put(apg, "work", count=5)
    one = Running(app, db_url)
    one.worker.stop()
    report = await asyncio.wait_for(one.worker.run(), 10)
    assert report.code == 0
    assert len(ran) + await apg.fetchval("select count(*) from worker.jobs") == 5
    assert await apg.fetchval("select count(owner) from worker.jobs") == 0


async def test_rows_on_their_last_crash_run_apart(db_url: str, apg: asyncpg.Connection) -> None:
    """Whichever of them kills the worker: the others must not die with it."""
    app = App()
    together: list[int] = []
    running: set[int] = set()

    @app.handler
    async def suspect(context: Context) -> None:
        running.add(context.id)
        together.append(len(running))
        await asyncio.sleep(0.02)
        running.discard(context.id)

    keys = await put(apg, "suspect", count=4, crashes=2)
    one = Running(app, db_url, concurrency=8, max_crashes=3)
    await one.start()
    await until(lambda: len(together) == 4, within=25)
    await one.stop()
    assert together == [1, 1, 1, 1]
    for key in keys:
        row = await job(apg, key)
        assert (row["state"], row["attempt"], row["crashes"]) == ("done", 1, 2)
