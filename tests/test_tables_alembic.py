"""The revision that `worker tables add` writes, run by Alembic in a user's own project."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.adoption import Answer, Project, adopt, columns, index_is_valid, psql, tables
from tests.facts import eventually
from worker.tables.bookkeeping import NAMES

Connection = psycopg.Connection[Any]

CREATE = (
    "create table donations (id bigint primary key, next_charge_at timestamptz,"
    " status text not null default 'active', org_id bigint)"
)
ADD = ("donations", "--due", "next_charge_at", "--where", "status = 'active'")
INDEX = "duerow_due_donations"


@pytest.fixture
def project(tmp_path: Path, db_url: str) -> Project:
    """One with a table, at its head."""
    made = Project(tmp_path, db_url)
    made.revise("first", CREATE, "drop table donations")
    made.upgrade()
    return made


def add(project: Project, url: str, *words: str) -> Answer:
    return tables(url, "add", *(words or ADD), "--alembic-dir", str(project.home), "--json")


def written(answer: Answer) -> Path:
    """The revision's file."""
    assert answer.code == 0, answer.err
    return Path(answer.records[0]["revision"])


def revision_of(path: Path) -> str:
    [line] = [one for one in path.read_text().splitlines() if one.startswith("revision = ")]
    return line.split('"')[1]


def current(project: Project) -> str:
    done = project.alembic("current")
    assert done.returncode == 0, done.stderr
    return done.stdout.split(" ")[0].strip()


def test_the_revision_adopts_and_its_downgrade_takes_back(
    project: Project, db_url: str, pg: Connection
) -> None:
    pg.execute("insert into donations select i, now() from generate_series(1, 100) i")
    answer = add(project, db_url)
    path = written(answer)
    assert path.parent == project.versions
    assert "next: alembic upgrade head" in answer.err
    assert columns(pg, "donations") == set()  # nothing was done yet

    project.upgrade()
    assert columns(pg, "donations") == set(NAMES)
    assert index_is_valid(pg, INDEX)
    assert pg.execute("select name, condition from worker.sources").fetchall() == [
        ("donations", "status = 'active'")
    ]
    assert tables(db_url, "check").code == 0

    project.downgrade("-1")
    assert current(project) == "first"
    assert columns(pg, "donations") == set()
    assert index_is_valid(pg, INDEX) is None
    assert pg.execute("select count(*) from worker.sources").fetchone() == (0,)
    assert pg.execute("select count(*) from donations").fetchone() == (100,)

    project.upgrade()
    assert tables(db_url, "check").code == 0


def test_the_revision_follows_the_head_of_the_files(project: Project, db_url: str) -> None:
    project.revise("later", "select 1", "select 1", after="first")
    text = written(add(project, db_url)).read_text()
    assert '\ndown_revision = "later"\n' in text
    heads = project.alembic("heads").stdout.split()
    assert len([word for word in heads if word == "(head)"]) == 1


def test_the_revision_imports_nothing_of_ours(project: Project, db_url: str) -> None:
    """It must still run when Duerow is gone, or another version."""
    text = written(add(project, db_url)).read_text()
    assert [line for line in text.splitlines() if line.startswith(("import", "from"))] == [
        "from alembic import op"
    ]


def test_it_may_be_the_first_revision(tmp_path: Path, db_url: str, pg: Connection) -> None:
    pg.execute(CREATE)
    project = Project(tmp_path, db_url)
    assert "\ndown_revision = None\n" in written(add(project, db_url)).read_text()
    project.upgrade()
    assert index_is_valid(pg, INDEX)
    project.downgrade("base")
    assert columns(pg, "donations") == set()


