"""Fair claims from a user's own table: whatever names its tenants, partitioned or not."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from typing import Any

import asyncpg
import psycopg
import pytest

from tests.adopted import source
from tests.adoption import adopt
from tests.facts import until
from tests.test_rows_plan import SWITCHES, as_a_worker, explain, faults, nodes
from tests.workers import drained, running
from worker import App, Context
from worker.claim import Claimer
from worker.errors import RegistrationError
from worker.events import Events
from worker.fair import LIST, SLOW_TIMES, Fair, Listing, Turns, between
from worker.link import HOT_PATH_PLANNER, Link, Outage
from worker.row import Row
from worker.source import Stream
from worker.sources.rows import FIRST, Rows
from worker.tables.catalog import describe
from worker.tables.spec import TableSpec
from worker.url import DatabaseURL

SPEC = TableSpec("orders", "orders", due="next_at", tenant="client", by_tenant=True)
ADD = ("orders", "--due", "next_at", "--tenant", "client", "--per-tenant")

PARTITIONED = ") partition by hash (id)"
# What makes each table, and the tenants: their n-th in SQL.
TYPES = {
    "text": ("client text", "'client ' || n"),
    "varchar": ("client varchar(20)", "'client ' || n"),
    "char": ("client char(9)", "'c' || n"),
    "collated": ('client text collate "C"', "'Client' || n"),
    "bigint": ("client bigint", "n - 10"),
    "smallint": ("client smallint", "n"),
    "uuid": ("client uuid", "md5(n::text)::uuid"),
    "numeric": ("client numeric", "n + 0.50"),
    "date": ("client date", "date '2026-01-01' + n"),
    "bytea": ("client bytea", "int4send(n)"),
    "boolean": ("client boolean", "n % 2 = 0"),
    "domain": ("client name_of_client", "'client ' || n"),
    "enum": ("client size", "(enum_range(null::size))[n % 3 + 1]"),
    "array": ("client int[]", "array[n, 1]"),
    "partitioned": ("client text", "'client ' || n"),
}


async def make(apg: asyncpg.Connection, url: str, kind: str, rows: int = 20) -> Rows:
    """20 tenants with so many due rows each, and one with 50 times that."""
    column, tenant = TYPES[kind]
    await apg.execute("create domain name_of_client as text check (value <> '')")
    await apg.execute("create type size as enum ('s', 'm', 'l')")
    tail = PARTITIONED if kind == "partitioned" else ")"
    await apg.execute(
        f"create table orders (id bigint generated always as identity primary key, {column},"
        f" next_at timestamptz default now() - interval '1 min' {tail}"
    )
    if kind == "partitioned":
        for n in range(3):
            await apg.execute(
                f"create table orders_{n} partition of orders"
                f" for values with (modulus 3, remainder {n})"
            )
    adopt(url, *ADD)
    await apg.execute(
        f"insert into orders (client) select {tenant} from generate_series(0, 19) n,"
        f" generate_series(1, case n when 7 then {50 * rows} else {rows} end)"
    )
    return await source(apg, SPEC, "id")


class Claiming:
    """A claimer of fair rows, without the rest of a worker."""

    def __init__(self, url: str, worker: int, rows: Rows, per_tenant: int = 2) -> None:
        told = Events(())
        self.link = Link("claim", DatabaseURL.parse(url), Outage(told), planner=HOT_PATH_PLANNER)
        rows._fair = Fair(per_tenant)
        self.claimer = Claimer(rows, self.link, told)
        self.worker = worker

    async def take(self, limit: int = 20) -> list[Row]:
        return await self.claimer.step(limit, self.worker)


@pytest.mark.parametrize("kind", TYPES)
async def test_tenants_of_any_type_take_turns(
    apg: asyncpg.Connection, db_url: str, worker: int, kind: str
) -> None:
    claiming = Claiming(db_url, worker, await make(apg, db_url, kind))
    names = {r[0] for r in await apg.fetch("select distinct client::text from orders")}
    served: Counter[str | None] = Counter()
    keys = set()
    for _ in range(24):
        rows = await claiming.take()
        assert len(rows) == 20
        keys |= {row.key for row in rows}
        served += Counter(row.tenant for row in rows)
    assert len(keys) == 480, "each once"
    assert set(served) == names
    if len(names) == 20:
        assert min(served.values()) >= 18, "ten turns of two for each, and a tenth by due times"
    await claiming.link.close()


async def test_tenants_null_and_empty(apg: asyncpg.Connection, db_url: str, worker: int) -> None:
    claiming = Claiming(db_url, worker, await make(apg, db_url, "text"))
    await apg.execute("insert into orders (client, next_at) values ('', now())")
    await apg.execute(
        "insert into orders (client, next_at)"
        " select null, now() - interval '1 h' from generate_series(1, 4)"
    )
    tenants = [row.tenant for _ in range(12) for row in await claiming.take()]
    assert tenants.count("") == 1
    assert tenants.count(None) == 4
    await claiming.link.close()


@pytest.mark.parametrize("kind", ["text", "partitioned"])
async def test_rows_that_are_held_dead_or_never_due_are_not_taken(
    apg: asyncpg.Connection, db_url: str, worker: int, kind: str
) -> None:
    rows = await make(apg, db_url, kind)
    await apg.execute(
        "update orders set duerow_held_for = next_at, duerow_retry_at = 'infinity' where id % 5 = 1"
    )
    await apg.execute("update orders set next_at = null where id % 5 = 2")
    await apg.execute("update orders set next_at = '-infinity' where id % 5 = 3")
    await apg.execute(
        "update orders set duerow_held_for = next_at, duerow_retry_at = now() + interval '1 h'"
        " where id % 5 = 4"
    )
    claiming = Claiming(db_url, worker, rows)
    keys = []
    while taken := await claiming.take(100):
        keys += [row.key for row in taken]
    expected = [r[0] for r in await apg.fetch("select id from orders where id % 5 = 0")]
    assert sorted(keys) == sorted(expected)
    await claiming.link.close()


async def test_many_workers_share_the_turns_and_take_no_row_twice(
    apg: asyncpg.Connection, db_url: str, worker: int
) -> None:
    rows = await make(apg, db_url, "uuid")
    crowd = [Claiming(db_url, worker, rows) for _ in range(6)]
    keys: list[Any] = []
    served: Counter[str | None] = Counter()
    for _ in range(4):
        for taken in await asyncio.gather(*(one.take() for one in crowd)):
            keys += [row.key for row in taken]
            served += Counter(row.tenant for row in taken)
    assert len(keys) == len(set(keys))
    assert len(served) == 20
    small = sorted(served.values())[:-1]
    assert small[0] >= 12, "480 rows were taken"
    for one in crowd:
        await one.link.close()


@pytest.mark.parametrize("what", ["orders", "worker"])
async def test_a_pause_and_a_fence_hold(
    apg: asyncpg.Connection, db_url: str, worker: int, what: str
) -> None:
    claiming = Claiming(db_url, worker, await make(apg, db_url, "text"))
    if what == "worker":
        await apg.execute("update worker.workers set gone_at = now()")
    else:
        await apg.execute("insert into worker.gates (queue, paused_at) values ('orders', now())")
    assert await claiming.take() == []
    [stream] = await claiming.claimer._source.streams(claiming.link)
    listed = await claiming.claimer._source.tenants(claiming.link, stream, None)
    assert len(listed.tenants) == 20
    taken = await claiming.claimer._source.claim_tenants(
        claiming.link, stream, listed.tenants, [2] * 20, 20, worker
    )
    assert taken == [], "the claim by tenant asks for itself"
    await claiming.link.close()


async def test_from_listing_to_handler(apg: asyncpg.Connection, db_url: str) -> None:
    """A client of 20 orders is through long before one of a thousand."""
    await make(apg, db_url, "text", rows=20)
    app = App()
    order: list[str] = []

    @app.rows("orders", due="next_at", tenant="client", per_tenant=5)
    async def track(row: dict[str, Any], context: Context) -> None:
        order.append(row["client"])
        await asyncio.sleep(0.001)

    async with running(app, db_url, concurrency=8):
        await until(lambda: len(order) == 1380, within=30)
    last = {client: place for place, client in enumerate(order)}
    others = [place for client, place in last.items() if client != "client 7"]
    assert max(others) < 650, "380 rows of theirs, as many turns of the large one, and its tenth"


async def test_odd_columns_and_a_due_time_without_a_zone(
    apg: asyncpg.Connection, db_url: str
) -> None:
    await apg.execute(
        'create table "Odd Orders" ("Id" int primary key, "The Client" text, "Next:At" timestamp)'
    )
    add = ('"Odd Orders"', "--key", "Id", "--due", "Next:At", "--tenant", "The Client")
    adopt(db_url, *add, "--per-tenant", "--name", "odd")
    await apg.execute(
        "insert into \"Odd Orders\" select i, i % 3, now() at time zone 'UTC'"
        " from generate_series(1, 90) i"
    )
    app = App()
    order: list[str | None] = []

    @app.rows(
        "odd", table='"Odd Orders"', key="Id", due="Next:At", tenant="The Client", per_tenant=1
    )
    async def track(row: dict[str, Any], context: Context) -> None:
        order.append(context.tenant)

    done = await drained(app, db_url)
    assert done.report is not None
    assert done.report.settled == 90
    assert set(order) == {"0", "1", "2"}


# -- plans ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["text", "partitioned"])
@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("tenants", [2, 1000])
async def test_the_claim_of_many_rows(
    apg: asyncpg.Connection, db_url: str, worker: int, kind: str, mode: str, tenants: int
) -> None:
    """Of 50,000 due rows half are one tenant's. Where tenants are few, the index on the due time
    alone looks as good; it would walk over all of them to find the others'."""
    await make(apg, db_url, kind, rows=0)
    await apg.execute(
        "insert into orders (client, next_at) select case when i % 2 = 0 then 'a large one'"
        f" else 'small ' || i % {2 * tenants - 2} end, now() - make_interval(secs => 50000 - i"
        " + case when i % 2 = 0 then 100000 else 0 end) from generate_series(1, 50000) i"
    )
    await apg.execute("analyze orders")
    with psycopg.connect(db_url) as pg:
        as_a_worker(pg)
        pg.execute(f"set plan_cache_mode = {mode}".encode())
        rows = Rows(SPEC, describe(pg, "orders"), ("id",))
        types = "bigint, int, timestamptz, text[], int[], boolean"
        pg.execute(f"prepare c ({types}) as {rows.claim_tenants_sql}".encode())
        pg.execute(f"prepare l (text, int, int) as {rows.tenants_sql}".encode())
        calls = [
            (f"c({worker}, 20, '{FIRST}', '{{small 1,a large one}}', '{{10,10}}', false)", 20),
            ("l('a', 100, 200)", min(tenants, 100)),
        ]
        if rows.claims_one_each:
            types = "bigint, int, timestamptz, text, int"
            pg.execute(f"prepare e ({types}) as {rows.claim_one_each_sql}".encode())
            calls.append((f"e({worker}, 100, '{FIRST}', 'a', 200)", min(tenants, 100)))
        for call, least in calls:
            plan = explain(pg, call)
            assert [f for f in faults(plan) if "throws" not in f] == [], call
            assert plan["Actual Rows"] == least
            assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 6000
            for node in nodes(plan):
                if node.get("Relation Name", "").startswith("orders") and "Index Name" in node:
                    assert "duerow_due_" not in node["Index Name"]
                    assert node["Actual Rows"] * node["Actual Loops"] <= 200
        pg.rollback()


