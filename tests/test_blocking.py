"""A connection for a thread without an event loop: what the heartbeat beats over."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psycopg
import pytest

from tests.facts import until
from worker.blocking import BlockingLink
from worker.url import DatabaseURL

PID = "select pg_backend_pid()"


def link_to(url: str, *, pooled: bool = False, timeout: float = 5.0) -> BlockingLink:
    named = DatabaseURL.parse(url).with_parameters(application_name="duerow blocking")
    return BlockingLink(named, pooled=pooled, timeout=timeout)


@pytest.fixture
def link(db_url: str) -> Iterator[BlockingLink]:
    one = link_to(db_url)
    yield one
    one.close()


def backends(pg: psycopg.Connection) -> int:
    [(count,)] = pg.execute(
        "select count(*) from pg_stat_activity"
        " where application_name = 'duerow blocking' and datname = current_database()"
    ).fetchall()
    return int(count)


def handles() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_every_call_goes_over_one_connection(link: BlockingLink) -> None:
    [(one,)] = link.fetch(PID)
    [(two, text)] = link.fetch("select pg_backend_pid(), $1 || '!'", "é\\'")
    assert (one, text) == (two, "é\\'!")


def test_what_the_database_refuses_leaves_the_connection(link: BlockingLink) -> None:
    [(one,)] = link.fetch(PID)
    with pytest.raises(asyncpg.UndefinedTableError):
        link.fetch("select from no_such_table")
    assert link.fetch(PID) == [(one,)]


def test_it_comes_back_after_its_backend_was_terminated(
    link: BlockingLink, pg: psycopg.Connection
) -> None:
    [(one,)] = link.fetch(PID)
    pg.execute("select pg_terminate_backend(%s, 5000)", [one])
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        link.fetch(PID)
    link.drop()
    assert link.fetch(PID) != [(one,)]


@pytest.mark.parametrize("pooled", [False, True])
async def test_a_server_that_does_not_answer_is_given_up(
    db_url: str, pg: psycopg.Connection, pooled: bool
) -> None:
    """In time; and the call is not carried out afterwards, where the session can be told so."""

    def give_up() -> float:
        link = link_to(db_url, pooled=pooled, timeout=2.0)
        link.fetch(PID)
        before = handles()
        began = time.monotonic()
        with pytest.raises((TimeoutError, asyncpg.QueryCanceledError)):
            link.fetch("select pg_sleep(60)")
        seconds = time.monotonic() - began
        link.drop()
        assert handles() < before, "neither the connection nor a request to cancel is left"
        assert len(link.fetch(PID)) == 1
        link.close()
        return seconds

    found: list[float] = []
    thread = threading.Thread(target=lambda: found.append(give_up()))
    thread.start()
    thread.join(50)
    assert found
    assert found[0] < 30, "it would have slept for 60 s"
    if not pooled:
        await until(lambda: backends(pg) == 0)


def test_it_leaves_nothing_behind(db_url: str, pg: psycopg.Connection) -> None:
    before, threads = handles(), threading.active_count()
    link = link_to(db_url)
    link.fetch(PID)
    assert backends(pg) == 1
    link.close()
    link.close()
    # Fewer, where something of another test has ended meanwhile.
    assert handles() <= before
    assert threading.active_count() <= threads


async def test_its_server_is_told_goodbye(db_url: str, pg: psycopg.Connection) -> None:
    link = link_to(db_url)
    threading_done: list[bool] = []

    def use() -> None:
        link.fetch(PID)
        link.close()
        threading_done.append(True)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join(10)
    assert threading_done
    await until(lambda: backends(pg) == 0)


def test_names_are_looked_up_in_its_own_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that asyncio takes for it would outlive the call, and be waited for at exit."""
    asked: list[int] = []

    def look(*arguments: object) -> list[object]:
        asked.append(threading.get_ident())
        raise socket.gaierror(socket.EAI_NONAME, "nobody of that name")

    monkeypatch.setattr(socket, "getaddrinfo", look)
    link = link_to("postgres://one@nowhere.invalid/db")
    with pytest.raises(socket.gaierror):
        link.fetch(PID)
    link.close()
    assert asked
    assert set(asked) == {threading.get_ident()}


@pytest.mark.parametrize(("pooled", "prepared"), [(True, 0), (False, 1)])
def test_nothing_is_prepared_behind_a_pooler(db_url: str, pooled: bool, prepared: int) -> None:
    link = link_to(db_url, pooled=pooled)
    counted = "select count(*) from pg_prepared_statements"
    link.fetch(counted)
    assert link.fetch(counted) == [(prepared,)]
    link.close()
