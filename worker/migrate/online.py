"""`upgrade` and `downgrade`: one transaction under one lock, or nothing.

Any number of processes may call these at once; one works, the others wait for it and then find
nothing to do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from alembic import command
from alembic.config import Config
from sqlalchemy import text
from sqlalchemy.engine import Connection

from worker import __version__
from worker.errors import SchemaError
from worker.migrate import revisions
from worker.migrate.frame import LOCK, NO_TIME_LIMITS, wait_at_most
from worker.migrate.revisions import Revision
from worker.migrate.session import parsed, transaction
from worker.migrate.state import SchemaState, current_revision, read_status
from worker.schema import ensure_compatible
from worker.url import DatabaseURL

OLDEST_SERVER = 15

one_at_a_time = threading.Lock()  # Alembic keeps the running migration in module globals


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """What an upgrade or a downgrade did.

    before, after: revisions, None for an empty database. steps: what ran, in order.
    waited: seconds spent waiting for other migrations. seconds: of the whole, that included.
    """

    before: str | None
    after: str | None
    steps: tuple[Revision, ...]
    waited: float
    seconds: float

    @property
    def up_to_date(self) -> bool:
        """Whether there was nothing to do."""
        return not self.steps

    def __str__(self) -> str:
        if self.up_to_date:
            return f"up to date at {self.after or 'base'}"
        ran = ", ".join(step.id for step in self.steps)
        way = f"from {self.before or 'nothing'} to {self.after or 'nothing'}"
        return f"migrated {way} (ran {ran}) in {self.seconds:.1f} s"


def upgrade(
    url: DatabaseURL | str,
    revision: str = "head",
    *,
    lock_timeout: float = 5.0,
    wait: float = 60.0,
) -> MigrationReport:
    """Brings the database to `revision`, creating schema `worker` if need be.

    lock_timeout: seconds to wait for any one table that somebody else has locked. Workers wait
        behind us meanwhile, so keep it short and try again.
    wait: seconds to wait for another migration to end.
    A database that a newer version has migrated is left as it is.

    Raises SchemaError (locked, forbidden, too new for this code, ...), DatabaseUnreachable,
    UsageError for an unknown revision, InvalidURL.
    """
    target = revisions.position(revision)

    def work(connection: Connection, config: Config) -> None:
        found = read_status(connection)
        if found.state in (SchemaState.NEWER, SchemaState.TOO_NEW):
            ensure_compatible(found.installation)
        elif revisions.position(found.revision or "base") < target:
            _require_server(connection)
            command.upgrade(config, revision)

    return _run(url, "the migration", work, lock_timeout, wait)


def downgrade(
    url: DatabaseURL | str,
    revision: str,
    *,
    lock_timeout: float = 5.0,
    wait: float = 60.0,
) -> MigrationReport:
    """Takes the database back to `revision`; "base" drops every table, with all rows in them.

    The empty schema `worker` stays. Arguments and errors as for `upgrade`.
    """
    target = revisions.position(revision)

    def work(connection: Connection, config: Config) -> None:
        found = read_status(connection)
        if found.state in (SchemaState.NEWER, SchemaState.TOO_NEW):
            raise SchemaError(
                f"The database is at revision {found.revision}, which duerow {__version__} lacks",
                why="only the version that made a revision knows the way back from it",
                hint="run this with the newer version, before you install the older one",
            )
        if revisions.position(found.revision or "base") > target:
            command.downgrade(config, revision)

    return _run(url, "the downgrade", work, lock_timeout, wait)


def _run(
    url: DatabaseURL | str,
    doing: str,
    work: Callable[[Connection, Config], None],
    lock_timeout: float,
    wait: float,
) -> MigrationReport:
    started = time.monotonic()
    ran: list[str] = []
    with one_at_a_time, transaction(parsed(url), doing) as connection:
        _take_lock(connection, wait)
        waited = time.monotonic() - started
        connection.execute(text(wait_at_most(lock_timeout)))
        before = current_revision(connection)
        work(connection, revisions.config({"connection": connection, "steps": ran}))
        after = current_revision(connection)
    by_id = {revision.id: revision for revision in revisions.known()}
    steps = tuple(by_id[id] for id in ran)
    return MigrationReport(before, after, steps, waited, time.monotonic() - started)


def _take_lock(connection: Connection, wait: float) -> None:
    connection.execute(text(NO_TIME_LIMITS))
    connection.execute(text(wait_at_most(wait)))
    connection.execute(text(LOCK))


def _require_server(connection: Connection) -> None:
    number = connection.execute(text("select current_setting('server_version_num')::int"))
    major = number.scalar_one() // 10_000
    if major < OLDEST_SERVER:
        raise SchemaError(
            f"Postgres {major} is too old",
            why=f"duerow {__version__} needs {OLDEST_SERVER} or newer",
            hint="upgrade the server, or use another: worker config show",
        )
