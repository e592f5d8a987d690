"""`worker jobs`: look at jobs, and act on them."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from worker.cli.common.command import group
from worker.cli.common.confirm import confirm, yes_option
from worker.cli.common.database import ask, session, url_option
from worker.cli.common.operator import Deed, deed_options
from worker.cli.common.output import json_option, show_record, show_rows
from worker.cli.common.parameters import duration, moment
from worker.cli.common.terminal import say
from worker.errors import NotFound, UsageError

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[Any]

F = TypeVar("F", bound=Callable[..., Any])
Rows = list[dict[str, Any]]

LIVE = ("due", "scheduled", "retrying", "running")
FINISHED = ("done", "dead", "cancelled")
COLUMNS = (
    "id",
    "state",
    "queue",
    "kind",
    "attempt",
    "due_at",
    "finished_at",
    "worker",
    "last_error",
)
DEEDS = ("id", "outcome", "detail")
AT_ONCE = 1000  # ids in one statement
ASK_AGAIN = 0.2  # seconds between two looks whether a running job has ended

BLOCKED = {"running", "blocked", "missing", "finished", "busy"}
"""Outcomes that mean: not done."""


def filters(function: F) -> F:
    """--queue, --kind, --tenant, --error-type, --since."""
    for option in (
        click.option("--since", type=duration, help="Finished, or made, within this time."),
        click.option("--error-type", metavar="CLASS", help="The last attempt ended with this."),
        click.option("--tenant"),
        click.option("--kind"),
        click.option("--queue", "-q"),
    ):
        function = option(function)
    return function


@group("jobs")
def command() -> None:
    """List jobs, show one, retry, cancel, snooze."""


@command.command("list")
@click.option("--state", "-s", multiple=True, type=click.Choice((*LIVE, *FINISHED)))
@filters
@click.option("--limit", "-n", type=click.IntRange(1), default=50, show_default=True)
@url_option
@json_option
def list_(
    state: tuple[str, ...], limit: int, database_url: str | None, as_json: bool, **by: Any
) -> None:
    """List jobs, the newest first."""
    with session(database_url) as connection:
        show_rows(_find(connection, state, limit, **by), COLUMNS, as_json=as_json)


@command.command("show")
@click.argument("id", type=int)
@url_option
@json_option
def show(id: int, database_url: str | None, as_json: bool) -> None:
    """Show a job with its arguments and attempts. What looks like a secret is masked."""
    from worker import audit
    from worker.observers.mask import masked

    with session(database_url) as connection:
        found = ask(connection, "operate/show", id)
        if not found:
            raise _missing(id)
        columns, rows = audit.run(connection, "attempts_of", row=id)
    [job] = found
    job |= {name: masked(job[name]) for name in ("args", "result", "last_error")}
    attempts = [dict(zip(columns, row, strict=True)) for row in rows]
    if as_json:
        show_record({**job, "attempts": attempts}, as_json=True)
        return
    show_record(job, as_json=False)
    if attempts:
        click.echo()
        shown = [name for name in columns if name not in ("token", "took")]
        show_rows(attempts, shown, as_json=False)


@command.command("retry")
@click.argument("ids", type=int, nargs=-1)
@click.option("--state", "-s", type=click.Choice(FINISHED), help="Instead of ids.")
@filters
@click.option("--limit", "-n", type=click.IntRange(1), default=10_000, show_default=True)
@deed_options
@yes_option
@url_option
@json_option
def retry(
    ids: tuple[int, ...],
    state: str | None,
    limit: int,
    deed: Deed,
    yes: bool,
    database_url: str | None,
    as_json: bool,
    **chosen: Any,
) -> int:
    """Run finished jobs again, now and with all their attempts; or waiting ones now.

    Name them by IDS, or by what they have in common: --state (default: dead), --kind, ...
    """
    with session(database_url) as connection:
        if not ids:
            _require_choice(state, chosen)
            ids = _ids(connection, (state or "dead",), limit, **chosen)
            if ids:
                confirm(f"run {len(ids)} {state or 'dead'} jobs again", yes=yes)
        found = _each(connection, "operate/retry", ids, *deed)
    return _tell(found, "retried", as_json=as_json)


@command.command("cancel")
@click.argument("ids", type=int, nargs=-1)
@click.option("--state", "-s", type=click.Choice(LIVE), multiple=True, help="Instead of ids.")
@filters
@click.option("--limit", "-n", type=click.IntRange(1), default=10_000, show_default=True)
@click.option(
    "--wait", type=duration, default="5s", show_default=True, help="For running ones to end."
)
@deed_options
@yes_option
@url_option
@json_option
def cancel(
    ids: tuple[int, ...],
    state: tuple[str, ...],
    limit: int,
    wait: float,
    deed: Deed,
    yes: bool,
    database_url: str | None,
    as_json: bool,
    **chosen: Any,
) -> int:
    """Cancel jobs that wait; ask the workers of those that run to stop them.

    Name them by IDS, or by what they have in common: --state (default: all live), --kind, ...
    """
    with session(database_url) as connection:
        if not ids:
            _require_choice(state, chosen)
            ids = _ids(connection, state or LIVE, limit, **chosen)
        if ids:
            confirm(f"cancel {_some(ids)}", yes=yes)
        found = _cancelled(connection, ids, *deed, wait)
    return _tell(found, "cancelled", as_json=as_json)


@command.command("snooze")
@click.argument("ids", type=int, nargs=-1, required=True)
@click.option("--in", "delay", type=duration, help="For this time.")
@click.option("--at", type=moment, metavar="TIME", help="Until then.")
@deed_options
@url_option
@json_option
def snooze(
    ids: tuple[int, ...],
    delay: float | None,
    at: dt.datetime | None,
    deed: Deed,
    database_url: str | None,
    as_json: bool,
) -> int:
    """Put jobs that wait off until another time."""
    if (delay is None) == (at is None):
        raise UsageError(
            "say until when: --in or --at, not both", hint="worker jobs snooze 7 --in 10m"
        )
    with session(database_url) as connection:
        found = _each(connection, "operate/snooze", ids, *deed, at, delay)
    return _tell(found, "snoozed", as_json=as_json)


def _find(connection: Connection, states: Sequence[str], limit: int, **by: Any) -> Rows:
    return ask(
        connection, "operate/find", list(states) or None,
        by["queue"], by["kind"], by["tenant"], by["since"], by["error_type"], limit,
    )  # fmt: skip


def _ids(connection: Connection, states: Sequence[str], limit: int, **by: Any) -> tuple[int, ...]:
    return tuple(row["id"] for row in _find(connection, states, limit, **by))


def _require_choice(state: Any, chosen: dict[str, Any]) -> None:
    if not state and not any(value is not None for value in chosen.values()):
        raise UsageError(
            "no job is named", hint="give ids, or say which: --kind, --queue, --state, --since ..."
        )


def _each(connection: Connection, name: str, ids: Sequence[int], *params: Any) -> Rows:
    found: Rows = []
    ordered = sorted(set(ids))
    for start in range(0, len(ordered), AT_ONCE):
        found += ask(connection, name, ordered[start : start + AT_ONCE], *params)
    return found


def _cancelled(
    connection: Connection, ids: Sequence[int], by: str, reason: str | None, wait: float
) -> Rows:
    """What became of each. Those that run are asked about again until they have ended or `wait`
    seconds have passed: one that failed at that moment waits for its next attempt, and is
    cancelled then."""
    until = time.monotonic() + wait
    outcomes: dict[int, dict[str, Any]] = {}
    open_ids = sorted(set(ids))
    while open_ids:
        for row in _each(connection, "operate/cancel", open_ids, by, reason):
            asked = outcomes.get(row["id"], row)["outcome"] in ("asked", "busy")
            if asked and row["outcome"] == "finished" and row["detail"] == "cancelled":
                row = {"id": row["id"], "outcome": "cancelled", "detail": "while it ran"}
            outcomes[row["id"]] = row
        open_ids = [id for id in open_ids if outcomes[id]["outcome"] in ("asked", "busy")]
        if not open_ids or time.monotonic() >= until:
            break
        time.sleep(ASK_AGAIN)
    return [outcomes[id] for id in sorted(outcomes)]


def _tell(found: Rows, done: str, *, as_json: bool) -> int:
    """Shows what became of each. One that alone was asked for and was not done is an error; of
    several the exit code tells that some were not."""
    not_done = [row for row in found if row["outcome"] in BLOCKED]
    if len(found) == 1 and not_done:
        raise _refused(found[0], done)
    show_rows(found, DEEDS, as_json=as_json)
    for row in not_done:
        say(str(_refused(row, done)), error=True)
    if not found:
        say("no job fits")
    return NotFound.exit_code if not_done else 0


def _refused(row: dict[str, Any], done: str) -> NotFound:
    id, detail = row["id"], row["detail"]
    what = f"job {id} was not {done}"
    match row["outcome"]:
        case "running":
            return NotFound(what, why="it is running", hint=f"worker jobs cancel {id}")
        case "busy":
            return NotFound(what, why="it was just being claimed or settled", hint="run it again")
        case "blocked":
            return NotFound(
                what,
                why=f"another live job has its unique key: {detail}",
                hint=f"worker jobs show {detail}",
            )
        case "finished":
            return NotFound(what, why=f"it is {detail}", hint=f"worker jobs show {id}")
    return _missing(id)


def _missing(id: int) -> NotFound:
    return NotFound(
        f"there is no job {id}",
        why="it never was, or retention has dropped it",
        hint="worker jobs list",
    )


def _some(ids: Sequence[int]) -> str:
    return f"{len(ids)} jobs" if len(ids) > 1 else f"job {ids[0]}"
