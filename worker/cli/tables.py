"""`worker tables`: adopt a table that you already have, check it, explain its claim, leave it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from worker.cli.common.command import group
from worker.cli.common.database import session, url_option
from worker.cli.common.output import json_option, show_record, show_rows, show_text
from worker.cli.common.parameters import duration
from worker.cli.common.terminal import say
from worker.errors import NotFound, TableUnfit, UsageError

if TYPE_CHECKING:
    import psycopg

    from worker.tables.description import Description
    from worker.tables.inspection import Inspection
    from worker.tables.plan import Planner
    from worker.tables.spec import TableSpec
    from worker.tables.step import Plan

    Connection = psycopg.Connection[Any]

F = TypeVar("F", bound=Callable[..., Any])

CHECK_FAILED = 8
LISTED = ("name", "table", "key", "due", "rows", "due_rows", "claimed", "dead", "oldest_due_s")
SPEC = ("key", "due", "where", "tenant", "per_tenant", "name")
FOUND = ("source", "check", "state", "what", "hint")


def spec_options(function: F) -> F:
    """What tells a table that is not registered yet: --key, --due, --where, --tenant..."""
    for option in (
        click.option("--name", help="What to call the source; default: the table's name."),
        click.option("--per-tenant", is_flag=True, help="Tenants take turns: one more index."),
        click.option("--tenant", metavar="COLUMN", help="Whose row it is, for fairness."),
        click.option("--where", metavar="SQL", help="Which rows can be due: \"status = 'active'\""),
        click.option("--due", metavar="COLUMN", help="When a row is due."),
        click.option("--key", metavar="COLUMNS", help="What names a row: id, or org_id,id"),
    ):
        function = option(function)
    return function


def target_options(function: F) -> F:
    """Where the change is written to, and how long it may wait for a lock."""
    for option in (
        click.option(
            "--lock-timeout", type=duration, default="1s", show_default=True,
            help="The longest that a try for a lock, and so anybody behind it, may wait.",
        ),
        click.option("--head", metavar="REVISION", help="What the revision follows."),
        click.option(
            "--alembic-dir", type=click.Path(path_type=Path, exists=True, file_okay=False),
            help="Where your alembic.ini or your versions/ lies; default: here.",
        ),
        click.option("--sql", "as_sql", is_flag=True, help="Print SQL instead of a revision."),
    ):  # fmt: skip
        function = option(function)
    return function


@group("tables")
def command() -> None:
    """Claim rows from tables that you already have."""


@command.command("list")
@url_option
@json_option
def list_(database_url: str | None, as_json: bool) -> None:
    """The adopted tables, and how many of their rows are due, claimed and dead."""
    from worker.tables.registered import registered_specs

    with session(database_url) as connection:
        inspection = _inspection(connection)
        rows = [inspection.summary(spec) for spec in registered_specs(connection)]
        show_rows(rows, LISTED, as_json=as_json)


@command.command("add")
@click.argument("table")
@spec_options
@click.option("--fillfactor", type=click.IntRange(10, 100), help="Of the table's new pages.")
@target_options
@url_option
@json_option
def add(
    table: str,
    fillfactor: int | None,
    lock_timeout: float,
    database_url: str | None,
    **given: Any,
) -> None:
    """Write an Alembic revision that lets rows of TABLE be claimed. Only what is missing is added.

    TABLE is written as in SQL: donations, shop.orders, '"Mixed Case"'.
    """
    from worker.tables.gaps import add_command
    from worker.tables.probe import deparsed

    with session(database_url) as connection:
        spec = _spec(table, **_said(given))
        described = _inspection(connection).describe(spec)
        _refuse(spec, described)
        planner = _planner(connection, spec, described, lock_timeout)
        plan = planner.to_add(deparsed(connection, spec, described), fillfactor)
        _advise(spec, described)
    extra = "" if fillfactor is None else f" --fillfactor {fillfactor}"
    _hand_over("add", spec, plan, add_command(spec) + extra, **_where_to(given))


@command.command("remove")
@click.argument("source")
@target_options
@url_option
@json_option
def remove(source: str, lock_timeout: float, database_url: str | None, **given: Any) -> None:
    """Write an Alembic revision that takes out what `add` added to SOURCE's table.

    Stop its workers first. Which rows are dead or held is forgotten; what was attempted is not.
    """
    from worker.tables.registered import registered_spec

    with session(database_url) as connection:
        spec = registered_spec(connection, source)
        plan = _removal(connection, spec, lock_timeout)
    _hand_over("remove", spec, plan, f"worker tables remove {source}", **_where_to(given))


@command.command("check")
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@spec_options
@url_option
@json_option
def check(sources: tuple[str, ...], database_url: str | None, as_json: bool, **given: Any) -> int:
    """Look for what keeps rows from being claimed. Exits with 8 if something does.

    SOURCE is the name of one, by default each; or, with --key and --due, a table that is none yet.
    """
    with session(database_url) as connection:
        rows = [
            asdict(finding)
            for spec in _specs(connection, sources, given)
            for finding in _inspection(connection).check(spec)
        ]
    show_rows(rows, FOUND, as_json=as_json)
    return CHECK_FAILED if any(row["state"] == "failed" for row in rows) else 0


@command.command("explain")
@click.argument("source")
@spec_options
@click.option("--limit", "-n", type=click.IntRange(1), default=100, show_default=True)
@click.option("--analyze", is_flag=True, help="Run it too, in a transaction that is rolled back.")
@url_option
@json_option
def explain(
    source: str, limit: int, analyze: bool, database_url: str | None, as_json: bool, **given: Any
) -> None:
    """The plan of a claim of so many rows, on your own data, and what it costs.

    Where tenants take turns, of the claim of ten tenants too.
    """
    with session(database_url) as connection:
        [spec] = _specs(connection, (source,), given)
        inspection = _inspection(connection)
        described = inspection.describe(spec)
        _refuse(spec, described, adopted=True)
        explained = [
            (which, *inspection.explain(spec, described, limit, which, analyze=analyze))
            for which in spec.indexes
        ]
    for which, plan, faults in explained:
        if as_json:
            record = {"source": spec.name, "by": which, "indexes": plan.indexes, "cost": plan.cost}
            measured = {"seconds": plan.seconds, "rows": plan.rows, "plan": plan.root}
            show_record({**record, **measured, "faults": [f.what for f in faults]}, as_json=True)
        else:
            show_text(str(plan))
        if plan.seconds is not None:
            say(f"{plan.rows} rows in {1000 * plan.seconds:.2f} ms, rolled back")
        for fault in faults:
            say(str(fault), error=True)


# -- which table ----------------------------------------------------------------------------------


def _said(given: dict[str, Any]) -> dict[str, Any]:
    return {option: given[option] for option in SPEC}


def _where_to(given: dict[str, Any]) -> dict[str, Any]:
    return {option: given[option] for option in ("as_sql", "alembic_dir", "head", "as_json")}


def _spec(
    table: str,
    key: str | None,
    due: str | None,
    where: str | None,
    tenant: str | None,
    per_tenant: bool,
    name: str | None,
) -> TableSpec:
    from worker.tables.names import columns_of, parts_of
    from worker.tables.spec import TableSpec

    *_, bare = parts_of(table)
    if due is None:
        raise UsageError(
            f"which column of {table} says when a row is due?",
            hint=f"worker tables add {table} --key {key or 'id'} --due COLUMN",
        )
    if per_tenant and tenant is None:
        raise UsageError(
            f"which column of {table} says whose row it is?",
            why="--per-tenant lets tenants take turns",
            hint="--tenant COLUMN --per-tenant",
        )
    return TableSpec(
        name=_source_name(name or bare),
        table=table,
        key=columns_of(key or "id"),
        due=due,
        where=where,
        tenant=tenant,
        by_tenant=per_tenant,
    )


def _source_name(name: str) -> str:
    """It is a queue's name too, which `--queues a,b` must be able to tell."""
    if any(character.isspace() or character in ",*" for character in name):
        raise UsageError(
            f"{name!r} cannot be the name of a source",
            why="it is the name of its rows' queue, and --queues separates them by commas",
            hint="--name with letters, digits, _, - and . only",
        )
    return name


