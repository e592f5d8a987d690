"""A handler's own session: its writes and its row's completion are one transaction."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import asyncpg
import psycopg
import pytest
import tenacity
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from tests.facts import alone, until
from tests.workers import Running, drained, job, put, running
from worker import App, Cancel, Context, Dead, Retry, RetryPolicy, Snooze
from worker.events import RowLost, RowSettled

KINDS = ["asyncpg", "psycopg", "psycopg-async", "sqlalchemy", "sqlalchemy-async"]
ONCE = RetryPolicy(stop=tenacity.stop_after_attempt(1))
WRITE = "insert into effects (job) values ({})"

Act = Callable[[int], Any]


def handler_of(kind: str, app: App, act: Act, sql: str = WRITE, **options: Any) -> None:
    """Registers `write`: it writes through a session of that kind, then answers what `act` says,
    called with the row's id; `act` may raise, and for async kinds be a coroutine function."""

    async def maybe(result: Any) -> Any:
        return await result if asyncio.iscoroutine(result) else result

    match kind:
        case "asyncpg":

            @app.handler("write", **options)
            async def over_asyncpg(context: Context, db: asyncpg.Connection) -> Any:
                await db.execute(sql.format(context.id))
                return await maybe(act(context.id))

        case "psycopg":

            @app.handler("write", **options)
            def over_psycopg(context: Context, db: psycopg.Connection[Any]) -> Any:
                db.execute(sql.format(context.id))
                return act(context.id)

        case "psycopg-async":

            @app.handler("write", **options)
            async def over_psycopg_async(context: Context, db: psycopg.AsyncConnection[Any]) -> Any:
                await db.execute(sql.format(context.id))
                return await maybe(act(context.id))

        case "sqlalchemy":

            @app.handler("write", **options)
            def over_session(context: Context, db: Session) -> Any:
                db.execute(text(sql.format(context.id)))
                return act(context.id)

        case "sqlalchemy-async":

            @app.handler("write", **options)
            async def over_async_session(context: Context, db: AsyncSession) -> Any:
                await db.execute(text(sql.format(context.id)))
                return await maybe(act(context.id))


@pytest.fixture
async def effects(apg: asyncpg.Connection) -> Callable[[], Any]:
    """The jobs whose handlers' writes were committed."""
    await apg.execute("create table effects (job bigint)")

    async def written() -> list[int]:
        return [r["job"] for r in await apg.fetch("select job from effects order by job")]

    return written


def fail(key: int) -> None:
    raise ValueError("after the write")


async def one_row(
    kind: str, db_url: str, apg: asyncpg.Connection, act: Act, **options: Any
) -> tuple[int, Running]:
    app = App()
    handler_of(kind, app, act, **{"retry": ONCE, **options})
    [key] = await put(apg, "write")
    return key, await drained(app, db_url)