@pytest.mark.parametrize("kind", ["text", "partitioned"])
async def test_it_takes_no_more_than_it_should_whatever_the_planner_may_use(
    apg: asyncpg.Connection, db_url: str, worker: int, kind: str
) -> None:
    await make(apg, db_url, kind)
    with psycopg.connect(db_url) as pg:
        rows = Rows(SPEC, describe(pg, "orders"), ("id",))
        pg.execute("set jit = off")
        for off in range(0, 2 ** len(SWITCHES), 5):
            for n, name in enumerate(SWITCHES):
                state = "off" if off >> n & 1 else "on"
                pg.execute(f"set local enable_{name} = {state}".encode())
            with psycopg.RawCursor(pg) as cursor:
                asked = ["client 3", "client 7", "client 9"]
                taken = cursor.execute(
                    rows.claim_tenants_sql.encode(), (worker, 6, FIRST, asked, [3, 2, 4], False)
                ).fetchall()
            tenants = Counter(r[-4] if r[-4] in asked else str(r) for r in taken)
            assert tenants == {"client 3": 3, "client 7": 2, "client 9": 1}, off
            each = []
            if rows.claims_one_each:
                with psycopg.RawCursor(pg) as cursor:
                    params = (worker, 3, FIRST, "client 7", 200)
                    each = cursor.execute(rows.claim_one_each_sql.encode(), params).fetchall()
                assert {r[2] for r in each} == {"client 0"}, "behind 8 and 9"
            owned = pg.execute("select count(*) from orders where duerow_owner is not null")
            assert owned.fetchone() == (6 + len(each),), off
            assert len(each) == 3 * rows.claims_one_each, off
            pg.rollback()
            pg.execute("set jit = off")


