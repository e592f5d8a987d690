"""Handlers that run too long, or are asked to end: their slot is free and their row is settled."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import tenacity

from tests.facts import alone, until
from tests.workers import job, put, running
from worker import App, Context, Retry, RetryPolicy
from worker.events import RowAbandoned, RowLost, RowSettled, ServiceFailed, WorkerDraining

ONCE = RetryPolicy(stop=tenacity.stop_after_attempt(1))
BRIEF = 1.0  # seconds; in less a busy machine may not have begun the handler


@pytest.fixture
async def release() -> AsyncIterator[threading.Event]:
    """Set at the end at the latest: nothing may outlive its test."""
    event = threading.Event()
    yield event
    event.set()


def hanging(app: App, kind: str, release: threading.Event) -> list[str]:
    """Registers a handler that does not end by itself in a way of its own; what it noted."""
    noted: list[str] = []

    @app.handler("cooperates", timeout=BRIEF, retry=ONCE)
    async def cooperates() -> None:
        noted.append("begun")
        try:
            await asyncio.sleep(60)
        finally:
            noted.append("ended")

    @app.handler("swallows", timeout=BRIEF, retry=ONCE)
    async def swallows() -> str:
        noted.append("begun")
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)
        noted.append("ended")
        return "too late"

    @app.handler("sleeps in C", timeout=BRIEF, retry=ONCE)
    def sleeps() -> str:
        noted.append("begun")
        try:
            release.wait(20)
        finally:
            noted.append("ended")
        return "too late"

    @app.handler("spins", timeout=BRIEF, retry=ONCE)
    def spins() -> None:
        noted.append("begun")
        try:
            while True:
                sum(range(100))
        finally:
            noted.append("ended")

    assert kind in app.registry
    return noted


@pytest.mark.parametrize("kind", ["cooperates", "swallows", "sleeps in C", "spins"])
async def test_a_timeout_frees_the_slot(
    db_url: str, apg: asyncpg.Connection, kind: str, release: threading.Event
) -> None:
    """With one slot: the next row can only run in that of the first."""
    app = App()
    noted = hanging(app, kind, release)

    @app.handler
    async def following() -> None:
        noted.append("following")

    [key] = await put(apg, kind)
    [next_] = await put(apg, "following", priority=1)
    async with running(app, db_url, concurrency=1) as one:
        await until(lambda: "following" in noted and len(one.seen.of(RowSettled)) == 2)
        ends_by_itself = kind in ("cooperates", "spins")
        assert noted == ["begun", *(["ended"] if ends_by_itself else []), "following"]
        assert len(one.seen.of(RowAbandoned)) == (0 if ends_by_itself else 1)
        row = await job(apg, key)
        assert (row["state"], row["attempt"]) == ("dead", 1)
        assert row["last_error"] == f"the handler of '{kind}' ran longer than its timeout allows"
        assert 1000 * BRIEF <= row["run_ms"] < 20_000
        before = await apg.fetch("select * from worker.all_jobs order by id")

        release.set()  # what it answers now is nobody's concern
        await until(lambda: "ended" in noted)
        await until(lambda: one.worker.parts.settler.idle.is_set())
        assert await apg.fetch("select * from worker.all_jobs order by id") == before
        assert (await job(apg, next_))["state"] == "done"
        assert not one.seen.of(ServiceFailed)
    assert one.report is not None
    assert (one.report.settled, one.report.lost) == (2, 0)


@pytest.mark.parametrize(
    "retry_if",
    [tenacity.retry_if_exception_type(), tenacity.retry_if_exception_type((TimeoutError,))],
)
async def test_a_timed_out_row_is_tried_again(
    db_url: str, apg: asyncpg.Connection, retry_if: tenacity.retry_base
) -> None:
    app = App()
    policy = RetryPolicy(
        wait=tenacity.wait_none(), stop=tenacity.stop_after_attempt(3), retry_if=retry_if
    )

    @app.handler(timeout=0.5, retry=policy)
    async def slow(context: Context) -> int:
        if context.attempt < 3:
            await asyncio.sleep(60)
        return context.attempt

    [key] = await put(apg, "slow")
    async with running(app, db_url):
        await until(lambda: apg.fetchval("select result = '3' from worker.jobs_finished"))
    outcomes = await apg.fetch("select outcome, error_type from worker.attempts order by token")
    assert [tuple(o) for o in outcomes] == [("retry", "HandlerTimeout")] * 2
    assert (await job(apg, key))["attempt"] == 3


async def test_a_handler_may_use_its_last_moments(db_url: str, apg: asyncpg.Connection) -> None:
    """One that notices and returns in time has not failed."""
    app = App()

    @app.handler(timeout=BRIEF, retry=ONCE)
    async def saves() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "saved"
        return "never"

    @app.handler(timeout=BRIEF, retry=ONCE)
    def watches(context: Context) -> bool:
        return context.wait_cancelled(60)

    await put(apg, "saves")
    await put(apg, "watches")
    async with running(app, db_url) as one:
        await until(lambda: len(one.seen.of(RowSettled)) == 2)
    rows = await apg.fetch("select kind, state, result from worker.all_jobs order by kind")
    assert [tuple(row) for row in rows] == [
        ("saves", "done", '"saved"'),
        ("watches", "done", "true"),
    ]


async def test_what_a_cancelled_handler_raises_instead_is_its_timeout(
    db_url: str, apg: asyncpg.Connection
) -> None:
    app = App()

    @app.handler(timeout=0.1, retry=ONCE)
    async def odd() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise Retry("please", after=0)

    [key] = await put(apg, "odd")
    async with running(app, db_url) as one:
        await until(lambda: one.seen.of(RowSettled))
    assert (await job(apg, key))["state"] == "dead"


async def test_no_timeout(db_url: str, apg: asyncpg.Connection) -> None:
    app, release = App(), asyncio.Event()

    @app.handler(timeout=0)
    async def long() -> None:
        await release.wait()

    @app.handler(timeout=0.1, retry=ONCE)
    async def short() -> None:
        await asyncio.sleep(60)

    [key] = await put(apg, "long")
    await put(apg, "short")
    async with running(app, db_url, timeout=0.1) as one:
        await until(lambda: one.seen.of(RowSettled))
        assert (await job(apg, key))["state"] == "running"
        release.set()
        await until(lambda: len(one.seen.of(RowSettled)) == 2)
    assert (await job(apg, key))["state"] == "done"


async def test_the_workers_own_timeout(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()

    @app.handler(retry=ONCE)
    async def slow() -> None:
        await asyncio.sleep(60)

    await put(apg, "slow")
    async with running(app, db_url, timeout=0.2) as one:
        await until(lambda: one.seen.of(RowSettled))
    [settled] = one.seen.of(RowSettled)
    assert 0.2 <= settled.seconds < 30


async def test_every_slot_can_be_abandoned_many_times(
    db_url: str, apg: asyncpg.Connection, release: threading.Event
) -> None:
    app = App()
    ran: list[int] = []

    @app.handler(timeout=0.5, retry=ONCE)
    def stuck(n: int) -> None:
        ran.append(n)
        release.wait(30)

    await apg.execute(
        "insert into worker.jobs (kind, args) select 'stuck', jsonb_build_object('n', n)"
        " from generate_series(1, 24) n"
    )
    async with running(app, db_url, concurrency=8) as one:
        await until(lambda: len(one.seen.of(RowSettled)) == 24)
        release.set()
    assert len({settled.row.key for settled in one.seen.of(RowSettled)}) == 24
    # On a busy machine the time of some is up before their thread has begun.
    assert 8 < len(ran) == len(set(ran)), "a slot that was abandoned is used again"
    assert 8 < len(one.seen.of(RowAbandoned)) <= 24


@pytest.mark.parametrize("kind", ["cooperates", "swallows", "sleeps in C", "spins"])
async def test_a_stop_gives_running_rows_back(
    db_url: str, apg: asyncpg.Connection, kind: str, release: threading.Event
) -> None:
    app = App()
    noted = hanging(app, kind, release)
    app.registry.get(kind)
    [key] = await put(apg, kind)
    object.__setattr__(app.registry.get(kind), "timeout", 0)
    async with running(app, db_url, concurrency=1, grace=4.0) as one:
        await until(lambda: noted)
        began = time.monotonic()
        report = await one.stop()
        assert time.monotonic() - began < 15.0, "not for as long as the handler would take"
        row = await job(apg, key)
        assert (row["state"], row["attempt"], row["worker"]) == ("due", 0, None)
        assert (report.code, report.released, report.lost) == (9, 1, 0)
        release.set()
    await alone()
    [record] = await apg.fetch("select outcome, attempt, message from worker.attempts")
    assert tuple(record) == ("released", 1, "the worker stopped")


async def test_a_stop_waits_for_what_ends_in_time(db_url: str, apg: asyncpg.Connection) -> None:
    app, release = App(), asyncio.Event()

    @app.handler
    async def brief() -> None:
        await release.wait()

    [key] = await put(apg, "brief")
    await put(apg, "brief", count=20)
    async with running(app, db_url, concurrency=1) as one:
        await until(lambda: one.worker.running)
        stopping = asyncio.create_task(one.stop())
        await until(lambda: one.seen.of(WorkerDraining))
        release.set()
        report = await stopping
    assert (report.code, report.settled) == (0, 1)
    assert (await job(apg, key))["state"] == "done"
    states = await apg.fetch(
        "select distinct state, attempt, worker from worker.all_jobs where id <> $1", key
    )
    assert [tuple(state) for state in states] == [("due", 0, None)]


async def test_a_stop_while_a_timeout_is_being_waited_out(
    db_url: str, apg: asyncpg.Connection, release: threading.Event
) -> None:
    """The grace is shorter than the patience with a handler that does not end."""
    app = App()
    hanging(app, "swallows", release)
    [key] = await put(apg, "swallows")
    async with running(app, db_url, concurrency=1, grace=1.9) as one:

        def timed_out() -> bool:  # abandoned before we saw it, if the machine stood still
            runs = one.worker.running
            return bool((runs and runs[0].reason == "timeout") or one.seen.of(RowSettled))

        await until(timed_out)
        await one.stop()
        row = await job(apg, key)
        release.set()
    await alone()
    assert (row["state"], row["attempt"]) == ("dead", 1)


async def test_a_stop_that_the_event_loop_hears_of_late_gives_running_rows_back(
    db_url: str, apg: asyncpg.Connection
) -> None:
    """A machine that stood still, or a handler that blocked the loop, until the grace was over."""
    app = App()

    @app.handler
    async def long() -> None:
        await asyncio.sleep(60)

    [key] = await put(apg, "long")
    async with running(app, db_url, grace=1.0) as one:
        await until(lambda: one.worker.running)
        stopping = asyncio.create_task(one.stop())
        await until(lambda: one.seen.of(WorkerDraining))
        time.sleep(1.1)  # noqa: ASYNC251
        report = await stopping
    assert (report.code, report.released, report.lost) == (9, 1, 0)
    assert (await job(apg, key))["state"] == "due"
    assert await apg.fetchval("select message from worker.attempts") == "the worker stopped"


async def cancelled_by_an_operator(apg: asyncpg.Connection, key: int) -> Any:
    row = await job(apg, key)
    await apg.execute(
        "insert into worker.operator_actions (action, target, worker, token)"
        " values ('cancel', $1::text, $2, $3)",
        str(key),
        row["worker"],
        row["token"],
    )
    await apg.execute("select pg_notify('duerow_worker', $1::text)", str(row["worker"]))


@pytest.mark.parametrize("kind", ["cooperates", "sleeps in C", "spins"])
async def test_an_operator_stops_a_running_row(
    db_url: str, apg: asyncpg.Connection, kind: str, release: threading.Event
) -> None:
    app = App()
    noted = hanging(app, kind, release)
    object.__setattr__(app.registry.get(kind), "timeout", 0)
    [key] = await put(apg, kind)
    async with running(app, db_url, concurrency=1) as one:
        await until(lambda: noted and one.worker.parts.listener.live)
        await cancelled_by_an_operator(apg, key)
        await until(lambda: one.seen.of(RowSettled))
        row = await job(apg, key)
        assert (row["state"], row["last_error"]) == ("cancelled", "an operator asked for it")
        handled = "select handled_at is not null from worker.operator_actions"
        one.worker.parts.heartbeat.beat_now()
        await until(lambda: apg.fetchval(handled))
        release.set()
    assert not one.seen.of(RowLost)


async def test_what_goes_back_at_the_last_moment_is_counted(
    db_url: str, apg: asyncpg.Connection
) -> None:
    """When the grace has passed and not everything was written, the rows go back all at once."""
    app, release = App(), asyncio.Event()

    @app.handler
    async def work() -> None:
        await release.wait()

    [key] = await put(apg, "work")
    async with running(app, db_url, concurrency=1) as one:
        await until(lambda: one.worker.running)
        assert one.worker.worker_id is not None
        await one.worker._abandon_all(one.worker.worker_id)
        row = await job(apg, key)
        assert (row["state"], row["attempt"], row["worker"]) == ("due", 0, None)
        assert one.worker.parts.settler.released == 1
        release.set()
