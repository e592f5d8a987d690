"""What `worker tables check`, `list` and `explain` say of an adopted table."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.adoption import Answer, adopt, as_role, tables
from tests.facts import eventually

Connection = psycopg.Connection[Any]

MADE = "create table t (id bigint primary key, due_at timestamptz, status text)"


@pytest.fixture
def t(pg: Connection, db_url: str) -> Connection:
    """An adopted table of 2,000 rows, half of them due."""
    pg.execute(MADE)
    pg.execute(
        "insert into t select i, now() + i % 2 * interval '1 day' - interval '1 minute'"
        " from generate_series(1, 2000) i"
    )
    adopt(db_url, "t", "--due", "due_at")
    pg.execute("analyze t")
    return pg


def found(answer: Answer, check: str) -> list[dict[str, Any]]:
    return [r for r in answer.records if r["check"] == check and r["state"] != "ok"]


def warning(url: str, check: str) -> dict[str, Any]:
    """The only one about `check`; it alone does not make the check fail."""
    answer = tables(url, "check", "--json")
    assert answer.code == 0, answer.out
    [one] = found(answer, check)
    assert one["state"] == "warning"
    return one


def test_all_is_well(t: Connection, db_url: str) -> None:
    answer = tables(db_url, "check", "t", "--json")
    assert answer.code == 0
    assert {(r["check"], r["state"]) for r in answer.records} == {
        (check, "ok")
        for check in (
            "kind", "key", "due", "columns", "index", "registration", "privileges",
            "row security", "triggers", "storage", "lag",
        )
    }  # fmt: skip
    [lag] = [r for r in answer.records if r["check"] == "lag"]
    assert lag["what"] == "1000 due, 0 claimed, 0 dead"


def test_a_pipe_gets_tabs(t: Connection, db_url: str) -> None:
    lines = tables(db_url, "check").out.splitlines()
    assert lines[0] == "source\tcheck\tstate\twhat\thint"
    assert all(line.count("\t") == 4 for line in lines)


def test_nothing_was_adopted_yet(db_url: str) -> None:
    answer = tables(db_url, "check", "--json")
    assert (answer.code, answer.out) == (0, "")
    assert answer.err == "no table was adopted yet: worker tables add TABLE --key id --due COLUMN\n"


def test_an_unknown_source_is_answered_with_the_nearest(t: Connection, db_url: str) -> None:
    answer = tables(db_url, "check", "tt")
    assert answer.code == 6
    assert answer.err.splitlines() == [
        "no adopted table is called 'tt'",
        "  why:  worker.sources lists t",
        "  next: worker tables check t",
    ]


def test_a_missing_index(t: Connection, db_url: str) -> None:
    t.execute("drop index duerow_due_t")
    answer = tables(db_url, "check", "--json")
    assert answer.code == 8
    [failed] = found(answer, "index")
    assert failed["what"] == "public.t lacks the index duerow_due_t"
    assert failed["why"] == "without it each claim reads the whole table"
    assert failed["hint"] == "worker tables add public.t --key id --due due_at --name t"


TRIGGERS = [
    ("before update on t for each row", ["claim and settle"]),
    ("after update on t for each statement", ["claim and settle"]),
    ("after insert or update on t for each row", ["claim and settle"]),
    ("after update of due_at on t for each row", ["settle"]),
    ("after update of duerow_owner on t for each row", ["claim and settle"]),
    ("before update on t for each row when (old.* is distinct from new.*)", ["claim and settle"]),
    ("after update of status on t for each row", []),
    ("after insert on t for each row", []),
    (
        "before update on t for each row"
        " when (old.duerow_owner is not distinct from new.duerow_owner)",
        [],
    ),
]


@pytest.mark.parametrize(("trigger", "fires"), TRIGGERS)
def test_triggers_that_fire_for_us(
    t: Connection, db_url: str, trigger: str, fires: list[str]
) -> None:
    """And at a claim they do: a sequence tells, which no rollback sets back."""
    t.execute(
        "create sequence fired; create function touch() returns trigger language plpgsql"
        " as $$ begin perform nextval('fired'); return new; end $$"
    )
    t.execute(f"create trigger touched {trigger} execute function touch()".encode())
    answer = tables(db_url, "check", "--json")
    assert answer.code == 0
    assert [r["what"] for r in found(answer, "triggers")] == [
        f"trigger touched of t fires at each {when}" for when in fires
    ]
    for one in found(answer, "triggers"):
        assert one["why"].startswith("it calls touch() ")
        assert "UPDATE OF" in one["hint"]
    assert tables(db_url, "explain", "t", "--analyze").code == 0
    at_claim = any("claim" in when for when in fires)
    assert t.execute("select is_called from fired").fetchone() == (at_claim,)


def test_a_disabled_trigger_is_left_out(t: Connection, db_url: str) -> None:
    t.execute(
        "create function touch() returns trigger language plpgsql as $$ begin return new; end $$;"
        "create trigger touched before update on t for each row execute function touch();"
        "alter table t disable trigger touched"
    )
    assert found(tables(db_url, "check", "--json"), "triggers") == []


@pytest.fixture
def role(t: Connection, db_url: str) -> Any:
    """Another role's URL, which may use the schema worker as a worker does."""
    name = f"clerk_{t.info.dbname[-12:]}"
    who = sql.Identifier(name)
    t.execute(sql.SQL("create role {} login password 'clerk'").format(who))
    t.execute(sql.SQL("grant usage on schema worker to {}").format(who))
    t.execute(sql.SQL("grant select on all tables in schema worker to {}").format(who))
    yield as_role(db_url, name, "clerk")
    t.execute(sql.SQL("drop owned by {}").format(who))
    t.execute(sql.SQL("drop role {}").format(who))