# -- what is said ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"per_tenant": 2},
        {"per_tenant": 2, "tenant": "org", "order": "amount"},
        {"per_tenant": 0, "tenant": "org"},
        {"per_tenant": 1001, "tenant": "org"},
        {"per_tenant": True, "tenant": "org"},
        {"per_tenant": 2.5, "tenant": "org"},
        {"per_tenant": "2", "tenant": "org"},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    app = App()
    with pytest.raises(RegistrationError):

        @app.rows("orders", due="next_at", **wrong)
        async def track(row: dict[str, Any]) -> None: ...


def test_fair_is_a_fair() -> None:
    with pytest.raises(RegistrationError, match="fair is a int"):

        @App().handler("track", fair=3)  # type: ignore[call-overload]
        async def track() -> None: ...


@pytest.mark.parametrize(
    ("first", "last"),
    [
        ("a", "b"),
        ("", "z"),
        ("same", "same"),
        ("tenant 1", "tenant 9999"),
        ("日本", "é"),
        ("a", "ab"),
    ],
)
def test_a_place_between_two_names_can_be_sent(first: str, last: str) -> None:
    for _ in range(50):
        found = between(first, last, "text")
        assert "\0" not in found
        found.encode()


@pytest.mark.parametrize("weights", [{"a": 0}, {"a": 1.5}, {"a": True}, {7: 2}, {"a": "2"}])
def test_a_weight_is_a_whole_number(weights: Any) -> None:
    with pytest.raises(RegistrationError, match="the weight of tenant"):
        Fair(2, weights=weights)


