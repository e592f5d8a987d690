"""`worker rows`: look at the rows of an adopted table, and act on them."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from worker.cli.common.command import group
from worker.cli.common.confirm import confirm, yes_option
from worker.cli.common.database import ask_text, session, url_option
from worker.cli.common.filters import error_type_option, limit_option, tenant_option
from worker.cli.common.operator import Deed, deed_options
from worker.cli.common.outcomes import Outcome, cancelled, in_steps, tell, wait_option
from worker.cli.common.output import json_option, show_rows, show_with
from worker.cli.common.parameters import duration, moment
from worker.errors import NotFound, TableUnfit, UsageError

if TYPE_CHECKING:
    import psycopg

    from worker.tables.description import Description
    from worker.tables.spec import TableSpec

    Connection = psycopg.Connection[Any]

Found = list[dict[str, Any]]
Key = list[str]  # the texts of the key's columns

STATES = ("due", "running", "retrying", "scheduled", "dead", "cancelled")
FINAL = ("dead", "cancelled")
COLUMNS = ("key", "state", "due_at", "attempt", "worker", "ended_at", "error_type", "last_error")

state_option = click.option("--state", "-s", multiple=True, type=click.Choice(STATES))
since_option = click.option("--since", type=duration, help="The last attempt ended within this.")


@group("rows")
def command() -> None:
    """List rows of an adopted table, show one, retry, cancel, snooze.

    SOURCE is its name in `worker tables list`. KEY is written as `worker rows list` shows it: 7, or
    north,7 for a key of two columns; a comma within a part is written \\,
    """


@command.command("list")
@click.argument("source")
@state_option
@tenant_option
@error_type_option
@since_option
@limit_option(50)
@url_option
@json_option
def list_(
    source: str,
    state: tuple[str, ...],
    limit: int,
    database_url: str | None,
    as_json: bool,
    **by: Any,
) -> None:
    """List rows that have a due time: those due, then those to come, then the dead ones."""
    with session(database_url) as connection:
        found = Table(connection, source).find(state, limit, **by)
    show_rows([_without_parts(row) for row in found], COLUMNS, as_json=as_json)


@command.command("show")
@click.argument("source")
@click.argument("key")
@url_option
@json_option
def show(source: str, key: str, database_url: str | None, as_json: bool) -> None:
    """Show what is kept about a row, and its attempts. What looks like a secret is masked."""
    from worker import audit
    from worker.observers.mask import masked

    with session(database_url) as connection:
        table = Table(connection, source)
        found = table.ask("show", [table.key(key)])
        if not found:
            raise _missing(source, key)
        [row] = found
        columns, rows = audit.run(connection, "attempts_of", row=row["key"], source=source)
    row["last_error"] = masked(row["last_error"])
    attempts = [dict(zip(columns, attempt, strict=True)) for attempt in rows]
    shown = [name for name in columns if name not in ("token", "took")]
    show_with(row, "attempts", attempts, shown, as_json=as_json)


@command.command("retry")
@click.argument("source")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("--state", "-s", type=click.Choice(FINAL), help="Instead of keys.")
@tenant_option
@error_type_option
@since_option
@limit_option(10_000)
@deed_options
@yes_option
@url_option
@json_option
def retry(
    source: str,
    keys: tuple[str, ...],
    state: str | None,
    limit: int,
    deed: Deed,
    yes: bool,
    database_url: str | None,
    as_json: bool,
    **chosen: Any,
) -> int:
    """Run dead or cancelled rows again, now and with all their attempts; or waiting ones now.

    Name them by KEY, or by what they have in common: --state (default: dead), --error-type, ...
    """
    with session(database_url) as connection:
        table = Table(connection, source)
        wanted = [table.key(key) for key in keys]
        if not keys:
            if state is None and all(value is None for value in chosen.values()):
                raise UsageError(
                    "no row is named", hint=f"worker rows retry {source} --state dead --yes"
                )
            wanted = [row["parts"] for row in table.find((state or "dead",), limit, **chosen)]
            if wanted:
                confirm(f"run {len(wanted)} {state or 'dead'} rows of {source} again", yes=yes)
        found = table.each("retry", wanted, *deed)
    return _tell(source, found, "retried", as_json=as_json)


@command.command("cancel")
@click.argument("source")
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@wait_option
@deed_options
@yes_option
@url_option
@json_option
def cancel(
    source: str,
    keys: tuple[str, ...],
    wait: float,
    deed: Deed,
    yes: bool,
    database_url: str | None,
    as_json: bool,
) -> int:
    """Cancel rows that wait; ask the workers of those that run to stop them.

    A cancelled row does not run until its due column changes, or it is retried.
    """
    with session(database_url) as connection:
        table = Table(connection, source)
        wanted = [table.key(key) for key in keys]
        confirm(f"cancel {_some(source, keys)}", yes=yes)
        found = _cancelled(table, wanted, deed, wait)
    return _tell(source, found, "cancelled", as_json=as_json)


@command.command("snooze")
@click.argument("source")
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@click.option("--for", "--in", "delay", type=duration, help="For this time.")
@click.option("--until", "--at", "at", type=moment, metavar="TIME", help="Until then.")
@deed_options
@url_option
@json_option
def snooze(
    source: str,
    keys: tuple[str, ...],
    delay: float | None,
    at: dt.datetime | None,
    deed: Deed,
    database_url: str | None,
    as_json: bool,
) -> int:
    """Put rows that wait off until another time. Their due column stays as it is."""
    if (delay is None) == (at is None):
        raise UsageError(
            "say until when: --for or --until, not both",
            hint=f"worker rows snooze {source} {keys[0]} --for 10m",
        )
    with session(database_url) as connection:
        table = Table(connection, source)
        wanted = [table.key(key) for key in keys]
        found = table.each("snooze", wanted, *deed, at, delay)
    return _tell(source, found, "snoozed", as_json=as_json)


class Table:
    """A registered table, and the statements that operate on it.

    Raises NotFound for one that is not registered or gone, TableUnfit for one that lacks what
    rows are claimed by.
    """

    def __init__(self, connection: Connection, source: str) -> None:
        from worker.tables.catalog import describe
        from worker.tables.problems import fatal, problems
        from worker.tables.registered import registered_spec

        self._connection = connection
        self._spec: TableSpec = registered_spec(connection, source)
        self._described: Description = describe(connection, self._spec.table)
        for problem in fatal(problems(self._spec, self._described)):
            raise TableUnfit(problem.what, why=problem.why, hint=problem.hint)

    def key(self, written: str) -> Key:
        """The texts of the key's columns. Raises UsageError."""
        columns = self._spec.key
        if len(columns) == 1:
            return [written]
        parts = _parts(written)
        if len(parts) != len(columns):
            raise UsageError(
                f"{written!r} is not a key of {self._spec.name}",
                why=f"it has {len(parts)} parts, the key has {len(columns)}: {', '.join(columns)}",
                hint=f"worker rows list {self._spec.name}; a comma within a part is written \\,",
            )
        return parts

    def find(self, states: Sequence[str], limit: int, **by: Any) -> Found:
        return self._run(
            "find", list(states) or None, by["tenant"], by["since"], by["error_type"], limit
        )

    def ask(self, operation: str, keys: Sequence[Key], *params: Any) -> Found:
        return self._run(operation, json.dumps(list(keys)), *params)

    def each(self, operation: str, keys: Sequence[Key], *params: Any) -> Found:
        """What became of each, each asked for once."""
        wanted = [list(key) for key in dict.fromkeys(tuple(key) for key in keys)]
        return in_steps(lambda step: self.ask(operation, step, *params), wanted)

    def _run(self, operation: str, *params: Any) -> Found:
        import psycopg

        from worker.sources.operate import operation as text_of

        try:
            return ask_text(
                self._connection, text_of(operation, self._spec, self._described), *params
            )
        except psycopg.DataError as error:
            raise UsageError(
                f"that cannot be a key of {self._spec.name}",
                why=error.diag.message_primary or str(error),
                hint=f"worker rows list {self._spec.name}",
            ) from error


