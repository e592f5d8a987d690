"""`worker enqueue`: one job by hand."""

from __future__ import annotations

import datetime as dt
import difflib
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from worker.cli.common.command import command as verb
from worker.cli.common.database import connected, database, require_schema, url_option
from worker.cli.common.output import json_option, show_record
from worker.cli.common.parameters import duration, moment
from worker.errors import PayloadInvalid, UnknownKind, UsageError

if TYPE_CHECKING:
    from worker.app import App
    from worker.registry import Handler
    from worker.settings import Settings


@verb("enqueue")
@click.argument("kind")
@click.argument("args", default="{}")
@click.option("--queue", "-q", help="Default: the handler's own.")
@click.option("--priority", type=click.IntRange(-32768, 32767), default=0, help="Lower runs first.")
@click.option("--in", "delay", type=duration, help="Due after this time.")
@click.option("--at", type=moment, metavar="TIME", help="Due then.")
@click.option("--tenant")
@click.option("--unique-key", help="At most one live job of the kind has it.")
@click.option("--unique-for", type=duration, help="... and none again before this time is over.")
@click.option("--app", help="module:name of the App to check against.  [default: as worker run]")
@url_option
@json_option
def command(
    kind: str,
    args: str,
    queue: str | None,
    priority: int,
    delay: float | None,
    at: dt.datetime | None,
    tenant: str | None,
    unique_key: str | None,
    unique_for: float | None,
    app: str | None,
    database_url: str | None,
    as_json: bool,
) -> None:
    """Enqueue one job of KIND with ARGS, a JSON object, or - to read it from stdin.

    Where there is an App, the kind must be one of its handlers', and ARGS must fit.
    """
    from worker import enqueue
    from worker.job import Job
    from worker.settings import Settings

    settings = Settings.load(app=app, database_url=database_url)
    given = arguments(sys.stdin.read() if args == "-" else args)
    handler = job_handler(settings, kind)
    if handler is not None:
        handler.signature.write(given)
    job = Job(
        kind,
        given,
        queue=queue or (handler.queue if handler else "default"),
        priority=priority,
        due_at=at,
        delay=delay,
        tenant=tenant,
        unique_key=unique_key,
        unique_for=unique_for,
    )
    with database(settings) as url, connected(url) as connection:
        require_schema(connection)
        made = enqueue(connection, job, limit=settings.payload_limit)
    show_record({"id": made.id, "created": made.created}, as_json=as_json)


def arguments(text: str) -> dict[str, Any]:
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PayloadInvalid(
            "the arguments are not JSON",
            why=str(error),
            hint="""quote them for the shell: worker enqueue hello '{"name": "you"}'""",
        ) from None
    if not isinstance(given, dict):
        raise PayloadInvalid(
            f"the arguments are a JSON {_JSON_NAMES.get(type(given), 'value')}, not an object",
            why="a handler takes its arguments by name",
            hint="""worker enqueue hello '{"name": "you"}'""",
        )
    return given


_JSON_NAMES = {list: "array", str: "string", int: "number", float: "number", bool: "boolean"}


def job_handler(settings: Settings, kind: str) -> Handler | None:
    """The kind's handler; None where no App is named or found, and nothing can be checked."""
    from worker.cli.common.application import find_app, load_app

    name = settings.app or find_app()
    if name is None:
        return None
    app = load_app(name)
    if kind not in app.registry:
        raise _unknown(kind, app, name)
    handler = app.registry.get(kind)
    if handler.table is not None:
        spec = handler.table.spec
        raise UsageError(
            f"{kind!r} cannot be enqueued",
            why=f"its handler runs the rows of {spec.table}, not jobs",
            hint=f"to run a row of it now, write now() to its {spec.due}",
        )
    return handler


def _unknown(kind: str, app: App, name: str) -> UnknownKind:
    kinds = sorted(handler.kind for handler in app.registry if handler.table is None)
    near = difflib.get_close_matches(kind, kinds, 1)
    return UnknownKind(
        f"no handler is registered for kind {kind!r}",
        why=f"{name} registers: {', '.join(kinds) or 'none'}",
        hint=f"worker enqueue {near[0]}" if near else "register it: @app.handler",
    )