def test_of_several_heads_one_must_be_named(project: Project, db_url: str, pg: Connection) -> None:
    project.revise("left", "select 1", "select 1", after="first")
    project.revise("right", "select 1", "select 1", after="first")
    before = sorted(project.versions.iterdir())
    answer = add(project, db_url)
    assert answer.code == 2
    assert answer.err.startswith(
        f"the Alembic project in {project.home} has 2 heads\n"
        "  why:  the new one could follow any of left, right\n"
        "  next: --head left, or --head heads to follow (and merge) them all\n"
    )
    assert [p for p in sorted(project.versions.iterdir()) if p.suffix == ".py"] == [
        p for p in before if p.suffix == ".py"
    ]
    one = written(add(project, db_url, *ADD, "--head", "right"))
    assert '\ndown_revision = "right"\n' in one.read_text()
    one.unlink()
    written(add(project, db_url, *ADD, "--head", "heads"))
    project.upgrade("head")
    assert index_is_valid(pg, INDEX)


def test_a_revision_that_was_not_run_is_not_written_twice(
    project: Project, db_url: str, pg: Connection
) -> None:
    first = written(add(project, db_url))
    again = add(project, db_url)
    assert written(again) == first
    assert "donations: already written, but not run on this database" in again.err

    project.upgrade()
    after = add(project, db_url)
    assert after.records == [{"source": "donations", "revision": None, "steps": []}]
    assert after.err == "donations: nothing to add\n"


def test_it_is_written_again_after_it_was_taken_out(
    project: Project, db_url: str, pg: Connection
) -> None:
    first = written(add(project, db_url))
    project.upgrade()
    out = tables(db_url, "remove", "donations", "--alembic-dir", str(project.home), "--json")
    removal = written(out)
    project.upgrade()
    assert columns(pg, "donations") == set()
    second = written(add(project, db_url))
    assert len({first, removal, second}) == 3
    project.upgrade()
    assert tables(db_url, "check").code == 0


def test_taking_out_can_be_taken_back(project: Project, db_url: str, pg: Connection) -> None:
    written(add(project, db_url))
    project.upgrade()
    written(tables(db_url, "remove", "donations", "--alembic-dir", str(project.home), "--json"))
    project.upgrade()
    assert columns(pg, "donations") == set()
    project.downgrade("-1")
    assert columns(pg, "donations") == set(NAMES)
    assert index_is_valid(pg, INDEX)
    assert tables(db_url, "check").code == 0


CONDITIONS = (
    "status = '$duerow$'",
    "status = 'a:b' or status = ' :name' or status::text = '::' or status = ':1'",
    "status like '100%%' or status like '%(x)s'",
    "status = E'tab\\tand \\'quote\\''",
    "status = '\"\"\"' or status = '\"'",
    "status\n   = 'two lines'",
    "status = 'é✓' and status <> '{}'",
    "org_id % 2 = 1",
)


def test_any_condition_reaches_the_index_unchanged(
    project: Project, db_url: str, pg: Connection
) -> None:
    for i, condition in enumerate(CONDITIONS):
        pg.execute(f"create table t{i} (like donations including all)")
        pg.execute(f"create index direct{i} on t{i} (id) where ({condition})".encode())
        due = ("--due", "next_charge_at", "--where", condition)
        written(add(project, db_url, f"t{i}", *due))
    project.upgrade()
    told = (
        "pg_get_expr((select indpred from pg_index where indexrelid = %s::regclass), %s::regclass)"
    )
    for i, condition in enumerate(CONDITIONS):
        table = f"t{i}"
        same = pg.execute(
            f"select {told} = {told}", [f"duerow_due_{table}", table, f"direct{i}", table]
        ).fetchone()
        assert same == (True,), condition
        [stored] = pg.execute("select condition from worker.sources where name = %s", [table])
        assert stored == (condition,)
    assert tables(db_url, "check").code == 0


def test_an_interrupted_upgrade_is_mended_by_running_it_again(
    project: Project, db_url: str, pg: Connection
) -> None:
    """The server ends the session in the middle of CREATE INDEX CONCURRENTLY, which waits for
    whoever has an older snapshot."""
    written(add(project, db_url))
    with psycopg.connect(db_url) as old:
        old.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        old.execute("select 1")
        running = started(project, "upgrade", "head")
        pid = eventually(lambda: _waiting_builder(pg), within=60)
        pg.execute("select pg_terminate_backend(%s)", [pid])
        assert running.wait(60) != 0
    assert index_is_valid(pg, INDEX) is False
    assert current(project) == "first"
    project.upgrade()
    assert index_is_valid(pg, INDEX)
    assert tables(db_url, "check").code == 0