def role_name(url: str) -> str:
    return url.split("//")[1].split(":")[0]


def test_privileges_of_the_role(t: Connection, db_url: str, role: str) -> None:
    name = role_name(role)

    def lacking() -> list[tuple[str, str]]:
        answer = tables(role, "check", "--json")
        said = found(answer, "privileges")
        assert (answer.code == 8) == any(one["state"] == "failed" for one in said)
        return [(one["what"].split(f"role {name} may ")[1], one["hint"]) for one in said]

    assert [what.split(" of ")[0].split(",")[0] for what, _ in lacking()] == [
        "not read id", "not write due_at", "not record attempts",
    ]  # fmt: skip
    for _ in range(3):  # each hint is the grant that helps
        _, grant = lacking()[0]
        t.execute(grant.encode())
    assert lacking() == []
    t.execute(f"revoke select on t from {name}".encode())
    t.execute(f"grant select (id, due_at) on t to {name}".encode())
    assert "duerow_owner" in lacking()[0][0]


def test_who_may_alter_the_table_is_told(t: Connection, db_url: str, role: str) -> None:
    t.execute("delete from worker.sources; drop index duerow_due_t")
    t.execute(f"grant select on t to {role_name(role)}".encode())
    answer = tables(role, "add", "t", "--due", "due_at", "--sql")
    assert answer.code == 0
    owner = t.info.user
    assert f"note: only {owner} can alter public.t: run this as that role" in answer.err


def test_a_schema_that_may_not_be_used(pg: Connection, db_url: str, role: str) -> None:
    name = role_name(role)
    pg.execute("create schema shop; create table shop.o (id int primary key, due_at timestamptz)")
    pg.execute(f"grant select, update on shop.o to {name}".encode())
    adopt(db_url, "shop.o", "--due", "due_at")
    answer = tables(role, "check", "o", "--json")
    assert answer.code == 8
    assert f"role {name} may not use schema shop" in [r["what"] for r in answer.records]


def test_row_level_security(t: Connection, db_url: str, role: str) -> None:
    name = role_name(role)
    t.execute("alter table t enable row level security")
    for grant in (f"grant select, update on t to {name}",
                  f"grant insert on worker.attempts to {name}"):  # fmt: skip
        t.execute(grant.encode())
    assert found(tables(db_url, "check", "--json"), "row security") == []  # the owner is exempt
    one = warning(role, "row security")
    assert one["what"] == f"row level security of public.t applies to role {name}"
    assert one["why"] == "rows that its policies hide are never claimed, and nobody is told"
    assert one["hint"].startswith(f"alter role {name} bypassrls, or: create policy duerow on")
    t.execute(f"alter role {name} bypassrls".encode())
    assert found(tables(role, "check", "--json"), "row security") == []


def test_a_due_column_that_cannot_be_null(t: Connection, db_url: str) -> None:
    t.execute("alter table t alter column due_at set not null")
    one = warning(db_url, "due")
    assert one["what"] == "the due column 'due_at' of public.t is not null"
    assert one["why"] == (
        "a row that is never due again has null in it, so each success must name a next time"
    )


def test_a_due_column_that_must_be_unique(t: Connection, db_url: str) -> None:
    t.execute("create unique index one_at_a_time on t (status, due_at)")
    assert warning(db_url, "due")["what"] == (
        "the unique index one_at_a_time of public.t holds the due column 'due_at'"
    )


def test_an_unlogged_table(pg: Connection, db_url: str) -> None:
    pg.execute(MADE.replace("create table", "create unlogged table"))
    adopt(db_url, "t", "--due", "due_at")
    assert warning(db_url, "storage")["what"] == "public.t is unlogged"


def test_autovacuum_is_off(t: Connection, db_url: str) -> None:
    t.execute("alter table t set (autovacuum_enabled = false)")
    assert warning(db_url, "storage")["what"] == "autovacuum is off for public.t"


def test_rows_that_wait_too_long(t: Connection, db_url: str) -> None:
    t.execute("update t set due_at = now() - interval '1 hour' where id = 7")
    one = warning(db_url, "lag")
    assert one["what"].startswith("a row of public.t has been due for 36")
    assert one["why"] == "1001 rows are due, 0 are being run"


def test_dead_row_versions(t: Connection, db_url: str) -> None:
    t.execute(  # the 2,000 that were inserted are a reason for a vacuum too
        "alter table t set"
        " (autovacuum_vacuum_threshold = 1000000, autovacuum_vacuum_insert_threshold = -1)"
    )
    for _ in range(6):
        t.execute("update t set status = 'x'")
    t.execute("select pg_stat_force_next_flush()")
    eventually(lambda: _dead_versions(t) > 10_000)
    told = [one["what"] for one in found(tables(db_url, "check", "--json"), "storage")]
    assert any(what.endswith("row versions of public.t are dead") for what in told)


