"""The claimer: floors, looks from the beginning, and the order in which streams are served."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from tests.facts import until
from tests.workers import put
from worker.claim import LOOK_EVERY, LOOK_PAUSE_MOST, LOOK_SHARE, Claimer
from worker.claimers import Claimers
from worker.events import Event, Events, RowsClaimed, SourceFailed
from worker.link import HOT_PATH_PLANNER, Link, Outage
from worker.row import Row
from worker.sources.jobs import Jobs
from worker.statements import statement
from worker.url import DatabaseURL


class Claiming:
    """One claimer of worker.jobs, without the rest of a worker."""

    def __init__(self, url: str, worker: int, *pairs: tuple[str, str]) -> None:
        self.events: list[Event] = []
        told = Events((self.events.append,))
        link = Link("claim", DatabaseURL.parse(url), Outage(told), planner=HOT_PATH_PLANNER)
        self.link, self.worker = link, worker
        self.claimer = Claimer(Jobs(pairs or (("default", "work"),)), link, told)

    async def take(self, limit: int = 100) -> list[int]:
        return [row.key for row in await self.rows(limit)]

    async def rows(self, limit: int = 100) -> list[Row]:
        return await self.claimer.step(limit, self.worker)

    async def look(self, limit: int = 100) -> list[int]:
        """The next step that is allowed to look from the beginning, and has to."""
        self.claimer._look_from = self.claimer._look_by = 0.0
        return await self.take(limit)

    def no_look(self) -> None:
        """None is allowed any more."""
        self.claimer._look_from = self.claimer._look_by = float("inf")

    @property
    def floor(self) -> Any:
        [stream] = self.claimer._streams
        return stream.floor


@pytest.fixture
async def claiming(db_url: str, worker: int) -> AsyncIterator[Claiming]:
    made = Claiming(db_url, worker)
    yield made
    await made.link.close()


async def due(apg: asyncpg.Connection, seconds_ago: float, count: int = 1) -> list[int]:
    """Rows that fell due that long ago."""
    when = await apg.fetchval("select now() - make_interval(secs => $1)", seconds_ago)
    return await put(apg, "work", count=count, due_at=when)


async def done(apg: asyncpg.Connection, rows: list[Row]) -> None:
    keys, tokens = [row.key for row in rows], [row.token for row in rows]
    times, results = [1] * len(rows), [None] * len(rows)
    for owner in {row.owner for row in rows}:
        await apg.fetch(statement("settle/done"), keys, tokens, owner, times, results)


async def test_it_goes_from_row_to_row(claiming: Claiming, apg: asyncpg.Connection) -> None:
    keys = [key for ago in (50, 40, 30, 20, 10) for key in await due(apg, ago)]
    assert await claiming.take(2) == keys[:2]
    claiming.no_look()
    assert await claiming.take(2) == keys[2:4]
    assert await claiming.take(2) == keys[4:]
    assert await claiming.take(2) == []


async def test_the_first_claim_looks_from_the_beginning(
    claiming: Claiming, apg: asyncpg.Connection
) -> None:
    [key] = await due(apg, 365 * 86_400)
    assert await claiming.take() == [key]
    assert claiming.claimer.looked


async def test_what_turns_up_behind_the_floor_is_found_by_a_look(
    claiming: Claiming, apg: asyncpg.Connection
) -> None:
    await done(apg, await _claimed(claiming, apg, 10))
    [late] = await due(apg, 3600)
    claiming.no_look()
    assert await claiming.take() == []
    assert not claiming.claimer.looked
    assert await claiming.look() == [late]


async def _claimed(claiming: Claiming, apg: asyncpg.Connection, ago: float) -> list[Row]:
    await due(apg, ago, 5)
    rows = await claiming.rows()
    assert len(rows) == 5
    return rows


async def test_a_look_that_finds_a_straggler_leaves_the_floor_where_it_was(
    claiming: Claiming, apg: asyncpg.Connection
) -> None:
    """Else one released row would send each claim over everything that is dead in between."""
    await done(apg, await _claimed(claiming, apg, 10))
    floor = claiming.floor
    [late] = await due(apg, 3600)
    assert await claiming.look() == [late]
    assert claiming.floor == floor
    [next_] = await due(apg, 5)
    claiming.no_look()
    assert await claiming.take() == [next_]


async def test_a_look_that_cannot_take_all_stragglers_goes_on_from_there(
    claiming: Claiming, apg: asyncpg.Connection
) -> None:
    await done(apg, await _claimed(claiming, apg, 10))
    stragglers = [key for ago in range(3600, 3590, -1) for key in await due(apg, ago)]
    assert await claiming.look(4) == stragglers[:4]
    claiming.no_look()
    assert await claiming.take(4) == stragglers[4:8], "without another look"
    assert await claiming.take(4) == stragglers[8:]


async def test_looks_are_rationed(claiming: Claiming, apg: asyncpg.Connection) -> None:
    """A look costs what lies in front: after one that took d seconds none for ten times that."""
    claimer, began = claiming.claimer, time.monotonic()
    await claiming.take()
    took = claimer._look_took
    assert claimer._look_from >= began + took + min(LOOK_PAUSE_MOST, LOOK_SHARE * took)
    assert claimer.next_look_in() <= LOOK_PAUSE_MOST
    assert claimer._look_by >= claimer._look_from
    assert claimer._look_by - time.monotonic() <= LOOK_EVERY + LOOK_PAUSE_MOST
    before = len(claiming.events)
    claimer._look_from = float("inf")
    await claiming.take()
    assert not claimer.looked
    told = claiming.events[before]
    assert isinstance(told, RowsClaimed)
    assert told.count == 0


async def test_it_knows_when_the_next_row_falls_due(
    claiming: Claiming, apg: asyncpg.Connection
) -> None:
    assert await claiming.take() == []
    assert claiming.claimer.next_due_in() is None
    await due(apg, -30)
    await due(apg, -60)
    await due(apg, 1)
    await claiming.look()
    next_in = claiming.claimer.next_due_in()
    assert next_in is not None
    assert 15 < next_in <= 30


async def test_priorities_first_then_the_kinds_take_turns(
    db_url: str, worker: int, apg: asyncpg.Connection
) -> None:
    pairs = [("default", kind) for kind in ("a", "b", "c")]
    claiming = Claiming(db_url, worker, *pairs)
    for kind in ("a", "b", "c"):
        await put(apg, kind, count=40)
    await put(apg, "c", priority=-1, count=2)
    urgent = await claiming.rows(2)
    assert [row.kind for row in urgent] == ["c", "c"]
    first = [(await claiming.rows(4))[0].kind for _ in range(6)]
    assert set(first) == {"a", "b", "c"}
    await claiming.link.close()


async def test_a_claim_that_fills_up_from_several_streams(
    db_url: str, worker: int, apg: asyncpg.Connection
) -> None:
    claiming = Claiming(db_url, worker, ("default", "a"), ("default", "b"))
    await put(apg, "a", count=3)
    await put(apg, "b", count=3)
    await put(apg, "b", priority=5, count=3)
    rows = await claiming.rows(8)
    assert len(rows) == 8
    assert [row.priority for row in rows] == [0] * 6 + [5] * 2
    await claiming.link.close()


async def test_rows_that_others_have_locked_are_passed_by(
    claiming: Claiming, apg: asyncpg.Connection
) -> None:
    keys = await due(apg, 10, 6)
    async with apg.transaction():
        await apg.execute("select from worker.jobs where id = any($1) for update", keys[:3])
        assert await claiming.take() == keys[3:]
    assert await claiming.look() == keys[:3]


async def test_a_source_that_fails_rests_and_comes_back(
    claiming: Claiming, apg: asyncpg.Connection
) -> None:
    claimers = Claimers([claiming.claimer], Events((claiming.events.append,)))
    [key] = await due(apg, 10)
    async with apg.transaction():
        await apg.execute("lock table worker.jobs in access exclusive mode")
        assert await claimers.step(5, claiming.worker) == []
        [failed] = [event for event in claiming.events if isinstance(event, SourceFailed)]
        assert failed.source == "jobs"
        assert await claimers.step(5, claiming.worker) == [], "it is left alone"
        assert not claimers.looked, "nobody may take that for an empty queue"

    async def back() -> list[Row]:
        return await claimers.step(5, claiming.worker)

    assert [row.key for row in await until(back)] == [key]
    assert not claimers.unsure


async def test_what_is_unknown_is_given_back_and_what_is_known_is_kept(
    claiming: Claiming, apg: asyncpg.Connection
) -> None:
    await due(apg, 10, 3)
    known, unknown, stale = await claiming.rows()
    await apg.execute("update worker.jobs set token = token + 1 where id = $1", stale.key)
    claiming.claimer.unsure = True
    await claiming.claimer.reconcile(claiming.worker, {"jobs": [known, stale]})
    owned = await apg.fetch("select id from worker.jobs where owner is not null")
    assert [row["id"] for row in owned] == [known.key], "held by key alone would not do"
    attempts = await apg.fetch("select id, attempt from worker.jobs where owner is null")
    assert {row["id"]: row["attempt"] for row in attempts} == {unknown.key: 0, stale.key: 0}
    assert not claiming.claimer.unsure
