"""One way to send a statement, whatever the connection; the caller's transaction stays its own."""

from __future__ import annotations

import asyncio
import datetime as dt
import subprocess
import sys
from typing import Any

import asyncpg
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row
from sqlalchemy import create_engine, event, exc, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from tests.producers import PRODUCERS, async_engine_of, django_connections, engine_of
from worker.arrays import array
from worker.carrier import Talk, converse, send
from worker.errors import UsageError

everywhere = pytest.mark.parametrize("kind", PRODUCERS)

TYPES = """
    select $1::text[], $2::bigint[], $3::timestamptz[], $4::float8[], $5::boolean[], $6::smallint[],
           $7::text, $8::integer, $9::timestamptz, $10::text
"""
NOW = dt.datetime(2026, 11, 22, 1, 2, 3, 456_789, dt.UTC)
VALUES: list[Any] = [
    ["plain", 'quoted "and" \\ {escaped},', "", "null", None, "naïve 🐘\n\t%s $1"],
    [1, None, -(2**63)],
    [NOW, None],
    [0.1, None, 1e300],
    [True, False, None],
    [],
    "it's %s $1",
    7,
    NOW,
    None,
]


@everywhere
async def test_parameters_and_rows(kind: str, db_url: str) -> None:
    async with PRODUCERS[kind](db_url) as producer:
        [row] = await producer.send(TYPES, *VALUES)
        assert [row[i] for i in range(len(row))] == VALUES
        assert len(await producer.send("select n from generate_series(1, 3) n")) == 3
        assert await producer.send("create temporary table nothing (n integer)") == []


@everywhere
@pytest.mark.parametrize("end", ["commit", "rollback", "neither"])
async def test_the_transaction_is_the_callers(
    kind: str, end: str, db_url: str, pg: psycopg.Connection
) -> None:
    pg.execute("create table written (n integer)")

    def seen() -> list[Any]:
        return pg.execute("select n from written order by n").fetchall()

    async with PRODUCERS[kind](db_url) as producer:
        for n in (1, 2):
            await producer.send("insert into written values ($1)", n)
        assert seen() == []
        if end != "neither":
            await getattr(producer, end)()
    assert seen() == ([(1,), (2,)] if end == "commit" else [])


def _two_inserts(failure: str | None) -> Talk[str]:
    yield "insert into written values ($1)", [1]
    rows = yield "select count(*) from written where $1::boolean", [True]
    if failure == "of the database":
        yield "select 1 / $1::integer", [0]
    if failure == "of ours":
        raise RuntimeError("division by zero")
    return f"{rows[0][0]} seen"


