"""A link comes back after whatever the database does, and no call of it hangs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from tests.facts import until
from tests.wire import wired
from worker.events import DatabaseBack, DatabaseLost, Event, Events
from worker.link import Blocked, Link, LinkDown, Outage
from worker.url import DatabaseURL


class Linked:
    """A link and what it told."""

    def __init__(self, url: str, **options: Any) -> None:
        self.events: list[Event] = []
        told = Events((self.events.append,))
        self.link = Link("test", DatabaseURL.parse(url), Outage(told), **options)

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
async def linked(db_url: str) -> AsyncIterator[Linked]:
    made = Linked(db_url)
    yield made
    await made.link.close()


CUT = (
    "select pg_terminate_backend(pid) from pg_stat_activity"
    " where application_name = 'duerow test' and datname = current_database()"
)


async def breaks(link: Link) -> LinkDown:
    """What the link says once it has noticed."""
    while True:
        try:
            await link.fetch("select 1")
        except LinkDown as down:
            return down


async def test_it_connects_on_first_use_and_by_name(
    linked: Linked, apg: asyncpg.Connection
) -> None:
    assert not linked.link.connected
    [[name]] = await linked.link.fetch("select current_setting('application_name')")
    assert name == "duerow test"
    assert linked.link.connected


async def test_it_comes_back_after_its_backend_was_terminated(
    linked: Linked, apg: asyncpg.Connection
) -> None:
    await linked.link.fetch("select 1")
    assert await apg.fetchval(CUT)
    assert "test" in str(await breaks(linked.link))
    assert await linked.link.fetch("select 2") == [(2,)]
    assert len(linked.of(DatabaseLost)) == 1
    assert len(linked.of(DatabaseBack)) == 1


async def test_a_driver_in_disorder_gets_a_new_connection(linked: Linked) -> None:
    """What asyncpg says when a call meets the termination half-way, which no test can time."""
    await linked.link.fetch("select 1")
    told = linked.link._judge(asyncpg.InternalClientError("cannot switch to state 12"))
    assert isinstance(told, LinkDown)
    assert not linked.link.connected


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        ("select 1/0", asyncpg.DivisionByZeroError),
        ("select nonsense", asyncpg.UndefinedColumnError),
        ("do $$ begin raise exception 'by a trigger'; end $$", asyncpg.RaiseError),
        (f"select '{'[' * 50_000}'::jsonb", asyncpg.StatementTooComplexError),
    ],
)
async def test_what_is_our_own_fault_is_told_as_it_is(
    linked: Linked, sql: str, error: type[Exception]
) -> None:
    """Sending it again would be refused again, and hold up everybody."""
    with pytest.raises(error):
        await linked.link.fetch(sql)
    assert linked.link.connected
    assert not linked.of(DatabaseLost)


async def test_a_value_that_the_driver_refuses(linked: Linked) -> None:
    with pytest.raises(asyncpg.DataError):
        await linked.link.fetch("select $1::text", "\ud800")
    assert await linked.link.fetch("select 1") == [(1,)]


async def test_a_lock_in_the_way_is_no_outage(linked: Linked, apg: asyncpg.Connection) -> None:
    await linked.link.fetch("set lock_timeout = '50ms'")
    async with apg.transaction():
        await apg.execute("lock table worker.jobs in access exclusive mode")
        with pytest.raises(Blocked):
            await linked.link.fetch("select count(*) from worker.jobs")
    assert linked.link.connected
    assert not linked.of(DatabaseLost)


async def test_calls_of_several_tasks_wait_for_each_other(linked: Linked) -> None:
    calls = [linked.link.fetch("select $1::int, pg_sleep(0.01)", n) for n in range(20)]
    assert [rows[0][0] for rows in await asyncio.gather(*calls)] == list(range(20))
    assert not linked.of(DatabaseLost)


async def test_a_transaction_that_fails_leaves_nothing(linked: Linked) -> None:

    async def half() -> None:
        async with linked.link.transaction() as connection:
            await connection.execute("create table half ()")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await half()
    assert await linked.link.fetch("select to_regclass('half')") == [(None,)]


async def test_the_pause_ends_with_success(linked: Linked, apg: asyncpg.Connection) -> None:
    assert linked.link.pause() == pytest.approx(0.1)
    await linked.link.fetch("select 1")
    assert await apg.fetchval(CUT)
    await breaks(linked.link)
    assert linked.link.pause() == pytest.approx(0.2)
    await linked.link.fetch("select 1")
    assert linked.link.pause() == pytest.approx(0.1)


async def test_a_silent_wire_costs_no_more_than_the_timeout(db_url: str) -> None:
    async with wired(db_url) as (wire, through):
        linked = Linked(through, timeout=60.0, connect_timeout=60.0)  # while all is well
        assert await linked.link.fetch("select 1") == [(1,)]
        wire.mute()
        linked.link._timeout = linked.link._connect_timeout = 1.0
        async with asyncio.timeout(30):
            for _ in range(3):  # the call, and two to connect again
                with pytest.raises(LinkDown):
                    await linked.link.fetch("select 1")
        wire.unmute()
        linked.link._timeout = linked.link._connect_timeout = 60.0
        assert await linked.link.fetch("select 2") == [(2,)]
        assert len(linked.of(DatabaseLost)) <= 3
        await linked.link.close()


async def test_a_silent_wire_does_not_hold_a_transaction_for_ever(db_url: str) -> None:
    """As a chore's: its statements have the link's timeout too."""
    async with wired(db_url) as (wire, through):
        linked = Linked(through, timeout=1.0, connect_timeout=1.0)

        async def chore() -> None:
            async with linked.link.transaction() as connection:
                await connection.fetch("select 1")
                wire.mute()
                await connection.fetch("select 2")

        async with asyncio.timeout(30):
            with pytest.raises(LinkDown):
                await chore()
        wire.unmute()
        await linked.link.close()


async def test_a_call_that_takes_too_long_is_ended_in_the_server_too(
    db_url: str, apg: asyncpg.Connection
) -> None:
    """Else a claim could still commit after we have given back what it might have taken."""
    linked = Linked(db_url, timeout=0.5)
    with pytest.raises(LinkDown):
        await linked.link.fetch("select pg_sleep(30)")
    running = (
        "select count(*) from pg_stat_activity where state = 'active'"
        " and application_name = 'duerow test' and datname = current_database()"
    )
    await until(lambda: apg.fetchval(f"select ({running}) = 0"))
    await linked.link.close()


async def test_nobody_listens_at_all(tmp_path: Any) -> None:
    linked = Linked(f"postgresql://nobody@/none?host={tmp_path}")
    pauses, began = [], time.monotonic()
    for _ in range(7):
        with pytest.raises(LinkDown):
            await linked.link.fetch("select 1")
        pauses.append(linked.link.pause())
    assert pauses == pytest.approx([0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0])
    most = 1 + time.monotonic() - began
    assert 1 <= len(linked.of(DatabaseLost)) <= most, "at most one line a second"
