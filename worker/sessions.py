"""A session of its own for each row whose handler asks for one.

A session comes inside a transaction. When the handler has answered, its row is settled in that
same transaction, under the fence, and both commit together; if the claim was lost, RowLost is
raised inside the block and everything rolls back.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg

from worker.errors import RegistrationError
from worker.url import DatabaseURL, connect


class Sessions:
    """Opens sessions by their kind (the values of payload.SESSIONS).

    size: connections that the pool of one kind may open. timeout: seconds a handler waits for one.
    pooled: a transaction pooler stands between; no prepared statements then.
    """

    def __init__(self, url: DatabaseURL, size: int, *, pooled: bool, timeout: float) -> None:
        self._url = url
        self._size = size
        self._pooled = pooled
        self._timeout = timeout
        self._pools: dict[str, Any] = {}
        self._closers: list[Callable[[], Any]] = []

    async def start(self, kinds: Iterable[str]) -> None:
        """Makes the pools that these kinds need; none of them connects before its first use.
        Raises RegistrationError where a library is missing."""
        for kind in sorted(set(kinds)):
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
    async def open(self, kind: str) -> AsyncIterator[Any]:
        """An async session inside a transaction that commits when the block ends well."""
        pool = self._pools[kind]
        match kind:
            case "asyncpg":
                async with (
                    pool.acquire(timeout=self._timeout) as connection,
                    connection.transaction(),
                ):
                    yield connection
            case "psycopg-async":
                async with (
                    pool.connection(timeout=self._timeout) as connection,
                    connection.transaction(),
                ):
                    yield connection
            case _:
                async with pool() as session, session.begin():
                    yield session

    @contextmanager
    def open_in_thread(self, kind: str) -> Iterator[Any]:
        """A sync session likewise, for the thread that runs the handler."""
        pool = self._pools[kind]
        if kind == "psycopg":
            with pool.connection(timeout=self._timeout) as connection, connection.transaction():
                yield connection
        else:
            with pool() as session, session.begin():
                yield session

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
            arguments["server_settings"] = {"application_name": "duerow handler"}
            return await connect(self._url, **arguments)

        pool = await asyncpg.create_pool(min_size=0, max_size=self._size, connect=connect_here)
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
        url = self._url.with_parameters(application_name="duerow handler")
        return {
            "conninfo": url.psycopg_conninfo(),
            "kwargs": {"prepare_threshold": None} if self._pooled else {},
            "min_size": 0,
            "max_size": self._size,
            "open": False,
            "name": "duerow handler",
        }

    def _start_sqlalchemy_async(self) -> Any:
        with _explained("sqlalchemy"):
            from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

        async def connect_here() -> Any:
            cached = {"statement_cache_size": 0} if self._pooled else {}
            return await connect(self._url, **cached)

        engine = create_async_engine(
            "postgresql+asyncpg://", async_creator=connect_here, **self._sqlalchemy_arguments()
        )
        self._closers.append(engine.dispose)
        return async_sessionmaker(engine, expire_on_commit=False)

    def _start_sqlalchemy(self) -> Any:
        with _explained("sqlalchemy"):
            from sqlalchemy import create_engine
            from sqlalchemy.orm import sessionmaker

        engine = create_engine(self._url.sqlalchemy_url("psycopg"), **self._sqlalchemy_arguments())
        self._closers.append(engine.dispose)
        return sessionmaker(engine, expire_on_commit=False)

    def _sqlalchemy_arguments(self) -> dict[str, Any]:
        return {"pool_size": self._size, "max_overflow": 0, "pool_timeout": self._timeout}


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
