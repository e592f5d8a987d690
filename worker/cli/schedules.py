"""`worker schedules`: look at them, pause and resume them, make them, run one now."""

from __future__ import annotations

import datetime as dt
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from worker.cli.common.command import group
from worker.cli.common.confirm import confirm, yes_option
from worker.cli.common.database import ask, session, url_option
from worker.cli.common.operator import Deed, deed_options
from worker.cli.common.output import json_option, show_record, show_rows, show_with
from worker.cli.common.parameters import duration
from worker.cli.common.terminal import say
from worker.errors import NotFound, RegistrationError, UsageError

if TYPE_CHECKING:
    import psycopg

    from worker.schedules.schedule import Schedule

    Connection = psycopg.Connection[Any]

COLUMNS = (
    "name", "state", "when", "tz", "kind", "next_at", "last_tick_at", "last_state", "paused_by",
    "reason",
)  # fmt: skip
TICKS = ("tick_at", "outcome", "count", "job_id", "state", "decided_at", "worker")
NEXT = 3


@group("schedules")
def command() -> None:
    """List schedules, pause and resume them, make them, run one now."""


@command.command("list")
@url_option
@json_option
def list_(database_url: str | None, as_json: bool) -> None:
    """List schedules: when each ticks next, what became of its last tick, who paused it and why."""
    with session(database_url) as connection:
        found = [_described(row) for row in ask(connection, "schedules/list", None)]
    show_rows(found, COLUMNS, as_json=as_json)


@command.command("show")
@click.argument("name")
@click.option("--ticks", type=click.IntRange(0), default=10, show_default=True)
@url_option
@json_option
def show(name: str, ticks: int, database_url: str | None, as_json: bool) -> None:
    """Show a schedule with its next ticks and its last ones. What looks like a secret is masked."""
    from worker.observers.mask import masked

    with session(database_url) as connection:
        found = ask(connection, "schedules/list", name)
        if not found:
            raise _missing(connection, name)
        last = ask(connection, "schedules/ticks", name, ticks)
    record = _described(found[0])
    record["args"] = masked(record["args"])
    show_with(record, "ticks", last, TICKS, as_json=as_json)


@command.command("pause")
@click.argument("name")
@deed_options
@url_option
@json_option
def pause(name: str, deed: Deed, database_url: str | None, as_json: bool) -> None:
    """Enqueue nothing more for NAME. Its jobs that are enqueued go on."""
    with session(database_url) as connection:
        found = ask(connection, "schedules/pause", name, *deed)
        if not found:
            raise _missing(connection, name)
    if not found[0].pop("changed"):
        say(f"schedule {name!r} was paused already")
    show_record(found[0], as_json=as_json)


@command.command("resume")
@click.argument("name")
@deed_options
@url_option
@json_option
def resume(name: str, deed: Deed, database_url: str | None, as_json: bool) -> None:
    """Let NAME tick again from now on. What it missed is not made up for."""
    with session(database_url) as connection:
        found = ask(connection, "schedules/resume", name, *deed)
        if not found:
            raise _missing(connection, name)
    if found[0]["was_paused_at"] is None:
        say(f"schedule {name!r} was not paused")
    show_record(found[0], as_json=as_json)


@command.command("run-now")
@click.argument("name")
@deed_options
@url_option
@json_option
def run_now(name: str, deed: Deed, database_url: str | None, as_json: bool) -> None:
    """Enqueue the job of NAME now, even if it is paused. Its next tick stays as it is."""
    with session(database_url) as connection:
        found = ask(connection, "schedules/run_now", name, *deed)
        if not found:
            raise _missing(connection, name)
    show_record(found[0], as_json=as_json)


