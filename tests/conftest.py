"""Fixtures of all tests: a real Postgres, and a database of its own for each test.

`db_url` is what most tests want; `pg` and `apg` are connections to it. A test that stops or
kills the server takes `postgres_server`.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import asyncpg
import psycopg
import pytest
from hypothesis import HealthCheck, settings
from psycopg import sql

from tests.postgres import Cluster, NoPostgres, session_server, with_database
from tests.skips import pytest_make_collect_report, pytest_runtest_makereport
from worker.migrate import upgrade

# Hooks have to stand here, or in a plugin, for pytest to find them.
__all__ = ["pytest_make_collect_report", "pytest_runtest_makereport"]

# Hypothesis sees by itself that it runs in a CI, and does without these then; a laptop is busy too.
settings.register_profile(
    "untimed", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("untimed")

T = TypeVar("T")

# To copy the template block by block takes 19 ms, its files 13 ms (both in memory; on disk 22
# and 26); but for the files Postgres first writes out whatever other tests have changed.
STRATEGY = sql.SQL("wal_log")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks as `sql` what needs a server, for `make versions`. The longest files come first, so
    that none is left to one process at the end, with the others idle."""
    seconds: Counter[Path] = Counter()
    for item in items:
        if {"database_server", "postgres_server"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("sql")
        seconds[item.path] += _seconds(item)
    items.sort(key=lambda item: seconds[item.path], reverse=True)  # stable: files stay whole


def _seconds(item: pytest.Item) -> float:
    """About what a test of its kind takes."""
    if item.get_closest_marker("process"):
        return 10.0
    return 0.3 if item.get_closest_marker("sql") else 0.01


@pytest.fixture(scope="session")
def database_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the session's server, database `postgres`."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    server = session_server(shared)
    url = _or_skip(server.__enter__)
    try:
        yield url
    finally:
        server.__exit__(None, None, None)


@pytest.fixture(scope="session")
def admin(database_server: str) -> Iterator[psycopg.Connection]:
    """An autocommit connection to the server's database `postgres`, for the whole session."""
    with psycopg.connect(database_server, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="session")
def template_db(admin: psycopg.Connection, database_server: str) -> Iterator[str]:
    """The name of a migrated database, made once in each process of the session."""
    name = _fresh_name("template")
    admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    try:
        upgrade(with_database(database_server, name))
        yield name
    finally:
        _drop(admin, name)


@pytest.fixture(scope="session")
def finished(admin: psycopg.Connection) -> Iterator[list[str]]:
    """Databases of tests that have ended, to be dropped when their backends are gone too.

    Dropped at once they would cost 100 ms each: so long Postgres sleeps when it finds that
    a client has closed its connection but the backend has not ended yet.
    """
    names: list[str] = []
    yield names
    for name in names:
        _drop(admin, name)


@pytest.fixture
def db_url(
    admin: psycopg.Connection, database_server: str, template_db: str, finished: list[str]
) -> Iterator[str]:
    """The URL of a migrated database that is this test's alone."""
    while finished:
        _drop(admin, finished.pop())
    name = _fresh_name("test")
    admin.execute(
        sql.SQL("create database {} template {} strategy {}").format(
            sql.Identifier(name), sql.Identifier(template_db), STRATEGY
        )
    )
    try:
        yield with_database(database_server, name)
    finally:
        finished.append(name)


@pytest.fixture
def pg(db_url: str) -> Iterator[psycopg.Connection]:
    """An autocommit psycopg connection to the test's database."""
    with psycopg.connect(db_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
async def apg(db_url: str) -> AsyncIterator[asyncpg.Connection]:
    """An asyncpg connection to the test's database."""
    connection = await asyncpg.connect(db_url)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
def postgres_server() -> Iterator[Cluster]:
    """A started server of the test's own, to be stopped, killed and started again."""
    cluster = _or_skip(Cluster)
    with cluster:
        yield cluster


def _or_skip(make: Callable[[], T]) -> T:
    """Without a Postgres there is nothing to test; in CI, or when asked for, that is an error."""
    try:
        return make()
    except NoPostgres as missing:
        if os.environ.get("CI") == "true" or os.environ.get("WORKER_TEST_PG_VERSION"):
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))


def _fresh_name(purpose: str) -> str:
    return f"duerow_{purpose}_{uuid.uuid4().hex[:12]}"


def _drop(admin: psycopg.Connection, name: str) -> None:
    admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory; what is imported from it is forgotten again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
async def worker(apg: asyncpg.Connection) -> int:
    """The id of a worker that stands in the table and does nothing; its lease is an hour."""
    key: int = await apg.fetchval(
        "insert into worker.workers (name, host, pid, version, queues, kinds, slots, lease)"
        " values ('w', 'h', 1, '0', '{}', '{}', 1, '1 h') returning id"
    )
    return key
