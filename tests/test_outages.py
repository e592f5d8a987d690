"""Connections that break at every point: no row is lost, none stays claimed, no worker ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import tenacity

from tests.facts import until
from tests.postgres import Cluster
from tests.wire import Wire, wired
from tests.workers import Running, job, put, running
from worker import App, RetryPolicy
from worker.events import DatabaseLost, RowLost, RowSettled, ServiceFailed
from worker.migrate import upgrade

CLAIM_COLUMNS = 14  # of a row that sql/claim/due.sql gives
SETTLE_COLUMNS = 2


def app_of(ran: list[int], seconds: float = 0.0) -> App:
    app = App()

    @app.handler
    async def work(n: int) -> None:
        await asyncio.sleep(seconds)
        ran.append(n)

    return app


async def enqueue(apg: asyncpg.Connection, count: int) -> None:
    await apg.execute(
        "insert into worker.jobs (kind, args) select 'work', jsonb_build_object('n', n)"
        " from generate_series(1, $1::int) n",
        count,
    )


async def all_done(apg: asyncpg.Connection, count: int) -> bool:
    done = "select count(*) from worker.jobs_finished where state = 'done'"
    return bool(await apg.fetchval(done) == count)


async def cut(apg: asyncpg.Connection, link: str) -> int:
    """Terminates that link's backend; how many there were."""
    killed: int = await apg.fetchval(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity"
        " where application_name = 'duerow ' || $1 and datname = current_database()",
        link,
    )
    return killed


@pytest.mark.parametrize("link", ["claim", "settle", "listen", "heartbeat"])
async def test_a_link_that_is_cut_again_and_again(
    db_url: str, apg: asyncpg.Connection, link: str
) -> None:
    ran: list[int] = []
    rounds = 3
    async with running(app_of(ran, 0.002), db_url, lease=12.0, concurrency=4) as one:
        for round_ in range(1, rounds + 1):
            await enqueue(apg, 60)
            one.worker.parts.heartbeat.beat_now()  # it connects for its first beat
            await until(lambda: cut(apg, link))
            await until(lambda n=round_: all_done(apg, 60 * n))
        assert not one.seen.of(ServiceFailed)
        assert await apg.fetchval("select count(*) from worker.workers") == 1, "never given up"
        await until(lambda: not one.worker.parts.loop.buffered)
    assert sorted(ran) == sorted([*range(1, 61)] * rounds), "each ran once"
    assert one.report is not None
    assert (one.report.settled, one.report.lost) == (60 * rounds, 0)


async def test_all_links_cut_at_once(db_url: str, apg: asyncpg.Connection) -> None:
    ran: list[int] = []
    async with running(app_of(ran, 0.002), db_url, lease=12.0) as one:
        for round_ in range(1, 4):
            await enqueue(apg, 60)
            await until(lambda n=round_: len(ran) > 60 * n - 40)
            for link in ("claim", "settle", "listen", "heartbeat"):
                await cut(apg, link)
            await until(lambda n=round_: all_done(apg, 60 * n))
        assert not one.seen.of(ServiceFailed)
        assert one.seen.of(DatabaseLost)
    assert one.report is not None
    assert (one.report.settled, one.report.lost, one.report.code) == (180, 0, 0)


@pytest.fixture
async def wire(db_url: str) -> AsyncIterator[tuple[Wire, str]]:
    async with wired(db_url) as both:
        yield both


def losing(wire: Wire, link: str, columns: int, times: int = 1) -> None:
    """Loses the next answers of that shape on that link: carried out, but nobody knows."""
    wire.lost = 0

    def lose(name: str, found: int) -> bool:
        return wire.lost < times and name == f"duerow {link}" and found == columns

    wire.lose = lose


async def known_to_the_driver(
    one: Running, apg: asyncpg.Connection, kind: str, args: str = "{}"
) -> None:
    """Runs a first row: for its statements asyncpg asks about types, in answers of any shape."""
    await put(apg, kind, args)
    await until(lambda: one.seen.of(RowSettled))


