"""A batch with a session: its writes and the settling of all its rows commit together."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import asyncpg
import psycopg
import pytest
import sqlalchemy
import tenacity
from sqlalchemy.ext.asyncio import AsyncSession

from tests.facts import until
from tests.test_batches import Parcel, ask_to_cancel, parcels
from tests.workers import drained, job, running
from worker import App, Batch, Dead, Lazy, RetryPolicy, Snooze
from worker.errors import RegistrationError
from worker.events import RowLost, RowSettled

ONCE = RetryPolicy(stop=tenacity.stop_after_attempt(1))
WAYS = ["asyncpg", "psycopg", "lazy", "lazy def"]
WRITE = "insert into effects (number) values ($1)"


@pytest.fixture(autouse=True)
async def effects(apg: asyncpg.Connection) -> None:
    await apg.execute(
        "create table effects (number integer, xid xid8 default pg_current_xact_id())"
    )


class Handlers:
    """A batch handler `track` that writes each parcel's number and then does `after`."""

    def __init__(self, way: str, after: Any) -> None:
        self.app = App()
        self.go = threading.Event()
        self.waiting = 0

        def write(connection: psycopg.Connection[Any], batch: Batch[Parcel]) -> None:
            for parcel in batch:
                connection.execute("insert into effects (number) values (%s)", [parcel.data.number])
            after(batch)
            self.waiting += 1
            self.go.wait(20)

        async def write_async(connection: asyncpg.Connection, batch: Batch[Parcel]) -> None:
            for parcel in batch:
                await connection.execute(WRITE, parcel.data.number)
            after(batch)
            self.waiting += 1
            await until(self.go.is_set, 20)

        match way:
            case "asyncpg":

                @self.app.batch("track", retry=ONCE)
                async def over_asyncpg(batch: Batch[Parcel], session: asyncpg.Connection) -> None:
                    await write_async(session, batch)

            case "psycopg":

                @self.app.batch("track", retry=ONCE)
                def over_psycopg(batch: Batch[Parcel], session: psycopg.Connection[Any]) -> None:
                    write(session, batch)

            case "lazy":

                @self.app.batch("track", retry=ONCE)
                async def late(batch: Batch[Parcel], session: Lazy[asyncpg.Connection]) -> None:
                    await write_async(await session.open(), batch)

            case "lazy def":

                @self.app.batch("track", retry=ONCE)
                def late_in_a_thread(
                    batch: Batch[Parcel], session: Lazy[psycopg.Connection[Any]]
                ) -> None:
                    write(session.open_in_thread(), batch)


def all_but_two(batch: Batch[Parcel]) -> None:
    for parcel in batch:
        match parcel.data.number:
            case 2:
                parcel.settle(Snooze("later", after=60))
            case 3:
                parcel.settle(Dead("gone"))
            case _:
                parcel.done()


def all_done(batch: Batch[Parcel]) -> None:
    for parcel in batch:
        parcel.done()


async def numbers(connection: asyncpg.Connection) -> list[int]:
    return [n for (n,) in await connection.fetch("select number from effects order by 1")]


@pytest.mark.parametrize("way", WAYS)
async def test_all_rows_are_settled_in_the_transaction_of_the_session(
    way: str, db_url: str, apg: asyncpg.Connection
) -> None:
    handlers = Handlers(way, all_but_two)
    handlers.go.set()
    keys = await parcels(apg, 4)
    one = await drained(handlers.app, db_url)
    assert one.report is not None
    assert (one.report.settled, one.report.lost) == (4, 0)
    rows = [await job(apg, key) for key in keys]
    assert [row["state"] for row in rows] == ["done", "scheduled", "dead", "done"]
    assert await numbers(apg) == [1, 2, 3, 4]
    transactions = await apg.fetch(
        "select xid from effects union select xmin::text::xid8 from worker.jobs_finished"
        " union select xmin::text::xid8 from worker.jobs"
    )
    assert len(transactions) == 1
    assert len(one.seen.of(RowSettled)) == 4


