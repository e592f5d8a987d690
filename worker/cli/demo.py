"""`worker demo`: 1,000 due donations, three workers, one is killed; then the books are compared."""

from __future__ import annotations

import dataclasses
import signal
import sys
from typing import TYPE_CHECKING

import click

from worker.cli.common.command import command as verb
from worker.cli.common.output import json_option, show_record, show_text
from worker.cli.common.terminal import colours, is_terminal, say

if TYPE_CHECKING:
    from worker.demo.figures import Verdict
    from worker.demo.play import Options

UNTRUE = 8


@verb("demo")
@click.option("--rows", type=click.IntRange(50, 100_000), default=1000, show_default=True)
@click.option("--workers", type=click.IntRange(3, 16), default=3, show_default=True)
@click.option(
    "--errors",
    type=click.FloatRange(0, 0.5),
    default=0.1,
    show_default=True,
    help="Share of the API's requests that fail.",
)
@click.option(
    "--forget-keys",
    is_flag=True,
    help="An API that ignores idempotency keys: then it cannot come out right.",
)
@click.option(
    "--database-url",
    metavar="URL",
    help="Play on this database, which must be migrated, in a schema of its own. "
    "Default: the embedded Postgres, whatever DATABASE_URL says.",
)
@json_option
def command(
    rows: int,
    workers: int,
    errors: float,
    forget_keys: bool,
    database_url: str | None,
    as_json: bool,
) -> int:
    """Charge the due rows of a table over an unreliable payments API while a worker is killed.

    Ends with an audit of the tables and of the API's own ledger. Exit code 0 says that every
    donation was charged exactly once, 8 that one was not.
    """
    from worker.demo.play import Options

    _end_on_signals()
    verdict = _play(Options(rows, workers, errors, forget_keys), database_url, as_json=as_json)
    _show(verdict, database_url, as_json=as_json)
    return 0 if verdict.true else UNTRUE


def _play(options: Options, database_url: str | None, *, as_json: bool) -> Verdict:
    from worker.cli.common.database import connected, database, require_schema
    from worker.demo.play import play
    from worker.demo.screen import screen
    from worker.settings import EMBEDDED, Settings

    settings = Settings.load(database_url=database_url or EMBEDDED)
    live = is_terminal(sys.stdout) and colours(sys.stdout) and not as_json
    with (
        database(settings) as url,
        connected(url) as connection,
        screen(live=live, to_stderr=as_json) as shown,
    ):
        require_schema(connection)
        return play(url, connection, options, shown)


def _show(verdict: Verdict, database_url: str | None, *, as_json: bool) -> None:
    from worker.demo.report import report

    if as_json:
        show_record(dataclasses.asdict(verdict), as_json=True)
        return
    show_text("\n" + report(verdict))
    sys.stdout.flush()
    if verdict.left_behind is not None:
        where = ' --database-url "$DATABASE_URL"' if database_url else " --database-url embedded"
        say(
            "\nwhat happened to a donation that the killed worker held:\n"
            f"  worker audit run timeline --source {verdict.source}"
            f" --row {verdict.left_behind}{where}"
        )


def _end_on_signals() -> None:
    """SIGTERM and a closed terminal end it as Ctrl-C does: with every process that it started."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