def started(project: Project, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "alembic", *words],
        cwd=project.home,
        env={**os.environ, "PROJECT_URL": project.url},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _waiting_builder(pg: Connection) -> int | None:
    row = pg.execute(
        "select pid from pg_stat_activity where datname = current_database()"
        " and query ilike 'create index concurrently%' and wait_event_type = 'Lock'"
    ).fetchone()
    return row and int(row[0])


def test_it_commits_before_other_revisions_of_the_same_run_go_on(
    project: Project, db_url: str, pg: Connection
) -> None:
    """No lock on the table outlives its own statement, whatever else Alembic runs."""
    path = written(add(project, db_url))
    head = revision_of(path)
    project.revise("slow", "select pg_advisory_xact_lock(77)", "select 1", after=head)
    pg.execute("select pg_advisory_lock(77)")
    running = started(project, "upgrade", "head")
    eventually(lambda: _waits_for_advisory(pg), within=60)
    with psycopg.connect(db_url) as other:
        other.execute("set lock_timeout = '10s'")
        other.execute("lock table donations in access exclusive mode")
    pg.execute("select pg_advisory_unlock(77)")
    assert running.wait(60) == 0


def _waits_for_advisory(pg: Connection) -> bool:
    row = pg.execute(
        "select count(*) from pg_locks l join pg_database d on d.oid = l.database"
        " where datname = current_database() and locktype = 'advisory' and not granted"
    ).fetchone()
    return row is not None and row[0] > 0


def test_it_can_be_written_out_as_sql_by_alembic(
    project: Project, db_url: str, pg: Connection
) -> None:
    written(add(project, db_url, *ADD[:-1], "status like '10%' or status = ' :x'"))
    offline = project.alembic("upgrade", "first:head", "--sql")
    assert offline.returncode == 0, offline.stderr
    done = psql(db_url, offline.stdout)
    assert done.returncode == 0, done.stderr
    assert index_is_valid(pg, INDEX)
    assert tables(db_url, "check").code == 0


def test_a_database_without_our_schema_is_upgraded_all_the_same(
    project: Project, db_url: str, pg: Connection
) -> None:
    """A user's CI makes its test databases by `alembic upgrade head` alone."""
    written(add(project, db_url))
    pg.execute("drop schema worker cascade")
    project.upgrade()
    assert columns(pg, "donations") == set(NAMES)
    assert index_is_valid(pg, INDEX)
    project.downgrade("base")


def test_registering_is_caught_up_later(project: Project, db_url: str, pg: Connection) -> None:
    adopt(db_url, *ADD)
    pg.execute("delete from worker.sources")
    checked = tables(db_url, "check", *ADD, "--json")
    assert checked.code == 0
    [warning] = [r for r in checked.records if r["state"] == "warning"]
    assert warning["what"] == "worker.sources does not list 'donations'"
    assert add(project, db_url).records[0]["steps"] == ["list donations in worker.sources"]
    project.upgrade()
    assert pg.execute("select name from worker.sources").fetchall() == [("donations",)]


def test_the_settings_of_the_session_are_put_back(project: Project, db_url: str) -> None:
    """What the next revision runs under is what its author knows."""
    path = written(add(project, db_url))
    head = revision_of(path)
    project.revise(
        "next",
        "do $$ begin assert current_setting('lock_timeout') = '0'"
        " and current_setting('statement_timeout') = '7min'; end $$",
        "select 1",
        after=head,
    )
    with psycopg.connect(db_url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"alter database \"{name}\" set statement_timeout = '7min'")
    project.upgrade()


