"""Keys of every kind, names of every kind, partitions: each row's claim is settled as its own."""

from __future__ import annotations

import dataclasses
from typing import Any

import asyncpg
import psycopg
import pytest
import sqlalchemy.ext.asyncio
import sqlalchemy.orm

from tests.adopted import adopt
from tests.workers import drained
from worker import App, Context, Retry
from worker.errors import RegistrationError
from worker.events import RowLost, RowSettled, SourceFailed
from worker.tables.spec import index_name

KEYS = {
    "bigint": (
        "id bigint",
        "4611686018427387904 + n",
        ["4611686018427387905", "4611686018427387906"],
    ),
    "uuid": (
        "id uuid",
        "lpad(n::text, 32, '0')::uuid",
        ["00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"],
    ),
    "text": ("id text", "'a\"b,{c}\\ ' || n", ['a"b,{c}\\ 1', 'a"b,{c}\\ 2']),
    "char(9)": ("id char(9)", "'key' || n", ["key1", "key2"]),
    "varchar": ("id varchar(9)", "'key' || n", ["key1", "key2"]),
    "numeric": ("id numeric", "n + 0.50", ["1.50", "2.50"]),
    "date": ("id date", "date '2026-01-01' + n", ["2026-01-02", "2026-01-03"]),
    "timestamptz": (
        "id timestamptz",
        "timestamptz '2026-01-01 00:00:00.5+02' + n * interval '1 h'",
        ["2025-12-31 23:00:00.5+00", "2026-01-01 00:00:00.5+00"],
    ),
    "boolean": ("id boolean", "n = 1", ["false", "true"]),
    "inet": ("id inet", "inet '10.0.0.0' + n", ["10.0.0.1/32", "10.0.0.2/32"]),
    "bytea": ("id bytea", "decode(lpad(n::text, 2, '0'), 'hex')", ["\\x01", "\\x02"]),
    "enum": ("id colour", "case n when 1 then 'red' else 'blue' end::colour", ["blue", "red"]),
    "domain": ("id code", "'c' || n", ["c1", "c2"]),
}


@pytest.mark.parametrize("kind", KEYS)
async def test_a_key_of_each_type(db_url: str, apg: asyncpg.Connection, kind: str) -> None:
    """Settled by the worker, and by a handler's session over either driver."""
    definition, value, texts = KEYS[kind]
    await apg.execute("create type colour as enum ('red', 'blue')")
    await apg.execute("create domain code as character(5) check (value <> '')")
    await apg.execute(f"create table things ({definition} primary key, next_at timestamptz, n int)")
    await adopt(apg, "things")
    await apg.execute(f"insert into things select {value}, now(), n from generate_series(1, 2) n")
    await run_twice(db_url, apg, "things", key="id")
    assert sorted(await row_keys(apg)) == sorted(texts)


async def test_composite_keys_with_commas_stay_apart(db_url: str, apg: asyncpg.Connection) -> None:
    """Their texts differ, and with them the idempotency keys."""
    app, keys = App(), set[str]()

    @app.rows("things", key=("a", "b"), due="next_at")
    async def thing(row: dict[str, Any], context: Context) -> None:
        keys.add(context.idempotency_key)

    await apg.execute(
        "create table things (a text, b text, next_at timestamptz, primary key (a, b))"
    )
    await adopt(apg, "things")
    await apg.execute(
        "insert into things values ('a,b', 'c', now()), ('a', 'b,c', now()), ('a\\', 'b', now())"
    )
    await drained(app, db_url)
    assert sorted(await row_keys(apg)) == ["a,b\\,c", "a\\,b,c", "a\\\\,b"]
    assert len(keys) == 3


async def test_a_composite_key(db_url: str, apg: asyncpg.Connection) -> None:
    await apg.execute(
        "create table things (n int, org text, made_at timestamptz, next_at timestamptz,"
        " primary key (org, made_at, n))"
    )
    await adopt(apg, "things")
    await apg.execute(
        "insert into things select n, 'org ' || n, timestamptz '2026-01-01 00:00+02', now()"
        " from generate_series(1, 2) n"
    )
    await run_twice(db_url, apg, "things", key=("made_at", "org", "n"))
    assert sorted(await row_keys(apg)) == [
        "2025-12-31 22:00:00+00,org 1,1",
        "2025-12-31 22:00:00+00,org 2,2",
    ]


NAMES = [
    ("donations", "next_at", "id"),
    ('"Shop"."Due Things"', "Next Charge", "Thing Id"),
    ('"Shop"."quo""te%s{x}"', 'due"at', "$1"),
    ("shop." + "t" * 63, "d" * 63, "k" * 63),
    ('"' + "ä" * 31 + '"', "ü" * 31, "ö" * 31),
    ("select", "order", "user"),
]


