"""`worker jobs`: look at jobs, and act on them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from worker.cli.common.command import group
from worker.cli.common.confirm import confirm, yes_option
from worker.cli.common.database import ask, session, url_option
from worker.cli.common.filters import error_type_option, limit_option, tenant_option
from worker.cli.common.operator import Deed, deed_options
from worker.cli.common.outcomes import Outcome, cancelled, in_steps, tell, wait_option
from worker.cli.common.output import json_option, show_rows, show_with
from worker.cli.common.parameters import duration, moment
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


def filters(function: F) -> F:
    """--queue, --kind, --tenant, --error-type, --since."""
    for option in (
        click.option("--since", type=duration, help="Finished, or made, within this time."),
        error_type_option,
        tenant_option,
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
@limit_option(50)
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
    shown = [name for name in columns if name not in ("token", "took")]
    show_with(job, "attempts", attempts, shown, as_json=as_json)


@command.command("retry")
@click.argument("ids", type=int, nargs=-1)
@click.option("--state", "-s", type=click.Choice(FINISHED), help="Instead of ids.")
@filters
@limit_option(10_000)
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
@limit_option(10_000)
@wait_option
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
        found = _cancelled(connection, ids, deed, wait)
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
    return in_steps(lambda step: ask(connection, name, step, *params), sorted(set(ids)))


def _cancelled(connection: Connection, ids: Sequence[int], deed: Deed, wait: float) -> Rows:
    def cancel(ids: Sequence[int]) -> Iterator[tuple[int, Outcome]]:
        for row in _each(connection, "operate/cancel", ids, *deed):
            yield row["id"], row

    outcomes = cancelled(cancel, ids, wait)
    return [outcomes[id] for id in sorted(outcomes)]


def _tell(found: Rows, done: str, *, as_json: bool) -> int:
    return tell(found, "job", "id", lambda row: _refused(row, done), as_json=as_json)


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