def test_partitions_are_those_of_the_database_that_is_upgraded(
    tmp_path: Path, db_url: str, pg: Connection
) -> None:
    project = Project(tmp_path, db_url)
    made = "(id bigint, region text, due_at timestamptz, primary key (id, region))"
    project.revise(
        "first",
        f"create table orders {made} partition by list (region)",
        "drop table orders",
    )
    project.upgrade()
    answer = add(project, db_url, "orders", "--key", "id,region", "--due", "due_at")
    written(answer)
    # Production has partitions that nobody had on the machine where the revision was written.
    pg.execute(
        "create table orders_eu partition of orders for values in ('eu', 'uk');"
        "create table orders_rest partition of orders default partition by hash (id);"
        "create table orders_rest_0 partition of orders_rest for values with (modulus 2,"
        " remainder 0);"
        f"create table {'p' * 63} partition of orders_rest for values with (modulus 2,"
        " remainder 1);"
        "insert into orders select i, (array['eu','us'])[i % 2 + 1], now()"
        " from generate_series(1, 100) i"
    )
    project.upgrade()
    assert index_is_valid(pg, "duerow_due_orders")
    checked = tables(db_url, "check")
    assert checked.code == 0, checked.out
    project.downgrade("-1")
    assert columns(pg, "orders") == set()
    assert pg.execute(
        "select count(*) from pg_class where relname like 'duerow\\_due%'"
    ).fetchone() == (0,)
    offline = project.alembic("upgrade", "base:head", "--sql")
    assert "worker tables add orders --key id,region --due due_at --name orders --sql" in (
        offline.stderr
    )


def test_a_partitioned_table_of_any_name(project: Project, db_url: str, pg: Connection) -> None:
    """Its statements take another way to the server than those of other tables."""
    pg.execute(
        """create table "100% :a" (id int primary key, due_at timestamptz, note text)"""
        """ partition by hash (id);"""
        """create table "% :b" partition of "100% :a" for values with (modulus 1, remainder 0)"""
    )
    words = ("--due", "due_at", "--name", "odd", "--where", "note like '10%' or note = ' :x'")
    written(add(project, db_url, '"100% :a"', *words))
    project.upgrade()
    checked = tables(db_url, "check", "odd")
    assert checked.code == 0, checked.out
    project.downgrade("-1")
    assert columns(pg, '"100% :a"') == set()


def test_no_project_is_here(tmp_path: Path, db_url: str, pg: Connection) -> None:
    pg.execute(CREATE)
    answer = tables(db_url, "add", *ADD, "--alembic-dir", str(tmp_path))
    assert answer.code == 2
    assert answer.err == (
        f"there is no Alembic project in {tmp_path}\n"
        "  why:  neither alembic.ini, nor [tool.alembic] in pyproject.toml, nor versions/ lies "
        "there\n"
        "  next: --alembic-dir PATH, or --sql to get SQL instead "
        "(... --sql | worker db psql)\n"
    )


def test_a_project_whose_revisions_do_not_import(project: Project, db_url: str) -> None:
    (project.versions / "broken.py").write_text("import not_there\n")
    answer = add(project, db_url)
    assert answer.code == 2
    assert answer.err == (
        f"the Alembic project in {project.home} cannot be read\n"
        "  why:  ModuleNotFoundError: No module named 'not_there'\n"
        "  next: alembic heads   (must work there)\n"
    )


def test_the_directory_of_the_scripts_will_do(project: Project, db_url: str) -> None:
    answer = tables(db_url, "add", *ADD, "--alembic-dir", str(project.home / "alembic"), "--json")
    assert written(answer).parent == project.versions


def test_the_working_directory_is_looked_in(
    project: Project, db_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.home)
    assert written(tables(db_url, "add", *ADD, "--json")).resolve().parent == project.versions


def test_settings_of_alembic_may_lie_in_pyproject(
    project: Project, db_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.home / "alembic.ini").unlink()
    (project.home / "pyproject.toml").write_text('[tool.alembic]\nscript_location = "alembic"\n')
    assert written(add(project, db_url)).parent == project.versions