@pytest.mark.parametrize(("table", "due", "key"), NAMES, ids=lambda name: str(name)[:20])
async def test_names(db_url: str, apg: asyncpg.Connection, table: str, due: str, key: str) -> None:
    def quoted(name: str) -> str:
        return '"' + name.replace('"', '""') + '"'

    written = '"select"' if table == "select" else table
    await apg.execute('create schema "Shop"; create schema shop')
    await apg.execute(
        f"create table {written} ({quoted(key)} bigint primary key,"
        f" {quoted(due)} timestamptz, n int)"
    )
    await adopt(apg, written, due=due)
    await apg.execute(f"insert into {written} select n, now(), n from generate_series(1, 2) n")
    await run_twice(db_url, apg, written, key=key, due=due)
    assert sorted(await row_keys(apg)) == ["1", "2"]


def test_index_names_of_long_tables_differ() -> None:
    first, second = index_name("t" * 62 + "1"), index_name("t" * 62 + "2")
    assert first != second
    assert max(len(first.encode()), len(index_name("ä" * 31).encode())) <= 63


PARTITIONED = """
create table payments (
    id      bigint,
    region  text,
    next_at timestamptz,
    n       int,
    primary key (region, id)
) partition by list (region);
create table payments_north partition of payments for values in ('north');
create table payments_south partition of payments for values in ('south')
    partition by hash (id);
create table payments_south_0 partition of payments_south for values with (modulus 2, remainder 0);
create table payments_south_1 partition of payments_south for values with (modulus 2, remainder 1);
"""


@pytest.mark.parametrize("order", [None, "n"])
async def test_equal_ctids_in_two_partitions_are_two_rows(
    db_url: str, apg: asyncpg.Connection, order: str | None
) -> None:
    await apg.execute(PARTITIONED)
    await adopt(apg, "payments")
    await apg.execute(
        "insert into payments select i, region, case when i <= 6 then now() end, i"
        " from unnest(array['north', 'south']) region, generate_series(1, 12) i"
    )
    places = await apg.fetchval("select count(distinct ctid) from payments")
    assert places < 24, "some rows share their ctid"
    app, ran = App(), []

    @app.rows("payments", due="next_at", key=("region", "id"), order=order)
    async def pay(row: dict[str, Any], context: Context) -> None:
        ran.append((row["region"], row["id"]))
        if row["id"] % 2:
            raise Retry(after=3600)

    one = await drained(app, db_url, claim_batch=5)
    due = {(region, i) for region in ("north", "south") for i in range(1, 7)}
    assert sorted(ran) == sorted(due), "each due row ran once, no other did"
    records = await apg.fetch(
        "select region, id, next_at, duerow_retry_at, duerow_owner from payments"
    )
    for row in records:
        waits = row["id"] <= 6 and row["id"] % 2 == 1
        assert (row["duerow_retry_at"] is not None) == (row["next_at"] is not None) == waits
        assert row["duerow_owner"] is None
    assert not one.seen.of(RowLost)


@dataclasses.dataclass
class Thing:
    n: int


async def run_twice(
    db_url: str, apg: asyncpg.Connection, table: str, *, key: Any, due: str = "next_at"
) -> None:
    """Retries each row of `table` once, then settles it through a session of each kind in turn."""
    for session in (None, "asyncpg", "psycopg", "psycopg-async", "sqlalchemy", "sqlalchemy-async"):
        app = App()
        seen: list[tuple[int, int, str]] = []
        app.rows("things", table=table, due=due, key=key)(_handler(session, seen))
        column = due.replace('"', '""')
        await apg.execute(f'update {table} set "{column}" = now()')
        one = await drained(app, db_url)
        assert sorted(n for n, _, _ in seen) == [1, 1, 2, 2], session
        assert sorted(attempt for _, attempt, _ in seen) == [1, 1, 2, 2], session
        assert len({token for _, _, token in seen}) == 2, "a key of idempotency for each row"
        assert not one.seen.of(RowLost) + one.seen.of(SourceFailed)
        assert [e.transition.verb for e in one.seen.of(RowSettled)].count("done") == 2


def _handler(session: str | None, seen: list[tuple[int, int, str]]) -> Any:
    def work(row: Thing, context: Context) -> None:
        seen.append((row.n, context.attempt, context.idempotency_key))
        if context.attempt == 1:
            raise Retry(after=0)

    if session is None:
        return work
    if session == "psycopg":

        def sync(row: Thing, context: Context, s: psycopg.Connection) -> None:
            work(row, context)

        return sync
    if session == "sqlalchemy":

        def orm(row: Thing, context: Context, s: sqlalchemy.orm.Session) -> None:
            work(row, context)

        return orm

    async def asynchronous(row: Thing, context: Context, s: Any) -> None:
        work(row, context)

    asynchronous.__annotations__["s"] = {
        "asyncpg": asyncpg.Connection,
        "psycopg-async": psycopg.AsyncConnection,
        "sqlalchemy-async": sqlalchemy.ext.asyncio.AsyncSession,
    }[session]
    return asynchronous


async def row_keys(apg: asyncpg.Connection) -> list[str]:
    return [r[0] for r in await apg.fetch("select distinct row_key from worker.attempts")]


@pytest.mark.parametrize("name", ["", "due things", "shop/orders", "x" * 101])
def test_a_name_that_messages_could_not_carry_is_refused(name: str) -> None:
    with pytest.raises(RegistrationError, match="cannot be the name of a source"):
        App().rows(name, table="things", due="next_at")
