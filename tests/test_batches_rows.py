"""Batches of rows of a user's own table."""

from __future__ import annotations

import datetime as dt

import asyncpg
import pytest
import tenacity

from tests.adopted import Donation, make_donations, one, outcomes
from tests.facts import until
from tests.workers import drained, running
from worker import App, Batch, Batching, Dead, Retry, RetryPolicy
from worker.errors import RegistrationError
from worker.events import RowLost

ONCE = RetryPolicy(stop=tenacity.stop_after_attempt(1))


async def test_each_row_has_its_own_answer(db_url: str, apg: asyncpg.Connection) -> None:
    await make_donations(apg, 6)
    app = App()
    calls: list[int] = []
    keys: set[str] = set()
    later = dt.datetime(2099, 5, 1, tzinfo=dt.UTC)

    @app.rows("donations", due="next_at", every=3600, batch=50, retry=ONCE)
    async def charge(batch: Batch[Donation]) -> None:
        calls.append(len(batch))
        for donation in batch:
            keys.add(donation.context.idempotency_key)
            match donation.data.amount:
                case 1:
                    donation.done()
                case 2:
                    donation.done(later)
                case 3:
                    donation.done(dt.timedelta(days=1))
                case 4:
                    donation.settle(Retry("the bank is busy", after=60))
                case 5:
                    donation.settle(Dead("the card is stolen"))

    await drained(app, db_url)
    assert calls == [6]
    assert len(keys) == 6
    told = [(await outcomes(apg, key))[0] for key in range(1, 7)]
    assert [outcome for _, outcome in told] == ["done", "done", "done", "dead", "dead", "dead"]
    assert (await one(apg, 2))["next_at"] == later
    [ahead] = await apg.fetchrow("select next_at - now() from donations where id = 3")
    assert dt.timedelta(hours=23) < ahead <= dt.timedelta(days=1)
    [ahead] = await apg.fetchrow("select next_at - now() from donations where id = 1")
    assert dt.timedelta(minutes=55) < ahead <= dt.timedelta(hours=1)
    assert "without an answer" in (await one(apg, 6))["duerow_error"]


async def test_of_one_tenant_each(db_url: str, apg: asyncpg.Connection) -> None:
    await make_donations(apg, 30)
    app = App()
    calls: list[tuple[set[str | None], int]] = []

    @app.rows("donations", due="next_at", tenant="org", batch=Batching(size=10, by_tenant=True))
    def charge(batch: Batch[Donation]) -> None:
        calls.append(({item.context.tenant for item in batch}, len(batch)))
        for donation in batch:
            donation.done()

    await drained(app, db_url, claim_batch=500)
    assert {tenant for tenants, _ in calls for tenant in tenants} == {"org 0", "org 1", "org 2"}
    assert all(len(tenants) == 1 for tenants, _ in calls)
    assert sum(count for _, count in calls) == 30


async def test_with_a_session_one_lost_claim_rolls_all_back(
    db_url: str, apg: asyncpg.Connection
) -> None:
    await make_donations(apg, 3)
    await apg.execute("create table ledger (donation bigint)")
    app = App()
    calls: list[int] = []
    gone = False

    @app.rows("donations", due="next_at", batch=10)
    async def charge(batch: Batch[Donation], session: asyncpg.Connection) -> None:
        calls.append(len(batch))
        for donation in batch:
            await session.execute("insert into ledger values ($1)", donation.data.id)
            donation.done()
        await until(lambda: gone)

    async with running(app, db_url) as worker:
        await until(lambda: calls)
        await apg.execute(
            "update donations set duerow_token = duerow_token + 1, duerow_owner = 4711,"
            " next_at = null where id = 2"
        )
        gone = True
        await until(lambda: len(calls) == 2)
        await until(lambda: _never_again(apg))
        assert [event.row.key for event in worker.seen.of(RowLost)] == [2]
    assert calls == [3, 2]
    assert await apg.fetch("select * from ledger order by 1") == [(1,), (3,)]


async def _never_again(connection: asyncpg.Connection) -> bool:
    return bool(await connection.fetchval("select bool_and(next_at is null) from donations"))


def test_the_row_type_is_checked_as_for_single_rows() -> None:
    app = App()
    with pytest.raises(RegistrationError, match="asks for its row as"):

        @app.rows("donations", due="next_at", batch=10)
        async def charge(batch: Batch[int]) -> None: ...
