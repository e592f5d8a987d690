"""Handlers of adopted rows with a session: their writes and the row's settle commit together."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable
from typing import Any

import asyncpg
import psycopg
import pytest
import sqlalchemy
import sqlalchemy.ext.asyncio
import sqlalchemy.orm
import tenacity

from tests.adopted import Donation, make_donations, one, outcomes, utc
from tests.facts import until
from tests.workers import drained, running
from worker import App, Context, Retry, RetryPolicy
from worker.events import RowLost, RowSettled

HOUR = dt.timedelta(hours=1)
LATER = RetryPolicy(wait=tenacity.wait_fixed(600))  # not within the drain, however long that takes
Script = Callable[[Donation, Context], "list[str]"]
SESSIONS = ("asyncpg", "psycopg", "psycopg-async", "sqlalchemy", "sqlalchemy-async")


def app_of(kind: str, script: Script, answer: Any = None, **options: Any) -> App:
    """An app whose handler runs the statements of `script` in a session of that kind."""
    app = App()

    async def over_asyncpg(row: Donation, context: Context, s: asyncpg.Connection) -> Any:
        for statement in script(row, context):
            await s.execute(statement)
        return answer

    def over_psycopg(row: Donation, context: Context, s: psycopg.Connection) -> Any:
        for statement in script(row, context):
            s.execute(statement.encode())
        return answer

    async def over_psycopg_async(
        row: Donation, context: Context, s: psycopg.AsyncConnection
    ) -> Any:
        for statement in script(row, context):
            await s.execute(statement.encode())
        return answer

    def over_sqlalchemy(row: Donation, context: Context, s: sqlalchemy.orm.Session) -> Any:
        for statement in script(row, context):
            s.execute(sqlalchemy.text(statement))
        return answer

    async def over_sqlalchemy_async(
        row: Donation, context: Context, s: sqlalchemy.ext.asyncio.AsyncSession
    ) -> Any:
        for statement in script(row, context):
            await s.execute(sqlalchemy.text(statement))
        return answer

    handlers = dict(
        zip(
            SESSIONS,
            (
                over_asyncpg,
                over_psycopg,
                over_psycopg_async,
                over_sqlalchemy,
                over_sqlalchemy_async,
            ),
            strict=True,
        )
    )
    app.rows("donations", due="next_at", **{"every": HOUR, **options})(handlers[kind])
    return app


@pytest.fixture(params=SESSIONS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_the_very_same_row_updated(db_url: str, apg: asyncpg.Connection, kind: str) -> None:
    await make_donations(apg, 3)
    due = (await one(apg, 1))["next_at"]
    worker = await drained(
        app_of(
            kind,
            lambda row, context: [
                f"update donations set note = 'charged', amount = amount + 100 where id = {row.id}"
            ],
        ),
        db_url,
    )
    for key in (1, 2, 3):
        row = await one(apg, key)
        assert (row["note"], row["amount"]) == ("charged", 100 + key), "once"
        assert row["next_at"] == due + HOUR
        assert row["duerow_owner"] is None
        assert await outcomes(apg, key) == [(1, "done")]
    assert not worker.seen.of(RowLost)


async def test_a_due_time_that_the_handler_writes_itself_wins(
    db_url: str, apg: asyncpg.Connection, kind: str
) -> None:
    await make_donations(apg, 1)
    await drained(
        app_of(
            kind, lambda *_: ["update donations set next_at = '2031-01-01 00:00+00' where id = 1"]
        ),
        db_url,
    )
    assert (await one(apg))["next_at"] == utc(2031, 1, 1)


async def test_its_own_row_deleted(db_url: str, apg: asyncpg.Connection, kind: str) -> None:
    """A row that is done may simply go."""
    await make_donations(apg, 2)
    worker = await drained(
        app_of(kind, lambda row, _: [f"delete from donations where id = {row.id}"]), db_url
    )
    assert await apg.fetchval("select count(*) from donations") == 0
    assert await outcomes(apg, 1) == await outcomes(apg, 2) == [(1, "done")]
    assert not worker.seen.of(RowLost)


async def test_what_is_raised_rolls_back_and_what_is_returned_commits(
    db_url: str, apg: asyncpg.Connection, kind: str
) -> None:
    def script(row: Donation, context: Context) -> list[str]:
        if context.attempt == 1:
            return ["update donations set note = 'first'", "select 1 / 0"]
        return ["update donations set amount = amount + 1"]

    await make_donations(apg, 1)
    app = app_of(kind, script, Retry("again", after=3600), retry=LATER)
    await drained(app, db_url)
    await apg.execute("update donations set duerow_retry_at = now()")
    await drained(app, db_url)
    row = await one(apg)
    assert (row["note"], row["amount"], row["duerow_error"]) == (None, 2, "again")
    assert await outcomes(apg) == [(1, "retry"), (2, "retry")]


async def test_an_update_by_somebody_else_at_its_end_is_waited_for(
    db_url: str, apg: asyncpg.Connection, kind: str
) -> None:
    """The settle in the handler's transaction waits for the lock, and then finds the row."""
    await make_donations(apg, 1)
    app = app_of(
        kind,
        lambda *_: [
            "insert into donations (amount, next_at) values (77, null)",
            "select pg_advisory_xact_lock(1)",
        ],
    )
    other = await asyncpg.connect(db_url)
    await other.execute("select pg_advisory_lock(1)")
    async with running(app, db_url) as worker:
        await until(lambda: _waits(apg, "advisory"))
        async with other.transaction():
            await other.execute("update donations set note = 'mine' where id = 1")
            await other.execute("select pg_advisory_unlock(1)")
            await until(lambda: _waits(apg, "transactionid"))
        await until(lambda: worker.seen.of(RowSettled) or worker.seen.of(RowLost))
        assert not worker.seen.of(RowLost)
    row = await one(apg)
    assert (row["note"], row["duerow_owner"]) == ("mine", None)
    assert await apg.fetchval("select count(*) from donations where amount = 77") == 1
    await other.close()


