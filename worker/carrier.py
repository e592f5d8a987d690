"""Sends our statements over the connection that the caller has, in the caller's transaction.

What is to be said is a generator that yields (sql, params) and is sent the rows: it is written
once and knows nothing of drivers. This module finds out what the connection is and carries the
conversation over it, at once where it is sync, as an awaitable where it is async. A transaction
that is open is never committed nor rolled back; on a connection that commits each statement by
itself, a conversation that must not be torn apart gets a transaction of its own.

Parameters are $1, $2, ... in every driver. Rows can be indexed by position; whatever the drivers
read differently (jsonb, intervals) is cast to text or numbers by the statement.

Nothing is imported that the caller's object does not come from.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, overload

from worker.arrays import array
from worker.errors import UsageError

if TYPE_CHECKING:
    import asyncpg
    import psycopg
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
    from sqlalchemy.orm import Session, scoped_session

    SyncConnection: TypeAlias = psycopg.Connection[Any] | Connection | Session | scoped_session[Any]
    AsyncCarrier: TypeAlias = (
        asyncpg.Connection
        | psycopg.AsyncConnection[Any]
        | AsyncConnection
        | AsyncSession
        | async_scoped_session[Any]
    )

T = TypeVar("T")
Params: TypeAlias = Sequence[Any]
Rows: TypeAlias = list[Any]
Talk: TypeAlias = Generator[tuple[str, Params], Rows, T]

ACCEPTED = (
    "asyncpg.Connection, psycopg.Connection, psycopg.AsyncConnection, SQLAlchemy's Connection, "
    "Session, AsyncConnection and AsyncSession (over asyncpg or psycopg), Django's connection "
    "(over psycopg 3)"
)


@overload
def send(connection: SyncConnection, sql: str, params: Params = ()) -> Rows: ...
@overload
def send(connection: AsyncCarrier, sql: str, params: Params = ()) -> Awaitable[Rows]: ...
def send(connection: Any, sql: str, params: Params = ()) -> Any:
    """The rows that one statement gives, or an awaitable of them where the connection is async.

    Raises UsageError for an object that is no connection we know; what the driver raises is left
    as it is.
    """
    return converse(connection, _one(sql, params))


@overload
def converse(connection: SyncConnection, talk: Talk[T], *, together: bool = False) -> T: ...
@overload
def converse(
    connection: AsyncCarrier, talk: Talk[T], *, together: bool = False
) -> Awaitable[T]: ...
def converse(connection: Any, talk: Talk[T], *, together: bool = False) -> Any:
    """Sends each statement that `talk` yields; gives what it returns, or an awaitable of it.

    together: all statements take effect or none does, even if the connection commits each one.
    """
    return _route(type(connection))(connection, talk, together)


def _one(sql: str, params: Params) -> Talk[Rows]:
    return (yield sql, params)


# -- which way --------------------------------------------------------------------------------

Route: TypeAlias = Callable[[Any, Talk[Any], bool], Any]


def _route(cls: type) -> Route:
    """By the public classes that `cls` descends from, known by name."""
    for base in cls.__mro__:
        route = _ROUTES.get((base.__module__, base.__qualname__))
        if route is not None:
            return route
    name = f"{cls.__module__}.{cls.__qualname__}"
    raise UsageError(
        f"a {name} is not a connection that statements can be sent over",
        why=f"accepted are: {ACCEPTED}",
        hint=_HINTS.get(cls.__module__.partition(".")[0], _SQL_HINT),
    )


_SQL_HINT = "pass such a connection, or run `select worker.enqueue(...)` over your own"
_HINTS = {
    "asyncpg": "take a connection first: `async with pool.acquire() as connection:`",
    "psycopg": "pass the connection itself: `cursor.connection`",
    "psycopg_pool": "take a connection first: `with pool.connection() as connection:`",
    "psycopg2": "use psycopg 3, or run `select worker.enqueue(...)` over psycopg2",
    "sqlalchemy": "take a connection first: `with engine.begin() as connection:`, or a session",
}


def _over_asyncpg(connection: Any, talk: Talk[T], together: bool) -> Awaitable[T]:
    bracket = together and not connection.is_in_transaction()
    return _talk_async(partial(_asyncpg, connection), talk, bracket)


def _over_psycopg(connection: Any, talk: Talk[T], together: bool) -> T:
    return _talk(partial(_psycopg, connection), talk, together and _commits_alone(connection))


def _over_psycopg_async(connection: Any, talk: Talk[T], together: bool) -> Awaitable[T]:
    bracket = together and _commits_alone(connection)
    return _talk_async(partial(_psycopg_async, connection), talk, bracket)


def _over_sqlalchemy(connection: Any, talk: Talk[T], together: bool) -> T:
    driver = connection.dialect.driver
    if driver == "asyncpg":
        # not the driver's connection: the dialect begins the transaction at its first statement
        beneath = connection.connection
        bracket = (
            together
            and beneath.dbapi_connection.autocommit
            and not beneath.driver_connection.is_in_transaction()
        )
        return _talk(partial(_driver_sql, connection), talk, bracket)
    if not driver.startswith("psycopg") or driver == "psycopg2":
        raise UsageError(
            f"statements cannot be sent over SQLAlchemy's driver {driver!r}",
            why="accepted are asyncpg and psycopg (3)",
            hint='create_engine("postgresql+psycopg://..."), or `select worker.enqueue(...)`',
        )
    if not connection.in_transaction():
        connection.begin()  # as its own execute() does: without it commit() would do nothing
    beneath = connection.connection.driver_connection
    ask: Callable[[str, Params], Rows] = partial(_psycopg, beneath)
    if connection.dialect.is_async:
        from sqlalchemy.util import await_only

        def ask(sql: str, params: Params = ()) -> Rows:
            rows: Rows = await_only(_psycopg_async(beneath, sql, params))
            return rows

    return _talk(ask, talk, together and _commits_alone(beneath))


def _over_session(session: Any, talk: Talk[T], together: bool) -> T:
    return _over_sqlalchemy(session.connection(), talk, together)


def _over_scoped(scoped: Any, talk: Talk[T], together: bool) -> Any:
    return converse(scoped(), talk, together=together)


def _over_greenlet(asynchronous: Any, talk: Talk[T], together: bool) -> Awaitable[T]:
    """SQLAlchemy's async classes run their sync twins in a greenlet; so do we."""
    awaitable: Awaitable[T] = asynchronous.run_sync(
        lambda twin: converse(twin, talk, together=together)
    )
    return awaitable