@pytest.mark.parametrize("kind", KINDS)
async def test_writes_and_completion_commit_together(
    kind: str, db_url: str, apg: asyncpg.Connection, effects: Callable[[], Any]
) -> None:
    await apg.execute(
        "alter table effects add column xid xid8 default pg_current_xact_id();"
        "create table completions (xid xid8);"
        "create function noted() returns trigger language plpgsql as $$ begin"
        " insert into completions values (pg_current_xact_id()); return new; end $$;"
        "create trigger noted after insert on worker.jobs_finished for each row"
        " execute function noted()"
    )
    key, one = await one_row(kind, db_url, apg, lambda key: {"key": key})
    row = await job(apg, key)
    assert (row["state"], row["result"]) == ("done", f'{{"key": {key}}}')
    assert await effects() == [key]
    assert await apg.fetchval("select (select xid from effects) = (select xid from completions)")
    assert one.report is not None
    assert (one.report.settled, one.report.lost) == (1, 0)
    assert len(one.seen.of(RowSettled)) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_both_roll_back_when_the_handler_raises(
    kind: str, db_url: str, apg: asyncpg.Connection, effects: Callable[[], Any]
) -> None:
    key, _ = await one_row(kind, db_url, apg, fail)
    row = await job(apg, key)
    assert (row["state"], row["last_error"]) == ("dead", "after the write")
    assert await effects() == []


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (Retry("later", after=60), "retrying"),
        (Snooze("later", after=60), "scheduled"),
        (Cancel("no need"), "cancelled"),
        (Dead("never"), "dead"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_returned_commits_and_what_is_raised_rolls_back(
    kind: str,
    db_url: str,
    apg: asyncpg.Connection,
    effects: Callable[[], Any],
    answer: Exception,
    state: str,
) -> None:
    def act(key: int) -> Any:
        if key % 2:
            raise answer
        return answer

    app = App()
    handler_of(kind, app, act)
    raised, returned = sorted(await put(apg, "write", count=2), key=lambda key: key % 2 == 0)
    await drained(app, db_url)
    assert await effects() == [returned]
    for key in (raised, returned):
        assert (await job(apg, key))["state"] == state
    told = await apg.fetch("select count(*) from worker.attempts group by outcome")
    assert [r[0] for r in told] == [2]


@pytest.mark.parametrize("kind", KINDS)
async def test_both_roll_back_when_the_claim_was_lost_meanwhile(
    kind: str, db_url: str, apg: asyncpg.Connection, effects: Callable[[], Any]
) -> None:
    """Somebody else has the row: what this handler wrote must not be seen."""
    app = App()
    go, begun = threading.Event(), threading.Event()

    def act(key: int) -> Any:
        begun.set()
        if kind in ("psycopg", "sqlalchemy"):
            go.wait(60)
            return "mine"
        return until(go.is_set)

    handler_of(kind, app, act)
    [key] = await put(apg, "write")
    async with running(app, db_url, concurrency=1) as one:
        await until(begun.is_set)
        other = await apg.fetchval(
            "insert into worker.workers (name, host, pid, version, queues, kinds, slots, lease)"
            " values ('other', 'h', 1, '0', '{}', '{}', 1, '1 h') returning id"
        )
        await apg.execute("update worker.jobs set token = token + 1, owner = $1", other)
        go.set()
        await until(lambda: one.seen.of(RowLost))
        await until(lambda: one.worker.parts.settler.idle.is_set())
        row = await job(apg, key)
        assert (row["state"], row["worker"], row["token"]) == ("running", other, 2)
        assert await effects() == []
        assert await apg.fetchval("select sum(lost) from worker.workers") == 1
        [record] = await apg.fetch("select outcome, token, message from worker.attempts")
        assert tuple(record) == ("lost", 1, "refused: a session's commit")
    assert one.report is not None
    assert (one.report.settled, one.report.lost) == (0, 1)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_timed_out_session_leaves_nothing_behind(
    kind: str, db_url: str, apg: asyncpg.Connection, effects: Callable[[], Any]
) -> None:
    app = App()

    def act(key: int) -> Any:
        if kind in ("psycopg", "sqlalchemy"):
            while True:
                sum(range(100))
        return asyncio.sleep(60)

    handler_of(kind, app, act, timeout=0.2, retry=ONCE)
    [key] = await put(apg, "write")
    one = await drained(app, db_url, concurrency=1)
    assert (await job(apg, key))["state"] == "dead"
    assert await effects() == []
    assert one.report is not None
    assert one.report.lost == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_a_session_that_waits_in_the_database_is_interrupted(
    kind: str, db_url: str, apg: asyncpg.Connection, effects: Callable[[], Any]
) -> None:
    app = App()
    handler_of(kind, app, fail, sql="select pg_sleep(60), {}", timeout=0.2, retry=ONCE)
    [key] = await put(apg, "write")
    await drained(app, db_url, concurrency=1)
    row = await job(apg, key)
    assert row["state"] == "dead"
    assert "ran longer than its timeout" in row["last_error"]
    left = "where query like 'select pg_sleep%' and state = 'active'"
    await until(lambda: apg.fetchval(f"select count(*) = 0 from pg_stat_activity {left}"))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_handler_that_hangs_for_ever_keeps_neither_locks_nor_connections(
    kind: str, db_url: str, apg: asyncpg.Connection, effects: Callable[[], Any]
) -> None:
    """It was abandoned: its transaction is gone, so that the next attempt does not wait for its
    locks, and others get sessions although the pool has but one."""
    app, release = App(), threading.Event()
    await apg.execute("insert into effects values (0)")

    def act(key: int) -> Any:
        if kind in ("psycopg", "sqlalchemy"):
            release.wait(20)
            return None

        async def deaf() -> None:
            while not release.is_set():
                try:
                    await asyncio.sleep(0.02)
                except asyncio.CancelledError:
                    continue

        return deaf()

    handler_of(kind, app, act, sql="update effects set job = {}", timeout=0.1, retry=ONCE)

    [first] = await put(apg, "write")
    try:
        async with running(app, db_url, concurrency=1, pool_size=1) as one:
            await until(lambda: len(one.seen.of(RowSettled)) == 1)
            [second] = await put(apg, "write")
            await until(lambda: len(one.seen.of(RowSettled)) == 2)
            rows = [await job(apg, key) for key in (first, second)]
            assert ["longer than its timeout" in row["last_error"] for row in rows] == [True, True]
            await apg.execute("set lock_timeout = '10s'; update effects set job = -1")
            release.set()
    finally:
        release.set()
        await alone()
    assert await effects() == [-1]


@pytest.mark.parametrize("kind", ["asyncpg", "psycopg", "sqlalchemy", "sqlalchemy-async"])
async def test_a_handler_that_ends_the_transaction_itself_is_told(
    kind: str, db_url: str, apg: asyncpg.Connection, effects: Callable[[], Any]
) -> None:
    """It could have effects without being fenced: not tried again, and told why."""
    app = App()
    policy = RetryPolicy(wait=tenacity.wait_none(), stop=tenacity.stop_after_attempt(3))
    match kind:
        case "asyncpg":

            @app.handler("write", retry=policy)
            async def over_asyncpg(db: asyncpg.Connection) -> None:
                await db.execute("insert into effects values (1)")
                await db.execute("commit")

        case "psycopg":

            @app.handler("write", retry=policy)
            def over_psycopg(db: psycopg.Connection[Any]) -> None:
                db.execute("insert into effects values (1)")
                db.execute("commit")

        case "sqlalchemy":

            @app.handler("write", retry=policy)
            def over_session(db: Session) -> None:
                db.execute(text("insert into effects values (1)"))
                db.commit()

        case "sqlalchemy-async":

            @app.handler("write", retry=policy)
            async def over_async_session(db: AsyncSession) -> None:
                await db.execute(text("insert into effects values (1)"))
                await db.commit()

    [key] = await put(apg, "write")
    await drained(app, db_url)
    row = await job(apg, key)
    assert (row["state"], row["attempt"]) == ("dead", 1)
    assert row["last_error"] == (
        "the handler has ended its session's transaction\n"
        "  why:  its writes and the row's completion must commit together\n"
        "  next: leave commit and rollback to the worker; savepoints are fine"
    )
    assert await effects() == [1]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_session_whose_connection_is_cut_fails_its_attempt(
    kind: str, db_url: str, apg: asyncpg.Connection, effects: Callable[[], Any]
) -> None:
    app, tries = App(), []
    cut = (
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where application_name = 'duerow handler' and datname = current_database()"
    )

    def act(key: int) -> Any:
        tries.append(key)
        if len(tries) > 1:
            return "second time"
        with psycopg.connect(db_url, autocommit=True) as other:
            assert other.execute(cut).fetchall() == [(True,)]
        return None

    handler_of(kind, app, act, retry=RetryPolicy(wait=tenacity.wait_none()))
    [key] = await put(apg, "write")
    await drained(app, db_url)
    row = await job(apg, key)
    assert (row["state"], row["attempt"], row["result"]) == ("done", 2, '"second time"')
    assert await effects() == [key]


@pytest.mark.parametrize("kind", KINDS)
async def test_many_rows_share_few_sessions(
    kind: str, db_url: str, apg: asyncpg.Connection, effects: Callable[[], Any]
) -> None:
    app = App()
    handler_of(kind, app, lambda key: None)
    keys = await put(apg, "write", count=60)
    opened = (
        "select count(*) from pg_stat_activity"
        " where application_name = 'duerow handler' and datname = current_database()"
    )
    most = []

    async def watch() -> None:
        while True:
            most.append(await apg.fetchval(opened))
            await asyncio.sleep(0.01)

    watching = asyncio.create_task(watch())
    one = await drained(app, db_url, concurrency=8, pool_size=2)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert await effects() == sorted(keys)
    assert 1 <= max(most) <= 2
    assert one.report is not None
    assert one.report.settled == 60


async def test_the_times_of_a_session_are_those_of_its_end(
    db_url: str, apg: asyncpg.Connection
) -> None:
    """Its transaction began before the handler ran, and now() stands still in it."""
    app = App()
    answers: list[Any] = [Retry(after=0.2), None]

    @app.handler
    async def slow(db: asyncpg.Connection) -> Any:
        await db.execute("select pg_sleep(0.5)")
        return answers.pop(0)

    [key] = await put(apg, "slow")
    async with running(app, db_url):
        await until(lambda: not answers)
        await until(lambda: apg.fetchval("select count(*) = 1 from worker.jobs_finished"))
    [retried] = await apg.fetch("select started_at, ended_at, next_at from worker.attempts")
    assert (retried["ended_at"] - retried["started_at"]).total_seconds() >= 0.5
    assert abs((retried["next_at"] - retried["ended_at"]).total_seconds() - 0.2) < 0.01
    row = await job(apg, key)
    assert row["claimed_at"] >= retried["next_at"]
    assert (row["finished_at"] - row["claimed_at"]).total_seconds() >= 0.5


@pytest.mark.parametrize("kind", KINDS)
async def test_an_update_of_the_row_by_somebody_else_is_no_lost_claim(
    kind: str, db_url: str, apg: asyncpg.Connection, effects: Callable[[], Any]
) -> None:
    """The settle waits for the other's lock and then finds another version of the row."""
    app, go = App(), threading.Event()

    def act(key: int) -> Any:
        if kind in ("psycopg", "sqlalchemy"):
            go.wait(60)
            return None
        return until(go.is_set)

    handler_of(kind, app, act, retry=ONCE)
    [key] = await put(apg, "write")
    async with running(app, db_url, concurrency=1) as one:
        await until(lambda: one.worker.running)
        async with apg.transaction():
            await apg.execute("update worker.jobs set priority = 5")
            go.set()
            with psycopg.connect(db_url, autocommit=True) as other:
                waits = (
                    "select count(*) = 1 from pg_stat_activity"
                    " where wait_event_type = 'Lock' and datname = current_database()"
                )
                await until(lambda: other.execute(waits).fetchone() == (True,))
        await until(lambda: one.seen.of(RowSettled))
    row = await job(apg, key)
    assert (row["state"], row["priority"]) == ("done", 5)
    assert await effects() == [key]