async def test_a_claim_whose_answer_was_lost_leaves_no_row_claimed(
    wire: tuple[Wire, str], apg: asyncpg.Connection
) -> None:
    ran: list[int] = []
    async with running(app_of(ran), wire[1]) as one:
        await known_to_the_driver(one, apg, "work", '{"n": 0}')
        losing(wire[0], "claim", CLAIM_COLUMNS)
        await enqueue(apg, 10)
        await until(lambda: all_done(apg, 11))
        assert wire[0].lost == 1
        assert not one.seen.of(ServiceFailed)
    assert sorted(ran) == list(range(11))
    tokens = "select count(*), min(attempt), max(attempt), max(token) from worker.jobs_finished"
    assert tuple(await apg.fetchrow(tokens)) == (11, 1, 1, 2), "claimed twice, run once"


async def test_what_runs_meanwhile_is_not_given_back(
    wire: tuple[Wire, str], apg: asyncpg.Connection
) -> None:
    """After a lost answer only what is unknown goes back, not what this worker holds."""
    ran: list[int] = []
    app, release = App(), asyncio.Event()

    @app.handler
    async def work(n: int) -> None:
        if n <= 2:
            await release.wait()
        ran.append(n)

    await enqueue(apg, 2)
    async with running(app, wire[1], concurrency=4) as one:
        await until(lambda: len(one.worker.running) == 2)
        losing(wire[0], "claim", CLAIM_COLUMNS)
        await put(apg, "work", '{"n": 3}')
        await until(lambda: ran == [3])
        release.set()
        await until(lambda: all_done(apg, 3))
        assert not one.seen.of(RowLost)
    assert wire[0].lost == 1
    tokens = "select array_agg(token order by id) from worker.jobs_finished"
    assert await apg.fetchval(tokens) == [1, 1, 2]


async def test_the_second_of_two_claims_fails(
    wire: tuple[Wire, str], apg: asyncpg.Connection
) -> None:
    """A short claim is followed by a look in the same step. What the first has taken must be run
    though the second met a broken connection."""
    ran: list[int] = []
    async with running(app_of(ran), wire[1]) as one:
        await enqueue(apg, 1)
        await until(lambda: all_done(apg, 1))
        for n in range(2, 8):
            # The look's list of streams: four columns. It goes with the claim that finds the row.
            losing(wire[0], "claim", 4)
            await put(apg, "work", f'{{"n": {n}}}')
            await until(lambda n=n: all_done(apg, n))
        assert not one.seen.of(ServiceFailed)
    assert sorted(ran) == list(range(1, 8))


@pytest.mark.parametrize("times", [1, 3])
async def test_a_settle_whose_answer_was_lost_counts_once(
    wire: tuple[Wire, str], apg: asyncpg.Connection, times: int
) -> None:
    ran: list[int] = []
    async with running(app_of(ran), wire[1]) as one:
        await known_to_the_driver(one, apg, "work", '{"n": 0}')
        losing(wire[0], "settle", SETTLE_COLUMNS, times)
        await enqueue(apg, 10)
        await until(lambda: len(one.seen.of(RowSettled)) == 11)
        assert wire[0].lost == times
        assert {event.transition.verb for event in one.seen.of(RowSettled)} == {"done"}
    assert one.report is not None
    assert (one.report.settled, one.report.lost) == (11, 0)
    assert await apg.fetchval("select count(*) from worker.attempts") == 0
    assert await apg.fetchval("select lost from worker.workers") == 0
    assert sorted(ran) == list(range(11))


async def test_a_retry_whose_answer_was_lost_is_a_retry(
    wire: tuple[Wire, str], apg: asyncpg.Connection
) -> None:
    app = App()

    @app.handler(retry=RetryPolicy(wait=tenacity.wait_fixed(60)))
    async def fail() -> None:
        raise ValueError("no")

    async with running(app, wire[1]) as one:
        await known_to_the_driver(one, apg, "fail")
        losing(wire[0], "settle", SETTLE_COLUMNS)
        [key] = await put(apg, "fail")
        await until(lambda: len(one.seen.of(RowSettled)) == 2)
        assert wire[0].lost == 1
        assert not one.seen.of(RowLost)
        row = await job(apg, key)
        assert (row["state"], row["attempt"]) == ("retrying", 1)
    outcomes = await apg.fetch("select outcome from worker.attempts")
    assert [r["outcome"] for r in outcomes] == ["retry", "retry"]


