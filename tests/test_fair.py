"""Fair claims of jobs: tenants take turns, and nothing that is due is left behind."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import pytest

from tests.workers import put
from worker.claim import Claimer
from worker.events import Events
from worker.fair import PLAIN_SHARE, VISIT, Fair
from worker.link import HOT_PATH_PLANNER, Link, Outage
from worker.row import Row
from worker.sources.jobs import Jobs
from worker.statements import statement
from worker.url import DatabaseURL


class Claiming:
    """One claimer of fair jobs, without the rest of a worker. per_tenant: of the kind `work`."""

    def __init__(self, url: str, worker: int, per_tenant: int, *kinds: str) -> None:
        told = Events(())
        pairs = [("default", kind) for kind in kinds or ("work",)]
        self.link = Link("claim", DatabaseURL.parse(url), Outage(told), planner=HOT_PATH_PLANNER)
        self.source = Jobs(pairs, {"work": Fair(per_tenant)})
        self.claimer = Claimer(self.source, self.link, told)
        self.worker = worker

    async def take(self, limit: int = 20) -> list[Row]:
        return await self.claimer.step(limit, self.worker)

    async def tenants(self, limit: int = 20) -> Counter[str | None]:
        return Counter(row.tenant for row in await self.take(limit))


@pytest.fixture
async def fair(db_url: str, worker: int) -> AsyncIterator[Claiming]:
    """At most two rows of a tenant in a claim."""
    made = Claiming(db_url, worker, 2)
    yield made
    await made.link.close()


async def give(apg: asyncpg.Connection, **rows: int) -> None:
    """So many due rows for each tenant; those of an earlier one fell due before all of the next."""
    for place, (tenant, count) in enumerate(rows.items()):
        when = await apg.fetchval("select now() - make_interval(secs => $1)", 1000 - place)
        await put(apg, "work", count=count, tenant=tenant, due_at=when)


async def test_a_small_tenant_does_not_wait_for_a_large_one(
    fair: Claiming, apg: asyncpg.Connection
) -> None:
    await give(apg, large=1000, small=20)
    for _ in range(3):
        await fair.take()
    left = await apg.fetchval(
        "select count(*) from worker.jobs where tenant = 'small' and owner is null"
    )
    assert left == 0, "all but a tenth of a claim is shared out evenly"


async def test_a_small_tenant_is_through_in_two_rounds(
    fair: Claiming, apg: asyncpg.Connection
) -> None:
    """Beside thirty large ones. A round is two rows of each, and a tenth more by due times."""
    await give(apg, **{f"large {n}": 200 for n in range(30)}, small=4)
    rows = []
    while sum(row.tenant == "small" for row in rows) < 4:
        rows += await fair.take()
    assert len(rows) <= 160, "124 and a tenth more, in claims of 20, the last to its end"


async def test_a_weight_is_so_many_times_as_much(
    db_url: str, worker: int, apg: asyncpg.Connection
) -> None:
    one = Claiming(db_url, worker, 2)
    one.source._fair = {"work": Fair(2, weights={"b": 3})}
    await give(apg, **dict.fromkeys("abcdef", 300))
    served: Counter[str | None] = Counter()
    for _ in range(16):
        served += await one.tenants()
    del served["a"]  # the oldest, of whom the tenth is
    others = [served[name] for name in "cdef"]
    assert 2.2 < served["b"] / (sum(others) / 4) < 3.8
    await one.link.close()


async def test_no_tenant_gets_more_than_its_share_while_others_are_due(
    fair: Claiming, apg: asyncpg.Connection
) -> None:
    await give(apg, **{f"tenant {n:02}": 30 for n in range(30)})
    served: Counter[str | None] = Counter()
    by_due_time = 0
    for _ in range(10):
        taken = await fair.tenants()
        assert taken.total() == 20
        by_due_time += sum(max(0, count - 2) for count in taken.values())
        served += taken
    assert by_due_time <= 200 // PLAIN_SHARE
    assert len(served) == 30
    assert min(served.values()) >= 4, "ten claims of nine tenants each: three turns or two"


async def test_everything_that_is_due_is_taken_in_the_end(
    fair: Claiming, apg: asyncpg.Connection
) -> None:
    await give(apg, a=1, b=50, c=7)
    await put(apg, "work", count=9)
    taken = [row.key for _ in range(4) for row in await fair.take()]
    assert len(taken) == len(set(taken)) == 67
    assert await fair.take() == []


async def test_claims_are_full_as_long_as_enough_is_due(
    fair: Claiming, apg: asyncpg.Connection
) -> None:
    """Few tenants share what a claim takes, and one that is alone gets all of it."""
    await give(apg, a=100, b=100)
    first = await fair.tenants()
    assert first.total() == 20
    assert 9 <= first["b"] <= 11
    await apg.execute("delete from worker.jobs where tenant = 'a'")
    for _ in range(4):
        assert await fair.tenants() == {"b": 20}


async def test_rows_without_a_tenant_get_their_tenth(
    fair: Claiming, apg: asyncpg.Connection
) -> None:
    when = await apg.fetchval("select now() - interval '1 h'")
    await put(apg, "work", count=4, due_at=when)
    await give(apg, **{f"tenant {n}": 100 for n in range(20)})
    none = [(await fair.tenants())[None] for _ in range(3)]
    assert sum(none) == 4, "they are the oldest, and six of these sixty rows go by due times"
    assert max(none) <= 20 // 3


async def test_a_claim_of_one_row_is_fair_too(fair: Claiming, apg: asyncpg.Connection) -> None:
    await give(apg, large=100, b=5, c=5, d=5)
    taken = [(await fair.take(1))[0].tenant for _ in range(20)]
    assert min(Counter(taken).values()) >= 4


async def test_the_cursor_wraps(fair: Claiming, apg: asyncpg.Connection) -> None:
    names = [f"tenant {n:03}" for n in range(250)]
    await give(apg, **dict.fromkeys(names, 4))
    order: list[str | None] = []
    for _ in range(40):
        order += [row.tenant for row in await fair.take() if row.tenant != names[0]]
    turns = list(dict.fromkeys(order))
    assert len(turns) == 249, "each has had a turn"
    places = [names.index(str(tenant)) for tenant in turns]
    steps = [(after - before) % 250 for before, after in itertools.pairwise(places)]
    out_of_order = sum(step > 5 for step in steps)
    assert out_of_order < 60, "but for the tenth of the rows that goes by due times"


async def test_each_worker_begins_somewhere_else(
    db_url: str, worker: int, apg: asyncpg.Connection
) -> None:
    await give(apg, **{f"{n:04x}": 1 for n in range(500)})
    begun = set()
    for _ in range(12):
        one = Claiming(db_url, worker, 1)
        [stream] = await one.source.streams(one.link)
        begun.add((await one.source.tenants(one.link, stream, None)).tenants[0])
        await one.link.close()
    assert len(begun) > 6


async def test_tenants_whose_rows_are_all_to_come_cost_a_bounded_number_of_probes(
    fair: Claiming, apg: asyncpg.Connection
) -> None:
    await apg.execute(
        "insert into worker.jobs (kind, tenant, due_at)"
        " select 'work', 'idle ' || i, now() + interval '1 h' from generate_series(1, 3000) i"
    )
    await give(apg, busy=300, zebra=5)
    [stream] = await fair.source.streams(fair.link)
    after: str | None = "idle 1"
    found, listings = [], 0
    while len(found) < 2:
        listing = await fair.source.tenants(fair.link, stream, after)
        assert not listing.whole
        found += listing.tenants
        after, listings = listing.last, listings + 1
    assert set(found) == {"busy", "zebra"}
    assert 3000 / VISIT - 1 <= listings <= 3000 / VISIT + 2
    plan = await explained(fair, "claim/tenants", "default", "work", 0, "idle 1", 100, VISIT)
    probes = sum(n["Actual Loops"] for n in plan if n.get("Index Name") == "jobs_tenant")
    assert VISIT <= probes <= VISIT + 1
    assert (await fair.tenants()).total() == 20, "what is due is taken all the same"


async def test_listings_tell_when_there_is_nobody_else(
    fair: Claiming, apg: asyncpg.Connection
) -> None:
    await give(apg, a=1, b=1, c=1)
    await put(
        apg, "work", tenant="idle", due_at=await apg.fetchval("select now() + interval '1 h'")
    )
    [stream] = await fair.source.streams(fair.link)
    for after, order in ((None, None), ("a", "bca"), ("b", "cab"), ("aa", "bca"), ("x", "abc")):
        listing = await fair.source.tenants(fair.link, stream, after)
        assert listing.whole
        assert sorted(listing.tenants) == ["a", "b", "c"]
        assert order is None or "".join(listing.tenants) == order


async def test_nothing_due_for_any_tenant(fair: Claiming, apg: asyncpg.Connection) -> None:
    await put(apg, "work", count=50)
    assert await fair.tenants() == {None: 20}
    assert await fair.tenants() == {None: 20}
    assert await fair.tenants() == {None: 10}


ODD = [
    *("", " ", "'", '"; drop table worker.jobs; --', "{a,b}", "\\", "null", "NULL", "%", "$1"),
    *("\n", "a\tb", "\x01", "\x7f", "Ünïcödé", "日本", "🐘" * 200, "x" * 200, "é", "e\u0301"),
]


async def test_odd_names(fair: Claiming, apg: asyncpg.Connection) -> None:
    await give(apg, **dict.fromkeys(ODD, 5))
    await give(apg, **{"\U0010fffd": 200})
    taken: list[Row] = []
    for _ in range(7):
        taken += await fair.take()
    served = Counter(row.tenant for row in taken)
    assert set(served) == {*ODD, "\U0010fffd"}
    assert min(served.values()) >= 4


async def test_a_paused_queue_gives_nothing(fair: Claiming, apg: asyncpg.Connection) -> None:
    await give(apg, a=50, b=50)
    await apg.execute("insert into worker.gates (queue, paused_at) values ('default', now())")
    assert await fair.take() == []
    await apg.execute("delete from worker.gates")
    assert (await fair.tenants()).total() == 20


async def test_a_worker_that_was_declared_dead_gets_nothing(
    fair: Claiming, apg: asyncpg.Connection
) -> None:
    await give(apg, a=50, b=50)
    await apg.execute("update worker.workers set gone_at = now()")
    assert await fair.take() == []


async def test_priorities_go_before_turns(fair: Claiming, apg: asyncpg.Connection) -> None:
    await give(apg, a=50, b=50)
    await put(apg, "work", tenant="c", priority=-1, count=30)
    assert [row.priority for row in await fair.take(30)] == [-1] * 30
    assert {row.priority for row in await fair.take()} == {0}


async def test_kinds_that_are_not_fair_keep_their_order(
    db_url: str, worker: int, apg: asyncpg.Connection
) -> None:
    """They take turns with the fair one at being first."""
    mixed = Claiming(db_url, worker, 2, "work", "other")
    await give(apg, a=500, b=500)
    mine = await put(apg, "other", count=500)
    kinds: Counter[str] = Counter()
    others: list[Any] = []
    for _ in range(10):
        rows = await mixed.take()
        kinds += Counter(row.kind for row in rows)
        others += [row.key for row in rows if row.kind == "other"]
    assert kinds == {"work": 100, "other": 100}
    assert others == mine[:100]
    await mixed.link.close()


async def explained(fair: Claiming, name: str, *params: Any) -> list[dict[str, Any]]:
    """The nodes of the plan, with what they did."""
    from json import loads

    [record] = await fair.link.fetch(
        f"explain (analyze, timing off, format json) {statement(name)}", *params
    )
    return list(_nodes(loads(record[0])[0]["Plan"]))


def _nodes(plan: dict[str, Any]) -> Sequence[dict[str, Any]]:
    return [plan, *(node for part in plan.get("Plans", ()) for node in _nodes(part))]
