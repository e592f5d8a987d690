"""Gates before the rows of a user's own table."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import asyncpg
import pytest

from tests.adopted import Donation, in_flight, make_donations, one
from tests.adoption import adopt
from tests.facts import until
from tests.workers import drained, running
from worker import App, Context, Throttled


class Counted:
    """An app for `donations` that counts its runs, and how many there are at once."""

    def __init__(self, seconds: float = 0.02, **options: object) -> None:
        self.app = App()
        self.now: Counter[str | None] = Counter()
        self.most: Counter[str | None] = Counter()
        self.at: list[float] = []
        self.slow = False

        @self.app.rows("donations", due="next_at", **options)  # type: ignore[arg-type]
        async def charge(donation: Donation, context: Context) -> None:
            tenant = context.row.tenant
            self.at.append(time.monotonic())
            self.now[tenant] += 1
            self.now["all"] += 1
            self.most |= self.now
            try:
                await asyncio.sleep(seconds)
                if self.slow and tenant == "org 1":
                    raise Throttled(retry_after=60)
            finally:
                self.now[tenant] -= 1
                self.now["all"] -= 1


async def test_a_concurrency_limit_is_kept_by_two_workers(
    apg: asyncpg.Connection, db_url: str
) -> None:
    await make_donations(apg, 40)
    counted = Counted()
    counted.app.limit(kind="donations", concurrency=3)
    async with running(counted.app, db_url), running(counted.app, db_url):
        await until(lambda: len(counted.at) == 40)
    assert counted.most["all"] == 3
    assert await apg.fetchval("select sum(in_use) from worker.gates") == 0


async def test_a_rate_is_kept_and_a_drain_waits_for_it(
    apg: asyncpg.Connection, db_url: str
) -> None:
    await make_donations(apg, 40)
    counted = Counted(0.0)
    counted.app.limit(queue="donations", rate=40, burst=4)
    began = time.monotonic()
    await drained(counted.app, db_url)
    assert time.monotonic() - began < 20, "it ends when nothing is due, not when its time is up"
    assert len(counted.at) == 40
    for i, first in enumerate(counted.at):
        assert sum(1 for at in counted.at[i:] if at < first + 1) <= 44


async def test_a_drain_ends_under_a_limit_that_nobody_waits_for(
    apg: asyncpg.Connection, db_url: str
) -> None:
    await make_donations(apg, 10)
    counted = Counted()
    counted.app.limit(kind="donations", concurrency=2)
    began = time.monotonic()
    await drained(counted.app, db_url)
    assert time.monotonic() - began < 20, "it ends when nothing is due, not when its time is up"
    assert (len(counted.at), counted.most["all"]) == (10, 2)


@pytest.mark.parametrize("per_tenant", [None, 5])
async def test_each_tenant_has_its_own(
    apg: asyncpg.Connection, db_url: str, per_tenant: int | None
) -> None:
    await apg.execute(
        "create table donations (id bigint generated always as identity primary key,"
        " next_at timestamptz default now(), amount integer default 1, org text)"
    )
    flags = ["--per-tenant"] if per_tenant else []
    adopt(db_url, "donations", "--due", "next_at", "--tenant", "org", *flags)
    await apg.execute(
        "insert into donations (org) select 'org ' || i % 3 from generate_series(1, 60) i"
    )
    await apg.execute("insert into donations (org) select null from generate_series(1, 10)")
    counted = Counted(tenant="org", per_tenant=per_tenant)
    counted.app.limit(kind="donations", each_tenant=True, concurrency=2)
    async with running(counted.app, db_url, concurrency=10) as first:
        async with running(counted.app, db_url, concurrency=10):
            await until(lambda: len(counted.at) == 70)
        await until(lambda: not first.worker.running)
    assert [counted.most[f"org {n}"] for n in range(3)] == [2, 2, 2]
    assert counted.most[None] > 2, "rows without a tenant have no limit of a tenant's"


async def test_a_throttled_tenant_is_left_alone_at_no_attempt(
    apg: asyncpg.Connection, db_url: str
) -> None:
    await make_donations(apg, 60)
    counted = Counted(0.1, tenant="org")
    counted.slow = True
    async with running(counted.app, db_url, concurrency=3) as first:
        await until(
            lambda: apg.fetchval("select count(*) = 40 from donations where next_at is null")
        )
        await until(lambda: not first.worker.running)
        await until(lambda: first.worker.parts.settler.idle.is_set())
    left = await apg.fetch("select org, duerow_attempt from donations where next_at is not null")
    assert {(record["org"], record["duerow_attempt"]) for record in left} == {("org 1", 0)}
    assert len(counted.at) < 60, "those that waited were not tried"
    assert await in_flight(apg) == 0


@pytest.mark.parametrize("scope", ["queue", "kind"])
async def test_a_pause_holds_and_is_heard(apg: asyncpg.Connection, db_url: str, scope: str) -> None:
    await make_donations(apg, 1)
    await apg.execute(f"insert into worker.gates ({scope}, paused_at) values ('donations', now())")
    counted = Counted()
    async with running(counted.app, db_url) as first:
        await until(lambda: first.worker.parts.gates._gates)
        assert await in_flight(apg) == 0
        await apg.execute("update worker.gates set paused_at = null; notify duerow_gates")
        await until(lambda: counted.at)
    assert (await one(apg))["next_at"] is None


async def test_a_breaker_opens(apg: asyncpg.Connection, db_url: str) -> None:
    await make_donations(apg, 50)
    app, calls = App(), 0

    @app.rows("donations", due="next_at")
    async def charge(donation: Donation) -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.05)
        raise ConnectionError("no route")

    app.breaker(kind="donations", failures=5, pause=60)
    async with running(app, db_url, concurrency=1) as first:
        await until(lambda: apg.fetchval("select opened_at is not null from worker.gates"))
        await until(lambda: not first.worker.running)
        before = calls
        await apg.execute("notify duerow, 'donations'")
        await until(lambda: not first.worker.parts.loop.buffered)
    assert 5 <= calls == before < 50