def _specs(
    connection: Connection, names: tuple[str, ...], given: dict[str, Any]
) -> list[TableSpec]:
    """The registered ones, all or those that are named; or the one that the options tell."""
    from worker.tables.registered import registered_spec, registered_specs

    if given["due"] is not None:
        if len(names) != 1:
            raise UsageError(
                "--due goes with one table", hint="worker tables check TABLE --due ..."
            )
        return [_spec(names[0], **_said(given))]
    if names:
        return [registered_spec(connection, name) for name in names]
    specs = registered_specs(connection)
    if not specs:
        say("no table was adopted yet: worker tables add TABLE --key id --due COLUMN")
    return specs


def _inspection(connection: Connection) -> Inspection:
    from worker.sources.rows import Rows
    from worker.tables.inspection import Inspection

    return Inspection(connection, lambda spec, table: Rows(spec, table, spec.columns))


def _refuse(spec: TableSpec, described: Description, *, adopted: bool = False) -> None:
    """Raises TableUnfit for the last reason, having said the others. adopted: it must have the
    bookkeeping columns too."""
    from worker.tables.gaps import gaps
    from worker.tables.refusals import refusals

    reasons = refusals(spec, described)
    if adopted and not reasons:
        reasons = [gap for gap in gaps(spec, described) if gap.about == "columns"]
    for reason in reasons[:-1]:
        say(str(reason), error=True)
    for reason in reasons[-1:]:
        raise TableUnfit(reason.what, why=reason.why, hint=reason.hint)


