"""The database that a verb talks to: the one that is named, or the embedded one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from worker.cli.common.terminal import say
from worker.errors import DatabaseUnreachable, DuerowError, SchemaError

if TYPE_CHECKING:
    import psycopg

    from worker.settings import Settings
    from worker.url import DatabaseURL

BOUNDS = "set local statement_timeout = '30s'; set local lock_timeout = '5s'; set local jit = off"

url_option = click.option(
    "--database-url",
    metavar="URL",
    help="Where the rows are; default: DATABASE_URL, PG*, embedded.",
)


@contextmanager
def database(
    settings: Settings, tell: Callable[[str], None] = say, *, migrate: bool = True
) -> Iterator[DatabaseURL]:
    """The URL to use. Where none is said the embedded Postgres is started, and migrated: it is
    nobody's but this project's.

    tell: how to say so. migrate: False leaves the embedded one as it is.
    Raises EmbeddedPostgresError, SchemaError, DatabaseUnreachable.
    """
    if settings.database_url is not None:
        yield settings.database_url
        return
    from worker.embedded import EmbeddedPostgres
    from worker.url import DatabaseURL

    server = EmbeddedPostgres()
    url = DatabaseURL.parse(server.acquire(), environ={})
    try:
        place = server.instance.path
        tell(f"no database URL: using the embedded Postgres in {place}")
        if migrate:
            _migrate_if_needed(url, tell)
        yield url
    finally:
        server.release()


def _migrate_if_needed(url: DatabaseURL, tell: Callable[[str], None]) -> None:
    with connected(url) as connection:
        try:
            require_schema(connection)
            return
        except SchemaError:
            pass
    from worker.migrate import upgrade

    tell(f"embedded Postgres: {upgrade(url)}")


@contextmanager
def session(database_url: str | None) -> Iterator[psycopg.Connection[Any]]:
    """A connection to a database whose schema will do. For the verbs of operators, which need no
    setting but the URL."""
    from worker.settings import Settings

    with database(Settings.load(database_url=database_url)) as url, connected(url) as connection:
        require_schema(connection)
        yield connection


@contextmanager
def connected(url: DatabaseURL) -> Iterator[psycopg.Connection[Any]]:
    """An autocommit connection. Raises DatabaseUnreachable within five seconds a server, and for
    a connection that is lost."""
    import psycopg

    told = url.with_defaults(connect_timeout=5, tcp_user_timeout=30_000).with_parameters(
        application_name="duerow cli"
    )
    try:
        connection = psycopg.connect(
            told.psycopg_conninfo(), autocommit=True, prepare_threshold=None
        )
    except psycopg.OperationalError as error:
        raise unreachable(url, error) from None
    try:
        with connection:
            yield connection
    except psycopg.OperationalError as error:
        if connection.broken:
            raise DatabaseUnreachable(
                f"the connection to {url} was lost",
                why=_one_line(url, error),
                hint="run it again: what was not reported as done was not done",
            ) from error
        raise _refused(url, error) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise _refused(url, error) from error


def unreachable(url: DatabaseURL, error: Exception) -> DatabaseUnreachable:
    return DatabaseUnreachable(
        f"no connection to {url}",
        why=_one_line(url, error),
        hint='check DATABASE_URL, and that the server runs: pg_isready -d "$DATABASE_URL"',
    )


def _refused(url: DatabaseURL, error: psycopg.Error) -> DuerowError:
    return DuerowError(
        "the database refused this",
        why=_one_line(url, error),
        hint=f"try again, or as another role than {url.user}",
    )


def _one_line(url: DatabaseURL, error: Exception) -> str:
    lines = (line.strip() for line in url.redact(str(error)).splitlines())
    return "; ".join(line for line in lines if line)


def require_schema(connection: psycopg.Connection[Any]) -> None:
    import psycopg

    from worker.schema import INSTALLATION, Installation, ensure_compatible

    try:
        row = connection.execute(INSTALLATION).fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        row = None
    ensure_compatible(None if row is None else Installation(*row))


def ask(connection: psycopg.Connection[Any], name: str, *params: Any) -> list[dict[str, Any]]:
    """The rows of sql/<name>.sql with these parameters, in a transaction of its own."""
    from worker.statements import statement

    return ask_text(connection, statement(name), *params)


def ask_text(connection: psycopg.Connection[Any], sql: str, *params: Any) -> list[dict[str, Any]]:
    """The same of SQL that has been filled in."""
    from psycopg import RawCursor
    from psycopg.rows import dict_row

    with connection.transaction(), RawCursor(connection, row_factory=dict_row) as cursor:
        connection.execute(BOUNDS)
        return cursor.execute(sql.encode(), params).fetchall()