def _dead_versions(pg: Connection) -> int:
    row = pg.execute("select n_dead_tup from pg_stat_all_tables where relname = 't'").fetchone()
    assert row is not None
    return int(row[0])


def test_updates_that_find_no_room(t: Connection, db_url: str) -> None:
    """Full pages: hardly any update is HOT, and the advice is a lower fillfactor."""
    t.execute("alter table t set (autovacuum_enabled = false)")
    t.execute("create index on t (status)")
    for i in range(6):
        t.execute("update t set status = %s", [str(i)])
    t.execute("vacuum t")
    t.execute("select pg_stat_force_next_flush()")

    def advice() -> list[str]:
        told = found(tables(db_url, "check", "--json"), "storage")
        return [one["what"] for one in told if "found room" in one["what"]]

    assert eventually(advice) == ["0 % of the updates of public.t found room on their page"]
    t.execute("alter table t set (fillfactor = 70)")
    assert advice() == []


def test_a_table_that_somebody_has_locked(t: Connection, db_url: str) -> None:
    """It is said after 5 s, and the other tables are told all the same."""
    t.execute("create table other (id int primary key, due_at timestamptz)")
    adopt(db_url, "other", "--due", "due_at")
    with psycopg.connect(db_url) as holder:
        holder.execute("lock table t in access exclusive mode")
        listed = tables(db_url, "list", "--json")
    assert listed.code == 0
    by_name = {row["name"]: row for row in listed.records}
    assert by_name["other"]["due_rows"] == 0
    assert by_name["t"]["problem"] == (
        "public.t could not be looked at: canceling statement due to lock timeout"
    )


def test_the_list_counts_rows(t: Connection, db_url: str) -> None:
    t.execute("update t set duerow_owner = 5 where id in (2, 4)")
    t.execute(
        "update t set duerow_held_for = due_at, duerow_retry_at = 'infinity', duerow_state = 'dead'"
        " where id in (6, 8, 10)"
    )
    [row] = tables(db_url, "list", "--json").records
    assert row["oldest_due_s"] >= 60
    del row["oldest_due_s"]
    assert row == {
        "name": "t", "table": "public.t", "key": ["id"], "due": "due_at", "where": None,
        "tenant": None, "rows": 2000, "due_rows": 997, "claimed": 2, "dead": 3, "problem": None,
    }  # fmt: skip


def test_a_row_in_backoff_is_not_due(t: Connection, db_url: str) -> None:
    """Nor is a hold in force for a due time that the user has changed since."""
    t.execute(
        "update t set duerow_held_for = due_at, duerow_retry_at = now() + '1 hour' where id <= 100"
    )
    [row] = tables(db_url, "list", "--json").records
    assert row["due_rows"] == 950
    t.execute("update t set due_at = due_at - interval '1 second' where id = 2")
    [row] = tables(db_url, "list", "--json").records
    assert row["due_rows"] == 951


def test_the_claim_is_explained(t: Connection, db_url: str) -> None:
    answer = tables(db_url, "explain", "t")
    assert answer.code == 0
    assert "Index Scan using duerow_due_t on t" in answer.out
    assert answer.err == ""
    [told] = tables(db_url, "explain", "t", "-n", "50", "--analyze", "--json").records
    assert (told["rows"], told["faults"]) == (50, [])
    assert "duerow_due_t" in told["indexes"]
    assert 0 < told["seconds"] < 5
    # It was rolled back: no row is claimed, no worker registered.
    assert t.execute("select count(*) from t where duerow_token > 0").fetchone() == (0,)
    assert t.execute("select count(*) from worker.workers").fetchone() == (0,)


def test_a_claim_that_reads_the_whole_table(t: Connection, db_url: str) -> None:
    t.execute("drop index duerow_due_t")
    answer = tables(db_url, "explain", "t")
    assert answer.code == 0
    assert "the claim reads the whole of t" in answer.err
    assert "the claim sorts all that is due before it takes the first row" in answer.err


def test_a_claim_on_a_table_that_was_not_adopted(pg: Connection, db_url: str) -> None:
    pg.execute(MADE)
    answer = tables(db_url, "explain", "t", "--due", "due_at")
    assert answer.code == 8
    assert answer.err.startswith("public.t lacks duerow_owner, duerow_token,")
    assert answer.err.endswith("next: worker tables add t --key id --due due_at --name t\n")


def test_a_claim_that_another_index_serves(t: Connection, db_url: str) -> None:
    t.execute(
        "drop index duerow_due_t; create index mine on t ((case when duerow_held_for = due_at"
        " then duerow_retry_at else due_at end)) where duerow_owner is null"
    )
    assert tables(db_url, "check").code == 8
    answer = tables(db_url, "explain", "t")
    assert "using mine" in answer.out
    assert answer.err == ""  # it walks the due rows in order, whatever its name
