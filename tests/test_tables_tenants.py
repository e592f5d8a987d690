"""The second index, by which tenants take turns: added, checked, mended, explained and removed."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.adoption import Project, adopt, columns, index_is_valid, psql, tables
from tests.test_tables_add import DONATIONS, half_done
from tests.test_tables_partitions import LEAVES, ORDERS
from tests.workers import drained
from worker.app import App
from worker.errors import RegistrationError
from worker.tables.spec import index_name

Connection = psycopg.Connection[Any]

ADD = ("donations", "--due", "next_charge_at", "--where", "status = 'active'")
FAIR = (*ADD, "--tenant", "org_id", "--per-tenant")
INDEX = "duerow_tenant_donations"


@pytest.fixture
def donations(pg: Connection) -> Connection:
    pg.execute(DONATIONS)
    return pg


def failed(url: str, *words: str) -> dict[str, Any]:
    """The one thing that keeps rows from being claimed."""
    answer = tables(url, "check", *words, "--json")
    assert answer.code == 8, answer.out
    [one] = [record for record in answer.records if record["state"] == "failed"]
    return one


def test_it_is_built_beside_the_other(donations: Connection, db_url: str) -> None:
    script = adopt(db_url, *FAIR).out
    assert script.count("create index concurrently") == 2
    assert index_is_valid(donations, INDEX)
    told = donations.execute("select pg_get_indexdef(%s::regclass)", [INDEX]).fetchone()
    assert told is not None
    assert "(org_id, LEAST(" in told[0], "the tenant comes first"
    assert told[0].endswith("WHERE (status = 'active'::text)")
    assert donations.execute("select tenant, tenant_index from worker.sources").fetchall() == [
        ("org_id", INDEX)
    ]
    assert "nothing to add" in tables(db_url, "add", *FAIR, "--sql").err
    checked = tables(db_url, "check", "--json")
    assert checked.code == 0
    [about] = [record for record in checked.records if record["check"] == "tenant index"]
    assert (about["state"], about["what"]) == ("ok", f"{INDEX} is valid")


def test_a_table_that_was_adopted_before_gets_it_alone(donations: Connection, db_url: str) -> None:
    adopt(db_url, *ADD, "--tenant", "org_id")
    assert index_is_valid(donations, INDEX) is None
    script = adopt(db_url, *FAIR).out
    assert "add column" not in script
    assert "duerow_due_donations on" not in script
    assert index_is_valid(donations, INDEX)


def test_without_the_option_it_is_dropped_again(donations: Connection, db_url: str) -> None:
    adopt(db_url, *FAIR)
    answer = tables(db_url, "add", *ADD, "--tenant", "org_id", "--sql")
    assert "per tenant is True there, False here" in answer.err
    assert psql(db_url, answer.out).returncode == 0
    assert index_is_valid(donations, INDEX) is None
    assert donations.execute("select tenant_index from worker.sources").fetchall() == [(None,)]
    assert tables(db_url, "check").code == 0


def test_one_that_is_missing_is_found(donations: Connection, db_url: str) -> None:
    adopt(db_url, *FAIR)
    donations.execute(f"drop index {INDEX}".encode())
    found = failed(db_url)
    assert found["what"] == f"public.donations lacks the index {INDEX}"
    assert "--tenant org_id --per-tenant" in found["hint"]
    adopt(db_url, *FAIR)
    assert tables(db_url, "check").code == 0


def test_one_that_is_half_done_is_found_and_mended(donations: Connection, db_url: str) -> None:
    adopt(db_url, *ADD, "--tenant", "org_id")
    script = tables(db_url, "add", *FAIR, "--sql").out
    statement = "create index" + script.split("create index", 1)[1].split(";", 1)[0]
    assert INDEX in statement
    with half_done(db_url, statement, "donations"):
        assert index_is_valid(donations, INDEX) is False
    found = failed(db_url, *FAIR)
    assert found["what"] == f"the index {INDEX} of public.donations is half done"
    adopt(db_url, *FAIR)
    assert index_is_valid(donations, INDEX)
    assert tables(db_url, "check").code == 0


def test_an_unfinished_script_registers_nothing(donations: Connection, db_url: str) -> None:
    script = tables(db_url, "add", *FAIR, "--sql").out
    before, rest = script.split(f"build the index {INDEX}", 1)
    register = "do $duerow$ begin" + rest.rsplit("do $duerow$ begin", 1)[1]
    done = psql(db_url, f"{before}\n{register}")
    assert done.returncode != 0
    assert f"{INDEX} of public.donations is missing or half done" in done.stderr
    assert donations.execute("select count(*) from worker.sources").fetchone() == (0,)


@pytest.mark.parametrize("other", ["due_at", "where", "tenant"])
def test_one_for_something_else_is_built_anew(
    donations: Connection, db_url: str, other: str
) -> None:
    donations.execute("alter table donations add due_at timestamptz, add region text")
    adopt(db_url, *FAIR)
    due = "due_at" if other == "due_at" else "next_charge_at"
    where = "status = 'late'" if other == "where" else "status = 'active'"
    tenant = "region" if other == "tenant" else "org_id"
    now = ("donations", "--due", due, "--where", where, "--tenant", tenant, "--per-tenant")
    found = tables(db_url, "check", *now, "--json").records
    assert (
        f"the index {INDEX} of public.donations is for another tenant, due column or condition"
        in [record["what"] for record in found]
    )
    script = adopt(db_url, *now).out
    assert index_is_valid(donations, INDEX)
    assert index_is_valid(donations, "duerow_newtenant_donations") is None
    assert ('drop index concurrently if exists "public"."duerow_due_' in script) == (
        other != "tenant"
    )
    assert tables(db_url, "check").code == 0


def test_the_way_back_is_the_index_that_was_there(
    donations: Connection, db_url: str, tmp_path: Any
) -> None:
    donations.execute("alter table donations add region text")
    adopt(db_url, *FAIR)
    definition = "select pg_get_indexdef(%s::regclass)"
    before = donations.execute(definition, [INDEX]).fetchone()
    project = Project(tmp_path, db_url)
    project.revise("first", "select 1", "select 1")
    other = (*ADD, "--tenant", "region", "--per-tenant", "--alembic-dir", str(tmp_path))
    answer = tables(db_url, "add", *other)
    assert answer.code == 0, answer.err
    project.upgrade()
    assert donations.execute(definition, [INDEX]).fetchone() != before
    project.downgrade("first")
    assert donations.execute(definition, [INDEX]).fetchone() == before
    assert tables(db_url, "check").code == 0
    assert tables(db_url, "remove", "donations", "--alembic-dir", str(tmp_path)).code == 0


def test_removing_takes_it_out(donations: Connection, db_url: str) -> None:
    adopt(db_url, *FAIR)
    assert psql(db_url, tables(db_url, "remove", "donations", "--sql").out).returncode == 0
    assert index_is_valid(donations, INDEX) is None
    assert columns(donations, "donations") == set()


def test_a_renamed_table_keeps_it(donations: Connection, db_url: str) -> None:
    adopt(db_url, *FAIR)
    donations.execute("alter table donations rename to gifts")
    assert tables(db_url, "check").code == 0
    assert "create index" not in adopt(db_url, "gifts", *FAIR[1:], "--name", "donations").out


def test_its_plan_is_explained(donations: Connection, db_url: str) -> None:
    adopt(db_url, *FAIR)
    donations.execute("analyze donations")
    due, turns = tables(db_url, "explain", "donations", "-n", "25", "--analyze", "--json").records
    assert (due["by"], due["rows"], due["faults"]) == ("due", 25, [])
    assert (turns["by"], turns["rows"], turns["faults"]) == ("tenant", 25, [])
    assert INDEX in turns["indexes"]
    assert INDEX not in due["indexes"]
    assert "2 rows" not in tables(db_url, "explain", "donations").err


def test_a_plan_without_it_is_a_fault(donations: Connection, db_url: str) -> None:
    """Of a role that may make no temporary table nobody compares conditions; the plan tells."""
    adopt(db_url, *FAIR)
    donations.execute(f"drop index {INDEX}".encode())
    _, turns = tables(db_url, "explain", "donations", "--json").records
    assert turns["faults"]


def test_a_tenant_is_needed(donations: Connection, db_url: str) -> None:
    answer = tables(db_url, "add", *ADD, "--per-tenant", "--sql")
    assert answer.code == 2
    assert "--tenant COLUMN --per-tenant" in answer.err


def test_a_column_that_has_no_order_is_refused(donations: Connection, db_url: str) -> None:
    donations.execute("alter table donations add who json")
    answer = tables(db_url, "add", *ADD, "--tenant", "who", "--per-tenant", "--sql")
    assert answer.code == 2
    assert "the tenant's column 'who' cannot be indexed" in answer.err
    assert tables(db_url, "add", *ADD, "--tenant", "who", "--sql").code == 0


def test_partitions_get_both(pg: Connection, db_url: str) -> None:
    pg.execute(ORDERS)
    add = ("orders", "--key", "id,region", "--due", "due_at", "--tenant", "region")
    adopt(db_url, *add)
    adopt(db_url, *add, "--per-tenant")

    def indexed() -> set[str]:
        return {
            name
            for (name,) in pg.execute(
                "select indrelid::regclass::text from pg_index where indisvalid"
                " and pg_get_indexdef(indexrelid) like '%(region, LEAST(%'"
            )
        }

    assert indexed() == LEAVES | {"orders", "orders_rest"}
    assert tables(db_url, "check").code == 0
    assert "nothing to add" in tables(db_url, "add", *add, "--per-tenant", "--sql").err
    pg.execute("create table orders_br partition of orders for values in ('br')")
    assert "orders_br" in indexed()
    pg.execute("analyze orders")
    _, turns = tables(db_url, "explain", "orders", "-n", "20", "--analyze", "--json").records
    assert (turns["rows"], turns["faults"]) == (20, [])
    pg.execute("drop index duerow_tenant_orders")
    assert failed(db_url)["what"] == "public.orders lacks the index duerow_tenant_orders"
    pg.execute(
        "create index duerow_tenant_orders on only orders (region, (least("
        "case when duerow_held_for = due_at then duerow_retry_at else due_at end, 'infinity')))"
    )
    assert "archive.orders_us" in failed(db_url)["what"]
    adopt(db_url, *add, "--per-tenant")
    assert indexed() == LEAVES | {"orders", "orders_rest", "orders_br"}
    assert psql(db_url, tables(db_url, "remove", "orders", "--sql").out).returncode == 0
    assert not indexed()


def test_long_names_stay_apart() -> None:
    long, longer = "x" * 63, "x" * 62 + "y"
    names = {index_name(table, which) for table in (long, longer) for which in ("due", "tenant")}
    assert len(names) == 4
    assert all(len(name) == 63 for name in names)


async def test_a_worker_does_not_start_without_it(donations: Connection, db_url: str) -> None:
    """And names the command that mends it."""
    adopt(db_url, *ADD, "--tenant", "org_id")
    app = App()

    @app.rows(
        "donations",
        due="next_charge_at",
        where="status = 'active'",
        tenant="org_id",
        per_tenant=2,
    )
    async def charge(row: dict[str, Any]) -> None: ...

    with pytest.raises(RegistrationError) as refused:
        await drained(app, db_url)
    assert refused.value.what == f"public.donations lacks the index {INDEX}"
    assert "worker tables add donations" in refused.value.hint
    assert "--tenant org_id --per-tenant" in refused.value.hint
    adopt(db_url, *FAIR)
    done = await drained(app, db_url)
    assert done.report is not None
    assert done.report.settled == 500
