"""A session that is opened late: until then no connection is held, from then on it is like any."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import asyncpg
import psycopg
import pytest
import tenacity

from tests.facts import until
from tests.workers import drained, job, put, running
from worker import App, Lazy, RetryPolicy
from worker.errors import RegistrationError, UsageError
from worker.events import RowLost, RowSettled

ONCE = RetryPolicy(stop=tenacity.stop_after_attempt(1))
OPEN = (
    "select count(*) from pg_stat_activity"
    " where application_name = 'duerow handler' and datname = current_database()"
)
WAYS = ["async def", "def"]


@pytest.fixture
async def effects(apg: asyncpg.Connection) -> None:
    await apg.execute("create table effects (xid xid8 default pg_current_xact_id())")


class Handlers:
    """A handler `write` of either way; it waits for `go`, then opens its session and writes."""

    def __init__(self, way: str, *, fail: bool = False) -> None:
        self.app = App()
        self.go = threading.Event()
        self.waiting = 0
        match way:
            case "async def":

                @self.app.handler("write", retry=ONCE)
                async def over_asyncpg(session: Lazy[asyncpg.Connection]) -> None:
                    self.waiting += 1
                    await until(self.go.is_set)
                    connection = await session.open()
                    assert await session.open() is connection
                    await connection.execute("insert into effects default values")
                    self.after(fail)

            case "def":

                @self.app.handler("write", retry=ONCE)
                def over_psycopg(session: Lazy[psycopg.Connection[Any]]) -> None:
                    self.waiting += 1
                    self.go.wait(60)
                    connection = session.open_in_thread()
                    assert session.open_in_thread() is connection
                    connection.execute("insert into effects default values")
                    self.after(fail)

    def after(self, fail: bool) -> None:
        if fail:
            raise ValueError("after the write")


@pytest.mark.parametrize("way", WAYS)
async def test_no_connection_is_held_before(
    way: str, db_url: str, apg: asyncpg.Connection, effects: None
) -> None:
    """Four run at once with a pool of one."""
    handlers = Handlers(way)
    await put(apg, "write", count=4)
    async with running(handlers.app, db_url, concurrency=4, pool_size=1) as one:
        await until(lambda: handlers.waiting == 4)
        assert await apg.fetchval(OPEN) == 0
        handlers.go.set()
        await until(lambda: len(one.seen.of(RowSettled)) == 4)
        assert await apg.fetchval(OPEN) == 1
    assert await apg.fetchval("select count(*) from effects") == 4
    assert await apg.fetchval("select count(*) from worker.jobs_finished where state = 'done'") == 4


@pytest.mark.parametrize("way", WAYS)
async def test_what_is_written_and_the_completion_are_one_transaction(
    way: str, db_url: str, apg: asyncpg.Connection, effects: None
) -> None:
    await apg.execute(
        "create table completions (xid xid8);"
        "create function noted() returns trigger language plpgsql as $$ begin"
        " insert into completions values (pg_current_xact_id()); return new; end $$;"
        "create trigger noted after insert on worker.jobs_finished for each row"
        " execute function noted()"
    )
    handlers = Handlers(way)
    handlers.go.set()
    await put(apg, "write")
    one = await drained(handlers.app, db_url)
    assert await apg.fetchval("select (select xid from effects) = (select xid from completions)")
    assert len(one.seen.of(RowSettled)) == 1
    assert one.report is not None
    assert (one.report.settled, one.report.lost) == (1, 0)


@pytest.mark.parametrize("way", WAYS)
async def test_both_roll_back_when_the_handler_raises(
    way: str, db_url: str, apg: asyncpg.Connection, effects: None
) -> None:
    handlers = Handlers(way, fail=True)
    handlers.go.set()
    [key] = await put(apg, "write")
    await drained(handlers.app, db_url)
    row = await job(apg, key)
    assert (row["state"], row["last_error"]) == ("dead", "after the write")
    assert await apg.fetchval("select count(*) from effects") == 0


@pytest.mark.parametrize("way", WAYS)
async def test_both_roll_back_when_the_claim_was_lost_meanwhile(
    way: str, db_url: str, apg: asyncpg.Connection, effects: None
) -> None:
    handlers = Handlers(way)
    await put(apg, "write")
    async with running(handlers.app, db_url, concurrency=1) as one:
        await until(lambda: handlers.waiting)
        await apg.execute("update worker.jobs set token = token + 1, owner = 999999")
        handlers.go.set()
        await until(lambda: one.seen.of(RowLost))
    assert await apg.fetchval("select count(*) from effects") == 0


@pytest.mark.parametrize("way", WAYS)
async def test_a_session_that_is_never_opened_costs_nothing(
    way: str, db_url: str, apg: asyncpg.Connection
) -> None:
    app = App()
    match way:
        case "async def":

            @app.handler("write")
            async def over_asyncpg(session: Lazy[asyncpg.Connection]) -> str:
                return "nothing to write"

        case "def":

            @app.handler("write")
            def over_psycopg(session: Lazy[psycopg.Connection[Any]]) -> str:
                return "nothing to write"

    [key] = await put(apg, "write")
    async with running(app, db_url) as one:
        await until(lambda: one.seen.of(RowSettled))
        assert await apg.fetchval(OPEN) == 0
    row = await job(apg, key)
    assert (row["state"], row["result"]) == ("done", '"nothing to write"')


async def test_the_wrong_way_is_told(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()

    @app.handler("in_thread", retry=ONCE)
    async def in_thread(session: Lazy[asyncpg.Connection]) -> None:
        session.open_in_thread()

    @app.handler("on_loop", retry=ONCE)
    def on_loop(session: Lazy[psycopg.Connection[Any]]) -> None:
        asyncio.run(session.open())

    [one], [two] = await put(apg, "in_thread"), await put(apg, "on_loop")
    await drained(app, db_url)
    assert "next: await session.open()" in (await job(apg, one))["last_error"]
    assert "next: session.open_in_thread()" in (await job(apg, two))["last_error"]


async def test_too_late_is_told(db_url: str, apg: asyncpg.Connection) -> None:
    """What nobody would commit cannot be written."""
    app = App()
    kept: list[Lazy[asyncpg.Connection]] = []

    @app.handler("write")
    async def write(session: Lazy[asyncpg.Connection]) -> None:
        kept.append(session)

    await put(apg, "write")
    await drained(app, db_url)
    with pytest.raises(UsageError, match="after its handler had answered"):
        await kept[0].open()


def test_it_must_be_of_the_handlers_kind() -> None:
    with pytest.raises(RegistrationError, match="`async def` but asks for a psycopg session"):

        @App().handler("write")
        async def write(session: Lazy[psycopg.Connection[Any]]) -> None: ...
