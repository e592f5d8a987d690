"""Looks from the beginning over many dead rows, which an old snapshot keeps in the index."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import psycopg
import pytest

from tests.test_claim import Claiming, done, due
from tests.workers import drained, put
from worker import App, claim
from worker.claimers import Claimers
from worker.events import Events
from worker.link import LinkDown
from worker.row import Row

DEAD = 600_000
TIMEOUT = "70ms"  # a claim above the floor takes one or two, a look over all that is dead 180


@pytest.fixture
def graveyard(db_url: str, pg: psycopg.Connection[Any]) -> Iterator[None]:
    """Many dead rows, due yesterday, and the snapshot that holds them."""
    pg.execute(
        "insert into worker.jobs (kind, due_at)"
        " select 'work', now() - interval '1 day' + make_interval(secs => i / 1000.0)"
        " from generate_series(1, %s) i",
        [DEAD],
    )
    with psycopg.connect(db_url) as holder:
        holder.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        holder.execute("select count(*) from worker.workers")
        pg.execute("delete from worker.jobs")
        yield


class Impatient:
    """Claims as a worker's loop does, under a timeout that a look over the dead does not keep."""

    def __init__(self, claiming: Claiming) -> None:
        self.claiming = claiming
        self.claimers = Claimers([claiming.claimer], Events())
        self.failed = 0

    async def steps(self, count: int) -> list[int]:
        keys: list[int] = []
        for _ in range(count):
            try:
                if self.claimers.unsure:
                    await self.claimers.reconcile(self.claiming.worker, {})
                keys += [row.key for row in await self.claimers.step(100, self.claiming.worker)]
            except LinkDown:
                self.failed += 1
        return keys

    async def take(self, count: int) -> list[int]:
        """Goes on until it has so many: on a busy machine even a claim may take too long."""
        keys: list[int] = []
        until = time.monotonic() + 15
        while len(keys) < count and time.monotonic() < until:
            keys += await self.steps(1)
        return keys

    async def hurry(self) -> None:
        """From now on."""
        await self.claiming.link.close()
        self.claiming.link._on_connect = _impatient


async def _impatient(connection: asyncpg.Connection) -> None:
    await connection.execute(f"set statement_timeout = '{TIMEOUT}'")


@pytest.mark.usefixtures("graveyard")
async def test_rows_go_on_while_every_look_fails(
    db_url: str, worker: int, apg: asyncpg.Connection
) -> None:
    claiming = Claiming(db_url, worker)
    [first] = await due(apg, 1)
    assert await claiming.take() == [first]
    one = Impatient(claiming)
    await one.hurry()
    claiming.claimer._look_from = claiming.claimer._look_by = 0.0
    keys = await due(apg, 0, 3)
    assert await one.take(3) == keys
    assert one.failed, "or the look did not fail, and this shows nothing"
    assert not claiming.claimer.looked
    assert claiming.claimer.next_look_in() > 0
    await claiming.link.close()


@pytest.mark.usefixtures("graveyard")
async def test_a_worker_whose_first_look_fails_takes_what_falls_due(
    db_url: str, worker: int, apg: asyncpg.Connection
) -> None:
    claiming = Claiming(db_url, worker)
    one = Impatient(claiming)
    await one.hurry()
    keys = await due(apg, 0, 3)
    assert await one.take(3) == keys
    assert one.failed
    await claiming.link.close()


@pytest.mark.usefixtures("graveyard")
async def test_a_worker_that_never_has_the_turn_learns_of_streams(
    db_url: str, worker: int, apg: asyncpg.Connection
) -> None:
    """Its first look, even the listing, failed while all was dead; another has the turn."""
    claiming = Claiming(db_url, worker)
    one = Impatient(claiming)
    await one.hurry()
    claiming.claimer._look_took = 60.0
    await apg.execute("insert into worker.chores (name, last_run_at) values ('look jobs', now())")
    assert await one.steps(1) == []
    assert one.failed == 1
    keys = await due(apg, 0, 3)
    claiming.claimer._look_failures, claiming.claimer._listing_took = 1, 60.0
    claiming.claimer._look_from = claiming.claimer._look_by = 0.0
    assert await one.take(3) == keys
    await claiming.link.close()


@pytest.mark.usefixtures("graveyard")
async def test_a_floor_above_which_much_is_dead_is_given_up(
    db_url: str, worker: int, apg: asyncpg.Connection
) -> None:
    """Others took all that, while this one was busy."""
    claiming = Claiming(db_url, worker)
    [first] = await due(apg, 2 * 86_400)
    assert await claiming.take(1) == [first]
    one = Impatient(claiming)
    await one.hurry()
    keys = await due(apg, 0, 3)
    claiming.claimer._look_from = claiming.claimer._look_by = 0.0
    assert await one.take(3) == keys
    assert 3 <= one.failed < 8, (
        "a look, two claims from that floor, and what a busy machine holds up"
    )
    await claiming.link.close()


@pytest.mark.usefixtures("graveyard")
async def test_a_floor_that_a_look_moved_back_is_not_stayed_at(
    db_url: str, worker: int, apg: asyncpg.Connection
) -> None:
    """A look that takes as much as it may ends at a straggler in front of all that is dead."""
    claiming = Claiming(db_url, worker)
    [first] = await due(apg, 1)
    assert await claiming.take() == [first]
    [straggler] = await due(apg, 3 * 86_400)
    assert await claiming.look(1) == [straggler]
    one = Impatient(claiming)
    await one.hurry()
    [key] = await due(apg, 0)
    assert await one.steps(2) == [], "one from the straggler on"
    claiming.claimer._look_from = claiming.claimer._look_by = 0.0
    assert await one.take(1) == [key]
    await claiming.link.close()


