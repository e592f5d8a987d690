"""Several sources in one worker: none starves another, none that is broken stops another."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from tests.adopted import DONATIONS, Donation, adopt, ghost, in_flight, make_donations, outcomes
from tests.facts import until
from tests.workers import drained, put, running
from worker import App, Context
from worker.errors import NotFound, RegistrationError, UsageError
from worker.events import (
    RowLost,
    RowSettled,
    RowSwept,
    ServiceFailed,
    SourceCaution,
    SourceFailed,
    WorkerStarted,
)

HOUR = dt.timedelta(hours=1)


@contextlib.asynccontextmanager
async def locked(db_url: str, table: str) -> AsyncIterator[None]:
    """Nobody else can so much as read the table during the block."""
    other = await asyncpg.connect(db_url)
    async with other.transaction():
        await other.execute(f"lock table {table} in access exclusive mode")
        yield
    await other.close()


async def another_table(apg: asyncpg.Connection, name: str, rows: int = 0) -> None:
    await apg.execute(DONATIONS.replace("table donations", f"table {name}"))
    await adopt(apg, name)
    await apg.execute(f"insert into {name} (amount) select i from generate_series(1, $1) i", rows)


def two_and_jobs(**options: Any) -> tuple[App, dict[str, list[Any]]]:
    """An app of two tables and a job, and what ran of each, in order."""
    app = App()
    ran: dict[str, list[Any]] = {"donations": [], "refunds": [], "note": []}

    @app.rows("donations", due="next_at", **options)
    async def charge(row: Donation) -> None:
        ran["donations"].append(row.id)

    @app.rows("refunds", due="next_at", **options)
    async def refund(row: Donation) -> None:
        ran["refunds"].append(row.id)

    @app.handler
    async def note(context: Context) -> None:
        ran["note"].append(context.id)

    return app, ran


async def test_a_backlog_of_one_starves_no_other(db_url: str, apg: asyncpg.Connection) -> None:
    """One slot: whoever falls due behind a long backlog still gets its turn."""
    await make_donations(apg, 3000)
    await another_table(apg, "refunds", 20)
    await put(apg, "note", count=20)
    app, ran = two_and_jobs()
    order: list[str] = []

    @app.observe
    def watch(event: Any) -> None:
        if isinstance(event, RowSettled):
            order.append(event.row.source)

    async with running(app, db_url, concurrency=1, claim_batch=20):
        await until(lambda: len(ran["refunds"]) == len(ran["note"]) == 20, within=30)
        done = len(ran["donations"])
    assert 0 < done < 1500, "they did not wait for the end of the backlog"


async def test_a_pause_is_of_one_source(db_url: str, apg: asyncpg.Connection) -> None:
    await make_donations(apg, 5)
    await another_table(apg, "refunds", 5)
    await apg.execute("insert into worker.gates (queue, paused_at) values ('donations', now())")
    app, ran = two_and_jobs()
    async with running(app, db_url):
        await until(lambda: len(ran["refunds"]) == 5)
        assert ran["donations"] == []
        await apg.execute("delete from worker.gates; notify duerow, 'donations'")
        await until(lambda: len(ran["donations"]) == 5)


async def test_what_is_in_flight_when_its_source_is_paused_is_settled(
    db_url: str, apg: asyncpg.Connection
) -> None:
    await make_donations(apg, 1)
    app, started, go = App(), asyncio.Event(), asyncio.Event()

    @app.rows("donations", due="next_at", every=HOUR)
    async def charge(row: Donation) -> None:
        started.set()
        await go.wait()

    async with running(app, db_url) as worker:
        await started.wait()
        await apg.execute("insert into worker.gates (queue, paused_at) values ('donations', now())")
        go.set()
        await until(lambda: worker.seen.of(RowSettled))
    assert await in_flight(apg) == 0


async def test_only_the_queues_that_a_worker_serves(db_url: str, apg: asyncpg.Connection) -> None:
    from worker.drain import Budget
    from worker.runtime import Worker
    from worker.settings import Settings
    from worker.url import DatabaseURL

    await make_donations(apg, 3)
    await another_table(apg, "refunds", 3)
    app, ran = two_and_jobs()
    url, settings = DatabaseURL.parse(db_url), Settings.load()
    await Worker(app, settings, url, queues=("refunds",)).run(drain=Budget())
    assert (len(ran["donations"]), len(ran["refunds"])) == (0, 3)


# -- broken tables --------------------------------------------------------------------------------


async def test_a_locked_table(db_url: str, apg: asyncpg.Connection) -> None:
    """Told of, and left alone for a while; the others go on, and so does it once it is free. What
    was in flight is settled then."""
    await make_donations(apg, 3)
    await another_table(apg, "refunds", 3)
    app, go = App(), asyncio.Event()
    ran: dict[str, list[int]] = {"donations": [], "refunds": []}

    @app.rows("donations", due="next_at", every=HOUR)
    async def charge(row: Donation) -> None:
        ran["donations"].append(row.id)
        if row.id == 1:
            await go.wait()

    @app.rows("refunds", due="next_at", every=HOUR)
    async def refund(row: Donation) -> None:
        ran["refunds"].append(row.id)

    async with running(app, db_url, concurrency=8) as worker:
        await until(lambda: len(worker.seen.of(RowSettled)) == 5)
        async with locked(db_url, "donations"):
            go.set()
            [failed, *_] = await until(lambda: worker.seen.of(SourceFailed))
            assert failed.source == "donations"
            assert "canceling statement due to lock timeout" in failed.why
            for n in (1, 2, 3):
                await apg.execute("update refunds set next_at = now() where id = $1", n)
                await until(lambda n=n: len(ran["refunds"]) == 3 + n)
            await until(lambda: len(worker.seen.of(RowSettled)) == 8)
        await until(lambda: len(worker.seen.of(RowSettled)) == 9)
        await apg.execute("update donations set next_at = now() where id = 2")
        await until(lambda: len(ran["donations"]) == 4)
        assert not worker.seen.of(ServiceFailed)
    assert await in_flight(apg) == 0


async def test_a_column_dropped_mid_run(db_url: str, apg: asyncpg.Connection) -> None:
    await make_donations(apg, 2)
    await another_table(apg, "refunds", 2)
    app, ran = two_and_jobs(every=HOUR)
    async with running(app, db_url) as worker:
        await until(lambda: len(worker.seen.of(RowSettled)) == 4)
        await apg.execute("alter table donations rename amount to cents")
        await apg.execute("update donations set next_at = now()")
        [failed, *_] = await until(lambda: worker.seen.of(SourceFailed))
        assert (failed.source, failed.why) == (
            "donations",
            "UndefinedColumnError: column t.amount does not exist",
        )
        assert 0 < failed.retry_in <= 30
        await apg.execute("update refunds set next_at = now()")
        await until(lambda: len(ran["refunds"]) == 4)
        await apg.execute("alter table donations rename cents to amount")
        await until(lambda: len(ran["donations"]) == 4)
        assert not worker.seen.of(ServiceFailed)


async def test_a_trigger_that_refuses_the_claim_of_one_row(
    db_url: str, apg: asyncpg.Connection
) -> None:
    """It holds up its own table alone, in its own words, until it is mended."""
    await make_donations(apg, 3)
    await another_table(apg, "refunds", 1)
    await apg.execute(
        "create function closed() returns trigger language plpgsql as"
        " $$ begin raise 'the books of donation % are closed', old.id; end $$;"
        "create trigger closed before update on donations for each row"
        " when (old.id = 1) execute function closed()"
    )
    app, ran = two_and_jobs(every=HOUR)
    async with running(app, db_url) as worker:
        [failed, *_] = await until(lambda: worker.seen.of(SourceFailed))
        assert (failed.source, failed.why) == (
            "donations",
            "RaiseError: the books of donation 1 are closed",
        )
        await until(lambda: ran["refunds"] == [1])
        assert 1 not in ran["donations"]
        await apg.execute("drop trigger closed on donations")
        await until(lambda: sorted(ran["donations"]) == [1, 2, 3])
        assert not worker.seen.of(ServiceFailed)


LOST = {
    "a column of ours": (
        "alter table donations drop duerow_error",
        "alter table donations add duerow_error text",
    ),
    "the due column": (
        "alter table donations rename next_at to gone",
        "alter table donations rename gone to next_at",
    ),
    "the table": (
        "drop table donations",
        "create table donations as select *, null::bigint as duerow_owner, 0::bigint as"
        " duerow_token, 0 as duerow_attempt, 0::smallint as duerow_crashes,"
        " null::timestamptz as duerow_claimed_at, null::timestamptz as duerow_retry_at,"
        " null::timestamptz as duerow_held_for, null as duerow_state, null as duerow_error"
        " from (select 7::bigint as id, null::timestamptz as next_at, 1 as amount) rows",
    ),
}


@pytest.mark.parametrize("lost", LOST)
async def test_what_a_result_needs_dropped_mid_run(
    db_url: str, apg: asyncpg.Connection, lost: str
) -> None:
    """The results of the other sources are written, nothing more is claimed of this one, and its
    result is written once that can be."""
    await make_donations(apg, 1)
    await another_table(apg, "refunds", 1)
    app, go = App(), asyncio.Event()

    @app.rows("donations", due="next_at", every=HOUR)
    async def charge(row: Donation) -> None:
        await go.wait()

    @app.rows("refunds", due="next_at", every=HOUR)
    async def refund(row: Donation) -> None: ...

    async with running(app, db_url) as worker:
        await until(lambda: worker.worker.running and worker.seen.of(RowSettled))
        break_it, mend_it = LOST[lost]
        await apg.execute(break_it)
        go.set()
        await until(lambda: worker.seen.of(SourceFailed))
        await apg.execute("update refunds set next_at = now()")
        await until(lambda: len(worker.seen.of(RowSettled)) == 2)
        assert worker.worker.parts.settler.pending == 1
        await apg.execute(mend_it)
        await until(lambda: len(worker.seen.of(RowSettled)) == 3)
        assert await outcomes(apg) == [(1, "done")] * 3, "of row 1 of either table"
        assert not worker.seen.of(ServiceFailed) + worker.seen.of(RowLost)


async def test_a_source_that_is_broken_while_its_claims_are_unsure(
    db_url: str, apg: asyncpg.Connection
) -> None:
    """An answer was lost, and then the table was locked: the others are claimed all the same."""
    await make_donations(apg, 1)
    await another_table(apg, "refunds", 1)
    app, ran = two_and_jobs(every=HOUR)
    async with running(app, db_url) as worker:
        await until(lambda: len(worker.seen.of(RowSettled)) == 2)
        async with locked(db_url, "donations"):
            await until(lambda: worker.seen.of(SourceFailed))
            for claimer in worker.worker.parts.loop._claimer._claimers:
                if claimer.name == "donations":
                    claimer.unsure, claimer.rests_until = True, 0.0
            await apg.execute("update refunds set next_at = now()")
            await until(lambda: len(ran["refunds"]) == 2)
        await apg.execute("update donations set next_at = now()")
        await until(lambda: len(ran["donations"]) == 2)
        assert not worker.seen.of(ServiceFailed)


@pytest.mark.parametrize(
    ("type_", "value"),
    [("date", "0044-03-15 BC"), ("timestamptz", "20260-01-01"), ("time", "24:00:00")],
)
async def test_a_value_that_the_driver_cannot_read(
    db_url: str, apg: asyncpg.Connection, type_: str, value: str
) -> None:
    """Its row is dead, with the reason; the others run."""
    await make_donations(apg, 5)
    await apg.execute(f"alter table donations add odd {type_}")
    await apg.execute(f"update donations set odd = '{value}' where id = 2")
    app, ran = App(), []

    @app.rows("donations", due="next_at")
    async def charge(row: dict[str, Any]) -> None:
        ran.append(row["id"])

    await drained(app, db_url)
    assert sorted(ran) == [1, 3, 4, 5]
    [row] = await apg.fetch(
        "select duerow_state, duerow_error, duerow_owner from donations where id = 2"
    )
    assert (row["duerow_state"], row["duerow_owner"]) == ("dead", None)
    assert "odd" in row["duerow_error"]


# -- at start -------------------------------------------------------------------------------------


def handler_of(app: App, name: str, **options: Any) -> None:
    @app.rows(name, **{"due": "next_at", **options})
    async def handle(row: dict[str, Any]) -> None: ...


@pytest.mark.parametrize(
    ("change", "options", "what"),
    [
        ("drop table donations", {}, "there is no table donations"),
        ("alter table donations rename to gone", {}, "there is no table donations"),
        ("select 1", {"due": "nextat"}, "has no column 'nextat'"),
        ("select 1", {"key": "amount"}, "'amount' of donations may be null|is not unique"),
        ("alter table donations drop duerow_error", {}, "donations lacks duerow_error"),
        ("drop index duerow_due_donations", {}, "lacks the index duerow_due_donations"),
        ("select 1", {"where": "status = 'active'"}, "is for another due column or condition"),
        ("create view v as select * from donations", {"table": "v"}, "v is a view"),
    ],
)
async def test_a_table_that_cannot_be_claimed_from_is_told_of_at_start(
    db_url: str, apg: asyncpg.Connection, change: str, options: dict[str, Any], what: str
) -> None:
    await make_donations(apg)
    await apg.execute(change)
    app = App()
    handler_of(app, "donations", **options)
    with pytest.raises((RegistrationError, NotFound, UsageError), match=what) as raised:
        await drained(app, db_url)
    assert raised.value.hint


@pytest.mark.parametrize(
    ("listed", "what", "why"),
    [
        (None, "worker.sources does not list 'donations'", "audits do not look at it"),
        ("id", "describes 'donations' differently", "due is 'id' there, 'next_at' here"),
        ("next_at", "row level security of public.donations applies to role clerk", "never"),
    ],
)
async def test_what_keeps_no_row_from_running_is_told_of_at_start(
    db_url: str, apg: asyncpg.Connection, listed: str | None, what: str, why: str
) -> None:
    await make_donations(apg, 1)
    if listed:
        await apg.execute(
            "insert into worker.sources (name, table_oid, table_name, key, due, index_name) values"
            " ('donations', 'donations'::regclass, 'public.donations', '{id}', $1,"
            " 'duerow_due_donations')",
            listed,
        )
    async with contextlib.AsyncExitStack() as stack:
        if "role clerk" in what:
            role = await stack.enter_async_context(a_clerk(apg))
            db_url, what = db_url.replace("duerow@", f"{role}@"), what.replace("clerk", role)
        app = App()
        handler_of(app, "donations")
        one = await drained(app, db_url)
    [caution] = one.seen.of(SourceCaution)
    assert what in caution.what
    assert why in caution.why
    assert caution.next
    assert [type(event) for event in one.seen.events[:2]] == [WorkerStarted, SourceCaution]
    assert len(one.seen.of(RowSettled)) == 1


@contextlib.asynccontextmanager
async def a_clerk(apg: asyncpg.Connection) -> AsyncIterator[str]:
    """A role to whom policies apply; they hide nothing from it."""
    role = f"clerk_{uuid.uuid4().hex[:8]}"
    await apg.execute(
        f"create role {role} login; grant usage on schema worker to {role};"
        f"grant all on all tables in schema public, worker to {role};"
        f"grant all on all sequences in schema public, worker to {role};"
        "alter table donations enable row level security;"
        f"create policy own on donations to {role} using (true)"
    )
    try:
        yield role
    finally:
        await apg.execute(f"drop owned by {role}; drop role {role}")


async def test_sessions_that_it_may_not_end_keep_no_row_from_its_return(
    db_url: str, apg: asyncpg.Connection
) -> None:
    """Of a dead worker, whose handlers may have left some behind."""
    await make_donations(apg, 2)
    dead = await ghost(apg)
    await apg.execute("update donations set duerow_owner = $1, duerow_token = 1", dead)
    await apg.execute("revoke execute on function pg_terminate_backend from public")
    app = App()
    handler_of(app, "donations")
    async with a_clerk(apg) as role:
        async with running(app, db_url.replace("duerow@", f"{role}@")) as one:
            await until(lambda: len(one.seen.of(RowSettled)) == 2)
        assert len(one.seen.of(RowSwept)) == 2
        [failed, *_] = one.seen.of(SourceFailed)
        assert failed.source == "donations"
        assert "permission denied for function pg_terminate_backend" in failed.why


async def test_two_handlers_of_one_table(db_url: str, apg: asyncpg.Connection) -> None:
    await make_donations(apg)
    app = App()
    handler_of(app, "donations")
    handler_of(app, "others", table="public.donations")
    with pytest.raises(RegistrationError, match="'donations' and 'others' are the same table"):
        await drained(app, db_url)


def test_a_source_called_jobs() -> None:
    with pytest.raises(RegistrationError, match="cannot be called 'jobs'"):
        handler_of(App(), "jobs")


async def test_a_table_called_jobs(db_url: str, apg: asyncpg.Connection) -> None:
    await another_table(apg, "jobs", 2)
    [key] = await put(apg, "note")
    app, ran = App(), []

    @app.rows("my_jobs", table="jobs", due="next_at")
    async def work(row: Donation) -> None:
        ran.append(row.id)

    @app.handler
    async def note() -> None:
        ran.append("note")

    await drained(app, db_url)
    assert sorted(ran, key=str) == [1, 2, "note"]
    assert key
