"""One row of each tenant, listed and locked by one statement: none twice, nobody passed over."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from tests.adopted import source
from tests.facts import until
from tests.test_fair import Claiming, explained, give
from tests.test_rows_fair import SPEC, TYPES, make
from tests.test_rows_fair import Claiming as ClaimingRows
from worker.fair import LIST, VISIT, Fair, Listing, Turns
from worker.link import HOT_PATH_PLANNER
from worker.row import Row
from worker.source import Source, Stream
from worker.statements import statement

JOBS = Stream("default", "work", 0)
ORDERS = Stream("orders", "orders", 0)


@pytest.fixture
async def jobs(db_url: str, worker: int) -> AsyncIterator[Claiming]:
    """At most one row of a tenant in a claim."""
    made = Claiming(db_url, worker, 1)
    yield made
    await made.link.close()


def names(count: int) -> list[str]:
    return [f"tenant {n:03}" for n in range(count)]


async def one_each(
    source: Source, stream: Stream, link: Any, after: str, limit: int, worker: int
) -> list[Row]:
    """What is claimed; whoever comes last is told."""
    rows, last = await source.claim_one_each(link, stream, after, limit, worker)
    assert (last is None) == (not rows)
    assert last is None or last in {row.tenant for row in rows}
    return rows


def tenants(rows: list[Row]) -> list[str | None]:
    return [row.tenant for row in rows]


# -- whose turn it is -----------------------------------------------------------------------------


async def test_claims_go_on_by_one_statement_and_nobody_is_passed_over(
    jobs: Claiming, apg: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await give(apg, **dict.fromkeys(names(150), 8))
    served = Counter(tenants(await jobs.take()))
    asked: list[str] = []
    fetch = jobs.link.fetch

    async def told(sql: str, *params: Any) -> list[Any]:
        asked.append(sql)
        return await fetch(sql, *params)

    monkeypatch.setattr(jobs.link, "fetch", told)
    for _ in range(32):
        taken = await jobs.take()
        assert len(taken) == 20
        served.update(tenants(taken))
    assert statement("claim/one_each") in asked
    assert not {statement("claim/tenants"), statement("claim/fair")} & set(asked)
    others = [served[name] for name in names(150)[30:]]  # the tenth goes to the first of them
    assert max(others) - min(others) <= 1, "594 rows by turns are four rounds"


async def test_from_many_tenants_to_few_claims_are_full_until_all_is_taken(
    jobs: Claiming, apg: asyncpg.Connection
) -> None:
    await give(apg, **dict.fromkeys(names(150), 2), large=200)
    keys: list[Any] = []
    while len(taken := [row.key for row in await jobs.take()]) == 20:
        keys += taken
    keys += taken
    assert len(keys) == len(set(keys)) == 500


async def test_what_one_row_of_each_leaves_of_a_claim_is_shared_too(
    jobs: Claiming, apg: asyncpg.Connection
) -> None:
    await give(apg, large=300, **dict.fromkeys(names(120), 5))
    await jobs.take()
    await apg.execute("delete from worker.jobs where tenant > 'tenant 009'")
    served = Counter(tenants(await jobs.take()))
    assert served.total() == 20
    assert served["large"] <= 3, "not all that the ten others have left of it"


async def test_a_partitioned_table_is_served_by_listings(
    apg: asyncpg.Connection, db_url: str, worker: int
) -> None:
    rows = await make(apg, db_url, "partitioned", rows=0)
    await apg.execute(
        "insert into orders (client) select 'client ' || i % 120 from generate_series(1, 360) i"
    )
    claiming = ClaimingRows(db_url, worker, rows, per_tenant=1)
    served: Counter[str | None] = Counter()
    for _ in range(12):
        served.update(tenants(await claiming.take(30)))
    assert set(served.values()) == {3}
    await claiming.link.close()


async def test_a_claim_of_one_row_goes_on_where_the_last_ended(
    jobs: Claiming, apg: asyncpg.Connection
) -> None:
    await give(apg, **dict.fromkeys(names(120), 3))
    first = [tenant for _ in range(120) for tenant in tenants(await jobs.take(1))]
    served = Counter(first)
    assert sum(served[name] == 1 for name in names(120)[10:]) > 90, "108 rows by turns"


@pytest.mark.parametrize("kind", [kind for kind in TYPES if kind != "partitioned"])
async def test_the_next_ones_in_the_order_of_any_type(
    apg: asyncpg.Connection, db_url: str, worker: int, kind: str
) -> None:
    rows = await make(apg, db_url, kind)
    found = await apg.fetch(
        "select o.client::text from orders o group by o.client order by o.client"
    )
    order = [record[0] for record in found]
    after = order[len(order) // 2]
    at = order.index(after) + 1
    following = (order[at:] + order[:at])[:15]
    taken, last = await rows.claim_one_each(apg, ORDERS, after, 15, worker)
    assert Counter(tenants(taken)) == Counter(following)
    assert last == following[-1]


async def test_those_who_have_nothing_due_cost_a_bounded_number_of_probes(
    jobs: Claiming, apg: asyncpg.Connection, worker: int
) -> None:
    await apg.execute(
        "insert into worker.jobs (kind, tenant, due_at)"
        " select 'work', 'idle ' || i, now() + interval '1 h' from generate_series(1, 1000) i"
    )
    await give(apg, zebra=5)
    assert await one_each(jobs.source, JOBS, jobs.link, "idle 1", 20, worker) == []
    asked = ("default", "work", 0, "idle 1", 100, VISIT, worker)
    plan = await explained(jobs, "claim/one_each", *asked)
    probes = sum(n["Actual Loops"] for n in plan if n.get("Index Name") == "jobs_tenant")
    assert VISIT <= probes <= VISIT + 1
    assert len(await jobs.take()) == 5


def test_who_is_to_have_more_than_one_row_is_listed() -> None:
    many = Listing(names(LIST), names(LIST)[-1], whole=False)
    for fair, one in ((Fair(1), True), (Fair(2), False), (Fair(1, weights={"a": 2}), False)):
        turns = Turns(fair)
        turns.listed(many)
        assert turns.one_each_after is None, "nobody has been served"
        asked, most = turns.next(20)
        turns.served(asked, most, asked[:20], full=True)
        assert (turns.one_each_after is not None) == one


def test_a_claim_that_came_short_is_followed_by_a_listing() -> None:
    turns = Turns(Fair(1))
    turns.listed(Listing(names(LIST), names(LIST)[-1], whole=False))
    turns.served(*turns.next(20), names(20), full=True)
    assert turns.one_each_after == "tenant 019"
    turns.one_each("tenant 039", full=True)
    assert turns.one_each_after == turns.after == "tenant 039"
    assert turns.waiting == []
    turns.one_each("", full=True)
    assert turns.one_each_after == "", "a name like any other"
    turns.one_each("tenant 039", full=True)
    turns.one_each(None, full=False)
    assert turns.one_each_after is None
    assert turns.after == "tenant 039"


# -- rows that somebody else has, or changes meanwhile --------------------------------------------


async def test_whose_first_row_is_locked_has_the_next_one_taken(
    jobs: Claiming, apg: asyncpg.Connection, db_url: str, worker: int
) -> None:
    """By a claim that has not ended, say; or for long, by a session that somebody has forgotten."""
    await give(apg, **dict.fromkeys(names(30), 3))
    other = await asyncpg.connect(db_url)
    transaction = other.transaction()
    await transaction.start()
    first = await one_each(jobs.source, JOBS, other, "tenant 012", 30, worker)
    second = await one_each(jobs.source, JOBS, jobs.link, "tenant 012", 30, worker)
    await transaction.commit()
    third = await one_each(jobs.source, JOBS, jobs.link, "tenant 012", 40, worker)
    for rows in (first, second, third):
        assert sorted(map(str, tenants(rows))) == names(30)
    assert len({row.key for row in [*first, *second, *third]}) == 90
    await other.close()


async def test_whose_first_row_never_runs_has_the_next_one_taken(
    apg: asyncpg.Connection, db_url: str, worker: int
) -> None:
    rows = await make(apg, db_url, "text", rows=2)
    await apg.execute("update orders set next_at = '-infinity' where id % 2 = 0")
    taken = await one_each(rows, ORDERS, apg, "client 1", 20, worker)
    assert sorted(map(str, tenants(taken))) == sorted(f"client {n}" for n in range(20))
    assert all(row.key % 2 == 1 for row in taken)


async def test_many_claimers_take_no_row_twice(
    apg: asyncpg.Connection, db_url: str, worker: int
) -> None:
    await give(apg, **dict.fromkeys(names(150), 6))
    crowd = [Claiming(db_url, worker, 1) for _ in range(6)]
    keys: list[Any] = []
    while taken := [
        row.key for rows in await asyncio.gather(*(one.take(25) for one in crowd)) for row in rows
    ]:
        keys += taken
    assert len(keys) == len(set(keys)) == 900
    for one in crowd:
        await one.link.close()


@pytest.mark.parametrize("what", ["worker", "gate"])
async def test_a_fence_and_a_pause_hold(
    jobs: Claiming, apg: asyncpg.Connection, db_url: str, worker: int, what: str
) -> None:
    rows = await make(apg, db_url, "text")
    await give(apg, **dict.fromkeys(names(30), 3))
    both: list[tuple[Source, Stream]] = [(jobs.source, JOBS), (rows, ORDERS)]
    if what == "worker":
        await apg.execute("update worker.workers set gone_at = now()")
    else:
        await apg.execute(
            "insert into worker.gates (kind, paused_at) values ('work', now()), ('orders', now())"
        )
    for one, stream in both:
        assert await one_each(one, stream, apg, "client 1", 10, worker) == []
    await apg.execute("delete from worker.gates; update worker.workers set gone_at = null")
    for one, stream in both:
        assert len(await one_each(one, stream, apg, "client 1", 10, worker)) == 10


# What becomes of the first row of client 1.
CHANGES = {
    "claimed": "update orders set duerow_owner = 99, duerow_token = 5 where id = $1",
    "put off": "update orders set next_at = now() + interval '1 h' where id = $1",
    "another's": "update orders set client = 'client 0' where id = $1",
    "out of the condition": "update orders set open = false where id = $1",
    "deleted": "delete from orders where id = $1",
    "noted": "update orders set note = 'x' where id = $1",
}


WAITS = """
select exists (select from pg_locks l join pg_database d on d.oid = l.database
                where d.datname = current_database() and l.locktype = 'advisory'
                  and not l.granted)"""


@pytest.mark.parametrize("what", CHANGES)
async def test_a_row_that_changes_between_listing_and_lock(
    apg: asyncpg.Connection, db_url: str, worker: int, what: str
) -> None:
    """The statement is held up while it lists that row: what it sees of it is what was."""
    await make(apg, db_url, "text", rows=2)
    await apg.execute("update orders set next_at = next_at + make_interval(secs => id * 0.001)")
    theirs = "select id from orders where client = 'client 1' order by next_at"
    first, second = [record[0] for record in await apg.fetch(theirs)]
    await apg.execute(
        "alter table orders add note text, add open boolean default true;"
        " create function held(listed bigint) returns boolean language plpgsql as $$ begin"
        f" if listed = {first} then perform pg_advisory_xact_lock(7); end if; return true; end $$"
    )
    rows = await source(apg, dataclasses.replace(SPEC, where="open and held(id)"), "id")
    other = await asyncpg.connect(db_url, server_settings=HOT_PATH_PLANNER)
    await apg.execute("select pg_advisory_lock(7)")
    claim = asyncio.create_task(one_each(rows, ORDERS, other, "client 0", 5, worker))
    await until(lambda: apg.fetchval(WAITS))
    await apg.execute(CHANGES[what], first)
    await apg.execute("vacuum orders")
    if what == "deleted":  # whatever takes its place
        await apg.execute(
            "insert into orders (client) select 'client 1' from generate_series(1, 300)"
        )
    await apg.execute("select pg_advisory_unlock(7)")
    taken = [row.key for row in await claim]
    mine = "select id from orders where duerow_owner = $1"
    assert sorted(taken) == sorted(r[0] for r in await apg.fetch(mine, worker))
    assert first not in taken
    assert len(taken) == len(set(taken))
    assert len(set(taken) - {second}) == 4, "one row of each of the others"
    if what == "noted":
        again = await one_each(rows, ORDERS, other, "client 0", 1, worker)
        assert [row.key for row in again] == [first], "it is met the next time"
    await other.close()
