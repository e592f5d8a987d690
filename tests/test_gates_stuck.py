"""What must not get stuck, or slip through, at gates between due rows and real workers."""

from __future__ import annotations

import asyncio
import string
import time

import asyncpg
import pytest

from tests.facts import until
from tests.workers import Running, put, running
from worker import App, Context
from worker.events import RowsClaimed
from worker.flow import admission


async def in_use(apg: asyncpg.Connection) -> int:
    found = await apg.fetchval("select in_use from worker.gates where concurrency is not null")
    assert isinstance(found, int)
    return found


async def test_a_worker_that_stops_returns_its_part_of_a_limit_row_by_row(
    db_url: str, apg: asyncpg.Connection
) -> None:
    app = App()
    short, long = asyncio.Event(), asyncio.Event()
    ran: list[str] = []

    @app.handler
    async def send() -> None:
        ran.append("send")
        await short.wait()

    @app.handler
    async def other() -> None:
        ran.append("other")
        await long.wait()

    app.limit(kind="send", concurrency=1)
    await put(apg, "send")
    await put(apg, "other")
    async with running(app, db_url, concurrency=2, grace=25.0) as one:
        await until(lambda: len(ran) == 2)
        stopping = asyncio.create_task(one.stop())  # until the long one has ended
        await until(lambda: not one.worker.parts.loop.open)
        short.set()
        try:
            await until(lambda: in_use_is(apg, 0), 10)
        finally:
            long.set()
            await stopping


async def in_use_is(apg: asyncpg.Connection, count: int) -> bool:
    return await in_use(apg) == count


async def test_many_closed_tenants_do_not_stand_before_an_open_one(
    db_url: str, apg: asyncpg.Connection
) -> None:
    """One slot is free, so that a claim asks few tenants at a time."""
    app = App()
    ran: list[str | None] = []

    @app.handler
    async def send(context: Context) -> None:
        ran.append(context.row.tenant)

    closed = [letter + end for letter in string.digits + string.ascii_lowercase for end in "05"]
    await apg.execute(
        "insert into worker.gates (kind, tenant, blocked_until)"
        " select 'send', t, now() + interval '1 hour' from unnest($1::text[]) t",
        closed,
    )
    for tenant in (*closed, "h3"):
        await put(apg, "send", tenant=tenant)
    async with running(app, db_url, concurrency=1, poll_max=20.0):
        await until(lambda: ran, 12)
    assert ran == ["h3"]


async def test_tenants_whose_limits_are_used_up_do_not_stand_before_another(
    db_url: str, apg: asyncpg.Connection
) -> None:
    app = App()
    ran: list[str | None] = []

    @app.handler
    async def send(context: Context) -> None:
        ran.append(context.row.tenant)

    full = [letter + end for letter in string.digits + string.ascii_lowercase for end in "05"]
    app.limit(kind="send", each_tenant=True, concurrency=1)
    async with running(app, db_url, concurrency=1, poll_max=5.0) as one:
        await apg.execute(
            "insert into worker.gates (kind, tenant, in_use) select 'send', t, 1"
            " from unnest($1::text[]) t",
            full,
        )
        await apg.execute(
            "insert into worker.gate_shares (gate, worker, in_use)"
            " select id, $1, 1 from worker.gates where tenant <> '*'",
            await other_worker(apg, one),
        )
        for tenant in full:
            await put(apg, "send", tenant=tenant)
        await put(apg, "send", tenant="h3")
        began = len(one.seen.of(RowsClaimed))
        await apg.execute("notify duerow, 'default'")
        await until(lambda: ran)
        claims = len(one.seen.of(RowsClaimed)) - began
    assert ran == ["h3"]
    assert claims < 8


async def other_worker(apg: asyncpg.Connection, one: Running) -> int:
    """One that is alive, with rows of every tenant."""
    found = await apg.fetchval(
        "insert into worker.workers (name, host, pid, version, queues, kinds, slots, lease,"
        " heartbeat_at) values ('busy', 'h', 1, '0', '{}', '{}', 1, '1 h', now()) returning id"
    )
    assert isinstance(found, int)
    return found


async def test_rows_that_start_late_do_not_come_at_once(
    db_url: str, apg: asyncpg.Connection
) -> None:
    """In no second more than rate + burst, though now and then something keeps the loop busy."""
    app = App()
    at: list[float] = []

    @app.handler
    async def send() -> None:
        at.append(time.monotonic())

    app.limit(kind="send", rate=50, burst=1)
    await put(apg, "send", count=120)
    async with running(app, db_url, concurrency=20):
        await until(lambda: at)
        while len(at) < 110:
            await asyncio.sleep(0.3)
            time.sleep(0.09)  # noqa: ASYNC251
    seconds = [sum(1 for moment in at[i:] if moment < first + 1) for i, first in enumerate(at)]
    assert max(seconds) <= 51


async def test_a_breaker_tries_again_when_the_row_that_tried_it_is_gone(
    db_url: str, apg: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was claimed to try the breaker, and taken away before it began."""
    monkeypatch.setattr(admission, "HORIZON", 10.0)
    app = App()
    ran: list[int] = []

    @app.handler
    async def send(context: Context) -> None:
        ran.append(context.row.key)

    app.limit(kind="send", rate=0.5, burst=1)  # so that it waits for its moment
    app.breaker(kind="send", failures=1, pause=1)
    async with running(app, db_url) as one:
        await apg.execute(
            "update worker.gates set opened_at = now(), open_until = now(),"
            " full_at = now() + interval '6 s'; notify duerow_gates"
        )
        [first] = await put(apg, "send")
        await apg.execute("notify duerow, 'default'")
        await until(lambda: one.worker.parts.loop.buffered)
        await apg.execute("delete from worker.jobs where id = $1", first)
        one.worker.parts.loop._release_buffer()
        await apg.execute("update worker.gates set full_at = now(); notify duerow_gates")
        [second] = await put(apg, "send")
        await apg.execute("notify duerow, 'default'")
        await until(lambda: second in ran)
        await until(lambda: apg.fetchval("select opened_at is null from worker.gates"))


async def test_tenants_whose_gates_are_being_made_are_asked_again(
    db_url: str, apg: asyncpg.Connection
) -> None:
    """Another worker's transaction makes the tenant's gate while ours wants to."""
    app = App()
    ran: list[str | None] = []

    @app.handler
    async def send(context: Context) -> None:
        ran.append(context.row.tenant)

    app.limit(kind="send", each_tenant=True, concurrency=5)
    async with running(app, db_url, poll_interval=20.0, poll_max=20.0) as one:
        await until(lambda: apg.fetchval("select count(*) = 1 from worker.gates"))
        await until(lambda: one.worker.parts.gates._gates)
        transaction = apg.transaction()
        await transaction.start()
        await apg.execute("insert into worker.gates (kind, tenant) values ('send', 'new')")
        other = await asyncpg.connect(db_url)
        try:
            await put(other, "send", tenant="new")
            await other.execute("notify duerow, 'default'")
            await until(
                lambda: other.fetchval(
                    "select exists (select from pg_stat_activity where wait_event_type = 'Lock'"
                    " and datname = current_database())"
                )
            )
            await transaction.commit()
            await until(lambda: ran, 12)
        finally:
            await other.close()
