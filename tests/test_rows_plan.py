"""The statements on a user's table stay short walks over one index, and never take too much."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from tests.postgres import with_database
from worker.link import HOT_PATH_PLANNER
from worker.source import Settlement
from worker.sources.rows import FIRST, Rows
from worker.tables.bookkeeping import bookkeeping, due_expression
from worker.tables.catalog import describe
from worker.tables.spec import TableSpec
from worker.transition import Transition

CROWD = 100_000
WHERE = "status = 'active'"
Connection = psycopg.Connection[Any]
Plan = dict[str, Any]

KINDS = {
    "plain": TableSpec("plain", "plain", due="next_at", where=WHERE, tenant="org"),
    "ordered": TableSpec("plain", "plain", due="next_at", where=WHERE, order="amount"),
    "split": TableSpec("split", "split", key=("org", "id"), due="next_at", where=WHERE),
    "split ordered": TableSpec(
        "split", "split", key=("org", "id"), due="next_at", where=WHERE, order="amount"
    ),
}
COLUMNS = (
    "id bigint, org text, next_at timestamptz, status text default 'active', amount int, pad text"
)


def make_tables(connection: Connection) -> None:
    connection.execute(f"create table plain ({COLUMNS}, primary key (id))")
    connection.execute(
        f"create table split ({COLUMNS}, primary key (org, id)) partition by hash (org)"
    )
    for n in range(4):
        connection.execute(
            f"create table split_{n} partition of split for values with (modulus 4, remainder {n})"
        )
    for table in ("plain", "split"):
        for column in bookkeeping("timestamp with time zone"):
            connection.execute(f"alter table {table} add {column.definition}".encode())
        connection.execute(
            sql.SQL("create index on {} (({})) where {}").format(
                sql.Identifier(table), due_expression("next_at"), sql.SQL(WHERE)
            )
        )
    connection.execute(
        "insert into worker.workers (name, host, pid, version, queues, kinds, slots, lease)"
        " values ('w', 'h', 1, '0', '{}', '{}', 4, '30 s')"
    )


def fill(connection: Connection, table: str, rows: int) -> None:
    """All due, the oldest first, in 100 organisations."""
    connection.execute(
        f"insert into {table} (id, org, next_at, amount, pad) select i, 'org ' || i %% 100,"
        " now() - make_interval(secs => %s - i), i %% 7, repeat('x', 100)"
        " from generate_series(1, %s) i".encode(),
        [rows, rows],
    )


@pytest.fixture(scope="module")
def crowded(admin: Connection, template_db: str, database_server: str) -> Iterator[str]:
    """The URL of a database with 100,000 due rows in each table, and a worker whose id is 1."""
    name = f"duerow_rows_{uuid.uuid4().hex[:12]}"
    admin.execute(
        sql.SQL("create database {} template {}").format(
            sql.Identifier(name), sql.Identifier(template_db)
        )
    )
    url = with_database(database_server, name)
    with psycopg.connect(url, autocommit=True) as connection:
        make_tables(connection)
        for table in ("plain", "split"):
            fill(connection, table, CROWD)
            connection.execute(f"vacuum analyze {table}".encode())
    yield url
    admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def crowd(crowded: str) -> Iterator[Connection]:
    """A connection as the claim's is, in a transaction that is rolled back."""
    with psycopg.connect(crowded) as connection:
        as_a_worker(connection)
        yield connection
        connection.rollback()
        connection.autocommit = True
        connection.execute("vacuum plain, split")  # what was rolled back costs the next buffers


def as_a_worker(connection: Connection) -> None:
    for name, value in HOT_PATH_PLANNER.items():
        connection.execute(sql.SQL("set {} = {}").format(sql.Identifier(name), value))


def rows_of(connection: Connection, kind: str) -> Rows:
    spec = KINDS[kind]
    return Rows(spec, describe(connection, spec.table), ("id", "amount"))


def prepared(connection: Connection, text: str, types: str) -> str:
    name = f"s_{uuid.uuid4().hex[:8]}"
    connection.execute(f"prepare {name} ({types}) as {text}".encode())
    return name


def claim(connection: Connection, kind: str) -> str:
    return prepared(
        connection, rows_of(connection, kind).claim_sql, "bigint, int, timestamptz, boolean"
    )


def explain(connection: Connection, call: str, options: str = "analyze, timing off") -> Plan:
    record = connection.execute(
        f"explain ({options}, buffers, format json) execute {call}".encode()
    ).fetchone()
    assert record is not None
    plan: Plan = record[0][0]["Plan"]
    return plan


