"""Slots that follow the backlog and what the outside world bears: sequences, and a worker."""

from __future__ import annotations

import asyncio
import itertools

import asyncpg
import psycopg

from tests.facts import until
from tests.workers import put, running
from worker import App, Batch, Throttled
from worker.adaptive import IDLE_EVERY, ROUND_MOST, Adaptive, Pace
from worker.events import SlotsChanged
from worker.varying import Span, Steps


def full_round(slots: Adaptive, now: float, seconds: float = 1.0) -> None:
    """Every slot is taken, one run ends well that began now, and its place is claimed for."""
    slots.ended(now, None, now + seconds)
    slots.claimed(1, 1, slots.slots, now + seconds)


def test_they_rise_by_a_step_a_round_while_claims_are_full() -> None:
    slots = Adaptive(2, 40)
    series = [slots.slots]
    for now in range(16):
        full_round(slots, now)
        series.append(slots.slots)
    assert series == [2, 5, 8, 11, 14, 17, 20, 23, 26, 29, 32, 35, 38, 40, 40, 40, 40]


def test_once_a_round_however_many_claims_it_has() -> None:
    slots = Adaptive(2, 40)
    assert slots.claimed(2, 2, 2, 0.0) == "backlog"
    for tick in range(1, 10):
        assert slots.claimed(1, 1, slots.slots, tick / 10) is None
    assert slots.slots == 5
    slots.ended(0.5, None, 0.9)
    assert slots.claimed(1, 1, 5, 0.9) == "backlog"


def test_runs_that_take_long_do_not_hold_them_down() -> None:
    slots = Adaptive(2, 40)
    slots.claimed(2, 2, 2, 0.0)
    assert slots.claimed(3, 3, 5, ROUND_MOST - 0.01) is None
    assert slots.claimed(3, 3, 5, ROUND_MOST) == "backlog"


def test_not_while_a_slot_is_free() -> None:
    slots = Adaptive(2, 40)
    assert slots.claimed(1, 1, 1, 0.0) is None
    assert slots.slots == 2


def test_they_are_halved_once_for_all_that_began_before() -> None:
    slots = Adaptive(2, 40)
    for now in range(20):
        full_round(slots, now)
    assert slots.slots == 40
    assert slots.ended(25.0, "throttled", 26.0) == "throttled"
    for _ in range(39):
        assert slots.ended(25.0, "throttled", 26.5) is None
    assert slots.slots == 20
    assert slots.ended(26.5, "timeout", 27.0) == "timeout"
    assert slots.ended(27.0, "pool", 28.0) == "pool"
    assert slots.slots == 5


def test_trouble_of_runs_that_began_before_the_last_rise_counts() -> None:
    slots = Adaptive(2, 40)
    for now in range(5):
        full_round(slots, now)
    assert slots.slots == 17  # since 5.0
    assert slots.ended(4.5, "throttled", 5.1) == "throttled"
    assert slots.slots == 8


def test_never_below_the_least() -> None:
    slots = Adaptive(4, 40)
    for now in range(20, 30):
        slots.ended(now, "throttled", now + 1)
    assert slots.slots == 4


def test_after_trouble_they_rise_again_when_a_new_run_has_ended_well() -> None:
    slots = Adaptive(2, 40)
    for now in range(20):
        full_round(slots, now)
    slots.ended(25.0, "throttled", 26.0)
    slots.ended(25.5, None, 26.1)  # began before
    assert slots.claimed(1, 1, 20, 26.2) is None
    slots.ended(26.1, None, 26.3)
    assert slots.claimed(1, 1, 20, 26.3) == "backlog"
    assert slots.slots == 23


def test_they_go_down_by_a_step_a_second_while_little_is_due_but_not_below_what_runs() -> None:
    slots = Adaptive(2, 40)
    for now in range(20):
        full_round(slots, now)
    assert slots.claimed(10, 3, 30, 20.0) == "idle"
    assert slots.slots == 37
    assert slots.claimed(10, 3, 30, 20.0 + IDLE_EVERY / 2) is None
    series = []
    for now in range(21, 35):
        slots.claimed(10, 0, 30 if now < 25 else 0, now)
        series.append(slots.slots)
    assert series == [34, 31, 30, 30, 27, 24, 21, 18, 15, 12, 9, 6, 3, 2]


def test_a_table_of_steps_follows_what_claims_bring() -> None:
    """The table of the messages: <10 due 20/3, then 30/5, >50 40/7, >100 50/10."""
    pace = Pace(
        Steps(((0, 3), (10, 5), (51, 7), (101, 10))),
        Steps(((0, 20), (10, 30), (51, 40), (101, 50))),
    )
    series = [(pace.slots, pace.batch)]
    whys = []
    for asked, count in [(3, 3), (3, 3), (3, 3), (3, 3), (39, 39), (51, 51), (10, 60), (50, 0)]:
        whys.append(pace.claimed(asked, count, pace.slots, 0.0))
        series.append((pace.slots, pace.batch))
    small, more, many, most = (3, 20), (5, 30), (7, 40), (10, 50)
    assert series == [small, small, small, small, more, many, most, most, small]
    assert whys == [None, None, None, "backlog", "backlog", "backlog", None, "idle"]
    assert pace.ended(0.0, "throttled", 1.0) is None


def test_a_fixed_number_stays() -> None:
    pace = Pace(10, 500)
    assert pace.claimed(10, 10, 10, 0.0) is None
    assert pace.ended(0.0, "throttled", 1.0) is None
    assert (pace.slots, pace.batch) == (10, 500)


