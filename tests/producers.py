"""Every connection that a job can be enqueued over, each inside a transaction of its owner's."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass
from typing import Any

import asyncpg
import psycopg
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, create_async_engine
from sqlalchemy.ext.asyncio import async_sessionmaker as async_maker
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from worker import Enqueued, enqueue, enqueue_many
from worker.carrier import send
from worker.job import Job


@dataclass
class Producer:
    """A caller with a connection, and how it ends its transaction."""

    connection: Any
    commit_it: Callable[[], Any]
    rollback_it: Callable[[], Any]

    async def send(self, sql: str, *params: Any) -> list[Any]:
        return await _answer(send(self.connection, sql, params))

    async def enqueue(self, job: Job) -> Enqueued:
        return await _answer(enqueue(self.connection, job))

    async def enqueue_many(self, jobs: Iterable[Job]) -> list[Enqueued]:
        return await _answer(enqueue_many(self.connection, jobs))

    async def commit(self) -> None:
        await _answer(self.commit_it())

    async def rollback(self) -> None:
        await _answer(self.rollback_it())


async def _answer(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


def _like_dbapi(connection: Any) -> Producer:
    return Producer(connection, connection.commit, connection.rollback)


@asynccontextmanager
async def _asyncpg(url: str) -> AsyncIterator[Producer]:
    connection = await asyncpg.connect(url)
    try:
        transaction = connection.transaction()
        await transaction.start()
        yield Producer(connection, transaction.commit, transaction.rollback)
    finally:
        await connection.close()


@asynccontextmanager
async def _asyncpg_pool(url: str) -> AsyncIterator[Producer]:
    async with asyncpg.create_pool(url, min_size=1, max_size=1) as pool, pool.acquire() as proxy:
        transaction = proxy.transaction()
        await transaction.start()
        yield Producer(proxy, transaction.commit, transaction.rollback)


@asynccontextmanager
async def _psycopg(url: str) -> AsyncIterator[Producer]:
    with closing(psycopg.connect(url)) as connection:  # its own `with` would commit
        yield _like_dbapi(connection)


@asynccontextmanager
async def _psycopg_async(url: str) -> AsyncIterator[Producer]:
    connection = await psycopg.AsyncConnection.connect(url)
    try:
        yield _like_dbapi(connection)
    finally:
        await connection.close()


def engine_of(url: str, **options: Any) -> Any:
    return create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(url), pool_size=1, **options
    )


def async_engine_of(url: str, driver: str, **options: Any) -> Any:
    connects = {"asyncpg": asyncpg.connect, "psycopg": psycopg.AsyncConnection.connect}

    async def creator() -> Any:
        return await connects[driver](url)

    return create_async_engine(
        f"postgresql+{driver}://", async_creator=creator, pool_size=1, **options
    )


@asynccontextmanager
async def _sqlalchemy(url: str) -> AsyncIterator[Producer]:
    engine = engine_of(url)
    with engine.connect() as connection:
        yield _like_dbapi(connection)
    engine.dispose()


@asynccontextmanager
async def _session(url: str) -> AsyncIterator[Producer]:
    engine = engine_of(url)
    with Session(engine) as session:
        yield _like_dbapi(session)
    engine.dispose()


@asynccontextmanager
async def _scoped_session(url: str) -> AsyncIterator[Producer]:
    engine = engine_of(url)
    scoped = scoped_session(sessionmaker(engine))
    yield _like_dbapi(scoped)
    scoped.remove()
    engine.dispose()


def _async_connection(driver: str) -> Callable[[str], AbstractAsyncContextManager[Producer]]:
    @asynccontextmanager
    async def open_it(url: str) -> AsyncIterator[Producer]:
        engine = async_engine_of(url, driver)
        async with engine.connect() as connection:
            yield _like_dbapi(connection)
        await engine.dispose()

    return open_it


def _async_session(driver: str) -> Callable[[str], AbstractAsyncContextManager[Producer]]:
    @asynccontextmanager
    async def open_it(url: str) -> AsyncIterator[Producer]:
        engine = async_engine_of(url, driver)
        async with AsyncSession(engine) as session:
            yield _like_dbapi(session)
        await engine.dispose()

    return open_it


@asynccontextmanager
async def _async_scoped_session(url: str) -> AsyncIterator[Producer]:
    engine = async_engine_of(url, "asyncpg")
    scoped = async_scoped_session(async_maker(engine), scopefunc=lambda: 1)
    yield _like_dbapi(scoped)
    await scoped.remove()
    await engine.dispose()


def django_connections(url: str) -> Any:
    """A handler as `django.db.connections` is one; `handler["default"]` is a connection."""
    from django.conf import settings
    from django.db.utils import ConnectionHandler

    if not settings.configured:
        settings.configure(USE_TZ=True)
    told = conninfo_to_dict(url)
    names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host"}
    return ConnectionHandler(
        {
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "PORT": told.get("port", ""),
                **{django: told.get(libpq, "") for django, libpq in names.items()},
            }
        }
    )


@asynccontextmanager
async def _django(url: str) -> AsyncIterator[Producer]:
    import os

    from django.utils.connection import ConnectionProxy

    # Django refuses a sync connection inside a running loop, where these tests live.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    proxy = ConnectionProxy(django_connections(url), "default")
    proxy.set_autocommit(False)
    yield _like_dbapi(proxy)
    proxy.close()


PRODUCERS: dict[str, Callable[[str], AbstractAsyncContextManager[Producer]]] = {
    "asyncpg": _asyncpg,
    "asyncpg pool": _asyncpg_pool,
    "psycopg": _psycopg,
    "psycopg async": _psycopg_async,
    "sqlalchemy Connection": _sqlalchemy,
    "sqlalchemy Session": _session,
    "sqlalchemy scoped_session": _scoped_session,
    "sqlalchemy AsyncConnection asyncpg": _async_connection("asyncpg"),
    "sqlalchemy AsyncConnection psycopg": _async_connection("psycopg"),
    "sqlalchemy AsyncSession asyncpg": _async_session("asyncpg"),
    "sqlalchemy AsyncSession psycopg": _async_session("psycopg"),
    "sqlalchemy async_scoped_session": _async_scoped_session,
    "django": _django,
}
