"""Handlers that take several jobs in one call: a worker on a real database."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
import tenacity

import worker.loop
from tests.facts import until
from tests.workers import drained, job, put, running
from worker import (
    App,
    Batch,
    Cancel,
    Context,
    Dead,
    Item,
    PermanentError,
    Retry,
    RetryPolicy,
    Snooze,
)
from worker.errors import PayloadInvalid, RegistrationError, UsageError
from worker.events import BatchRan, RowAbandoned, RowSettled
from worker.loop import Loop
from worker.statements import statement
from worker.threads import Interrupted

AT_ONCE = RetryPolicy(wait=tenacity.wait_none(), stop=tenacity.stop_after_attempt(3))
ONCE = RetryPolicy(stop=tenacity.stop_after_attempt(1))
LATER = RetryPolicy(wait=tenacity.wait_fixed(600))  # not within the drain, however long that takes


@dataclass
class Parcel:
    number: int


async def parcels(connection: asyncpg.Connection, count: int, **columns: Any) -> list[int]:
    """Jobs of kind track, numbered from 1; their ids in that order."""
    names = "".join(f", {name}" for name in columns)
    values = "".join(f", ${n}" for n in range(2, len(columns) + 2))
    records = await connection.fetch(
        f"insert into worker.jobs (kind, args{names})"
        f" select 'track', jsonb_build_object('number', i){values}"
        " from generate_series(1, $1) i returning id",
        count,
        *columns.values(),
    )
    return [record[0] for record in records]


async def states(connection: asyncpg.Connection) -> Counter[str]:
    records = await connection.fetch("select state from worker.all_jobs")
    return Counter(record[0] for record in records)


def numbers(batch: Batch[Parcel]) -> list[int]:
    return [parcel.data.number for parcel in batch]


# -- the answers ----------------------------------------------------------------------------------


async def test_fifty_rows_in_one_call_each_with_its_answer(
    db_url: str, apg: asyncpg.Connection
) -> None:
    app = App()
    calls: list[list[int]] = []

    @app.batch("track", size=50)
    async def track(batch: Batch[Parcel]) -> None:
        calls.append(numbers(batch))
        for parcel in batch:
            match parcel.data.number:
                case 7:
                    parcel.settle(Retry("on its way", after=60))
                case 13:
                    parcel.settle(Dead("the carrier does not know it"))
                case number:
                    parcel.done({"delivered": number})

    keys = await parcels(apg, 50)
    one = await drained(app, db_url)
    assert calls == [list(range(1, 51))]
    assert await states(apg) == {"done": 48, "retrying": 1, "dead": 1}
    assert json.loads((await job(apg, keys[4]))["result"]) == {"delivered": 5}
    retry = await job(apg, keys[6])
    assert (retry["attempt"], retry["last_error"]) == (1, "on its way")
    assert (await job(apg, keys[12]))["last_error"] == "the carrier does not know it"
    outcomes = await apg.fetch("select outcome, count(*) from worker.attempt_log group by 1")
    assert dict(outcomes) == {"done": 48, "retry": 1, "dead": 1}
    assert one.report is not None
    assert (one.report.settled, one.report.failed) == (50, 2)
    [ran] = one.seen.of(BatchRan)
    assert (ran.source, ran.kind, ran.count) == ("jobs", "track", 50)


async def test_every_outcome_and_an_error_for_one_row(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()
    answers = [
        Snooze("night", after=3600),
        Cancel("withdrawn"),
        KeyError("no such field"),
        PermanentError("closed"),
    ]

    @app.batch("track", retry=LATER)
    def track(batch: Batch[Parcel]) -> None:
        for parcel, answer in zip(batch, answers, strict=True):
            parcel.settle(answer)

    keys = await parcels(apg, 4)
    await drained(app, db_url)
    rows = [await job(apg, key) for key in keys]
    assert [row["state"] for row in rows] == ["scheduled", "cancelled", "retrying", "dead"]
    assert [row["attempt"] for row in rows] == [0, 1, 1, 1]


async def test_a_row_without_an_answer_has_failed(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()

    @app.batch("track", retry=ONCE)
    async def track(batch: Batch[Parcel]) -> list[None]:
        batch[0].done()
        assert batch.unanswered == [batch[1], batch[2]]
        return [None, None, None]

    keys = await parcels(apg, 3)
    await drained(app, db_url)
    assert [(await job(apg, key))["state"] for key in keys] == ["done", "dead", "dead"]
    told = (await job(apg, keys[2]))["last_error"]
    assert "without an answer for 2 of its rows; it returned a list instead" in told


async def test_a_row_that_does_not_fit_fails_alone(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()
    calls: list[list[int]] = []

    @app.batch("track")
    async def track(batch: Batch[Parcel]) -> None:
        calls.append(numbers(batch))
        for parcel in batch:
            parcel.done()

    [bad] = await put(apg, "track", '{"number": "seven"}')
    [unknown] = await put(apg, "track", '{"number": 1, "colour": "red"}')
    await parcels(apg, 3)
    await drained(app, db_url)
    assert calls == [[1, 2, 3]]
    for key in (bad, unknown):
        row = await job(apg, key)
        assert (row["state"], row["attempt"]) == ("dead", 1)
        assert "do not fit its handler" in row["last_error"]
    assert (await states(apg))["done"] == 3


async def test_nothing_is_called_for_rows_of_which_none_fits(
    db_url: str, apg: asyncpg.Connection
) -> None:
    app = App()

    @app.batch("track")
    async def track(batch: Batch[Parcel]) -> None:
        raise AssertionError

    await put(apg, "track", "{}", count=3)
    one = await drained(app, db_url)
    assert await states(apg) == {"dead": 3}
    assert one.seen.of(BatchRan) == []


async def test_a_row_is_answered_once_and_in_time(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()
    kept: list[Item[Parcel]] = []

    @app.batch("track")
    async def track(batch: Batch[Parcel]) -> None:
        for parcel in batch:
            parcel.done()
            with pytest.raises(UsageError, match="answered twice"):
                parcel.settle(Retry())
            kept.append(parcel)

    await parcels(apg, 2)
    await drained(app, db_url)
    assert await states(apg) == {"done": 2}
    with pytest.raises(UsageError, match="too late"):
        kept[0].done()


@pytest.mark.parametrize("give", [lambda i: i.done(Retry()), lambda i: i.settle(None)])
async def test_an_answer_in_the_wrong_place_is_an_error(
    give: Any, db_url: str, apg: asyncpg.Connection
) -> None:
    app = App()

    @app.batch("track", retry=ONCE)
    async def track(batch: Batch[Parcel]) -> None:
        for parcel in batch:
            give(parcel)

    [key] = await parcels(apg, 1)
    await drained(app, db_url)
    row = await job(apg, key)
    assert row["state"] == "dead"
    assert "next: item." in row["last_error"]


# -- errors ---------------------------------------------------------------------------------------


async def test_an_error_is_for_the_rows_that_have_no_answer(
    db_url: str, apg: asyncpg.Connection
) -> None:
    app = App()
    calls: list[list[int]] = []

    @app.batch("track", retry=AT_ONCE)
    async def track(batch: Batch[Parcel]) -> None:
        calls.append(numbers(batch))
        batch[0].done()
        raise OSError("the carrier is down")

    await parcels(apg, 3)
    await drained(app, db_url)
    assert calls == [[1, 2, 3], [2, 3], [3]]
    assert await states(apg) == {"done": 3}
    told = await apg.fetch(
        "select attempt, message from worker.attempts where outcome = 'retry' order by attempt"
    )
    assert told == [(1, "the carrier is down"), (1, "the carrier is down"), (2, told[2][1])]


async def test_an_outcome_that_is_raised_is_for_the_rows_that_have_no_answer(
    db_url: str, apg: asyncpg.Connection
) -> None:
    app = App()

    @app.batch("track")
    def track(batch: Batch[Parcel]) -> None:
        batch[0].done()
        raise Snooze("closed for the night", after=3600)

    keys = await parcels(apg, 3)
    await drained(app, db_url)
    rows = [await job(apg, key) for key in keys]
    assert [(r["state"], r["attempt"]) for r in rows] == [
        ("done", 1),
        ("scheduled", 0),
        ("scheduled", 0),
    ]


async def test_after_a_failure_the_rows_run_singly_if_asked(
    db_url: str, apg: asyncpg.Connection
) -> None:
    app = App()
    calls: list[list[int]] = []

    @app.batch("track", retry=AT_ONCE, then="singly")
    async def track(batch: Batch[Parcel]) -> None:
        calls.append(numbers(batch))
        if 3 in calls[-1]:
            raise ValueError("a bad one is among them")
        for parcel in batch:
            parcel.done()

    await parcels(apg, 5)
    await drained(app, db_url)
    assert calls[0] == [1, 2, 3, 4, 5]
    assert sorted(calls[1:]) == [[1], [2], [3], [3], [4], [5]]
    assert await states(apg) == {"done": 4, "dead": 1}


async def test_attempts_that_ended_with_their_workers_count(
    db_url: str, apg: asyncpg.Connection
) -> None:
    """As for single rows: no attempt is left, so that row is dead and the others run."""
    app = App()
    calls: list[list[int]] = []

    @app.batch("track")
    async def track(batch: Batch[Parcel]) -> None:
        calls.append(numbers(batch))
        for parcel in batch:
            parcel.done()

    [first, *_] = await parcels(apg, 3)
    await apg.execute(
        "update worker.jobs set attempt = 2, max_attempts = 2, crashes = 1 where id = $1", first
    )
    await drained(app, db_url)
    assert calls == [[2, 3]]
    row = await job(apg, first)
    assert (row["state"], row["attempt"]) == ("dead", 2)


async def test_a_row_of_many_crashes_runs_alone(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()
    calls: list[list[int]] = []

    @app.batch("track")
    async def track(batch: Batch[Parcel]) -> None:
        calls.append(numbers(batch))
        for parcel in batch:
            parcel.done()

    keys = await parcels(apg, 4)
    await apg.execute("update worker.jobs set crashes = 2, attempt = 2 where id = $1", keys[1])
    await drained(app, db_url)
    assert sorted(calls, key=len) == [[2], [1, 3, 4]]


# -- ends before the end --------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["async def", "def"])
async def test_at_the_timeout_what_was_answered_stands(
    way: str, db_url: str, apg: asyncpg.Connection
) -> None:
    app = App()

    def answer(batch: Batch[Parcel]) -> None:
        batch[0].done()
        batch[1].settle(Dead("gone"))

    if way == "async def":

        @app.batch("track", timeout=1.0, retry=ONCE)
        async def on_the_loop(batch: Batch[Parcel]) -> None:
            answer(batch)
            await asyncio.sleep(30)

    else:

        @app.batch("track", timeout=1.0, retry=ONCE)
        def in_a_thread(batch: Batch[Parcel]) -> None:
            answer(batch)
            assert batch.remaining is not None
            batch.wait_cancelled(30)
            assert batch.cancelled
            assert batch[2].context.cancelled

    keys = await parcels(apg, 4)
    await drained(app, db_url)
    rows = [await job(apg, key) for key in keys]
    assert [row["state"] for row in rows] == ["done", "dead", "dead", "dead"]
    if way == "async def":
        assert "ran longer than its timeout" in rows[2]["last_error"]


async def test_a_thread_that_does_not_end_is_abandoned_with_all_its_rows(
    db_url: str, apg: asyncpg.Connection
) -> None:
    app = App()
    go = threading.Event()
    late: list[BaseException] = []

    @app.batch("track", timeout=1.0, retry=ONCE)
    def track(batch: Batch[Parcel]) -> None:
        batch[0].done()
        with contextlib.suppress(Interrupted):
            go.wait(30)
        with pytest.raises(UsageError, match="answered too late") as refused:
            batch[1].done()
        late.append(refused.value)

    keys = await parcels(apg, 3)
    async with running(app, db_url, concurrency=1) as one:
        await until(lambda: len(one.seen.of(RowSettled)) == 3)
        assert one.worker.running == []
        assert {e.row.key for e in one.seen.of(RowAbandoned)} == set(keys[1:])
        go.set()
        await until(lambda: late)
    assert [(await job(apg, key))["state"] for key in keys] == ["done", "dead", "dead"]


async def test_a_stop_gives_back_what_has_no_answer(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()
    began = asyncio.Event()

    @app.batch("track")
    async def track(batch: Batch[Parcel]) -> None:
        batch[0].done()
        began.set()
        await asyncio.sleep(60)

    keys = await parcels(apg, 3)
    # Its last three seconds are for this; a machine may stand still for one or two of them.
    async with running(app, db_url, grace=10.0) as one:
        await began.wait()
        assert await one.stop() == one.report
    assert one.report is not None
    assert (one.report.code, one.report.settled, one.report.released) == (9, 1, 2)
    rows = [await job(apg, key) for key in keys]
    assert [(row["state"], row["attempt"]) for row in rows] == [
        ("done", 1),
        ("due", 0),
        ("due", 0),
    ]


async def test_an_operator_cancels_one_row_and_the_others_go_on(
    db_url: str, apg: asyncpg.Connection
) -> None:
    app = App()
    began, go = asyncio.Event(), asyncio.Event()
    seen: list[Context] = []

    @app.batch("track")
    async def track(batch: Batch[Parcel]) -> None:
        seen.extend(parcel.context for parcel in batch)
        began.set()
        await go.wait()
        assert not batch.cancelled
        for parcel in batch:
            if not parcel.context.cancelled:
                parcel.done()

    keys = await parcels(apg, 3)
    async with running(app, db_url) as one:
        await began.wait()
        await ask_to_cancel(apg, keys[1])
        await until(lambda: seen[1].cancelled)
        assert [context.cancelled for context in seen] == [False, True, False]
        go.set()
        await until(lambda: len(one.seen.of(RowSettled)) == 3)
    assert [(await job(apg, key))["state"] for key in keys] == ["done", "cancelled", "done"]


async def test_a_cancelled_row_does_not_wait_for_its_batch(
    db_url: str, apg: asyncpg.Connection
) -> None:
    app = App()
    began, go = asyncio.Event(), asyncio.Event()

    @app.batch("track")
    async def track(batch: Batch[Parcel]) -> None:
        began.set()
        await go.wait()
        for parcel in batch.unanswered:
            if not parcel.context.cancelled:
                parcel.done()

    keys = await parcels(apg, 2)
    async with running(app, db_url) as one:
        await began.wait()
        await ask_to_cancel(apg, keys[0])
        await until(lambda: [e.row.key for e in one.seen.of(RowSettled)] == [keys[0]])
        assert len(one.worker.running) == 1
        go.set()
        await until(lambda: len(one.seen.of(RowSettled)) == 2)
    assert [(await job(apg, key))["state"] for key in keys] == ["cancelled", "done"]


async def test_a_batch_whose_rows_are_all_cancelled_ends(
    db_url: str, apg: asyncpg.Connection
) -> None:
    app = App()
    began, ended = asyncio.Event(), asyncio.Event()

    @app.batch("track")
    async def track(batch: Batch[Parcel]) -> None:
        began.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    keys = await parcels(apg, 2)
    async with running(app, db_url):
        await began.wait()
        await ask_to_cancel(apg, *keys)
        await asyncio.wait_for(ended.wait(), 10)
        await until(lambda: _all_cancelled(apg))


async def _all_cancelled(connection: asyncpg.Connection) -> bool:
    return await states(connection) == {"cancelled": 2}


async def ask_to_cancel(connection: asyncpg.Connection, *keys: int) -> None:
    """As `worker jobs cancel` does for rows that run."""
    told = await connection.fetch(statement("operate/cancel"), list(keys), "tests", None)
    assert [outcome for _, outcome, _ in told] == ["asked"] * len(keys)


# -- gathering ------------------------------------------------------------------------------------


async def test_more_rows_than_one_call_takes(db_url: str, apg: asyncpg.Connection) -> None:
    """Full batches, whatever the number of slots; one batch is one slot."""
    app = App()
    sizes: list[int] = []
    at_once: list[int] = []
    going = 0

    @app.batch("track", size=40)
    async def track(batch: Batch[Parcel]) -> None:
        nonlocal going
        going += 1
        at_once.append(going)
        sizes.append(len(batch))
        await asyncio.sleep(0.02)
        for parcel in batch:
            parcel.done()
        going -= 1

    await parcels(apg, 400)
    one = await drained(app, db_url, concurrency=3)
    assert sizes == [40] * 10
    assert max(at_once) == 3
    assert one.report is not None
    assert one.report.settled == 400


async def test_rows_of_one_tenant_only(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()
    calls: list[tuple[set[str | None], int]] = []

    @app.batch("track", size=10, by_tenant=True)
    async def track(batch: Batch[Parcel]) -> None:
        calls.append(({parcel.context.tenant for parcel in batch}, len(batch)))
        for parcel in batch:
            parcel.done()

    for tenant, count in (("a", 15), ("b", 3), (None, 2)):
        await parcels(apg, count, tenant=tenant)
    await drained(app, db_url, claim_batch=500)
    assert all(len(tenants) == 1 for tenants, _ in calls)
    told = Counter[str | None]()
    for tenants, count in calls:
        told[tenants.pop()] += count
    assert told == {"a": 15, "b": 3, None: 2}
    assert max(count for _, count in calls) == 10


async def test_a_lone_row_is_not_kept_waiting(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()
    done: list[float] = []

    @app.batch("track", size=50, wait=20)
    async def track(batch: Batch[Parcel]) -> None:
        done.append(time.monotonic())
        for parcel in batch:
            parcel.done()

    async with running(app, db_url):
        began = time.monotonic()
        await parcels(apg, 1)
        await until(lambda: done)
    assert done[0] - began < 10


async def test_rows_that_keep_coming_are_gathered(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()
    sizes: list[int] = []

    @app.batch("track", size=10, wait=20)
    async def track(batch: Batch[Parcel]) -> None:
        sizes.append(len(batch))
        for parcel in batch:
            parcel.done()

    async with running(app, db_url):
        await parcels(apg, 1)
        await until(lambda: sizes)
        for number in range(10):
            await parcels(apg, 1)
            await until(lambda n=number: _claimed(apg, n + 2))
        await until(lambda: sum(sizes) == 11)
    assert sizes == [1, 10]


async def _claimed(connection: asyncpg.Connection, count: int) -> bool:
    return bool(
        await connection.fetchval(
            "select count(*) filter (where state in ('running', 'done')) >= $1"
            " from worker.all_jobs",
            count,
        )
    )


async def test_what_waits_to_fill_up_is_started_when_the_wait_is_over(
    db_url: str, apg: asyncpg.Connection
) -> None:
    app = App()
    calls: list[tuple[float, int]] = []

    @app.batch("track", size=10, wait=3.5)
    async def track(batch: Batch[Parcel]) -> None:
        calls.append((time.monotonic(), len(batch)))
        for parcel in batch:
            parcel.done()

    async with running(app, db_url):
        await parcels(apg, 1)
        await until(lambda: calls)
        began = time.monotonic()
        await parcels(apg, 2)
        await until(lambda: len(calls) == 2)
    assert calls[1][1] == 2
    assert calls[1][0] - began >= 3.5


async def test_a_stop_gives_back_what_waits_to_fill_up(
    db_url: str, apg: asyncpg.Connection
) -> None:
    app = App()
    sizes: list[int] = []

    @app.batch("track", size=10, wait=30)
    async def track(batch: Batch[Parcel]) -> None:
        sizes.append(len(batch))
        for parcel in batch:
            parcel.done()

    async with running(app, db_url) as one:
        await parcels(apg, 1)
        await until(lambda: sizes)
        await parcels(apg, 2)
        await until(lambda: _claimed(apg, 3))
        await one.stop()
    assert sizes == [1]
    assert await states(apg) == {"done": 1, "due": 2}


async def test_a_lot_whose_wait_is_over_waits_for_a_slot_in_peace(
    db_url: str, apg: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = App()
    pumps = 0
    sizes: list[int] = []
    pump = Loop._pump

    def counted(loop: Loop) -> None:
        nonlocal pumps
        pumps += 1
        pump(loop)

    monkeypatch.setattr(Loop, "_pump", counted)
    monkeypatch.setattr(worker.loop, "BUFFER_AGE_MOST", 60.0)  # however long this takes
    go = asyncio.Event()

    @app.batch("track", size=10, wait=0.2)
    async def track(batch: Batch[Parcel]) -> None:
        sizes.append(len(batch))
        for parcel in batch:
            parcel.done()
        if len(sizes) == 1:
            await parcels(apg, 1)
            await until(lambda: _claimed(apg, 2))
            await go.wait()

    async with running(app, db_url, concurrency=1) as one:
        one.worker.parts.loop._mean_run = 0.001  # so that rows are claimed ahead
        await parcels(apg, 1)
        await until(lambda: len(one.worker.parts.loop._buffer) == 1)
        before, began = pumps, time.monotonic()
        await until(lambda: time.monotonic() - began > 0.5)
        assert pumps - before < 20
        go.set()
        await until(lambda: sum(sizes) == 2)


async def test_single_rows_go_on_beside_batches(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()
    singles: list[int] = []
    sizes: list[int] = []

    @app.batch("track", size=20)
    async def track(batch: Batch[dict[str, Any]]) -> None:
        sizes.append(len(batch))
        for item in batch:
            item.done(item.data["number"])

    @app.handler
    async def single(n: int) -> None:
        singles.append(n)

    await parcels(apg, 100)
    for n in range(30):
        await put(apg, "single", f'{{"n": {n}}}')
    await drained(app, db_url)
    assert sorted(singles) == list(range(30))
    assert sum(sizes) == 100
    assert max(sizes) == 20
    assert await states(apg) == {"done": 130}


# -- registering ----------------------------------------------------------------------------------


def test_a_function_without_a_place_for_the_batch_is_refused() -> None:
    app = App()
    with pytest.raises(RegistrationError, match="no place for them"):

        @app.batch("track")
        async def track(number: int) -> None: ...


def test_a_batch_for_single_rows_is_refused() -> None:
    app = App()
    with pytest.raises(RegistrationError, match="takes a batch"):

        @app.handler("track")
        async def track(batch: Batch[Parcel]) -> None: ...


def test_arguments_beside_the_batch_are_refused() -> None:
    app = App()
    with pytest.raises(RegistrationError, match=r"a batch and number, context"):

        @app.batch("track")
        async def track(batch: Batch[Parcel], number: int, context: Context) -> None: ...


def test_a_row_type_that_is_no_object_is_refused() -> None:
    app = App()
    with pytest.raises(RegistrationError, match="a job carries a JSON object"):

        @app.batch("track")
        async def track(batch: Batch[int]) -> None: ...


@pytest.mark.parametrize("options", [{"size": 0}, {"size": 1001}, {"wait": -1}, {"wait": 61}])
def test_sizes_and_waits_out_of_bounds_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(RegistrationError):
        App().batch("track", **options)


def test_producers_are_held_to_the_row_type() -> None:
    app = App()

    @app.batch("track", queue="carrier")
    async def track(batch: Batch[Parcel]) -> None: ...

    assert track.job({"number": 7}).queue == "carrier"
    with pytest.raises(PayloadInvalid):
        track.job({"number": "seven"})