async def test_over_sqlalchemy(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()

    @app.batch("track")
    async def track(batch: Batch[Parcel], session: AsyncSession) -> None:
        for parcel in batch:
            await session.execute(
                sqlalchemy.text("insert into effects (number) values (:n)"),
                {"n": parcel.data.number},
            )
        all_but_two(batch)

    keys = await parcels(apg, 4)
    await drained(app, db_url)
    rows = [await job(apg, key) for key in keys]
    assert [row["state"] for row in rows] == ["done", "scheduled", "dead", "done"]
    assert await numbers(apg) == [1, 2, 3, 4]


@pytest.mark.parametrize("way", WAYS)
async def test_an_error_rolls_all_back_answered_or_not(
    way: str, db_url: str, apg: asyncpg.Connection
) -> None:
    def fail(batch: Batch[Parcel]) -> None:
        batch[0].done()
        raise ValueError("after the writes")

    keys = await parcels(apg, 3)
    await drained(Handlers(way, fail).app, db_url)
    for key in keys:
        row = await job(apg, key)
        assert (row["state"], row["last_error"]) == ("dead", "after the writes")
    assert await numbers(apg) == []


@pytest.mark.parametrize("way", WAYS)
async def test_a_missing_answer_rolls_all_back(
    way: str, db_url: str, apg: asyncpg.Connection
) -> None:
    """What was written for that row must not be committed without an answer for it."""
    handlers = Handlers(way, lambda batch: batch[0].done())
    handlers.go.set()
    keys = await parcels(apg, 2)
    await drained(handlers.app, db_url)
    for key in keys:
        row = await job(apg, key)
        assert row["state"] == "dead"
        assert "without an answer for 1 of its rows" in row["last_error"]
    assert await numbers(apg) == []


@pytest.mark.parametrize("way", WAYS)
async def test_one_lost_claim_rolls_all_back_and_the_others_run_again(
    way: str, db_url: str, apg: asyncpg.Connection
) -> None:
    handlers = Handlers(way, all_done)
    keys = await parcels(apg, 3)
    async with running(handlers.app, db_url) as one:
        await until(lambda: handlers.waiting == 1)
        await apg.execute("update worker.jobs set token = token + 1 where id = $1", keys[1])
        handlers.go.set()
        await until(lambda: len(one.seen.of(RowLost)) == 1)
        await until(lambda: _finished(apg, 2))
    [lost] = one.seen.of(RowLost)
    assert (lost.row.key, lost.refused) == (keys[1], "a session's commit")
    assert await numbers(apg) == [1, 3]  # once each, by the second run
    for key in (keys[0], keys[2]):
        row = await job(apg, key)
        assert (row["state"], row["attempt"]) == ("done", 1)  # the first run cost none
    outcomes = await apg.fetch("select outcome, count(*) from worker.attempts group by 1")
    assert dict(outcomes) == {"released": 2, "lost": 1}


async def _finished(connection: asyncpg.Connection, count: int) -> bool:
    found = await connection.fetchval("select count(*) from worker.jobs_finished")
    return bool(found == count)


async def test_a_lazy_session_that_is_not_opened_rolls_nothing_back(
    db_url: str, apg: asyncpg.Connection
) -> None:
    app = App()

    @app.batch("track", retry=ONCE)
    async def track(batch: Batch[Parcel], session: Lazy[asyncpg.Connection]) -> None:
        batch[0].done()
        raise ValueError("before it is opened")

    keys = await parcels(apg, 2)
    await drained(app, db_url)
    assert [(await job(apg, key))["state"] for key in keys] == ["done", "dead"]


@pytest.mark.parametrize("way", ["asyncpg", "lazy"])
async def test_a_timeout_rolls_all_back(way: str, db_url: str, apg: asyncpg.Connection) -> None:
    handlers = Handlers(way, all_done)
    keys = await parcels(apg, 2)
    await drained(handlers.app, db_url, timeout=0.3)
    for key in keys:
        row = await job(apg, key)
        assert row["state"] == "dead"
        assert "ran longer than its timeout" in row["last_error"]
    assert await numbers(apg) == []


async def test_a_row_that_is_cancelled_meanwhile_is_settled_with_the_others(
    db_url: str, apg: asyncpg.Connection
) -> None:
    app = App()
    began = asyncio.Event()

    @app.batch("track")
    async def track(batch: Batch[Parcel], session: asyncpg.Connection) -> None:
        began.set()
        await until(lambda: batch[1].context.cancelled)
        for parcel in batch:
            if not parcel.context.cancelled:
                await session.execute(WRITE, parcel.data.number)
                parcel.done()

    keys = await parcels(apg, 3)
    async with running(app, db_url) as one:
        await began.wait()
        await ask_to_cancel(apg, keys[1])
        await until(lambda: len(one.seen.of(RowSettled)) == 3)
    assert [(await job(apg, key))["state"] for key in keys] == ["done", "cancelled", "done"]
    assert await numbers(apg) == [1, 3]


async def test_the_session_may_not_be_committed(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()

    @app.batch("track", retry=ONCE)
    def track(batch: Batch[Parcel], session: psycopg.Connection[Any]) -> None:
        session.execute("commit")
        all_done(batch)

    [key] = await parcels(apg, 1)
    await drained(app, db_url)
    row = await job(apg, key)
    assert row["state"] == "dead"
    assert "ended its session's transaction" in row["last_error"]


def test_a_session_of_the_wrong_kind_is_refused() -> None:
    app = App()
    with pytest.raises(RegistrationError, match="asks for a psycopg session"):

        @app.batch("track")
        async def track(batch: Batch[Parcel], session: psycopg.Connection[Any]) -> None: ...