class Autocommit:
    """Connections that commit each statement by themselves."""

    @staticmethod
    async def asyncpg(url: str, failure: str | None) -> Any:
        connection = await asyncpg.connect(url)
        try:
            return await converse(connection, _two_inserts(failure), together=True)
        finally:
            assert not connection.is_in_transaction()
            await connection.close()

    @staticmethod
    async def psycopg(url: str, failure: str | None) -> Any:
        with psycopg.connect(url, autocommit=True) as connection:
            return converse(connection, _two_inserts(failure), together=True)

    @staticmethod
    async def psycopg_async(url: str, failure: str | None) -> Any:
        connect = psycopg.AsyncConnection.connect
        async with await connect(url, autocommit=True) as connection:
            return await converse(connection, _two_inserts(failure), together=True)

    @staticmethod
    async def sqlalchemy(url: str, failure: str | None) -> Any:
        with engine_of(url, isolation_level="AUTOCOMMIT").connect() as connection:
            return converse(connection, _two_inserts(failure), together=True)

    @staticmethod
    async def sqlalchemy_asyncpg(url: str, failure: str | None) -> Any:
        engine = async_engine_of(url, "asyncpg", isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            return await converse(connection, _two_inserts(failure), together=True)

    @staticmethod
    async def sqlalchemy_psycopg(url: str, failure: str | None) -> Any:
        engine = async_engine_of(url, "psycopg", isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            return await converse(connection, _two_inserts(failure), together=True)

    @staticmethod
    async def django(url: str, failure: str | None) -> Any:
        wrapper = django_connections(url)["default"]
        return await asyncio.to_thread(converse, wrapper, _two_inserts(failure), together=True)


@pytest.mark.parametrize("kind", [name for name in vars(Autocommit) if name[0] != "_"])
async def test_together_holds_where_each_statement_commits(
    kind: str, db_url: str, pg: psycopg.Connection
) -> None:
    pg.execute("create table written (n integer)")
    for failure in ("of the database", "of ours"):
        with pytest.raises(Exception, match="division by zero"):
            await getattr(Autocommit, kind)(db_url, failure)
        assert pg.execute("select n from written").fetchall() == []
    assert await getattr(Autocommit, kind)(db_url, None) == "1 seen"
    assert pg.execute("select n from written").fetchall() == [(1,)]


@everywhere
async def test_together_does_not_commit_what_the_caller_began(
    kind: str, db_url: str, pg: psycopg.Connection
) -> None:
    pg.execute("create table written (n integer)")
    async with PRODUCERS[kind](db_url) as producer:
        answer = converse(producer.connection, _two_inserts(None), together=True)
        assert (answer if isinstance(answer, str) else await answer) == "1 seen"
        assert pg.execute("select n from written").fetchall() == []
        await producer.rollback()
    assert pg.execute("select n from written").fetchall() == []


def test_the_callers_own_manner_with_psycopg_does_not_matter(db_url: str) -> None:
    with psycopg.connect(
        db_url, row_factory=dict_row, cursor_factory=psycopg.ClientCursor
    ) as connection:
        [row] = send(connection, TYPES, VALUES)
    assert list(row) == VALUES


def test_sqlalchemy_knows_of_the_transaction(db_url: str, pg: psycopg.Connection) -> None:
    pg.execute("create table written (n integer)")
    engine = engine_of(db_url)
    begun = []
    event.listen(engine, "begin", begun.append)
    with engine.connect() as connection:
        send(connection, "insert into written values ($1)", [1])
        assert connection.in_transaction()
        with pytest.raises(exc.InvalidRequestError, match="already"):
            connection.begin()
        connection.commit()
        with connection.begin(), connection.begin_nested() as inner:
            send(connection, "insert into written values ($1)", [2])
            inner.rollback()
    assert len(begun) == 2
    assert pg.execute("select n from written").fetchall() == [(1,)]


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_inside_run_sync(driver: str, db_url: str) -> None:
    engine = async_engine_of(db_url, driver)
    async with AsyncSession(engine) as session:
        session.add_all([])

        def old_code(inner: Session) -> Any:
            mine = inner.execute(text("select txid_current()")).scalar_one()
            [row] = send(inner, "select txid_current(), $1::integer[]", [[1, 2]])
            return mine == row[0], row[1]

        assert await session.run_sync(old_code) == (True, [1, 2])
    await engine.dispose()


async def test_a_closed_connection_says_so_itself(db_url: str) -> None:
    with psycopg.connect(db_url) as closed:
        pass
    with pytest.raises(psycopg.OperationalError, match="the connection is closed"):
        send(closed, "select 1")
    gone = await asyncpg.connect(db_url)
    await gone.close()
    with pytest.raises(asyncpg.InterfaceError, match="connection is closed"):
        await send(gone, "select 1")
    engine = engine_of(db_url)
    with engine.connect() as connection:
        pass
    with pytest.raises(exc.ResourceClosedError, match="closed"):
        send(connection, "select 1")


ACCEPTED = (
    "  why:  accepted are: asyncpg.Connection, psycopg.Connection, psycopg.AsyncConnection, "
    "SQLAlchemy's Connection, Session, AsyncConnection and AsyncSession (over asyncpg or psycopg), "
    "Django's connection (over psycopg 3)\n"
)


async def test_what_is_no_connection_is_told_what_is_one(db_url: str) -> None:
    def message(thing: Any) -> str:
        with pytest.raises(UsageError) as caught:
            send(thing, "select 1")
        return str(caught.value)

    assert message(7) == (
        "a builtins.int is not a connection that statements can be sent over\n"
        + ACCEPTED
        + "  next: pass such a connection, or run `select worker.enqueue(...)` over your own"
    )
    assert message(create_engine("postgresql+psycopg://")) == (
        "a sqlalchemy.engine.base.Engine is not a connection that statements can be sent over\n"
        + ACCEPTED
        + "  next: take a connection first: `with engine.begin() as connection:`, or a session"
    )
    async with asyncpg.create_pool(db_url, min_size=0) as pool:
        assert "next: take a connection first: `async with pool.acquire() as c" in message(pool)
    with psycopg.connect(db_url) as connection:
        assert "next: pass the connection itself: `cursor.connection`" in message(
            connection.cursor()
        )
    with create_engine("sqlite://").connect() as sqlite:
        assert message(sqlite) == (
            "statements cannot be sent over SQLAlchemy's driver 'pysqlite'\n"
            "  why:  accepted are asyncpg and psycopg (3)\n"
            '  next: create_engine("postgresql+psycopg://..."), or `select worker.enqueue(...)`'
        )


def test_no_library_is_imported_that_the_caller_does_not_use() -> None:
    code = (
        "import sys, worker.carrier, worker.producer; "
        "print([m for m in ('asyncpg', 'psycopg', 'sqlalchemy', 'django') if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


# -- arrays -------------------------------------------------------------------------------------

_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
_moments = st.datetimes(
    min_value=dt.datetime(2, 1, 1),
    max_value=dt.datetime(9998, 1, 1),
    timezones=st.just(dt.UTC) | st.just(dt.timezone(dt.timedelta(hours=5, minutes=45))),
)
_arrays = st.one_of(
    st.tuples(st.just("text[]"), st.lists(st.none() | _texts)),
    st.tuples(st.just("text[]"), st.lists(_texts)),
    st.tuples(st.just("bigint[]"), st.lists(st.none() | st.integers(-(2**63), 2**63 - 1))),
    st.tuples(st.just("float8[]"), st.lists(st.none() | st.floats(allow_nan=False))),
    st.just(("float8[]", [1, None, 2.5])),
    st.tuples(st.just("boolean[]"), st.lists(st.none() | st.booleans())),
    st.tuples(st.just("timestamptz[]"), st.lists(st.none() | _moments)),
)


@settings(
    max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(_arrays)
def test_an_array_is_read_as_it_was_written(
    pg: psycopg.Connection, case: tuple[str, list[Any]]
) -> None:
    cast, values = case
    assert isinstance(array(values), str)
    assert send(pg, f"select $1::{cast}", [values]) == [(values,)]


def test_what_is_no_plain_list_is_left_to_the_driver(pg: psycopg.Connection) -> None:
    for values in ([True, 2.5], [b"x"], [["nested"]], ["nul\0"]):
        assert array(values) is values
    with pytest.raises(psycopg.DataError, match="NUL"):
        send(pg, "select $1::text[]", [["nul\0", "next"]])