def nodes(plan: Plan) -> Iterator[Plan]:
    yield plan
    for part in plan.get("Plans", []):
        yield from nodes(part)


def faults(plan: Plan, *, sorts: int = 0) -> list[str]:
    """What a plan does with a user's table that it must not. sorts: rows that it may sort."""
    found = []
    for node in nodes(plan):
        kind, relation = node["Node Type"], node.get("Relation Name", "")
        if kind in ("Sort", "Incremental Sort") and node.get("Actual Rows", 0) > sorts:
            found.append(f"{kind} of {node.get('Actual Rows')} rows")
        if kind in ("Hash Join", "Merge Join"):
            found.append(kind)
        if relation.startswith(("plain", "split")) and kind in ("Seq Scan", "Bitmap Heap Scan"):
            found.append(f"{kind} of {relation}")
        thrown = node.get("Rows Removed by Filter", 0) * node.get("Actual Loops", 1)
        if relation.startswith(("plain", "split")) and thrown > 1000:
            found.append(f"{kind} of {relation} that throws {thrown} rows away")
    return found


def buffers(plan: Plan) -> int:
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


# -- the claim ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_claim_of_many_rows(crowd: Connection, kind: str, mode: str) -> None:
    """It walks the due index from the front; the plain one sorts nothing at all."""
    crowd.execute(f"set plan_cache_mode = {mode}".encode())
    call = f"{claim(crowd, kind)}(1, 100, '{FIRST}', false)"
    plan = explain(crowd, call)
    assert faults(plan, sorts=1000 if "ordered" in kind else 0) == []
    assert plan["Actual Rows"] == 100
    assert buffers(plan) < (6000 if "ordered" in kind else 3000)


@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_that_was_made_while_the_table_was_empty(pg: Connection, kind: str) -> None:
    """Nobody has analyzed it since."""
    make_tables(pg)
    as_a_worker(pg)
    pg.execute("set plan_cache_mode = force_generic_plan")
    name = claim(pg, kind)
    pg.execute(f"execute {name}(1, 100, '{FIRST}', false)".encode())
    table = KINDS[kind].table
    fill(pg, table, 50_000)
    plan = explain(pg, f"{name}(1, 100, '{FIRST}', false)")
    assert faults(plan, sorts=1000 if "ordered" in kind else 0) == []
    assert plan["Actual Rows"] == 100


@pytest.mark.parametrize("held", ["backoff", "dead", "later", "out of the condition"])
@pytest.mark.parametrize("kind", ["plain", "split"])
def test_rows_that_are_not_due_are_not_walked_over(crowd: Connection, kind: str, held: str) -> None:
    """100,000 of them, whatever keeps them."""
    change = {
        "backoff": "duerow_held_for = next_at, duerow_retry_at = now() + interval '1 h'",
        "dead": "duerow_held_for = next_at, duerow_retry_at = 'infinity', duerow_state = 'dead'",
        "later": "next_at = now() + interval '1 h'",
        "out of the condition": "status = 'gone'",
    }[held]
    crowd.execute(f"update {kind} set {change} where id > 50".encode())
    plan = explain(crowd, f"{claim(crowd, kind)}(1, 100, '{FIRST}', false)")
    assert plan["Actual Rows"] == 50
    assert faults(plan) == []
    # the dead index entries of the update are walked once, for nobody may remove them before its
    # transaction ends; so the next call is looked at
    plan = explain(crowd, f"{claim(crowd, kind)}(1, 100, '{FIRST}', false)")
    assert plan["Actual Rows"] == 0
    assert sum(n.get("Rows Removed by Filter", 0) for n in nodes(plan)) <= 50