async def test_an_outage_does_not_put_looks_off(
    db_url: str, worker: int, apg: asyncpg.Connection
) -> None:
    claiming = Claiming(db_url, worker)
    await due(apg, 10)
    await done(apg, await claiming.rows())
    [behind] = await due(apg, 3600)
    claiming.claimer._look_from = claiming.claimer._look_by = 0.0
    await claiming.link.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claiming.link, "_connect_timeout", 0.0)
        for _ in range(4):
            with pytest.raises(LinkDown):
                await claiming.take()
    assert [key for _ in range(2) for key in await claiming.take()] == [behind]
    await claiming.link.close()


# -- the fleet's turn ------------------------------------------------------------------------------

HOUR = 3600.0


@pytest.fixture
def dear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look is dear, and one is enough for an hour."""
    monkeypatch.setattr(claim, "DEAR", -1.0)
    monkeypatch.setattr(claim, "LOOK_SHARE", 1e12)
    monkeypatch.setattr(claim, "LOOK_PAUSE_MOST", HOUR)
    monkeypatch.setattr(claim, "LOOK_RARELY", HOUR)


@pytest.fixture
async def fleet(db_url: str, worker: int) -> AsyncIterator[list[Claiming]]:
    made = [Claiming(db_url, worker) for _ in range(4)]
    for one in made:  # as if each had looked before
        one.claimer._look_took = 0.001
    yield made
    for one in made:
        await one.link.close()


async def looks(fleet: list[Claiming]) -> int:
    """How many of a fleet look, of which each one is owed to."""
    count = 0
    for one in fleet:
        one.claimer._look_from = one.claimer._look_by = 0.0
    for _ in range(3):
        await asyncio.gather(*(one.take() for one in fleet))
        count += sum(one.claimer.looked for one in fleet)
    return count


async def earlier(apg: asyncpg.Connection, seconds: float) -> None:
    """The last look was so long ago."""
    await apg.execute(
        "update worker.chores set last_run_at = now() - make_interval(secs => $1)"
        " where name = 'look jobs'",
        seconds,
    )


@pytest.mark.usefixtures("dear")
async def test_one_worker_makes_the_dear_looks(
    fleet: list[Claiming], apg: asyncpg.Connection
) -> None:
    assert await looks(fleet) == 1
    assert await looks(fleet) == 0, "not before the ration is over"
    told = [one.claimer.next_look_in() for one in fleet]
    assert max(told) > HOUR - 100
    await earlier(apg, HOUR + 1)
    assert await looks(fleet) == 1


async def test_cheap_looks_ask_nobody(
    fleet: list[Claiming], apg: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim, "DEAR", 60.0)  # not even where the machine stands still
    for one in fleet:
        one.claimer._look_took = 0.0
    assert await looks(fleet) >= 4
    assert not await apg.fetchval("select exists(select from worker.chores)")


@pytest.mark.usefixtures("dear")
async def test_who_waits_for_the_end_goes_first(
    fleet: list[Claiming], apg: asyncpg.Connection
) -> None:
    assert await looks(fleet) == 1
    await earlier(apg, 0.6 * HOUR)
    assert await looks(fleet) == 0
    Claimers([fleet[2].claimer], Events()).hurry()
    assert await looks(fleet) == 1


@pytest.mark.usefixtures("dear")
async def test_who_may_not_look_finds_new_streams_and_the_looker_what_lies_behind(
    fleet: list[Claiming], apg: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for ago in (4, 3, 2, 1):
        await due(apg, ago)
    for one in fleet:  # each has a floor
        one.claimer._look_took = -2.0
        rows = await one.rows(1)
        assert len(rows) == 1
        await done(apg, rows)
        one.claimer._look_took = 0.001
    assert await looks(fleet) == 1
    monkeypatch.setattr(claim, "DEAR", 0.0005)  # listings are cheap
    for one in fleet:
        one.claimer._look_took, one.claimer._listing_took = 0.001, 0.0
        one.claimer._look_from = one.claimer._look_by = 0.0
    [behind] = await due(apg, 3600)
    [new] = await put(apg, "work", priority=7)
    assert await fleet[0].take() == [new]
    assert not fleet[0].claimer.looked
    await earlier(apg, HOUR + 1)
    assert await fleet[1].take() == [behind]
    assert fleet[1].claimer.looked


async def test_drains_side_by_side_end(
    db_url: str, apg: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim, "DEAR", -1.0)
    app = App()
    ran: list[int] = []

    @app.handler
    async def work(i: int = 0) -> None:
        ran.append(i)

    await put(apg, "work", count=50)
    await asyncio.gather(*(drained(app, db_url, concurrency=5) for _ in range(3)))
    assert len(ran) == 50
    assert await apg.fetchval("select count(*) from worker.chores where name = 'look jobs'") == 1


async def test_a_stream_is_forgotten_when_nothing_comes_from_it(
    db_url: str, worker: int, apg: asyncpg.Connection
) -> None:
    claiming = Claiming(db_url, worker)
    await due(apg, 1)
    rows: list[Row] = await claiming.rows()
    await done(apg, rows)
    for _ in range(2):
        await claiming.look()
    claiming.no_look()
    await due(apg, 0)
    await done(apg, await claiming.rows())
    for _ in range(claim.KNOWN_FOR):
        await claiming.look()
        assert claiming.claimer._streams
    await claiming.look()
    assert not claiming.claimer._streams
    await claiming.link.close()
