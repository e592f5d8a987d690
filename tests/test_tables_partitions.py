"""Partitioned tables: an index on each partition, built CONCURRENTLY, attached from below."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.adoption import adopt, columns, index_is_valid, psql, tables
from worker.tables.bookkeeping import NAMES

Connection = psycopg.Connection[Any]

ORDERS = """
create schema archive;
create table orders (id bigint, region text, due_at timestamptz, primary key (id, region))
    partition by list (region);
create table orders_eu partition of orders for values in ('eu', 'uk');
create table archive.orders_us partition of orders for values in ('us');
create table orders_rest partition of orders default partition by hash (id);
create table orders_rest_0 partition of orders_rest for values with (modulus 2, remainder 0);
create table orders_rest_1 partition of orders_rest for values with (modulus 2, remainder 1);
insert into orders
select i, (array['eu', 'us', 'jp'])[i % 3 + 1], now() - interval '1 hour'
  from generate_series(1, 300) i"""
ADD = ("orders", "--key", "id,region", "--due", "due_at")
LEAVES = {"orders_eu", "archive.orders_us", "orders_rest_0", "orders_rest_1"}


@pytest.fixture
def orders(pg: Connection) -> Connection:
    pg.execute(ORDERS)
    return pg


def indexed(pg: Connection) -> set[str]:
    """Tables with a valid index of ours."""
    rows = pg.execute(
        "select i.indrelid::regclass::text from pg_index i join pg_class c on c.oid = i.indexrelid"
        " where indisvalid and pg_get_indexdef(c.oid) like '%duerow_held_for%'"
    )
    return {name for (name,) in rows}


def test_every_partition_is_indexed_and_none_rewritten(orders: Connection, db_url: str) -> None:
    filenodes = "select oid, pg_relation_filenode(oid) from pg_class where relname ~ '^orders'"
    before = set(orders.execute(filenodes).fetchall())
    script = adopt(db_url, *ADD).out
    assert set(orders.execute(filenodes).fetchall()) == before
    assert indexed(orders) == LEAVES | {"orders", "orders_rest"}
    # Nothing is built on a whole tree in one go, which would lock all of it.
    building = [line for line in script.splitlines() if "create index" in line]
    assert all("concurrently" in line or "on only" in line for line in building)
    assert tables(db_url, "check").code == 0
    again = tables(db_url, "add", *ADD, "--sql")
    assert (again.out, again.err) == ("", "orders: nothing to add\n")


def test_its_rows_can_be_claimed(orders: Connection, db_url: str) -> None:
    adopt(db_url, *ADD)
    orders.execute("analyze orders")
    [claim] = tables(db_url, "explain", "orders", "-n", "20", "--analyze", "--json").records
    assert (claim["rows"], claim["faults"]) == (20, [])


def test_a_partition_that_is_made_later_has_the_index(orders: Connection, db_url: str) -> None:
    adopt(db_url, *ADD)
    orders.execute(
        "create table orders_br partition of orders for values in ('br') partition by hash (id);"
        "create table orders_br_0 partition of orders_br for values with (modulus 1, remainder 0)"
    )
    assert "orders_br_0" in indexed(orders)
    assert tables(db_url, "check").code == 0
    assert "nothing to add" in tables(db_url, "add", *ADD, "--sql").err


@pytest.mark.parametrize("stop_after", range(1, 12))
def test_a_script_that_stops_anywhere_goes_on_from_there(
    orders: Connection, db_url: str, stop_after: int
) -> None:
    """Whatever it had done, a new plan finds the rest, and the old script does so too."""
    script = tables(db_url, "add", *ADD, "--sql").out
    statements = _split(script)
    assert len(statements) > 12
    stopped = "\n".join(statements[: 2 + stop_after])  # two settings come first
    assert psql(db_url, stopped).returncode == 0
    assert tables(db_url, "check", *ADD).code == 8
    if stop_after % 2:
        done = psql(db_url, script)
        assert done.returncode != 0 or tables(db_url, "check", *ADD).code == 0
    adopt(db_url, *ADD)
    assert indexed(orders) == LEAVES | {"orders", "orders_rest"}
    assert tables(db_url, "check").code == 0


def _split(script: str) -> list[str]:
    """At semicolons that end a line, those inside $duerow$ left alone."""
    parts = script.split("$duerow$")
    joined = [p if i % 2 else p.replace(";\n", ";\0") for i, p in enumerate(parts)]
    return "$duerow$".join(joined).split("\0")


def test_an_invalid_index_of_one_partition_is_built_again(orders: Connection, db_url: str) -> None:
    script = tables(db_url, "add", *ADD, "--sql").out
    first, _ = script.split("create index concurrently duerow_due_orders_us on", 1)
    assert psql(db_url, first).returncode == 0
    create = "create index concurrently duerow_due_orders_us on archive.orders_us (id)"
    with psycopg.connect(db_url) as old, psycopg.connect(db_url, autocommit=True) as builder:
        old.execute("lock table archive.orders_us in row exclusive mode")
        builder.execute("set lock_timeout = '50ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            builder.execute(create)
    assert index_is_valid(orders, "archive.duerow_due_orders_us") is False
    checked = tables(db_url, "check", *ADD, "--json")
    [failed] = [r for r in checked.records if r["state"] == "failed" and r["check"] == "index"]
    assert failed["what"].startswith("the index duerow_due_orders of public.orders is half done in")
    assert "archive.orders_us" in failed["what"] or "more" in failed["what"]
    adopt(db_url, *ADD)
    assert index_is_valid(orders, "archive.duerow_due_orders_us")
    assert tables(db_url, "check").code == 0


def test_another_condition(orders: Connection, db_url: str) -> None:
    adopt(db_url, *ADD)
    adopt(db_url, *ADD, "--where", "region <> 'uk'")
    assert tables(db_url, "check").code == 0
    predicates = orders.execute(
        "select distinct pg_get_expr(indpred, indrelid) from pg_index"
        " where pg_get_indexdef(indexrelid) like '%duerow_held_for%'"
    ).fetchall()
    assert predicates == [("(region <> 'uk'::text)",)]


def test_the_fillfactor_is_that_of_the_partitions(orders: Connection, db_url: str) -> None:
    adopt(db_url, *ADD, "--fillfactor", "60")
    rows = orders.execute(
        "select oid::regclass::text from pg_class where reloptions @> '{fillfactor=60}'"
    )
    assert {name for (name,) in rows} >= LEAVES


def test_removing(orders: Connection, db_url: str) -> None:
    adopt(db_url, *ADD)
    assert columns(orders, "orders_rest_1") == set(NAMES)
    assert psql(db_url, tables(db_url, "remove", "orders", "--sql").out).returncode == 0
    assert columns(orders, "orders") == columns(orders, "orders_rest_1") == set()
    assert indexed(orders) == set()


def test_a_table_without_partitions_yet(pg: Connection, db_url: str) -> None:
    pg.execute("create table t (id int primary key, due_at timestamptz) partition by range (id)")
    adopt(db_url, "t", "--due", "due_at")
    assert tables(db_url, "check").code == 0
    pg.execute("create table t_all partition of t default")
    assert tables(db_url, "check").code == 0