def test_a_place_between_two_numbers_lies_between_them() -> None:
    assert {between("-3", "3", "integer") for _ in range(300)} == {str(n) for n in range(-3, 4)}
    low, high = uuid.UUID(int=5), uuid.UUID(int=2**100)
    for _ in range(50):
        assert low <= uuid.UUID(between(str(low), str(high), "uuid")) <= high


def test_a_stream_is_not_fair_by_itself() -> None:
    assert Stream("q", "k", 0).fair is None


# -- when turns rest ------------------------------------------------------------------------------


def test_turns_rest_where_nobody_has_anything_due() -> None:
    turns = Turns(Fair(2))
    turns.listed(Listing(["a"], "a", whole=True))
    assert not turns.resting
    turns.served(["a"], [2], [], full=False)
    turns.listed(Listing([], "z", whole=False))
    assert not turns.resting, "the listing has not been everywhere yet"
    turns.listed(Listing([], None, whole=True))
    assert turns.resting


def test_turns_are_rationed_if_they_are_slow_again_and_again() -> None:
    """An old snapshot keeps dead rows in front of each tenant's."""
    turns = Turns(Fair(2))
    for seconds, plain in ((1.0, 0.01), (1.0, 0.01), (0.01, 0.01), (1.0, 0.01), (1.0, 0.5)):
        turns.took(seconds, plain)
    for _ in range(SLOW_TIMES - 1):
        turns.took(1.0, 0.01)
        assert not turns.resting, "not often enough on end, or everything is slow"
    turns.took(1.0, 0.01)
    assert turns.resting


def test_who_waits_is_served_in_order_and_whose_turn_was_cut_short_goes_on() -> None:
    turns = Turns(Fair(2))
    turns.listed(Listing(["b", "c", "d"], "d", whole=False))
    assert turns.next(3) == (["b", "c", "d"], [2, 2, 2])
    turns.served(["b", "c", "d"], [2, 2, 2], ["b", "b", "c"], full=True)
    assert turns.next(1) == (["c", "d"], [1, 2])
    turns.served(["c", "d"], [1, 2], ["c"], full=True)
    assert turns.next(1) == (["d"], [2])
    turns.served(["d"], [2], ["D"], full=True)
    assert turns.next(1) == ([], []), "told in another way, it has been served all the same"


def test_those_who_are_all_share_what_there_is() -> None:
    turns = Turns(Fair(2, weights={"b": 4}))
    assert turns.lacks(60)
    turns.listed(Listing(["a", "b", "c"], "c", whole=True))
    assert turns.next(60) == (["a", "b", "c"], [10, 40, 10])
    assert not turns.lacks(60)


@pytest.mark.parametrize("count", [2, 3, 6, 26, 150])
@pytest.mark.parametrize("limit", [1, 7, 20, 100])
@pytest.mark.parametrize("weights", [{}, {"0001": 3}])
def test_turns_are_exact(count: int, limit: int, weights: dict[str, int]) -> None:
    """Nobody is passed over now and then for standing at the end of a claim or of a listing."""
    names = [f"{n:04}" for n in range(count)]
    turns = Turns(Fair(2, weights=weights))
    turns.after = names[count // 2]
    served: Counter[str] = Counter()
    while served.total() < 400 * count + 100 * limit:
        room = turns.share(limit)
        if not room:
            continue
        if turns.lacks(room):
            start = names.index(turns.after) + 1
            around = (names[start:] + names[:start])[:LIST]
            turns.listed(Listing(around, around[-1], whole=count < LIST))
        asked, most = turns.next(room)
        given = [t for t, m in zip(asked, most, strict=True) for _ in range(m)][:room]
        turns.served(asked, most, given, full=len(given) == room)
        served.update(given)
    a_turn = {name: served[name] / weights.get(name, 1) for name in names}
    assert max(a_turn.values()) / min(a_turn.values()) < 1.1
