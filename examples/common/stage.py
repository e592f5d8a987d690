"""How an example is started: its options, its database, and how it ends."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click
import psycopg

from examples.common.clock import Clock
from examples.common.show import say
from worker.cli.common.database import connected, database, require_schema
from worker.errors import DuerowError
from worker.settings import EMBEDDED, Settings
from worker.url import DatabaseURL

UNTRUE = 8


@dataclass(frozen=True, slots=True)
class Stage:
    """connection: to the database at `url`, autocommit; it is migrated."""

    url: DatabaseURL
    connection: psycopg.Connection[Any]
    clock: Clock


@contextmanager
def stage(database_url: str | None, clock: Clock) -> Iterator[Stage]:
    """database_url: of a migrated database; default: the embedded one."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    settings = Settings.load(database_url=database_url or EMBEDDED)
    with database(settings) as url, connected(url) as connection:
        require_schema(connection)
        yield Stage(url, connection, clock)


def program(name: str, doc: str, scale: float, play: Callable[[Stage], bool]) -> None:
    """The command line of an example. play: whether all that it shows was true.

    Exits with 0, or with 8 if something was not.
    """

    @click.command(name, help=doc)
    @click.option(
        "--scale",
        type=click.FloatRange(0.001, 1),
        default=scale,
        show_default=True,
        help="How long a second of the scenario takes, in seconds.",
    )
    @click.option(
        "--database-url",
        metavar="URL",
        help="A migrated database, in which a schema of its own is made anew. "
        "Default: the embedded Postgres.",
    )
    def command(scale: float, database_url: str | None) -> int:
        with stage(database_url, Clock(scale)) as found:
            return 0 if play(found) else UNTRUE

    try:
        code = command.main(prog_name=f"python -m {name}", standalone_mode=False)
    except DuerowError as error:
        say(str(error))
        code = error.exit_code
    except click.ClickException as error:
        error.show(sys.stderr)
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        code = 130
    sys.exit(code)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
