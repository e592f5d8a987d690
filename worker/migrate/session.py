"""One connection and one transaction for the work on the schema."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy import create_engine
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from worker.migrate.explain import explained, unreachable
from worker.url import DatabaseURL

# A server or a network that went silent is noticed after half a minute at most, however long a
# statement may take.
_DEFAULTS = {
    "application_name": "duerow migrate",
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}


def parsed(url: DatabaseURL | str) -> DatabaseURL:
    """`url` with what this package sets where it says nothing. Raises InvalidURL."""
    url = DatabaseURL.parse(url) if isinstance(url, str) else url
    return url.with_defaults(**_DEFAULTS)


@contextmanager
def transaction(url: DatabaseURL, doing: str) -> Iterator[Connection]:
    """Commits at the end; on any error nothing is changed.

    doing: what goes on, for messages: "the migration", "the downgrade".
    Raises DatabaseUnreachable, and SchemaError for what the server refused.
    """
    try:
        with _engine(url).connect() as connection:
            try:
                with connection.begin():
                    yield connection
            except DBAPIError as error:
                raise explained(error, connection, url, doing) from error
    except DBAPIError as error:
        raise unreachable(error, url) from error


def _engine(url: DatabaseURL) -> Engine:
    """READ COMMITTED whatever the database's default is: a snapshot taken before the lock was
    granted would not see what its last holder did."""
    return create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(url.psycopg_conninfo(), prepare_threshold=None),
        poolclass=NullPool,
        isolation_level="READ COMMITTED",
        use_native_hstore=False,  # saves a query
    )
