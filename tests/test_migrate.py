"""Migrations on a real Postgres: what they make, from how many places, and what they say."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from psycopg import sql
from sqlalchemy import MetaData, create_engine
from sqlalchemy.pool import NullPool

from tests.facts import eventually
from tests.migrations import (
    ROOT,
    Future,
    OwnAlembic,
    dump,
    migrators,
    pgbouncer,
    psql,
    rows,
    told,
)
from tests.postgres import Cluster, with_database
from worker import __version__
from worker.errors import DatabaseUnreachable, SchemaError, UsageError
from worker.migrate import (
    SCHEMA_VERSION,
    Installation,
    SchemaState,
    check,
    downgrade,
    ensure_compatible,
    offline_sql,
    online,
    revisions,
    status,
    upgrade,
)
from worker.migrate.frame import LOCK
from worker.url import DatabaseURL

# Our revisions, the newest of them, and two of versions to come.
KNOWN = [revision.id for revision in revisions.known()]
HEAD = KNOWN[-1]
NEXT, AFTER_NEXT = f"{int(HEAD) + 1:04}", f"{int(HEAD) + 2:04}"

DOCS = ROOT / "docs" / "migrations.md"

NewDatabase = Callable[..., str]


@pytest.fixture
def new_database(admin: psycopg.Connection, database_server: str) -> Iterator[NewDatabase]:
    """Makes empty databases; `options` goes behind CREATE DATABASE."""
    made: list[sql.Identifier] = []

    def new(options: str = "") -> str:
        name = f"duerow_migrate_{uuid.uuid4().hex[:12]}"
        made.append(sql.Identifier(name))
        admin.execute(sql.SQL("create database {} " + options).format(made[-1]))
        return with_database(database_server, name)

    yield new
    for name in made:
        admin.execute(sql.SQL("drop database {} with (force)").format(name))


@pytest.fixture
def empty_url(new_database: NewDatabase) -> str:
    return new_database()


@pytest.fixture
def future(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Future:
    """Revisions of versions to come, which `worker.migrate` takes for the project's own."""
    future = Future(tmp_path)
    monkeypatch.setattr(revisions, "alembic_directory", lambda: future.directory)
    return future


@pytest.fixture
def role(admin: psycopg.Connection, database_server: str) -> Iterator[DatabaseURL]:
    """A role that may log in and no more; ask for it before the databases that it owns parts of."""
    name = f"duerow_role_{uuid.uuid4().hex[:12]}"
    admin.execute(f"create role {name} login password 'secret'")
    yield replace(DatabaseURL.parse(database_server), user=name, password="secret")
    admin.execute(f"drop role {name}")