async def _waits(apg: asyncpg.Connection, what: str) -> bool:
    """Whether somebody waits for a lock of that kind."""
    return bool(
        await apg.fetchval(
            "select count(*) from pg_locks join pg_stat_activity a using (pid)"
            " where locktype = $1 and not granted and a.datname = current_database()",
            what,
        )
    )


async def test_nothing_of_a_lost_claim_commits(
    db_url: str, apg: asyncpg.Connection, kind: str
) -> None:
    await make_donations(apg, 1)
    app = app_of(
        kind,
        lambda *_: [
            "insert into donations (amount, next_at) values (77, null)",
            "select pg_advisory_xact_lock(1)",
        ],
    )
    other = await asyncpg.connect(db_url)
    await other.execute("select pg_advisory_lock(1)")
    async with running(app, db_url) as worker:
        await until(lambda: _waits(apg, "advisory"))
        await apg.execute(  # as a sweep would
            "update donations set duerow_owner = null, next_at = null where id = 1"
        )
        await other.execute("select pg_advisory_unlock(1)")
        await until(lambda: worker.seen.of(RowLost))
    assert await apg.fetchval("select count(*) from donations where amount = 77") == 0
    assert await outcomes(apg) == [(1, "lost")]
    await other.close()


async def test_a_zombie_whose_row_was_deleted_by_its_next_attempt_commits_nothing(
    db_url: str, apg: asyncpg.Connection
) -> None:
    """Its claim was ended by its timeout; that the row is gone proves nothing."""
    await make_donations(apg, 1)
    go, app = asyncio.Event(), App()

    @app.rows("donations", due="next_at", timeout=0.3)
    async def charge(row: Donation, context: Context, s: asyncpg.Connection) -> None:
        # The second attempt has the time that it takes.
        object.__setattr__(app.registry.get("donations"), "timeout", 60.0)
        await s.execute("insert into donations (amount, next_at) values (77, null)")
        while context.attempt == 1 and not go.is_set():
            try:
                await asyncio.shield(go.wait())
            except asyncio.CancelledError:
                continue  # a handler that will not end
        if context.attempt > 1:
            await s.execute("delete from donations where id = 1")

    async with running(app, db_url) as worker:
        await until(lambda: len(worker.seen.of(RowSettled)) == 2)
        assert await outcomes(apg) == [(1, "retry"), (2, "done")]
        go.set()
        await until(lambda: _nothing_is_open(apg))
    assert await apg.fetchval("select count(*) from donations where amount = 77") == 1
    assert await outcomes(apg) == [(1, "retry"), (2, "done")]


async def _nothing_is_open(apg: asyncpg.Connection) -> bool:
    return not await apg.fetchval(
        "select count(*) from pg_stat_activity"
        " where datname = current_database() and state like 'idle in transaction%'"
    )


class Base(sqlalchemy.orm.DeclarativeBase):
    pass


class Mapped(Base):
    __tablename__ = "donations"
    id: sqlalchemy.orm.Mapped[int] = sqlalchemy.orm.mapped_column(primary_key=True)
    amount: sqlalchemy.orm.Mapped[int]
    note: sqlalchemy.orm.Mapped[str | None]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_objects_of_an_orm_that_are_written_at_commit(
    db_url: str, apg: asyncpg.Connection, asynchronous: bool
) -> None:
    await make_donations(apg, 1)
    app = App()

    def change(row: Donation, session: sqlalchemy.orm.Session) -> None:
        found = session.get(Mapped, row.id)
        assert found is not None
        found.note = "by the ORM"

    if asynchronous:

        @app.rows("donations", due="next_at", every=HOUR)
        async def charge(row: Donation, s: sqlalchemy.ext.asyncio.AsyncSession) -> None:
            await s.run_sync(lambda session: change(row, session))

    else:

        @app.rows("donations", due="next_at", every=HOUR)
        def charge(row: Donation, s: sqlalchemy.orm.Session) -> None:
            change(row, s)

    due = (await one(apg))["next_at"]
    await drained(app, db_url)
    row = await one(apg)
    assert (row["note"], row["next_at"], row["duerow_owner"]) == ("by the ORM", due + HOUR, None)