SWITCHES = (
    *("seqscan", "indexscan", "bitmapscan", "tidscan"),
    *("nestloop", "hashjoin", "mergejoin", "material"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_claim_takes_no_more_than_it_should_whatever_the_planner_may_use(
    pg: Connection, kind: str
) -> None:
    make_tables(pg)
    fill(pg, KINDS[kind].table, 60)
    text = rows_of(pg, kind).claim_sql
    pg.execute("set jit = off")  # what is switched off costs 1e10, for which JIT takes its time
    plans = set()
    for off in itertools.product((True, False), repeat=len(SWITCHES)):
        with pg.transaction(force_rollback=True), psycopg.RawCursor(pg) as cursor:
            settings = ", ".join(
                f"set_config('enable_{name}', '{'off' if o else 'on'}', true)"
                for name, o in zip(SWITCHES, off, strict=True)
            )
            cursor.execute(f"select {settings}".encode())
            taken = cursor.execute(text.encode(), (1, 5, FIRST, False)).fetchall()
            owned = cursor.execute(
                f"select count(*) from {KINDS[kind].table} where duerow_owner = 1".encode()
            ).fetchone()
            assert (len(taken), owned) == (5, (5,)), dict(zip(SWITCHES, off, strict=True))
            if sum(off) in (0, 3, 7):
                cursor.execute(f"explain (costs off) {text}".encode(), (1, 5, FIRST, False))
                plans.add(str(cursor.fetchall()))
    assert len(plans) > 3, "the switches made different plans"


# -- what follows a claim -------------------------------------------------------------------------


def settling(rows: Rows, taken: list[Any]) -> tuple[str, list[Any]]:
    claimed = [rows._row(record, 1) for record in taken]
    batch = [Settlement(row, Transition("retry", delay=60.0), 0.1) for row in claimed]
    [(text, params)] = rows.settle(1, batch)
    return text, params


@pytest.mark.parametrize("kind", ["plain", "split"])
@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
def test_a_settle_probes_once_a_row(crowd: Connection, kind: str, mode: str) -> None:
    crowd.execute(f"set plan_cache_mode = {mode}".encode())
    rows = rows_of(crowd, kind)
    with psycopg.RawCursor(crowd) as cursor:
        taken = cursor.execute(rows.claim_sql.encode(), (1, 500, FIRST, False)).fetchall()
        text, params = settling(rows, taken)
        cursor.execute(
            f"explain (analyze, buffers, timing off, format json) {text}".encode(), params
        )
        record = cursor.fetchone()
    assert record is not None
    plan = record[0][0]["Plan"]
    assert faults(plan) == []
    assert plan["Actual Rows"] == 500
    assert buffers(plan) < 500 * 60


@pytest.mark.parametrize("kind", ["plain", "split"])
@pytest.mark.parametrize("what", ["sweep", "cut", "orphans", "abandon", "disown", "next_due"])
def test_housekeeping_walks_what_is_due_and_never_the_whole_table(
    crowd: Connection, kind: str, what: str
) -> None:
    """Of 100,000 rows 20 are due, and nobody has analyzed since. Without a worker's settings, as
    the chores' connection is."""
    table = KINDS[kind].table
    crowd.execute(f"update {table} set next_at = null where id > 20".encode())
    crowd.execute("reset all; set local enable_hashjoin = off; set local enable_mergejoin = off")
    rows = rows_of(crowd, kind)
    with psycopg.RawCursor(crowd) as cursor:
        cursor.execute(rows.claim_sql.encode(), (1, 10, FIRST, False))
        crowd.execute("update worker.workers set gone_at = now()")
        text, params = {
            "sweep": lambda: rows.sweep([1], 3),
            "cut": lambda: rows.cut([1]),
            "orphans": rows.orphans,
            "abandon": lambda: rows.abandon(1),
            "disown": lambda: rows.disown(1, []),
            "next_due": lambda: (rows._next_due, []),
        }[what]()
        cursor.execute(f"explain (analyze, buffers, format json) {text}".encode(), params)
        record = cursor.fetchone()
    assert record is not None
    plan = record[0][0]["Plan"]
    assert [fault for fault in faults(plan, sorts=100) if "throws" not in fault] == []


# -- HOT ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fillfactor", "least"), [(100, 0.0), (50, 0.98)])
def test_with_room_on_the_page_the_claim_writes_no_index(
    pg: Connection, fillfactor: int, least: float
) -> None:
    make_tables(pg)
    pg.execute(
        f"alter table plain set (fillfactor = {fillfactor}, autovacuum_enabled = off)".encode()
    )
    fill(pg, "plain", 5000)
    name = claim(pg, "plain")
    pg.execute("select pg_stat_reset()")
    for _ in range(50):
        pg.execute(f"execute {name}(1, 100, '{FIRST}', false)".encode())
    pg.execute("select pg_stat_force_next_flush()")
    with pg.cursor(row_factory=dict_row) as cursor:
        stats = cursor.execute(
            "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relname = 'plain'"
        ).fetchone()
    assert stats is not None
    assert stats["n_tup_upd"] == 5000
    share = stats["n_tup_hot_upd"] / 5000
    assert share >= least
    if fillfactor == 100:
        assert share < 0.5, "which is what the fillfactor is for"