def _parts(written: str) -> Key:
    """The columns of a composite key: a backslash takes what follows as it is."""
    parts, characters = [""], iter(written)
    for character in characters:
        if character == ",":
            parts.append("")
        else:
            parts[-1] += next(characters, "") if character == "\\" else character
    return parts


def _cancelled(table: Table, keys: Sequence[Key], deed: Deed, wait: float) -> Found:
    def cancel(keys: Sequence[tuple[str, ...]]) -> Iterator[tuple[tuple[str, ...], Outcome]]:
        return zip(keys, table.each("cancel", [list(key) for key in keys], *deed), strict=True)

    return list(cancelled(cancel, (tuple(key) for key in keys), wait).values())


def _tell(source: str, found: Found, done: str, *, as_json: bool) -> int:
    return tell(found, "row", "key", lambda row: _refused(source, row, done), as_json=as_json)


def _refused(source: str, row: dict[str, Any], done: str) -> NotFound:
    key, detail = row["key"], row["detail"]
    what = f"row {key} of {source} was not {done}"
    match row["outcome"]:
        case "running":
            return NotFound(what, why="it is running", hint=f"worker rows cancel {source} {key}")
        case "busy":
            return NotFound(
                what,
                why="it is being claimed or settled, or somebody has it locked",
                hint="run it again",
            )
        case "idle":
            return NotFound(
                what,
                why="its due column is empty, or the source's condition does not hold for it",
                hint=f"worker rows show {source} {key}",
            )
        case "finished":
            return NotFound(what, why=f"it is {detail}", hint=f"worker rows show {source} {key}")
    return _missing(source, key)


def _missing(source: str, key: str) -> NotFound:
    return NotFound(
        f"{source} has no row {key}",
        why="it was deleted, or never was",
        hint=f"worker rows list {source}",
    )


def _without_parts(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "parts"}


def _some(source: str, keys: Sequence[str]) -> str:
    return f"{len(keys)} rows of {source}" if len(keys) > 1 else f"row {keys[0]} of {source}"
