"""What `worker tables add --sql` and `remove --sql` print, run by psql on a real server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.adoption import adopt, columns, index_is_valid, psql, tables
from tests.facts import eventually
from worker.tables.bookkeeping import NAMES
from worker.tables.spec import index_name

Connection = psycopg.Connection[Any]

DONATIONS = """
create table donations (
    id bigint generated always as identity primary key,
    next_charge_at timestamptz, status text not null default 'active', org_id bigint);
insert into donations (next_charge_at, org_id)
select now() - interval '1 minute', i % 3 from generate_series(1, 500) i"""
ADD = ("donations", "--due", "next_charge_at", "--where", "status = 'active'")
INDEX = "duerow_due_donations"


@pytest.fixture
def donations(pg: Connection) -> Connection:
    pg.execute(DONATIONS)
    return pg


def filenode(pg: Connection, table: str) -> int:
    row = pg.execute("select pg_relation_filenode(%s::regclass)", [table]).fetchone()
    assert row is not None
    return int(row[0])


def predicate(pg: Connection, index: str = INDEX) -> str | None:
    row = pg.execute(
        "select pg_get_expr(indpred, indrelid) from pg_index where indexrelid = %s::regclass",
        [index],
    ).fetchone()
    return row and row[0]


def test_a_table_is_adopted_and_not_rewritten(donations: Connection, db_url: str) -> None:
    before = filenode(donations, "donations")
    adopt(db_url, *ADD, "--tenant", "org_id")
    assert columns(donations, "donations") == set(NAMES)
    assert index_is_valid(donations, INDEX)
    assert filenode(donations, "donations") == before
    [row] = donations.execute(
        "select name, table_oid::regclass::text, table_name, key, due, condition, tenant,"
        " index_name from worker.sources"
    ).fetchall()
    assert row == (
        "donations", "donations", "public.donations", ["id"], "next_charge_at",
        "status = 'active'", "org_id", INDEX,
    )  # fmt: skip
    assert tables(db_url, "check").code == 0


def test_a_second_add_finds_nothing_to_do(donations: Connection, db_url: str) -> None:
    adopt(db_url, *ADD)
    again = tables(db_url, "add", *ADD, "--sql")
    assert (again.code, again.out, again.err) == (0, "", "donations: nothing to add\n")


def test_the_script_may_be_run_again(donations: Connection, db_url: str) -> None:
    script = adopt(db_url, *ADD).out
    done = psql(db_url, script)
    assert done.returncode == 0, done.stderr
    assert index_is_valid(donations, INDEX)
    assert tables(db_url, "check").code == 0


@pytest.mark.parametrize("dropped", NAMES)
def test_only_what_is_missing_is_added(donations: Connection, db_url: str, dropped: str) -> None:
    adopt(db_url, *ADD)
    donations.execute(f"alter table donations drop column {dropped}")
    checked = tables(db_url, "check", "--json")
    assert checked.code == 8
    assert f"public.donations lacks {dropped}" in [r["what"] for r in checked.records]
    added = adopt(db_url, *ADD).out
    assert [name for name in NAMES if f"if not exists {name} " in added] == [dropped]
    # The index went with a column that it is on, and only then it is built again.
    on_index = dropped in ("duerow_held_for", "duerow_retry_at")
    assert ("create index" in added) == on_index
    assert tables(db_url, "check").code == 0


@contextmanager
def half_done(db_url: str, statement: str, table: str) -> Iterator[None]:
    """CREATE INDEX CONCURRENTLY, ended while it waits for somebody's open transaction."""
    with psycopg.connect(db_url) as old, psycopg.connect(db_url, autocommit=True) as builder:
        old.execute(f"lock table {table} in row exclusive mode")
        builder.execute("set lock_timeout = '50ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            builder.execute(statement)
        yield


def test_a_half_done_index_is_found_and_mended(donations: Connection, db_url: str) -> None:
    script = tables(db_url, "add", *ADD, "--sql").out
    before_index, create = script.split("create index", 1)
    assert psql(db_url, before_index).returncode == 0
    statement = "create index" + create.split(";", 1)[0]
    with half_done(db_url, statement, "donations"):
        assert index_is_valid(donations, INDEX) is False
    checked = tables(db_url, "check", *ADD, "--json")
    assert checked.code == 8
    [failed] = [r for r in checked.records if r["state"] == "failed"]
    assert failed["what"] == f"the index {INDEX} of public.donations is half done"
    assert failed["why"] == (
        "CREATE INDEX CONCURRENTLY was interrupted, and what it leaves behind is not used"
    )
    assert failed["hint"] == (
        "worker tables add donations --key id --due next_charge_at "
        "--where \"status = 'active'\" --name donations   (drops and builds it again)"
    )
    mended = adopt(db_url, *ADD).out
    assert "add column" not in mended
    assert index_is_valid(donations, INDEX)
    assert tables(db_url, "check").code == 0


def test_an_unfinished_script_registers_nothing(donations: Connection, db_url: str) -> None:
    """Run by something that goes on after an error: the last statement looks for itself."""
    script = tables(db_url, "add", *ADD, "--sql").out
    before, rest = script.split("drop index", 1)
    register = "do $duerow$ begin" + rest.rsplit("do $duerow$ begin", 1)[1]
    done = psql(db_url, before + register)
    assert done.returncode != 0
    assert f"the index {INDEX} of public.donations is missing or half done" in done.stderr
    assert donations.execute("select count(*) from worker.sources").fetchone() == (0,)


@pytest.mark.parametrize(
    "condition",
    [
        "status = '$duerow$'",
        "status = 'a:b' or status = ' :name' or status::text = '::'",
        "status like '100%%' or status like '%(x)s'",
        "status = E'tab\\tand \\'quote\\''",
        "status = 'back\\slash'",
        'status = \'"""\' and "org id" > 0',
        "status\n   = 'two lines'",
        "status = 'é✓' and status <> '{}' and status <> '@statement@'",
        "org_id % 2 = 1",
    ],
)
def test_any_condition_reaches_the_index_unchanged(
    donations: Connection, db_url: str, condition: str
) -> None:
    donations.execute('alter table donations add "org id" int')
    # What Postgres makes of it when it is told directly.
    donations.execute(f"create index direct on donations (id) where ({condition})".encode())
    adopt(db_url, "donations", "--due", "next_charge_at", "--where", condition)
    assert predicate(donations) == predicate(donations, "direct")
    assert donations.execute("select condition from worker.sources").fetchone() == (condition,)
    assert tables(db_url, "check").code == 0


def test_another_condition_builds_another_index(donations: Connection, db_url: str) -> None:
    adopt(db_url, *ADD)
    other = (*ADD[:-1], "status = 'late'")
    checked = tables(db_url, "check", *other, "--json")
    assert checked.code == 8
    assert f"the index {INDEX} of public.donations is for another due column or condition" in [
        r["what"] for r in checked.records
    ]
    answer = tables(db_url, "add", *other, "--sql")
    assert "where is \"status = 'active'\" there, \"status = 'late'\" here" in answer.err
    # The new one is built before the old one goes.
    script = answer.out
    assert script.index("create index concurrently") < script.index(
        f'drop index concurrently if exists "public"."{INDEX}"'
    )
    assert psql(db_url, script).returncode == 0
    assert predicate(donations) == "(status = 'late'::text)"
    assert psql(db_url, script).returncode == 0
    assert index_is_valid(donations, INDEX)
    assert tables(db_url, "check").code == 0


def test_what_an_interrupted_change_left_behind_is_dropped(
    donations: Connection, db_url: str
) -> None:
    adopt(db_url, *ADD)
    donations.execute("create index duerow_new_donations on donations (id)")
    adopt(db_url, *ADD)
    assert index_is_valid(donations, "duerow_new_donations") is None
    assert index_is_valid(donations, INDEX)


def test_the_fillfactor_is_set_when_asked_for(donations: Connection, db_url: str) -> None:
    before = filenode(donations, "donations")
    adopt(db_url, *ADD, "--fillfactor", "70")
    assert donations.execute(
        "select reloptions from pg_class where oid = 'donations'::regclass"
    ).fetchone() == (["fillfactor=70"],)
    assert filenode(donations, "donations") == before
    assert "nothing to add" in tables(db_url, "add", *ADD, "--fillfactor", "70", "--sql").err
    assert "nothing to add" in tables(db_url, "add", *ADD, "--sql").err


def test_removing_leaves_the_table_as_it_was(donations: Connection, db_url: str) -> None:
    rows = "select id, next_charge_at, status, org_id from donations order by id"
    before = donations.execute(rows).fetchall(), filenode(donations, "donations")
    adopt(db_url, *ADD)
    answer = tables(db_url, "remove", "donations", "--sql")
    assert psql(db_url, answer.out).returncode == 0
    assert (donations.execute(rows).fetchall(), filenode(donations, "donations")) == before
    assert columns(donations, "donations") == set()
    assert index_is_valid(donations, INDEX) is None
    assert donations.execute("select count(*) from worker.sources").fetchone() == (0,)
    assert tables(db_url, "remove", "donations", "--sql").code == 6


def test_a_table_that_is_gone_can_be_taken_off_the_list(donations: Connection, db_url: str) -> None:
    adopt(db_url, *ADD)
    donations.execute("drop table donations")
    checked = tables(db_url, "check", "--json")
    assert checked.code == 8
    assert [r["what"] for r in checked.records] == ["there is no table public.donations"]
    [listed] = tables(db_url, "list", "--json").records
    assert listed["problem"] == "there is no table public.donations"
    assert psql(db_url, tables(db_url, "remove", "donations", "--sql").out).returncode == 0
    assert donations.execute("select count(*) from worker.sources").fetchone() == (0,)


def test_a_renamed_table_is_found(donations: Connection, db_url: str) -> None:
    adopt(db_url, *ADD)
    donations.execute("alter table donations rename to gifts")
    [listed] = tables(db_url, "list", "--json").records
    assert (listed["name"], listed["table"]) == ("donations", "public.gifts")
    assert tables(db_url, "check").code == 0
    # Its index keeps its name, and serves it as before; only the list is brought up to date.
    moved = ("gifts", *ADD[1:], "--name", "donations")
    assert "create index" not in adopt(db_url, *moved).out
    assert "nothing to add" in tables(db_url, "add", *moved, "--sql").err
    assert donations.execute("select table_name, index_name from worker.sources").fetchall() == [
        ("public.gifts", INDEX)
    ]
    assert psql(db_url, tables(db_url, "remove", "donations", "--sql").out).returncode == 0
    assert index_is_valid(donations, INDEX) is None


def test_a_database_without_the_schema_is_told_to_migrate(db_url: str, pg: Connection) -> None:
    pg.execute(DONATIONS)
    pg.execute("drop schema worker cascade")
    answer = tables(db_url, "add", *ADD, "--sql")
    assert answer.code == 4
    assert "worker db migrate" in answer.err


KEYED = {
    "bigint": ("create table t (id bigint primary key, due_at timestamptz)", "id", "i"),
    "uuid": (
        "create table t (id uuid primary key, due_at timestamptz)",
        "id",
        "gen_random_uuid()",
    ),
    "text": ("create table t (id text primary key, due_at timestamptz)", "id", "'k' || i"),
    "composite": (
        "create table t (org bigint, id uuid, due_at timestamptz, primary key (org, id))",
        "org,id",
        "i, gen_random_uuid()",
    ),
    "unique index": (
        "create table t (id int not null, due_at timestamptz);"
        "create unique index on t (id) include (due_at)",
        "id",
        "i",
    ),
    "without time zone": ("create table t (id int primary key, due_at timestamp(3))", "id", "i"),
    "identity, generated, domain": (
        "create domain label as text check (value <> '');"
        "create table t (id label primary key, due_at timestamptz,"
        " twice text generated always as (id || id) stored)",
        "id",
        "'k' || i",
    ),
    "partitioned": (
        "create table t (id int, part int, due_at timestamptz, primary key (id, part))"
        " partition by list (part); create table t1 partition of t for values in (1);"
        " create table t2 partition of t default",
        "id,part",
        "i, i % 3",
    ),
    "unlogged": ("create unlogged table t (id int primary key, due_at timestamptz)", "id", "i"),
}


@pytest.mark.parametrize("shape", KEYED)
def test_every_kind_of_key_can_be_adopted_and_claimed(
    shape: str, pg: Connection, db_url: str
) -> None:
    made, key, values = KEYED[shape]
    pg.execute(made.encode())
    pg.execute(
        f"insert into t ({key}, due_at) select {values}, (now() - interval '1 hour')"
        " at time zone 'UTC' at time zone 'UTC' from generate_series(1, 30) i".encode()
    )
    adopt(db_url, "t", "--key", key, "--due", "due_at")
    assert tables(db_url, "check").code == 0
    [claim] = tables(db_url, "explain", "t", "--limit", "10", "--analyze", "--json").records
    assert claim["rows"] == 10
    assert claim["faults"] == []
    assert pg.execute("select count(*) from t where duerow_owner is not null").fetchone() == (0,)


@pytest.mark.parametrize(
    ("schema", "table"),
    [
        ("public", "Donations"),
        ("Shop Floor", "Mixed Case"),
        ("public", "x" * 63),
        ("y" * 63, "é" * 31),
        ("public", 'quo"te; drop table worker.jobs; --'),
        ("public", "select"),
        ("public", "%s {} $1 :a"),
    ],
)
def test_any_name_can_be_adopted(schema: str, table: str, pg: Connection, db_url: str) -> None:
    where = sql.Identifier(schema, table)
    pg.execute(sql.SQL("create schema if not exists {}").format(sql.Identifier(schema)))
    pg.execute(
        sql.SQL('create table {} ("Key Part" uuid primary key, "Due, At" timestamptz)').format(
            where
        )
    )
    pg.execute(sql.SQL("insert into {} values (gen_random_uuid(), now())").format(where))
    written = where.as_string(pg)
    words = (written, "--key", "Key Part", "--due", "Due, At", "--name", "source")
    adopt(db_url, *words)
    assert columns(pg, written) == set(NAMES)
    assert index_is_valid(pg, sql.Identifier(schema, index_name(table)).as_string(pg))
    checked = tables(db_url, "check", "source")
    assert checked.code == 0, checked.out
    [claim] = tables(db_url, "explain", "source", "--analyze", "--json").records
    assert (claim["rows"], claim["faults"]) == (1, [])
    assert "nothing to add" in tables(db_url, "add", *words, "--sql").err
    assert psql(db_url, tables(db_url, "remove", "source", "--sql").out).returncode == 0
    assert columns(pg, written) == set()


def test_a_locked_table_is_waited_for_in_short_tries(donations: Connection, db_url: str) -> None:
    """A reader that stays holds up the ALTER, and the ALTER holds up nobody for long."""
    script = tables(db_url, "add", *ADD, "--lock-timeout", "50ms", "--sql").out
    results = []
    with psycopg.connect(db_url) as reader:
        reader.execute("select count(*) from donations")
        running = threading.Thread(target=lambda: results.append(psql(db_url, script)))
        running.start()
        eventually(lambda: _tries(donations) > 0)
        donations.execute("insert into donations (org_id) values (1)")  # gets through
    running.join(60)
    assert results[0].returncode == 0, results[0].stderr
    assert index_is_valid(donations, INDEX)


def _tries(pg: Connection) -> int:
    """Sessions that pause between two tries."""
    row = pg.execute(
        "select count(*) from pg_stat_activity where datname = current_database()"
        " and wait_event = 'PgSleep'"
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_who_holds_the_lock_is_named(donations: Connection, db_url: str) -> None:
    script = tables(db_url, "add", *ADD, "--lock-timeout", "10ms", "--sql").out
    impatient = script.replace("1 .. 20", "1 .. 2")
    with psycopg.connect(db_url, application_name="report") as reader:
        reader.execute("select count(*) from donations")
        done = psql(db_url, impatient)
        pid = reader.info.backend_pid
    assert done.returncode != 0
    assert '"public"."donations" stayed locked through 20 tries of 10ms' in done.stderr
    assert f"It is held by pid {pid} (report, idle in transaction for" in done.stderr
    assert "What was done before this is kept." in done.stderr
    assert columns(donations, "donations") == set()