@command.command("add")
@click.argument("name")
@click.argument("kind")
@click.argument("args", default="{}")
@click.option("--cron", metavar="EXPRESSION", help='When: "0 9 * * mon", in --tz.')
@click.option("--every", type=duration, metavar="DURATION", help="When: 5m, 2h, from now on.")
@click.option("--at", metavar="TIME", help="When: once, 2027-01-31T09:00, in --tz.")
@click.option("--tz", default="UTC", show_default=True, help="Time zone, e.g. Europe/Berlin.")
@click.option("--queue", "-q", help="Default: the handler's where there is an app, else `default`.")
@click.option("--priority", type=int, default=0, help="Lower runs first.")
@click.option("--tenant")
@click.option("--max-attempts", type=click.IntRange(1))
@click.option("--tick-as", metavar="ARGUMENT", help="The argument that is given the tick's time.")
@click.option(
    "--catch-up", type=click.Choice(("skip", "one", "all")), default="one", show_default=True,
    help="What follows when ticks were missed.",
)  # fmt: skip
@click.option("--catch-up-limit", type=int, default=100, show_default=True, help="For `all`.")
@click.option(
    "--overlap", type=click.Choice(("skip", "allow")),
    help="While the job of the last tick is live.  [default: skip; with --catch-up all: allow]",
)  # fmt: skip
@click.option("--jitter", type=duration, default="0s", help="Jobs are due up to this much later.")
@click.option("--replace", is_flag=True, help="Change the one of that name, if there is one.")
@click.option("--app", metavar="MODULE:NAME", help="The App whose handler checks the arguments.")
@deed_options
@url_option
@json_option
def add(
    name: str,
    kind: str,
    args: str,
    at: str | None,
    queue: str | None,
    replace: bool,
    app: str | None,
    deed: Deed,
    database_url: str | None,
    as_json: bool,
    **says: Any,
) -> None:
    """Make the schedule NAME, which enqueues jobs of KIND with ARGS, a JSON object.

    Where there is an app, KIND must be one of its handlers', and the arguments must fit.
    """
    from worker.cli.common.database import connected, database, require_schema
    from worker.cli.enqueue import arguments, job_handler
    from worker.schedules.add import add_schedule
    from worker.schedules.schedule import Schedule
    from worker.settings import Settings

    settings = Settings.load(app=app, database_url=database_url)
    try:
        schedule = Schedule(
            name, kind=kind, args=arguments(args), at=_moment(at), queue=queue, **says
        )
        if (handler := job_handler(settings, kind)) is not None:
            schedule = schedule.for_handler(handler)
    except RegistrationError as error:
        raise UsageError(error.what, why=error.why, hint=error.hint) from None
    with database(settings) as url, connected(url) as connection:
        require_schema(connection)
        _refuse_past(connection, schedule)
        outcome = add_schedule(
            connection, schedule, replace=replace, by=deed.by, reason=deed.reason
        )
        [row] = ask(connection, "schedules/list", name)
    show_record(
        {"schedule": name, "outcome": outcome, "next_at": _described(row)["next_at"]},
        as_json=as_json,
    )


@command.command("remove")
@click.argument("name")
@deed_options
@yes_option
@url_option
@json_option
def remove(
    name: str,
    deed: Deed,
    yes: bool,
    database_url: str | None,
    as_json: bool,
) -> None:
    """Remove the schedule NAME. Its jobs, and the record of its ticks, stay."""
    from worker.schedules.add import remove_schedule

    with session(database_url) as connection:
        if not ask(connection, "schedules/list", name):
            raise _missing(connection, name)
        confirm(f"remove the schedule {name!r}", yes=yes)
        removed = remove_schedule(connection, name, by=deed.by, reason=deed.reason)
    show_record({"schedule": name, "removed": removed}, as_json=as_json)


def _described(row: dict[str, Any]) -> dict[str, Any]:
    """With `when` in words, and with its next ticks, which the worker may not have written yet."""
    from worker.duration import format_duration
    from worker.schedules.timing import Timing

    now, counts_from = row.pop("now"), row.pop("counts_from")
    timing = Timing(row["cron"], row["every"], row["at"], row["tz"], counts_from)
    every = row["every"]
    when = row["cron"] or (f"every {format_duration(every)}" if every else "once")
    row["when"] = when
    row["next"] = []
    if row["state"] in ("active", "unheld"):
        row["next"] = _next(timing, row["next_at"], now)
        row["next_at"] = row["next"][0] if row["next"] else None
    else:
        row["next_at"] = None
    return row


def _next(timing: Any, next_at: dt.datetime | None, now: dt.datetime) -> list[dt.datetime]:
    try:
        timing.check()
    except RegistrationError:  # a row that no worker has looked at yet
        return []
    known = [] if next_at is None else [next_at]
    following = timing.all_after(max([now, *known]))
    return [*known, *islice(following, NEXT - len(known))]


def _moment(text: str | None) -> dt.datetime | None:
    """Without a zone where none is named: --tz says which."""
    if text is None:
        return None
    try:
        return dt.datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r}: a time is written like 2027-01-31T09:00 or 2027-01-31T09:00+01:00"
        ) from None


def _refuse_past(connection: Connection, schedule: Schedule) -> None:
    row = connection.execute("select now()").fetchone()
    assert row is not None
    if schedule.at is not None and schedule.timing.after(row[0]) is None:
        raise UsageError(
            f"{schedule.at.isoformat()} has passed",
            why=f"it is {row[0].isoformat(timespec='seconds')} by the clock of the database",
            hint=f"to run it now: worker enqueue {schedule.kind}",
        )


def _missing(connection: Connection, name: str) -> NotFound:
    import difflib

    names = [row["name"] for row in ask(connection, "schedules/list", None)]
    near = difflib.get_close_matches(name, names, 1)
    return NotFound(
        f"there is no schedule {name!r}",
        why=f"did you mean {near[0]!r}?" if near else "",
        hint="worker schedules list",
    )
