"""A session of its own for each row whose handler asks for one.

A session comes inside a transaction. When the handler has answered, its row is settled in that
same transaction, under the fence, and both commit together; if the claim was lost, RowLost is
raised inside the block and everything rolls back.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg

from worker.errors import DuerowError, RegistrationError
from worker.payload import ASYNC_SESSIONS
from worker.retry import PermanentError
from worker.seat import Seat
from worker.url import DatabaseURL, connect

SPARE = 100
"""Connections that a pool may count beyond its size: those of abandoned handlers that never end
are cut, but the pool cannot know."""

# How soon Postgres looks whether a client that it is busy for is still there.
_CHECKED = "-c client_connection_check_interval=2000"


class NoSession(DuerowError):
    """All sessions are in use."""


class Sessions:
    """Opens sessions by their kind (the values of payload.SESSIONS).

    size: how many of one kind may be open at once. timeout: seconds a handler waits for one.
    pooled: a transaction pooler stands between; no prepared statements then.
    """

    def __init__(self, url: DatabaseURL, size: int, *, pooled: bool, timeout: float) -> None:
        said = {"application_name": "duerow handler"}
        if not pooled:
            said["options"] = f"{url.get('options') or ''} {_CHECKED}".strip()
        self._url = url.with_parameters(**said)
        self._size = size
        self._pooled = pooled
        self._timeout = timeout
        self._pools: dict[str, Any] = {}
        self._places: dict[str, asyncio.Semaphore | threading.Semaphore] = {}
        self._used: dict[str, set[Seat]] = {}
        self._closers: list[Callable[[], Any]] = []

    async def start(self, kinds: Iterable[str]) -> None:
        """Makes the pools that these kinds need; none of them connects before its first use.
        Raises RegistrationError where a library is missing."""
        for kind in sorted(set(kinds)):
            of = asyncio if kind in ASYNC_SESSIONS else threading
            self._places[kind] = of.Semaphore(self._size)
            self._used[kind] = set()
            match kind:
                case "asyncpg":
                    self._pools[kind] = await self._start_asyncpg()
                case "psycopg":
                    self._pools[kind] = self._start_psycopg()
                case "psycopg-async":
                    self._pools[kind] = await self._start_psycopg_async()
                case "sqlalchemy-async":
                    self._pools[kind] = self._start_sqlalchemy_async()
                case "sqlalchemy":
                    self._pools[kind] = self._start_sqlalchemy()

    @asynccontextmanager
    async def open(self, kind: str, seat: Seat) -> AsyncIterator[Any]:
        """An async session inside a transaction that commits when the block ends well. Raises
        NoSession."""
        place: Any = self._places[kind]
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout):
                await place.acquire()
        except TimeoutError:
            raise self._none_free() from None
        seat.waited = time.monotonic() - began
        self._seat(kind, seat)
        try:
            async with self._open_async(kind, seat) as session:
                yield session
        finally:
            seat.leave()

    @contextmanager
    def open_in_thread(self, kind: str, seat: Seat) -> Iterator[Any]:
        """A sync session likewise, for the thread that runs the handler."""
        place: Any = self._places[kind]
        began = time.monotonic()
        if not place.acquire(timeout=self._timeout):
            raise self._none_free()
        seat.waited = time.monotonic() - began
        self._seat(kind, seat)
        try:
            with self._open_sync(kind, seat) as session:
                yield session
        finally:
            seat.leave()

    def use(self) -> dict[str, dict[str, int]]:
        """For each kind of session how many may be open at once, and how many are."""
        return {
            kind: {"size": self._size, "in_use": len(used)} for kind, used in self._used.items()
        }

    def _seat(self, kind: str, seat: Seat) -> None:
        """It has a place of this kind until it leaves, or is cut."""
        used, place = self._used[kind], self._places[kind]
        used.add(seat)

        def release() -> None:
            used.discard(seat)
            place.release()

        seat.take(release)

    @asynccontextmanager
    async def _open_async(self, kind: str, seat: Seat) -> AsyncIterator[Any]:
        pool = self._pools[kind]
        match kind:
            case "asyncpg":
                async with pool.acquire(timeout=self._timeout) as connection:
                    with _held(seat, connection):
                        async with connection.transaction():
                            yield connection
            case "psycopg-async":
                async with pool.connection(timeout=self._timeout) as connection:
                    with _held(seat, connection):
                        async with connection.transaction():
                            yield connection
            case _:
                async with pool() as session, session.begin():
                    raw = await (await session.connection()).get_raw_connection()
                    with _held(seat, raw.driver_connection):
                        yield session

    @contextmanager
    def _open_sync(self, kind: str, seat: Seat) -> Iterator[Any]:
        pool = self._pools[kind]
        if kind == "psycopg":
            with (
                pool.connection(timeout=self._timeout) as connection,
                _held(seat, connection),
                connection.transaction(),
            ):
                yield connection
        else:
            with (
                pool() as session,
                session.begin(),
                _held(seat, session.connection().connection.driver_connection),
            ):
                yield session

    def _none_free(self) -> NoSession:
        return NoSession(
            f"no session was free within {self._timeout:g} s",
            why=f"{self._size} of them are in use",
            hint="raise --pool-size, or lower --concurrency",
        )

    async def close(self) -> None:
        for closer in self._closers:
            closed = closer()
            if inspect.isawaitable(closed):
                await closed
        self._closers.clear()
        self._pools.clear()

    async def _start_asyncpg(self) -> Any:
        async def connect_here(*_: Any, **arguments: Any) -> Any:
            if self._pooled:
                arguments["statement_cache_size"] = 0
            return await connect(self._url, **arguments)

        pool = await asyncpg.create_pool(
            min_size=0, max_size=self._size + SPARE, connect=connect_here
        )
        self._closers.append(pool.terminate)
        return pool

    def _start_psycopg(self) -> Any:
        from psycopg_pool import ConnectionPool  # 2 MB that few workers need

        pool = ConnectionPool(**self._psycopg_arguments())
        pool.open()
        self._closers.append(lambda: pool.close(timeout=1))
        return pool

    async def _start_psycopg_async(self) -> Any:
        from psycopg_pool import AsyncConnectionPool

        pool = AsyncConnectionPool(**self._psycopg_arguments())
        await pool.open()
        self._closers.append(lambda: pool.close(timeout=1))
        return pool

    def _psycopg_arguments(self) -> dict[str, Any]:
        return {
            "conninfo": self._url.psycopg_conninfo(),
            "kwargs": {"prepare_threshold": None} if self._pooled else {},
            "min_size": 0,
            "max_size": self._size + SPARE,
            "open": False,
            "name": "duerow handler",
        }

    def _start_sqlalchemy_async(self) -> Any:
        with _explained("sqlalchemy"):
            from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

        async def connect_here(**arguments: Any) -> Any:
            if self._pooled:
                arguments["statement_cache_size"] = 0
            return await connect(self._url, **arguments)

        # The dialect prepares each statement by itself: under names of its own behind a pooler.
        unprepared = {
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": lambda: f"__duerow_{uuid.uuid4()}__",
        }
        engine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=connect_here,
            connect_args=unprepared if self._pooled else {},
            **self._sqlalchemy_arguments(),
        )
        self._closers.append(engine.dispose)
        return async_sessionmaker(engine, expire_on_commit=False)

    def _start_sqlalchemy(self) -> Any:
        with _explained("sqlalchemy"):
            from sqlalchemy import create_engine
            from sqlalchemy.orm import sessionmaker

        engine = create_engine(
            self._url.sqlalchemy_url("psycopg"),
            connect_args={"prepare_threshold": None} if self._pooled else {},
            **self._sqlalchemy_arguments(),
        )
        self._closers.append(engine.dispose)
        return sessionmaker(engine, expire_on_commit=False)

    def _sqlalchemy_arguments(self) -> dict[str, Any]:
        return {"pool_size": self._size, "max_overflow": SPARE, "pool_timeout": self._timeout}


def still_open(kind: str, session: Any) -> None:
    """Raises PermanentError where the handler has ended its session's transaction: what it wrote
    is committed without the fence, and another run could do it again."""
    match kind:
        case "asyncpg":
            is_open = session.is_in_transaction()
        case "psycopg" | "psycopg-async":
            is_open = session.info.transaction_status.name != "IDLE"
        case _:
            is_open = session.in_transaction()
    if not is_open:
        raise PermanentError(
            "the handler has ended its session's transaction",
            why="its writes and the row's completion must commit together",
            hint="leave commit and rollback to the worker; savepoints are fine",
        )


@contextmanager
def _held(seat: Seat, connection: Any) -> Iterator[None]:
    seat.hold(connection)
    try:
        yield
    finally:
        seat.let_go()


@contextmanager
def _explained(library: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise RegistrationError(
            f"a handler asks for a session of {library}, which cannot be imported",
            why=str(error),
            hint=f"pip install 'duerow[{library}]'",
        ) from None
