"""Tables that cannot be adopted, and what the user is told of each."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.adoption import tables

Connection = psycopg.Connection[Any]


def refusal(url: str, table: str, *words: str, due: str = "due_at") -> str:
    """What `tables add` says; nothing was changed by it."""
    answer = tables(url, "add", table, "--due", due, *words, "--sql")
    assert answer.code == 8, answer.err
    assert answer.out == ""
    return answer.err.rstrip("\n")


CASES = {
    "view": (
        "create table real (id int primary key, due_at timestamptz);"
        "create view t as select * from real",
        "public.t is a view\n"
        "  why:  a claim locks rows, and a view has none of its own\n"
        "  next: adopt its table",
    ),
    "materialized view": (
        "create materialized view t as select 1 as id, now() as due_at",
        "public.t is a materialized view\n"
        "  why:  only REFRESH writes it, and a claim must write\n"
        "  next: adopt the table that it reads from",
    ),
    "foreign table": (
        "create foreign data wrapper far; create server away foreign data wrapper far;"
        "create foreign table t (id int, due_at timestamptz) server away",
        "public.t is a foreign table\n"
        "  why:  its rows lie on another server, where FOR UPDATE SKIP LOCKED does not reach\n"
        "  next: run the worker on the database that the table lies in",
    ),
    "sequence": (
        "create sequence t",
        "public.t is a sequence\n  why:  it has no rows that fall due\n  next: name a table",
    ),
    "no key": (
        "create table t (id int not null, due_at timestamptz)",
        "public.t has no primary key and no unique index that covers all of its rows\n"
        "  why:  without one, the row that was claimed cannot be told from its like\n"
        "  next: create unique index concurrently on public.t (id), all not null",
    ),
    "another key": (
        "create table t (id int not null, uid uuid primary key, due_at timestamptz)",
        "(id) is not unique in public.t\n  why:  the table's keys are (uid)\n  next: --key uid",
    ),
    "key over some rows only": (
        "create table t (id int not null, due_at timestamptz, gone bool);"
        "create unique index on t (id) where not gone",
        "public.t has no primary key and no unique index that covers all of its rows\n"
        "  why:  without one, the row that was claimed cannot be told from its like\n"
        "  next: create unique index concurrently on public.t (id), all not null",
    ),
    "key may be null": (
        "create table t (id int unique, due_at timestamptz)",
        "the key column 'id' of public.t may be null\n"
        "  why:  a null is equal to nothing, so that the row could be claimed but never settled\n"
        "  next: alter table public.t alter column id set not null",
    ),
    "key of floats": (
        "create table t (id float8 primary key, due_at timestamptz)",
        "the key column 'id' of public.t is double precision\n"
        "  why:  two spellings of one number may differ\n"
        "  next: name a key of bigint, uuid, text or the like",
    ),
    "key of arrays": (
        "create table t (id int[] primary key, due_at timestamptz)",
        "the key column 'id' of public.t is integer[]\n"
        "  why:  it is an array\n"
        "  next: name a key of bigint, uuid, text or the like",
    ),
    "date": (
        "create table t (id int primary key, due_at date)",
        "the due column 'due_at' of public.t is date\n"
        "  why:  a due time is timestamptz, or timestamp, which is read as UTC\n"
        "  next: add a timestamptz column beside it, fill it from due_at, and name that one",
    ),
    "domain": (
        "create domain moment as timestamptz; create table t (id int primary key, due_at moment)",
        "the due column 'due_at' of public.t is moment, a domain over timestamp with time zone\n"
        "  why:  a due time is timestamptz, or timestamp, which is read as UTC\n"
        "  next: add a timestamptz column beside it, fill it from due_at, and name that one",
    ),
    "generated": (
        "create table t (id int primary key, made timestamp,"
        " due_at timestamp generated always as (made + '1 day') stored)",
        "the due column 'due_at' of public.t is generated\n"
        "  why:  the next due time is written to it, and Postgres lets nobody write it\n"
        "  next: alter table public.t alter column due_at drop expression",
    ),
    "no such column": (
        'create table t (id int primary key, "DueAt" timestamptz)',
        "public.t has no column 'due_at'\n  why:  it has id, DueAt\n  next: write 'DueAt'",
    ),
    "partition": (
        "create table whole (id int primary key, due_at timestamptz) partition by range (id);"
        "create table t partition of whole default",
        "public.t is a partition of whole\n"
        "  why:  Postgres adds columns to the whole tree or not at all\n"
        "  next: adopt whole",
    ),
    "partitioned without the partition key in the key": (
        "create table t (id int not null, region text, due_at timestamptz,"
        " primary key (id, region)) partition by list (region)",
        "(id) is not unique in public.t\n"
        "  why:  the table's keys are (id, region)\n"
        "  next: --key id,region",
    ),
    "partitioned without a key": (
        "create table t (id int not null, region text, due_at timestamptz)"
        " partition by list (region)",
        "public.t has no primary key and no unique index that covers all of its rows\n"
        "  why:  without one, the row that was claimed cannot be told from its like; "
        "a key of a partitioned table holds its partition key (region)\n"
        "  next: alter table public.t add primary key (id)",
    ),
    "foreign partition": (
        "create foreign data wrapper far; create server away foreign data wrapper far;"
        "create table t (id int, due_at timestamptz) partition by list (id);"
        "create foreign table old partition of t for values in (1) server away",
        "public.old, a partition of public.t, is a foreign table\n"
        "  why:  its rows lie on another server, where FOR UPDATE SKIP LOCKED does not reach\n"
        "  next: alter table public.t detach partition public.old",
    ),
    "inheritance": (
        "create table t (id int primary key, due_at timestamptz); create table c () inherits (t)",
        "other tables inherit from public.t\n"
        "  why:  a key is unique in one of them only, and no index covers them all\n"
        "  next: adopt the tables that inherit from it, or make it a partitioned table",
    ),
    "typed table": (
        "create type shape as (id int, due_at timestamptz);"
        "create table t of shape (primary key (id))",
        "public.t is a table OF a type\n"
        "  why:  Postgres adds no columns to it\n"
        "  next: alter table public.t not of",
    ),
    "rules": (
        "create table t (id int primary key, due_at timestamptz);"
        "create rule never as on update to t do instead nothing",
        "public.t has rules on update: never\n"
        "  why:  a rule rewrites the claim into something else\n"
        "  next: write a trigger in its place, then: drop rule never on public.t",
    ),
    "a column of our name": (
        "create table t (id int primary key, due_at timestamptz, duerow_owner text)",
        "public.t has a column duerow_owner that is text, not bigint\n"
        "  why:  it is needed for bookkeeping\n"
        "  next: rename yours: alter table public.t rename column duerow_owner to ..., "
        "or take ours out first: worker tables remove t",
    ),
    "a hold of another type": (
        "create table t (id int primary key, due_at timestamptz, duerow_held_for timestamp)",
        "public.t has a column duerow_held_for that is timestamp without time zone, "
        "not timestamp with time zone\n"
        "  why:  the due column 'due_at' is timestamp with time zone\n"
        "  next: rename yours: alter table public.t rename column duerow_held_for to ..., "
        "or take ours out first: worker tables remove t",
    ),
    "no room for columns": (
        "do $$ begin execute 'create table t (id int primary key, due_at timestamptz, '"
        " || (select string_agg(format('c%s bool', i), ', ') from generate_series(1, 1590) i)"
        " || ')'; end $$",
        "public.t has room for 8 more columns, and 9 are needed\n"
        "  why:  a table has 1600 at most, and those that were dropped count\n"
        "  next: move some of them to a table of their own",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_table_that_cannot_be_adopted(case: str, pg: Connection, db_url: str) -> None:
    made, said = CASES[case]
    pg.execute(made.encode())
    assert refusal(db_url, "t") == said
    checked = tables(db_url, "check", "t", "--key", "id", "--due", "due_at", "--json")
    assert checked.code == 8
    [finding] = checked.records
    assert finding["state"] == "failed"
    assert finding["what"] == said.splitlines()[0]


def test_a_key_that_holds_the_due_column(pg: Connection, db_url: str) -> None:
    pg.execute(
        "create table t (id int, due_at timestamptz, primary key (id, due_at))"
        " partition by range (due_at)"
    )
    assert refusal(db_url, "t", "--key", "id,due_at") == (
        "the key (id, due_at) of public.t holds its due column 'due_at'\n"
        "  why:  the due time changes with each run, and the key must stay what it was\n"
        "  next: partition by another column, or move the due time to one that is not in the key"
    )


def test_every_reason_is_told(pg: Connection, db_url: str) -> None:
    pg.execute("create table t (id int, due_at date)")
    said = refusal(db_url, "t")
    assert "may be null" in said
    assert "has no primary key" in said
    assert "is date" in said


def test_a_temporary_table(db_url: str) -> None:
    """Another session never sees one; the one that made it is told why not."""
    from worker.tables.catalog import describe
    from worker.tables.refusals import refusals
    from worker.tables.spec import TableSpec

    with psycopg.connect(db_url) as connection:
        connection.execute("create temporary table t (id int primary key, due_at timestamptz)")
        [problem] = refusals(TableSpec("t", "t"), describe(connection, "t"))
    assert problem.what.endswith(".t is a temporary table")
    assert problem.why == "only the session that made it sees its rows, and a worker is another"
    assert tables(db_url, "add", "t", "--due", "due_at", "--sql").code == 6


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ("worker.jobs", "worker.jobs is claimed from as it is"),
        ("pg_class", "it belongs to Postgres"),
        ("information_schema.sql_features", "it belongs to Postgres"),
    ],
)
def test_tables_that_are_not_the_users_own(db_url: str, table: str, why: str) -> None:
    said = refusal(db_url, table)
    assert "cannot be adopted" in said
    assert why in said


def test_a_name_of_64_bytes_is_refused_and_not_cut(pg: Connection, db_url: str) -> None:
    """Postgres itself would answer with the table of 63."""
    pg.execute(f"create table {'x' * 63} (id int primary key, due_at timestamptz)")
    assert pg.execute("select to_regclass(%s)", ["x" * 64]).fetchone() != (None,)
    answer = tables(db_url, "add", "x" * 64, "--due", "due_at", "--sql")
    assert answer.code == 2
    assert answer.err == (
        f"the name '{'x' * 64}' is 64 bytes long\n"
        f"  why:  Postgres keeps 63: it would look for '{'x' * 63}', which may be another\n"
        "  next: write the name as it stands in the catalog (\\d in psql)\n"
    )


def test_a_column_of_64_bytes_is_refused_and_not_cut(pg: Connection, db_url: str) -> None:
    pg.execute(f"create table t (id int primary key, {'d' * 63} timestamptz)")
    said = refusal(db_url, "t", due="d" * 64)
    assert said.splitlines()[0] == f"the column name '{'d' * 64}' is 64 bytes long"


def test_a_name_that_differs_in_case_alone(pg: Connection, db_url: str) -> None:
    pg.execute('create table "Orders" (id int primary key, due_at timestamptz)')
    answer = tables(db_url, "add", "Orders", "--due", "due_at", "--sql")
    assert answer.code == 6
    assert answer.err == (
        "there is no table Orders\n"
        '  why:  but there is public."Orders"\n'
        "  next: name it 'public.\"Orders\"'\n"
    )


def test_a_table_in_a_schema_that_is_not_searched(pg: Connection, db_url: str) -> None:
    pg.execute("create schema shop; create table shop.orders (id int)")
    answer = tables(db_url, "add", "orders", "--due", "due_at", "--sql")
    assert (answer.code, answer.err.splitlines()[1]) == (6, "  why:  but there is shop.orders")


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("due_at < now()", "functions in index predicate must be marked IMMUTABLE"),
        ("id in (select 1)", "cannot use subquery in index predicate"),
        ("nothing = 1", 'column "nothing" does not exist'),
        ("t.id = 1", 'missing FROM-clause entry for table "t"'),
        ("status", "argument of WHERE must be type boolean, not type text"),
        ("true) or (true", "syntax error at or near"),
        ("true); drop table t; --", "syntax error"),
        ("count(*) > 1", "aggregate functions are not allowed in"),
    ],
)
def test_a_condition_that_no_index_can_have(
    pg: Connection, db_url: str, where: str, why: str
) -> None:
    pg.execute("create table t (id int primary key, due_at timestamptz, status text)")
    answer = tables(db_url, "add", "t", "--due", "due_at", "--where", where, "--sql")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(f"the condition {where!r} cannot be used\n  why:  {why}")
    assert pg.execute("select to_regclass('t') is not null").fetchone() == (True,)


def test_a_source_whose_name_queues_could_not_tell(pg: Connection, db_url: str) -> None:
    pg.execute('create table "Mixed Case" (id int primary key, due_at timestamptz)')
    answer = tables(db_url, "add", '"Mixed Case"', "--due", "due_at", "--sql")
    assert answer.code == 2
    assert answer.err.splitlines()[0] == "'Mixed Case' cannot be the name of a source"


def test_a_second_name_for_one_table(pg: Connection, db_url: str) -> None:
    from tests.adoption import adopt

    pg.execute("create table t (id int primary key, due_at timestamptz)")
    adopt(db_url, "t", "--due", "due_at")
    answer = tables(db_url, "add", "t", "--due", "due_at", "--name", "other", "--sql")
    assert answer.code == 2
    assert answer.err == (
        "public.t was adopted already, as 't'\n"
        "  why:  it has one set of bookkeeping columns, so one source claims from it\n"
        "  next: --name t, or first: worker tables remove t\n"
    )


def test_no_due_column_is_said(db_url: str) -> None:
    answer = tables(db_url, "add", "donations")
    assert answer.code == 2
    assert answer.err == (
        "which column of donations says when a row is due?\n"
        "  next: worker tables add donations --key id --due COLUMN\n"
    )
