"""Where a database stands: which revisions it has, and whether this code can run on it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from sqlalchemy import text
from sqlalchemy.engine import Connection

from worker.errors import SchemaError
from worker.migrate import revisions
from worker.migrate.frame import SCHEMA, VERSION_TABLE, wait_at_most
from worker.migrate.revisions import Revision
from worker.migrate.session import parsed, transaction
from worker.schema import INSTALLATION, MIGRATE, SCHEMA_VERSION, Installation, ensure_compatible
from worker.url import DatabaseURL


class SchemaState(Enum):
    """How the schema of a database stands to this code."""

    MISSING = "missing"
    BEHIND = "behind"
    CURRENT = "up to date"
    NEWER = "newer"  # than this code, which can run on it
    TOO_NEW = "too new"  # for this code to run on


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """What one look at a database found.

    revision: the one it is at; None when there is none. head: the newest that this code has.
    pending: what `upgrade` would run. installation: None when the schema is missing.
    """

    state: SchemaState
    revision: str | None
    head: str
    pending: tuple[Revision, ...]
    installation: Installation | None


def status(url: DatabaseURL | str) -> SchemaStatus:
    """Looks, and changes nothing. Raises DatabaseUnreachable, SchemaError."""
    with transaction(parsed(url), "the look at the schema") as connection:
        connection.execute(text("set transaction read only"))
        connection.execute(text(wait_at_most(5)))
        connection.execute(text("set local statement_timeout = '10s'"))
        return read_status(connection)


def check(url: DatabaseURL | str) -> SchemaStatus:
    """The status, if the schema is there, has every revision, and this code can run on it.

    Raises SchemaError otherwise, DatabaseUnreachable.
    """
    found = status(url)
    ensure_compatible(found.installation)
    if found.pending:
        waiting = ", ".join(f"{revision.id} ({revision.title})" for revision in found.pending)
        raise SchemaError(
            "The schema `worker` is behind",
            why=f"it is at {found.revision}; still to run: {waiting}",
            hint=MIGRATE,
        )
    return found


def read_status(connection: Connection) -> SchemaStatus:
    """The same, in a transaction of the caller. Raises SchemaError."""
    known = revisions.known()
    ids = [revision.id for revision in known]
    at = current_revision(connection)
    if at is None:
        return SchemaStatus(SchemaState.MISSING, None, ids[-1], known, None)
    installation = _installation(connection)
    if at in ids:
        pending = known[ids.index(at) + 1 :]
        state = SchemaState.BEHIND if pending else SchemaState.CURRENT
    else:
        pending = ()
        state = SchemaState.NEWER
    if installation.compatible_with > SCHEMA_VERSION:
        state = SchemaState.TOO_NEW
    return SchemaStatus(state, at, ids[-1], pending, installation)


def current_revision(connection: Connection) -> str | None:
    """The revision that the database is at; None before the first."""
    if _missing(connection, VERSION_TABLE):
        return None
    return connection.execute(
        text(f"select version_num from {SCHEMA}.{VERSION_TABLE}")  # noqa: S608 - constants
    ).scalar_one_or_none()


def _installation(connection: Connection) -> Installation:
    return Installation(*connection.execute(text(INSTALLATION)).one())


def _missing(connection: Connection, table: str) -> bool:
    found = connection.execute(text(f"select to_regclass('{SCHEMA}.{table}')"))
    return found.scalar_one() is None