def _over_django(wrapper: Any, talk: Talk[T], together: bool) -> Any:
    wrapper.ensure_connection()
    wrapper.validate_no_broken_transaction()
    return converse(wrapper.connection, talk, together=together)


_ROUTES: dict[tuple[str, str], Route] = {
    ("asyncpg.connection", "Connection"): _over_asyncpg,
    ("asyncpg.pool", "PoolConnectionProxy"): _over_asyncpg,
    ("psycopg", "Connection"): _over_psycopg,
    ("psycopg", "AsyncConnection"): _over_psycopg_async,
    ("sqlalchemy.engine.base", "Connection"): _over_sqlalchemy,
    ("sqlalchemy.orm.session", "Session"): _over_session,
    ("sqlalchemy.orm.scoping", "scoped_session"): _over_scoped,
    ("sqlalchemy.ext.asyncio.engine", "AsyncConnection"): _over_greenlet,
    ("sqlalchemy.ext.asyncio.session", "AsyncSession"): _over_greenlet,
    ("sqlalchemy.ext.asyncio.scoping", "async_scoped_session"): _over_scoped,
    ("django.db.backends.base.base", "BaseDatabaseWrapper"): _over_django,
    ("django.utils.connection", "ConnectionProxy"): _over_django,
}


# -- the conversation -------------------------------------------------------------------------


def _talk(ask: Callable[..., Rows], talk: Talk[T], bracket: bool) -> T:
    if bracket:
        ask("begin")
    try:
        try:
            request = next(talk)
            while True:
                request = talk.send(ask(*request))
        except StopIteration as end:
            if bracket:
                ask("commit")
            result: T = end.value
            return result
    except BaseException:
        if bracket:
            with suppress(Exception):  # the connection may be gone, and the transaction with it
                ask("rollback")
        raise


async def _talk_async(ask: Callable[..., Awaitable[Rows]], talk: Talk[T], bracket: bool) -> T:
    if bracket:
        await ask("begin")
    try:
        try:
            request = next(talk)
            while True:
                request = talk.send(await ask(*request))
        except StopIteration as end:
            if bracket:
                await ask("commit")
            result: T = end.value
            return result
    except BaseException:
        if bracket:
            with suppress(Exception):
                await ask("rollback")
        raise


# -- one statement ----------------------------------------------------------------------------


async def _asyncpg(connection: Any, sql: str, params: Params = ()) -> Rows:
    rows: Rows = await connection.fetch(sql, *params)
    return rows


def _psycopg(connection: Any, sql: str, params: Params = ()) -> Rows:
    from psycopg import RawCursor
    from psycopg.rows import tuple_row

    with RawCursor(connection, row_factory=tuple_row) as cursor:
        cursor.execute(sql, _spelled(params))
        return cursor.fetchall() if cursor.description else []


async def _psycopg_async(connection: Any, sql: str, params: Params = ()) -> Rows:
    from psycopg import AsyncRawCursor
    from psycopg.rows import tuple_row

    async with AsyncRawCursor(connection, row_factory=tuple_row) as cursor:
        await cursor.execute(sql, _spelled(params))
        return await cursor.fetchall() if cursor.description else []


def _driver_sql(connection: Any, sql: str, params: Params = ()) -> Rows:
    result = connection.exec_driver_sql(sql, tuple(params))
    return list(result.all()) if result.returns_rows else []


def _commits_alone(connection: Any) -> bool:
    """Whether psycopg would commit the next statement by itself."""
    return bool(connection.autocommit) and connection.info.transaction_status.name == "IDLE"


def _spelled(params: Params) -> list[Any] | None:
    return [array(p) if type(p) is list else p for p in params] or None
