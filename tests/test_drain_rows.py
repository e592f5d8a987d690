"""Budgets of a drain over adopted tables: what is claimed, what is left, and what it says of it."""

from __future__ import annotations

import asyncio
import datetime as dt
import time

import asyncpg
import pytest

from tests.adopted import Donation, ghost, make_donations
from tests.workers import QUICK, InProcess, put
from worker import App, Batch, Batching, Retry
from worker.drain import Budget
from worker.runtime import Report
from worker.settings import Settings
from worker.url import DatabaseURL

HELD = "select count(duerow_owner) from donations"
DONE = "select count(*) from donations where next_at is null"


async def drain(app: App, url: str, budget: Budget, *queues: str, **settings: object) -> Report:
    one = InProcess(
        app, Settings.load(**{**QUICK, **settings}), DatabaseURL.parse(url), queues=queues
    )
    return await asyncio.wait_for(one.run(drain=budget), 30)


def slow(size: int | None = None, seconds: float = 0.05) -> tuple[App, list[int]]:
    """An app of the table and of a job, and how many rows each call of the former has taken."""
    app = App()
    calls: list[int] = []
    options = {"due": "next_at", "where": "status = 'active'", "tenant": "org"}

    if size is None:

        @app.rows("donations", **options)  # type: ignore[arg-type]
        async def one(row: Donation) -> None:
            calls.append(1)
            await asyncio.sleep(seconds)
    else:

        @app.rows("donations", batch=Batching(size=size), **options)  # type: ignore[arg-type]
        async def some(batch: Batch[Donation]) -> None:
            calls.append(len(batch))
            await asyncio.sleep(seconds)
            for item in batch:
                item.done()

    @app.handler
    async def note() -> None:
        pass

    return app, calls


@pytest.mark.parametrize("size", [None, 7])
async def test_seconds(db_url: str, apg: asyncpg.Connection, size: int | None) -> None:
    await make_donations(apg, 2000, where="status = 'active'")
    app, calls = slow(size, 0.05 if size is None else 0.25)
    began = time.monotonic()
    report = await drain(app, db_url, Budget(max_seconds=2), concurrency=2)
    assert time.monotonic() - began < 20, "all would take twice as long"
    assert 0 < sum(calls) < 2000
    assert (report.code, report.settled) == (0, sum(calls))
    assert report.left == 2000 - sum(calls)
    assert await apg.fetchval(DONE) == sum(calls)
    assert await apg.fetchval(HELD) == 0


@pytest.mark.parametrize("size", [None, 7])
async def test_rows(db_url: str, apg: asyncpg.Connection, size: int | None) -> None:
    await make_donations(apg, 60, where="status = 'active'")
    app, calls = slow(size, 0)
    report = await drain(app, db_url, Budget(max_rows=30), concurrency=2)
    assert (sum(calls), report.settled, report.left, report.code) == (30, 30, 30, 0)
    assert await apg.fetchval(HELD) == 0
    report = await drain(app, db_url, Budget(), concurrency=2)  # the next run goes on
    assert (sum(calls), report.settled, report.left) == (60, 30, 0)


async def test_what_is_left_is_what_could_run_now(db_url: str, apg: asyncpg.Connection) -> None:
    """Not what is due later, in another's hands, held for a retry, or out of the condition."""
    await make_donations(apg, 10, where="status = 'active'")
    await apg.execute("update donations set next_at = now() + interval '1 hour' where id = 1")
    await apg.execute("update donations set status = 'gone' where id = 2")
    await apg.execute(
        "update donations set duerow_owner = $1 where id = 3", await ghost(apg, silent=-3600)
    )
    app = App()

    @app.rows("donations", due="next_at", where="status = 'active'")
    async def charge(row: Donation) -> None:
        if row.id == 4:
            raise Retry(after=dt.timedelta(hours=1))

    report = await drain(app, db_url, Budget(max_rows=2), concurrency=1)
    assert (report.settled, report.left) == (2, 5)
    report = await drain(app, db_url, Budget())
    assert (report.settled, report.left) == (5, 0)


async def test_a_paused_table_is_left_and_said(db_url: str, apg: asyncpg.Connection) -> None:
    await make_donations(apg, 4, where="status = 'active'")
    await apg.execute("insert into worker.gates (queue, paused_at) values ('donations', now())")
    app, calls = slow()
    report = await drain(app, db_url, Budget(max_seconds=10))
    assert (sum(calls), report.left, report.code) == (0, 4, 0)


async def test_each_queue_has_a_budget_of_its_own(db_url: str, apg: asyncpg.Connection) -> None:
    """A run for each: what the other serves is neither touched nor counted."""
    await make_donations(apg, 20, where="status = 'active'")
    await put(apg, "note", count=9)
    app, calls = slow(seconds=0)
    report = await drain(app, db_url, Budget(max_rows=5), "donations")
    assert (sum(calls), report.settled, report.left) == (5, 5, 15)
    report = await drain(app, db_url, Budget(max_rows=3), "default")
    assert (sum(calls), report.settled, report.left) == (5, 3, 6)