@pytest.fixture
def refusing_port() -> Iterator[int]:
    """A port that nobody listens on, held so that nobody will."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


# -- what they make -------------------------------------------------------------------------


def test_a_migrated_database_is_what_the_snapshot_says(new_database: NewDatabase) -> None:
    migrated, loaded = new_database(), new_database()
    upgrade(migrated)
    psql(loaded, (ROOT / "sql" / "schema.sql").read_text())
    assert dump(loaded) == dump(migrated), "run `make schema`"
    assert rows(loaded) == rows(migrated), "run `make schema`"
    assert check(loaded).state is SchemaState.CURRENT


def test_the_snapshot_opens_with_the_page_on_states() -> None:
    page = (ROOT / "alembic/versions/0001_core.sql").read_text().split("\n\n")[0]
    assert "A row's life" in page
    assert page in (ROOT / "sql" / "schema.sql").read_text(), "run `make schema`"


def test_each_revision_goes_up_down_and_up_again(empty_url: str) -> None:
    psql(empty_url, "create schema worker")  # what the way down leaves
    before = "base"
    for revision in revisions.known():
        lower = dump(empty_url)
        upgrade(empty_url, revision.id)
        upper = dump(empty_url)
        downgrade(empty_url, before)
        assert dump(empty_url) == lower, f"the .down.sql of {revision.id} leaves something"
        upgrade(empty_url, revision.id)
        assert dump(empty_url) == upper
        before = revision.id
    assert check(empty_url).revision == before


def test_the_table_and_the_code_agree_on_the_version(empty_url: str) -> None:
    upgrade(empty_url)
    installation = ensure_compatible(status(empty_url).installation)
    assert installation.schema_version == SCHEMA_VERSION


def test_all_revisions_of_a_run_commit_together_or_not_at_all(
    empty_url: str, future: Future
) -> None:
    future.add(NEXT, "create table worker.notes (note text)")
    future.add(AFTER_NEXT, "select 1/0")
    with pytest.raises(SchemaError) as refused:
        upgrade(empty_url)
    assert told(refused) == (
        "Postgres refused the migration; nothing was changed",
        "division by zero (SQLSTATE 22012)",
        "worker db status",
    )
    assert dump(empty_url) == ""
    report = upgrade(empty_url, NEXT)
    assert [step.id for step in report.steps] == [*KNOWN, NEXT]
    assert re.fullmatch(
        rf"migrated from nothing to {NEXT} \(ran {', '.join(KNOWN)}, {NEXT}\) in \d+\.\d s",
        str(report),
    )


def test_a_database_that_cannot_hold_every_character_can_be_migrated(
    new_database: NewDatabase,
) -> None:
    latin1 = new_database("encoding 'LATIN1' locale 'C' locale_provider libc template template0")
    assert not upgrade(latin1).up_to_date


# -- from how many places -------------------------------------------------------------------


@pytest.mark.process
def test_ten_processes_at_once_make_one_schema(empty_url: str) -> None:
    """Whatever isolation level and timeout the database sets by default."""
    name = DatabaseURL.parse(empty_url).database
    psql(
        empty_url,
        f"alter database {name} set default_transaction_isolation to serializable;"
        f"alter database {name} set statement_timeout to '3s'",
    )
    with psycopg.connect(empty_url, autocommit=True) as watcher:
        watcher.execute("set statement_timeout to 0")
        watcher.execute("begin")
        watcher.execute(LOCK)
        with migrators(10, empty_url) as processes:
            waiting = (
                "select count(*), max(clock_timestamp() - waitstart) > '3.5 s'"
                "  from pg_locks l join pg_database d on d.oid = l.database"
                " where datname = current_database() and locktype = 'advisory' and not granted"
            )
            eventually(lambda: watcher.execute(waiting).fetchone() == (10, True), within=200)
            watcher.execute("rollback")
            said = [process.communicate(timeout=200) for process in processes]
        assert [process.returncode for process in processes] == [0] * 10, said
        first, *others = sorted(line for line, _ in said)
        assert first.startswith(f"migrated from nothing to {HEAD} (ran {', '.join(KNOWN)}) in ")
        assert others == [f"up to date at {HEAD}\n"] * 9
        assert watcher.execute("table worker.schema_revisions").fetchall() == [(HEAD,)]
        assert watcher.execute("select count(*) from worker.installation").fetchone() == (1,)


def test_a_second_run_is_up_to_date(empty_url: str) -> None:
    upgrade(empty_url)
    before = dump(empty_url)
    again = upgrade(empty_url)
    assert again.up_to_date
    assert str(again) == f"up to date at {HEAD}"
    assert dump(empty_url) == before


def test_another_migration_is_waited_for_and_then_named(empty_url: str) -> None:
    with psycopg.connect(empty_url, application_name="other") as holder:
        holder.execute(LOCK)
        with pytest.raises(SchemaError) as gave_up:
            upgrade(empty_url, wait=0.2)
        what, why, hint = told(gave_up)
        assert what == "Another migration is still running, so this one did not start"
        pid, role = holder.info.backend_pid, holder.info.user
        assert re.fullmatch(
            rf"pid {pid} \(other, role {role}, idle in transaction for \d+ s\)"
            " holds the migration lock",
            why,
        )
        assert hint == "wait for it to end, then run it again"


@pytest.mark.process
def test_through_pgbouncer_in_transaction_mode() -> None:
    """A pool of two connections, five migrators; no setting and no lock stays in the pool."""
    with Cluster(tcp=True) as cluster, pgbouncer(cluster.tcp_url, pool=2) as pooled:
        with migrators(5, pooled) as processes:
            said = [process.communicate(timeout=200) for process in processes]
        assert [process.returncode for process in processes] == [0] * 5, said
        assert sum(line.startswith("migrated") for line, _ in said) == 1
        assert check(pooled).state is SchemaState.CURRENT
        with psycopg.connect(pooled, prepare_threshold=None, autocommit=True) as connection:
            for setting in ("lock_timeout", "statement_timeout"):
                assert connection.execute(f"show {setting}").fetchone() == ("0",)
            held = "select count(*) from pg_locks where locktype = 'advisory'"
            assert connection.execute(held).fetchone() == (0,)
        assert downgrade(pooled, "base").after is None


# -- beside what a project has already ------------------------------------------------------


def test_a_project_with_its_own_alembic_keeps_its_revisions(empty_url: str, tmp_path: Path) -> None:
    theirs = OwnAlembic(tmp_path, empty_url)
    theirs.upgrade()
    upgrade(empty_url)
    theirs.upgrade()
    assert psql(empty_url, "table public.alembic_version") == "theirs1\n"
    assert psql(empty_url, "table worker.schema_revisions") == f"{HEAD}\n"
    downgrade(empty_url, "base")
    assert psql(empty_url, "table public.alembic_version") == "theirs1\n"
    assert psql(empty_url, "select count(*) from public.donations") == "0\n"


def test_a_projects_autogenerate_leaves_our_schema_alone(empty_url: str) -> None:
    """With the filter that the documentation gives; without it, it would drop our tables."""
    code = re.search(r"```python\n(def include_name.*?)\n\n", DOCS.read_text(), re.S)
    assert code is not None
    names: dict[str, Any] = {}
    exec(code[1], names)
    upgrade(empty_url)
    engine = create_engine(DatabaseURL.parse(empty_url).sqlalchemy_url(), poolclass=NullPool)
    with engine.connect() as connection:
        all_schemas: dict[str, Any] = {"include_schemas": True}
        unfiltered = MigrationContext.configure(connection, opts=all_schemas)
        assert "remove_table" in str(compare_metadata(unfiltered, MetaData()))
        filtered = MigrationContext.configure(
            connection, opts={**all_schemas, "include_name": names["include_name"]}
        )
        assert compare_metadata(filtered, MetaData()) == []


# -- as SQL for an administrator ------------------------------------------------------------


def test_the_script_makes_the_same_schema(new_database: NewDatabase) -> None:
    online, offline = new_database(), new_database()
    upgrade(online)
    psql(offline, offline_sql())
    assert dump(offline) == dump(online)
    assert rows(offline) == rows(online)
    assert upgrade(offline).up_to_date


def test_scripts_for_part_of_the_way_and_for_the_way_back(empty_url: str, future: Future) -> None:
    future.add(
        NEXT,
        "create table worker.notes (note text); insert into worker.notes values (':a %s');",
        "drop table worker.notes;",
    )
    upgrade(empty_url, HEAD)
    first = dump(empty_url)
    psql(empty_url, offline_sql("upgrade", f"{HEAD}:head"))
    assert psql(empty_url, "table worker.notes") == ":a %s\n"
    psql(empty_url, offline_sql("downgrade", f"{NEXT}:{HEAD}"))
    assert dump(empty_url) == first
    psql(empty_url, offline_sql("downgrade", f"{HEAD}:base"))
    assert status(empty_url).state is SchemaState.MISSING
    psql(empty_url, offline_sql("upgrade", "head"))
    assert check(empty_url).revision == NEXT


def test_a_script_changes_nothing_where_it_does_not_belong(empty_url: str, future: Future) -> None:
    future.add(NEXT, "create table worker.notes ()", "drop table worker.notes")

    def refusal(script: str) -> str:
        before = dump(empty_url)
        with pytest.raises(subprocess.CalledProcessError) as refused:
            psql(empty_url, script)
        assert dump(empty_url) == before
        return str(refused.value.stderr)

    said = "this script starts at {}, but the database is at {}"
    assert said.format(HEAD, "base") in refusal(offline_sql("upgrade", f"{HEAD}:{NEXT}"))
    psql(empty_url, offline_sql("upgrade", HEAD))
    assert said.format("base", HEAD) in refusal(offline_sql("upgrade", HEAD))
    assert said.format(NEXT, HEAD) in refusal(offline_sql("downgrade", "base"))


def test_a_range_that_runs_the_other_way_is_refused() -> None:
    with pytest.raises(UsageError) as refused:
        offline_sql("upgrade", "head:base")
    assert told(refused) == (
        "head:base is no upgrade",
        "a range is FROM:TO, the revision that the database is at and the one to reach",
        "worker db sql base:head",
    )
    with pytest.raises(UsageError, match="head:head is no downgrade"):
        offline_sql("downgrade")


# -- versions that meet ---------------------------------------------------------------------


def test_a_pending_revision_is_named(empty_url: str, future: Future) -> None:
    upgrade(empty_url)
    future.add(NEXT, "create table worker.notes ()")
    found = status(empty_url)
    assert (found.state, found.revision, found.head) == (SchemaState.BEHIND, HEAD, NEXT)
    with pytest.raises(SchemaError) as behind:
        check(empty_url)
    assert told(behind) == (
        "The schema `worker` is behind",
        f"it is at {HEAD}; still to run: {NEXT} (To come)",
        "worker db migrate",
    )
    assert behind.value.exit_code == 4


def test_an_older_version_works_on_a_newer_compatible_schema(
    empty_url: str, future: Future, monkeypatch: pytest.MonkeyPatch
) -> None:
    future.add(NEXT, f"update worker.installation set schema_version = {SCHEMA_VERSION + 1}")
    upgrade(empty_url)
    monkeypatch.undo()
    assert check(empty_url).state is SchemaState.NEWER
    assert str(upgrade(empty_url)) == f"up to date at {NEXT}"
    with pytest.raises(SchemaError) as refused:
        downgrade(empty_url, "base")
    assert told(refused) == (
        f"The database is at revision {NEXT}, which duerow {__version__} lacks",
        "only the version that made a revision knows the way back from it",
        "run this with the newer version, before you install the older one",
    )


def test_an_older_version_refuses_a_schema_that_left_it_behind(
    empty_url: str, future: Future, monkeypatch: pytest.MonkeyPatch
) -> None:
    later, least = SCHEMA_VERSION + 2, SCHEMA_VERSION + 1
    future.add(
        NEXT,
        f"update worker.installation set schema_version = {later}, compatible_with = {least}",
    )
    upgrade(empty_url)
    monkeypatch.undo()
    assert status(empty_url).state is SchemaState.TOO_NEW
    for refuses in (upgrade, check):
        with pytest.raises(SchemaError) as refused:
            refuses(empty_url)
        assert told(refused) == (
            f"duerow {__version__} is too old for this database",
            f"its schema has version {later} and runs with code that knows {least} or newer; "
            f"this one knows {SCHEMA_VERSION}",
            "pip install --upgrade duerow",
        )


def test_a_worker_knows_at_its_start_whether_the_schema_will_do() -> None:
    with pytest.raises(SchemaError) as missing:
        ensure_compatible(None)
    assert told(missing) == (
        "The database has no schema `worker`",
        "the migrations have not run here",
        "worker db migrate",
    )
    with pytest.raises(SchemaError) as behind:
        ensure_compatible(Installation(uuid.uuid4(), SCHEMA_VERSION - 1, 0))
    assert told(behind) == (
        "The schema `worker` is too old",
        f"it has version {SCHEMA_VERSION - 1}; duerow {__version__} needs {SCHEMA_VERSION}",
        "worker db migrate",
    )
    newer = Installation(uuid.uuid4(), SCHEMA_VERSION + 5, SCHEMA_VERSION)
    assert ensure_compatible(newer) is newer


def test_that_look_loads_neither_alembic_nor_sqlalchemy() -> None:
    code = "import sys, worker.schema; print({'alembic', 'sqlalchemy'} & sys.modules.keys())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"


# -- what they say --------------------------------------------------------------------------


def test_an_empty_database_has_no_schema(empty_url: str) -> None:
    found = status(empty_url)
    assert (found.state, found.revision, found.installation) == (SchemaState.MISSING, None, None)
    with pytest.raises(SchemaError, match="no schema `worker`"):
        check(empty_url)


def test_a_long_transaction_on_a_table_is_named_after_the_lock_timeout(
    empty_url: str, future: Future
) -> None:
    upgrade(empty_url)
    future.add(NEXT, "create table worker.notes (); alter table worker.jobs add note text")
    before = dump(empty_url)
    with psycopg.connect(empty_url, application_name="report") as reader:
        reader.execute("select * from worker.jobs")
        started = time.monotonic()
        with pytest.raises(SchemaError) as gave_up:
            upgrade(empty_url, lock_timeout=0.2)
        assert time.monotonic() - started < 20
        what, why, hint = told(gave_up)
        pid, role = reader.info.backend_pid, reader.info.user
        assert what == "A table stayed locked, so the migration gave up; nothing was changed"
        assert re.fullmatch(
            rf"pid {pid} \(report, role {role}, idle in transaction for \d+ s\) holds worker.jobs",
            why,
        )
        assert hint == f"let that end, or select pg_terminate_backend({pid}), then run it again"
        assert dump(empty_url) == before
    assert str(upgrade(empty_url)).startswith(f"migrated from {HEAD} to {NEXT}")


def test_a_role_without_privileges_is_told_whom_to_ask(role: DatabaseURL, empty_url: str) -> None:
    theirs = replace(role, database=DatabaseURL.parse(empty_url).database)
    with pytest.raises(SchemaError) as refused:
        upgrade(theirs)
    what, why, hint = told(refused)
    assert what == f"Role {role.user} may not do what the migration needs; nothing was changed"
    assert why == f"permission denied for database {theirs.database}"
    prefix, command = hint.split(": ")
    assert prefix == "as the database's owner"
    psql(empty_url, command)
    assert not upgrade(theirs).up_to_date, "what the message says must help"


def test_a_role_that_does_not_own_the_schema_is_told_who_does(
    role: DatabaseURL, empty_url: str
) -> None:
    upgrade(empty_url)
    theirs = replace(role, database=DatabaseURL.parse(empty_url).database)
    with pytest.raises(SchemaError) as refused:
        status(theirs)
    assert told(refused) == (
        f"Role {role.user} may not do what the look at the schema needs; nothing was changed",
        "permission denied for schema worker",
        f"run it as {DatabaseURL.parse(empty_url).user}, who owns schema `worker`, "
        "or grant that role",
    )


def test_somebody_elses_schema_is_left_alone(empty_url: str) -> None:
    psql(empty_url, "create schema worker; create table worker.jobs (theirs text)")
    before = dump(empty_url)
    with pytest.raises(SchemaError) as refused:
        upgrade(empty_url)
    assert told(refused) == (
        "Schema `worker` holds something that these migrations did not make",
        'relation "jobs" already exists',
        "rename your schema (alter schema worker rename to ...), then worker db migrate",
    )
    assert dump(empty_url) == before


def test_the_way_down_drops_nothing_that_a_project_built_on_top(empty_url: str) -> None:
    upgrade(empty_url)
    psql(empty_url, "create view public.waiting as select * from worker.jobs")
    before = dump(empty_url)
    with pytest.raises(SchemaError) as refused:
        downgrade(empty_url, "base")
    what, why, hint = told(refused)
    assert (
        what == "Something of yours depends on what the downgrade would drop; nothing was changed"
    )
    assert "view waiting depends on table worker.jobs" in why
    assert hint == "drop that first, then run it again"
    assert dump(empty_url) == before


def test_a_read_only_database_is_called_that(empty_url: str) -> None:
    name = DatabaseURL.parse(empty_url).database
    psql(empty_url, f"alter database {name} set default_transaction_read_only to on")
    with pytest.raises(SchemaError) as refused:
        upgrade(empty_url)
    what, why, hint = told(refused)
    assert what.endswith(f"/{name} is read-only")
    assert why == (
        "cannot execute CREATE SCHEMA in a read-only transaction: "
        "a standby, or default_transaction_read_only is on"
    )
    assert hint.startswith("add target_session_attrs=read-write to the URL")


def test_a_server_that_is_not_there(refusing_port: int) -> None:
    url = f"postgresql://bob:s3cret@127.0.0.1:{refusing_port}/shop"
    for call in (upgrade, status, check):
        with pytest.raises(DatabaseUnreachable) as refused:
            call(url)
        what, why, hint = told(refused)
        assert what == f"Cannot connect to bob@127.0.0.1:{refusing_port}/shop"
        assert "Connection refused" in why
        assert "s3cret" not in str(refused.value)
        assert hint == "check the URL (worker config show), and that Postgres runs and accepts it"
        assert refused.value.exit_code == 3


def test_a_connection_that_is_cut_in_the_middle(empty_url: str, future: Future) -> None:
    future.add(NEXT, "select pg_terminate_backend(pg_backend_pid())")
    with pytest.raises(DatabaseUnreachable) as lost:
        upgrade(empty_url)
    what, why, hint = told(lost)
    assert re.fullmatch(r"The connection to \S+ was lost during the migration", what)
    assert "terminating connection due to administrator command" in why
    assert hint == "run it again: it happened as a whole or not at all (worker db status tells)"
    assert status(empty_url).state is SchemaState.MISSING


def test_a_server_that_is_too_old(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(online, "OLDEST_SERVER", 99)
    with pytest.raises(SchemaError) as refused:
        upgrade(empty_url)
    what, why, _ = told(refused)
    assert re.fullmatch(r"Postgres \d\d is too old", what)
    assert why == f"duerow {__version__} needs 99 or newer"


def test_a_revision_that_nobody_knows(empty_url: str) -> None:
    for call in (upgrade, downgrade):
        with pytest.raises(UsageError) as refused:
            call(empty_url, "9999")
        assert told(refused) == (
            "There is no revision '9999'",
            f"this version knows base, {', '.join(KNOWN)}, head",
            "worker db status",
        )
