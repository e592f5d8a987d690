"""Gates between due rows and real workers: limits, throttles, breakers, pauses."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
import pytest
import tenacity

from tests.facts import until
from tests.workers import drained, job, put, running
from worker import App, Context, RetryPolicy, Throttled
from worker.events import BreakerChanged, KeyThrottled, RowSettled
from worker.link import HOT_PATH_PLANNER
from worker.statements import statement

SOON = RetryPolicy(wait=tenacity.wait_fixed(0.05), stop=tenacity.stop_after_attempt(100))


class AtOnce:
    """How many handlers run at once, by key."""

    def __init__(self) -> None:
        self.now: Counter[str | None] = Counter()
        self.most: Counter[str | None] = Counter()
        self.ran = 0

    @contextmanager
    def run(self, key: str | None = None) -> Iterator[None]:
        self.now[key] += 1
        self.most[key] = max(self.most[key], self.now[key])
        try:
            yield
        finally:
            self.now[key] -= 1
            self.ran += 1


def app_of(count: AtOnce, seconds: float = 0.01) -> App:
    app = App()

    @app.handler
    async def send(context: Context) -> None:
        with count.run(context.row.tenant):
            await asyncio.sleep(seconds)

    @app.handler
    async def other() -> None:
        with count.run("other"):
            await asyncio.sleep(seconds)

    return app


async def gate(apg: asyncpg.Connection) -> asyncpg.Record:
    [record] = await apg.fetch("select * from worker.gates where governs")
    return record


# -- concurrency ----------------------------------------------------------------------------------


async def test_workers_keep_a_concurrency_limit_together(
    db_url: str, apg: asyncpg.Connection
) -> None:
    count = AtOnce()
    app = app_of(count)
    app.limit(kind="send", concurrency=3)
    await put(apg, "send", count=60)
    async with running(app, db_url, concurrency=8), running(app, db_url, concurrency=8):
        await until(lambda: count.ran == 60)
    assert count.most[None] == 3
    assert (await gate(apg))["in_use"] == 0


async def test_each_tenant_has_its_own(db_url: str, apg: asyncpg.Connection) -> None:
    count = AtOnce()
    app = app_of(count)
    app.limit(kind="send", each_tenant=True, concurrency=2)
    for tenant in ("a", "b", "c"):
        await put(apg, "send", count=12, tenant=tenant)
    await put(apg, "send", count=12)
    async with running(app, db_url, concurrency=12), running(app, db_url, concurrency=12):
        await until(lambda: count.ran == 48)
    assert [count.most[tenant] for tenant in ("a", "b", "c")] == [2, 2, 2]
    assert count.most[None] > 2, "rows without a tenant have no limit"


async def test_a_tenant_can_have_a_limit_of_its_own(db_url: str, apg: asyncpg.Connection) -> None:
    count = AtOnce()
    app = app_of(count)
    app.limit(kind="send", each_tenant=True, concurrency=2)
    app.limit(kind="send", tenant="big", concurrency=5)
    await put(apg, "send", count=30, tenant="big")
    await put(apg, "send", count=30, tenant="small")
    async with running(app, db_url, concurrency=20):
        await until(lambda: count.ran == 60)
    assert count.most == {"big": 5, "small": 2}


async def test_a_limit_of_a_queue_is_shared_by_its_kinds(
    db_url: str, apg: asyncpg.Connection
) -> None:
    count = AtOnce()
    app = app_of(count)
    app.limit(queue="default", concurrency=3)
    await put(apg, "send", count=20)
    await put(apg, "other", count=20)
    most = 0
    async with running(app, db_url, concurrency=10):
        while count.ran < 40:
            most = max(most, count.now.total())
            await asyncio.sleep(0.001)
    assert most == 3


async def test_other_rows_do_not_wait_behind_what_a_limit_stops(
    db_url: str, apg: asyncpg.Connection
) -> None:
    count = AtOnce()
    app = app_of(count, 0.2)
    app.limit(kind="send", concurrency=1)
    await put(apg, "send", count=500)
    await put(apg, "other", count=10, priority=5)
    async with running(app, db_url, concurrency=4) as one:
        await until(lambda: sum(e.row.kind == "other" for e in one.seen.of(RowSettled)) == 10, 30)
        assert count.most[None] == 1


async def test_a_limit_can_be_changed_while_workers_run(
    db_url: str, apg: asyncpg.Connection
) -> None:
    count = AtOnce()
    app = app_of(count, 0.05)
    app.limit(kind="send", concurrency=1)
    await put(apg, "send", count=300)
    async with running(app, db_url, concurrency=10):
        await until(lambda: count.ran > 3)
        assert count.most[None] == 1
        await apg.execute("update worker.gates set concurrency = 6; notify duerow_gates")
        await until(lambda: count.most[None] == 6)


async def test_a_dead_workers_share_comes_back(db_url: str, apg: asyncpg.Connection) -> None:
    count = AtOnce()
    app = app_of(count)
    app.limit(kind="send", concurrency=2)
    gone = await apg.fetchval(
        "insert into worker.workers (name, host, pid, version, queues, kinds, slots, lease,"
        " heartbeat_at) values ('gone', 'h', 1, '0', '{}', '{}', 1, '1 s', now() - interval '1 h')"
        " returning id"
    )
    await apg.execute(
        "insert into worker.gates (kind, concurrency, in_use, set_by) values ('send', 2, 2, 'me')"
    )
    await apg.execute("insert into worker.gate_shares select id, $1, 2 from worker.gates", gone)
    await put(apg, "send", count=5)
    async with running(app, db_url):
        await until(lambda: count.ran >= 5, 40)
    assert await apg.fetchval("select count(*) from worker.gate_shares") == 0


# -- rates ----------------------------------------------------------------------------------------


async def test_workers_keep_a_rate_together(db_url: str, apg: asyncpg.Connection) -> None:
    at: list[float] = []
    app = App()

    @app.handler
    async def send() -> None:
        at.append(time.monotonic())

    app.limit(kind="send", rate=40, burst=4)
    await put(apg, "send", count=140)
    async with running(app, db_url, concurrency=8), running(app, db_url, concurrency=8):
        await until(lambda: len(at) == 140, 30)
    at.sort()
    seconds = [sum(1 for moment in at[i:] if moment < first + 1) for i, first in enumerate(at)]
    assert max(seconds) <= 44
    assert max(seconds) >= 36, "it is used, where the machine does not stand still"


@pytest.mark.parametrize("held", ["first", "second"])
async def test_the_clock_is_read_when_all_gates_are_locked(
    db_url: str, apg: asyncpg.Connection, held: str
) -> None:
    """What is reckoned from an earlier moment than others wrote is given twice."""
    await apg.execute(
        "insert into worker.gates (kind, tenant, rate, burst, full_at, set_by)"
        " select 'send', t, 29, 1, now(), 'me' from unnest(array['first', 'second']) t"
    )
    ids = [record["id"] for record in await apg.fetch("select id from worker.gates order by id")]
    other = await asyncpg.connect(db_url)
    try:
        for name, value in HOT_PATH_PLANNER.items():
            await other.execute(f"set {name} = {value}")
        async with apg.transaction():
            await apg.execute(
                "update worker.gates set full_at = clock_timestamp() where tenant = $1", held
            )
            waiting = asyncio.ensure_future(other.fetch(statement("flow/lock"), ids, 1))
            await until(lambda: is_blocked(apg, other.get_server_pid()))
            freed_at = await apg.fetchval("select clock_timestamp()")
        locked = await waiting
    finally:
        await other.close()
    assert [record["id"] for record in locked] == ids
    assert len({record["at"] for record in locked}) == 1
    assert locked[0]["at"] >= freed_at


async def is_blocked(apg: asyncpg.Connection, pid: int) -> bool:
    found = await apg.fetchval("select cardinality(pg_blocking_pids($1)) > 0", pid)
    assert isinstance(found, bool)
    return found


async def test_a_drain_waits_for_what_a_rate_holds_back(
    db_url: str, apg: asyncpg.Connection
) -> None:
    count = AtOnce()
    app = app_of(count)
    app.limit(kind="send", rate=50, burst=1)
    await put(apg, "send", count=40)
    one = await drained(app, db_url)
    assert one.report is not None
    assert (one.report.settled, count.ran) == (40, 40)


async def test_a_drain_does_not_wait_for_what_is_throttled(
    db_url: str, apg: asyncpg.Connection
) -> None:
    app = App()

    @app.handler
    async def send() -> None:
        raise Throttled(retry_after=60)

    await put(apg, "send", count=5)
    began = time.monotonic()
    await drained(app, db_url)
    assert time.monotonic() - began < 20
    assert await apg.fetchval("select count(*) from worker.jobs") == 5


# -- throttles ------------------------------------------------------------------------------------


async def test_a_throttled_key_rests_on_all_workers_and_costs_no_attempt(
    db_url: str, apg: asyncpg.Connection
) -> None:
    calls: list[tuple[str | None, float]] = []
    busy_until, rest = 0.0, 6.0
    app = App()

    @app.handler(retry=RetryPolicy(stop=tenacity.stop_after_attempt(1)))
    async def send(context: Context) -> None:
        nonlocal busy_until
        calls.append((context.row.tenant, time.monotonic()))
        if context.row.tenant == "slow" and not busy_until:
            busy_until = time.monotonic() + rest
            raise Throttled("131051", retry_after=rest)
        await asyncio.sleep(0.4 if context.row.tenant == "slow" else 0.05)

    slow = await put(apg, "send", count=30, tenant="slow")
    async with running(app, db_url) as one, running(app, db_url):
        await until(lambda: busy_until)
        await until(lambda: one.seen.of(KeyThrottled) or apg.fetch("select 1 from worker.gates"))
        await put(apg, "send", count=20, tenant="quick")
        await apg.execute("notify duerow, 'default'")
        await until(lambda: sum(tenant == "quick" for tenant, _ in calls) == 20)
        assert time.monotonic() < busy_until, "others go on meanwhile"
        await until(lambda: len(calls) == 51, 30)
    late = [at for tenant, at in calls if tenant == "slow" and at > busy_until - rest / 2]
    assert min(late) >= busy_until - 0.05
    assert len(late) >= 20, "few were under way when the first answer came"
    rows = [await job(apg, key) for key in slow]
    assert {(row["state"], row["attempt"]) for row in rows} == {("done", 1)}


async def test_a_throttle_without_a_tenant_is_for_the_kind(
    db_url: str, apg: asyncpg.Connection
) -> None:
    app = App()

    @app.handler
    def send() -> None:  # in a thread
        raise Throttled(retry_after=60)

    await put(apg, "send", count=5)
    async with running(app, db_url, concurrency=1):
        await until(lambda: apg.fetchval("select count(*) = 1 from worker.gates"))
        await until(lambda: apg.fetchval("select count(*) = 0 from worker.jobs where owner > 0"))
        states = await apg.fetch(
            "select due_at > now() + interval '50 s' as parked, attempt from worker.jobs"
        )
    assert sorted(tuple(state) for state in states) == [(False, 0)] * 4 + [(True, 0)]
    record = await gate(apg)
    assert (record["queue"], record["kind"], record["tenant"]) == (None, "send", None)


# -- breakers -------------------------------------------------------------------------------------


async def test_a_breaker_opens_tries_and_closes(db_url: str, apg: asyncpg.Connection) -> None:
    calls: list[asyncpg.Record] = []  # by the database's clock, which it opens by
    works = False
    app = App()
    eye, turn = await asyncpg.connect(db_url), asyncio.Lock()
    look = "select clock_timestamp() as at, open_until from worker.gates"

    @app.handler(retry=SOON)
    async def send() -> None:
        async with turn:
            calls.append(await eye.fetchrow(look))
        await asyncio.sleep(0.03)
        if not works:
            raise ConnectionError("no route")

    app.breaker(kind="send", failures=5, pause=1.5)
    await put(apg, "send", count=30)
    async with (
        running(app, db_url, concurrency=2) as one,
        running(app, db_url, concurrency=2) as other,
    ):
        await until(lambda: len(tries(calls)) == 2)
        works = True
        before = len(calls)
        await until(lambda: apg.fetchval("select opened_at is null from worker.gates"))
        await until(lambda: apg.fetchval("select count(*) = 30 from worker.jobs_finished"))
    await eye.close()
    early = [call for call in calls if call["open_until"] and call["at"] < call["open_until"]]
    assert len(early) < 15, "those that were under way when it opened: silent until then"
    first, second = tries(calls[:before])
    assert second - first >= dt.timedelta(seconds=1.5), "one tries, and fails"
    assert len(calls) >= before + 25
    assert {e.state for e in (*one.seen.of(BreakerChanged), *other.seen.of(BreakerChanged))} == {
        "opened",
        "closed",
    }
    states = await apg.fetch("select distinct state from worker.all_jobs")
    assert [state["state"] for state in states] == ["done"]


def tries(calls: list[asyncpg.Record]) -> list[dt.datetime]:
    """Until when the breaker was open, of each call that came after that."""
    return [c["open_until"] for c in calls if c["open_until"] and c["at"] >= c["open_until"]]


async def test_successes_in_between_keep_a_breaker_closed(
    db_url: str, apg: asyncpg.Connection
) -> None:
    app = App()
    calls = 0

    @app.handler(retry=SOON)
    async def send() -> None:
        nonlocal calls
        calls += 1
        if calls % 3:
            raise ConnectionError

    app.breaker(kind="send", failures=3)
    await put(apg, "send", count=20)
    async with running(app, db_url, concurrency=1) as one:
        await until(lambda: apg.fetchval("select count(*) = 20 from worker.jobs_finished"), 30)
    assert not one.seen.of(BreakerChanged)


async def test_a_share_of_failures_opens_it_too(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()
    calls = 0

    @app.handler(retry=SOON)
    async def send() -> None:
        nonlocal calls
        calls += 1
        if calls % 2:
            raise ConnectionError

    app.breaker(kind="send", failures=None, share=0.4, runs=12, pause=60)
    await put(apg, "send", count=40)
    async with running(app, db_url, concurrency=1) as one:
        await until(lambda: one.seen.of(BreakerChanged))
    assert calls >= 12
    assert (await gate(apg))["opened_at"] is not None


async def test_what_the_handler_rules_itself_is_no_failure(
    db_url: str, apg: asyncpg.Connection
) -> None:
    from worker import Cancel, Dead, Snooze

    app = App()
    calls = 0

    @app.handler
    async def send() -> None:
        nonlocal calls
        calls += 1
        raise (Dead("declined"), Cancel(), Snooze(after=600))[calls % 3]

    app.breaker(kind="send", failures=1)
    await put(apg, "send", count=12)
    await drained(app, db_url)
    assert calls == 12
    assert (await gate(apg))["opened_at"] is None


# -- pauses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "left"),
    [
        (("queue", "'default'"), {"send a", "send b", "other"}),
        (("kind", "'send'"), {"send a", "send b"}),
        (("tenant", "'a'"), {"send a"}),
        (("kind, tenant", "'send', 'b'"), {"send b"}),
    ],
)
async def test_what_is_paused_is_not_claimed(
    db_url: str, apg: asyncpg.Connection, scope: tuple[str, str], left: set[str]
) -> None:
    await apg.execute(
        f"insert into worker.gates ({scope[0]}, paused_at) values ({scope[1]}, now())"
    )
    await put(apg, "send", count=3, tenant="a")
    await put(apg, "send", count=3, tenant="b")
    await put(apg, "other", count=3)
    count = AtOnce()
    await drained(app_of(count), db_url)
    found = await apg.fetch("select distinct concat_ws(' ', kind, tenant) as what from worker.jobs")
    assert {record["what"] for record in found} == left
    assert count.ran == 9 - 3 * len(left)


async def test_a_pause_takes_back_what_has_not_started_and_is_heard_at_once(
    db_url: str, apg: asyncpg.Connection
) -> None:
    count = AtOnce()
    app = app_of(count, 0.002)
    await put(apg, "send", count=4000)
    async with running(app, db_url, concurrency=2) as one:
        await until(lambda: count.ran > 200 and one.worker.parts.loop.buffered > 2)
        await apg.execute(
            "insert into worker.gates (kind, paused_at) values ('send', now()); notify duerow_gates"
        )
        before = count.ran
        await until(lambda: any(gate.paused for gate in one.worker.parts.gates._gates))
        await until(lambda: not one.worker.running and not one.worker.parts.loop.buffered)
        await until(lambda: apg.fetchval("select count(*) = 0 from worker.jobs where owner > 0"))
        ran = count.ran
        assert ran - before < 2000, "all would have run"
        await apg.fetchval("select pg_sleep(0.3)")
        assert count.ran == ran, "nothing more is claimed"
        await apg.execute("update worker.gates set paused_at = null; notify duerow_gates")
        await until(lambda: count.ran > ran + 100)