def _advise(spec: TableSpec, described: Description) -> None:
    from worker.tables.cautions import cautions
    from worker.tables.gaps import redefinition

    for caution in (*redefinition(spec, described), *cautions(spec, described)):
        say(f"note: {caution}")
    if not described.owned:
        say(f"note: only {described.owner} can alter {described.written}: run this as that role")


# -- add, remove ----------------------------------------------------------------------------------


def _planner(
    connection: Connection, spec: TableSpec, described: Description, lock_timeout: float
) -> Planner:
    from worker.tables.inspection import bounded
    from worker.tables.plan import Planner

    def listing(query: str) -> list[tuple[bool, str]]:
        with bounded(connection):
            return connection.execute(query.encode()).fetchall()

    return Planner(spec, described, listing, lock_timeout)


def _removal(connection: Connection, spec: TableSpec, lock_timeout: float) -> Plan:
    """Of a table that is gone, only its registration is left."""
    from worker.tables.statements import unregister
    from worker.tables.step import Action, Plan, Step

    try:
        described = _inspection(connection).describe(spec)
    except NotFound:
        action = Action(unregister(spec.name))
        step = Step(f"take {spec.name} off worker.sources: its table is gone", (action,))
        return Plan((step,), patiently="")
    return _planner(connection, spec, described, lock_timeout).to_remove()


def _hand_over(
    verb: str,
    spec: TableSpec,
    plan: Plan,
    typed: str,
    *,
    as_sql: bool,
    alembic_dir: Path | None,
    head: str | None,
    as_json: bool,
) -> None:
    """SQL on stdout, or a revision's path."""
    from worker.tables.script import script

    titles = [step.title for step in plan.steps]
    if not plan.steps:
        say(f"{spec.name}: nothing to {verb}")
    if as_sql:
        if plan.steps:
            show_text(script(typed, plan))
        return
    path = _revision(verb, spec, plan, typed, alembic_dir, head) if plan.steps else None
    show_record({"source": spec.name, "revision": path, "steps": titles}, as_json=as_json)
    if path is not None:
        say("next: alembic upgrade head")


def _revision(
    verb: str,
    spec: TableSpec,
    plan: Plan,
    typed: str,
    alembic_dir: Path | None,
    head: str | None,
) -> str:
    from worker.tables.project import Project

    project = Project(alembic_dir)
    there = project.written(verb, spec.name, plan)
    if there is not None:
        say(f"{spec.name}: already written, but not run on this database")
        return _from_here(there)
    return _from_here(project.write(typed, verb, spec.name, plan, head))


def _from_here(path: Path) -> str:
    """As it would be typed."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