def test_a_span_and_steps_of_the_claim_together() -> None:
    pace = Pace(Span(2, 4), Steps(((0, 20), (51, 40))))
    pace.claimed(51, 51, 2, 0.0)
    assert (pace.slots, pace.batch) == (3, 40)


# -- in a worker ----------------------------------------------------------------------------------


def joined(changes: list[SlotsChanged]) -> list[int]:
    """The numbers of slots one after another; AssertionError where one change misses another."""
    assert all(a.slots == b.before for a, b in itertools.pairwise(changes))
    return [changes[0].before, *(change.slots for change in changes)]


async def test_a_worker_rises_with_the_backlog_halves_when_throttled_and_recovers(
    db_url: str, apg: asyncpg.Connection
) -> None:
    app = App()
    bears = 12  # calls at once, for as long as it is busy
    going = peak = throttled = 0

    @app.handler
    async def ask() -> None:
        nonlocal going, peak, throttled
        going += 1
        peak = max(peak, going)
        try:
            await asyncio.sleep(0.01)
            if going > bears:
                throttled += 1
                raise Throttled("131051", retry_after=0.05)
        finally:
            going -= 1

    await put(apg, "ask", count=1500)
    async with running(app, db_url, concurrency="2-30", poll_max=0.2) as one:
        await until(lambda: len(told(one.seen.of(SlotsChanged), "throttled")) >= 2, 30)
        await until(lambda: _done(apg, 1500), 60)
        await until(lambda: (c := one.seen.of(SlotsChanged)) and c[-1].slots == 2, 60)
        changes = one.seen.of(SlotsChanged)
    series = joined(changes)
    first = next(i for i, change in enumerate(changes) if change.why == "throttled")
    assert [change.why for change in changes[:first]] == ["backlog"] * first
    assert series[: first + 1] == [2 + 2 * i for i in range(first + 1)]
    for change in told(changes, "throttled"):
        assert change.slots == max(2, change.before // 2)
    second = told(changes, "throttled")[1]
    assert second.before > changes[first].slots  # it has recovered in between
    assert {change.why for change in changes} == {"backlog", "throttled", "idle"}
    assert throttled
    assert peak <= max(series)
    # none of it cost an attempt
    assert await apg.fetchval("select max(attempt) from worker.jobs_finished") == 1


def told(changes: list[SlotsChanged], why: str) -> list[SlotsChanged]:
    return [change for change in changes if change.why == why]


async def _done(connection: asyncpg.Connection, count: int) -> bool:
    return bool(await connection.fetchval("select count(*) = $1 from worker.jobs_finished", count))


async def test_for_want_of_sessions_they_are_halved(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()

    @app.handler
    def write(session: psycopg.Connection) -> None:
        session.execute("select pg_sleep(0.1)")

    await put(apg, "write", count=60)
    async with running(app, db_url, concurrency="2-20", pool_size=2) as one:
        await until(lambda: told(one.seen.of(SlotsChanged), "pool"), 30)
        [change, *_] = told(one.seen.of(SlotsChanged), "pool")
    assert change.slots == max(2, change.before // 2)


async def test_a_timeout_halves_them(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()
    slow = False

    @app.handler(timeout=3.0)
    async def ask() -> None:
        await asyncio.sleep(60 if slow else 0.01)

    await put(apg, "ask", count=600)
    async with running(app, db_url, concurrency="2-20") as one:
        await until(lambda: (c := one.seen.of(SlotsChanged)) and c[-1].slots >= 8)
        slow = True
        await until(lambda: told(one.seen.of(SlotsChanged), "timeout"))
        [change, *_] = told(one.seen.of(SlotsChanged), "timeout")
    assert change.slots == max(2, change.before // 2)


async def test_the_fixed_table_in_a_worker(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()
    going = peak = 0

    @app.handler
    async def send() -> None:
        nonlocal going, peak
        going += 1
        peak = max(peak, going)
        await asyncio.sleep(0.02)
        going -= 1

    await put(apg, "send", count=400)
    async with running(
        app, db_url, concurrency="3,10:5,51:7,101:10", claim_batch="20,10:30,51:40,101:50"
    ) as one:
        await until(lambda: _done(apg, 400))
        await until(lambda: one.seen.of(SlotsChanged)[-1].slots == 3)
    series = joined(one.seen.of(SlotsChanged))
    assert peak == 10
    assert series[0] == 3
    assert set(series) <= {3, 5, 7, 10}
    assert max(series) == 10


async def test_rows_of_a_batch_that_are_throttled_count_too(
    db_url: str, apg: asyncpg.Connection
) -> None:
    app = App()

    @app.batch("track", size=5)
    async def track(batch: Batch[dict[str, object]]) -> None:
        batch[0].settle(Throttled("429", retry_after=30, key="somebody"))
        for item in batch.unanswered:
            item.done()

    await put(apg, "track", count=200)
    async with running(app, db_url, concurrency="2-20") as one:
        await until(lambda: _done(apg, 160), 30)
        changes = one.seen.of(SlotsChanged)
    assert all(change.slots <= 4 for change in changes)
    states = await apg.fetch("select state, attempt, count(*) from worker.all_jobs group by 1, 2")
    assert {tuple(s) for s in states} == {("done", 1, 160), ("scheduled", 0, 40)}