async def test_a_worker_that_starts_while_rows_are_settled_by_nobody(
    db_url: str, apg: asyncpg.Connection
) -> None:
    """A stop whose release could not be written: another worker returns the rows, however much
    later it starts."""
    [worker] = await apg.fetchrow(
        "insert into worker.workers (name, host, pid, version, queues, kinds, slots, lease,"
        " heartbeat_at, stopped_at) values ('old', 'h', 1, '0', '{default}', '{work}', 4, '30 s',"
        " now() - interval '1 day', now() - interval '1 day') returning id"
    )
    await enqueue(apg, 3)
    await apg.execute(
        "update worker.jobs set owner = $1, token = 1, attempt = 1, claimed_at = now()", worker
    )
    ran: list[int] = []
    async with running(app_of(ran), db_url):
        await until(lambda: all_done(apg, 3))
    assert sorted(ran) == [1, 2, 3]


@pytest.mark.parametrize("silent", ["idle", "busy"])
async def test_a_wire_that_goes_silent_for_a_while(
    wire: tuple[Wire, str], apg: asyncpg.Connection, silent: str
) -> None:
    """Shorter than any timeout: everything goes on where it was."""
    ran: list[int] = []
    async with running(app_of(ran, 0.01), wire[1], lease=12.0) as one:
        if silent == "busy":
            await enqueue(apg, 50)
            await until(lambda: len(ran) > 10)
        wire[0].mute()
        await asyncio.sleep(0.5)
        wire[0].unmute()
        if silent == "idle":
            await enqueue(apg, 50)
        await until(lambda: all_done(apg, 50))
        assert not one.seen.of(ServiceFailed)
    assert sorted(ran) == list(range(1, 51))


async def test_stopping_in_the_middle_of_a_claim_leaves_no_row_claimed(
    wire: tuple[Wire, str], apg: asyncpg.Connection
) -> None:
    """The claim's answer is on its way when the worker stops: what it brings goes back."""
    ran: list[int] = []
    async with running(app_of(ran), wire[1]) as one:
        await known_to_the_driver(one, apg, "work", '{"n": 0}')
        wire[0].delay = lambda name, columns: 2.0 * (columns == CLAIM_COLUMNS)
        await enqueue(apg, 10)
        claimed = "select count(*) from worker.jobs where owner is not null"
        await until(lambda: apg.fetchval(claimed))
        report = await one.stop()
        assert await apg.fetchval(claimed) == 0
    left = await apg.fetch("select distinct attempt, crashes from worker.jobs")
    assert [tuple(row) for row in left] == [(0, 0)]
    assert (report.code, ran) == (0, [0])


async def test_a_server_that_restarts_under_load(postgres_server: Cluster) -> None:
    url = postgres_server.url
    await asyncio.to_thread(upgrade, url)
    ran: list[int] = []

    async def ask(query: str) -> Any:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    async with running(app_of(ran, 0.002), url, lease=12.0) as one:
        for round_, mode in enumerate(("immediate", "fast"), 1):
            await ask(
                "insert into worker.jobs (kind, args) select 'work', jsonb_build_object('n', n)"
                f" from generate_series({round_ * 1000}, {round_ * 1000 + 199}) n"
            )
            await until(lambda n=round_: max(ran, default=0) >= n * 1000 + 50)
            await asyncio.to_thread(postgres_server.restart, mode)
        await until(lambda: ask("select count(*) = 0 from worker.jobs"), within=30)
        assert not one.seen.of(ServiceFailed)
        assert await ask("select count(*) from worker.jobs_finished where state = 'done'") == 400
    assert one.report is not None
    assert one.report.code == 0
    assert len(set(ran)) == 400
