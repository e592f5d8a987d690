"""Brings schema `worker` to the version that the code needs. Alembic, run under a lock.

The revisions lie in `alembic/versions`, each with its frozen SQL beside it. Nothing here
prints. Importing this loads Alembic and SQLAlchemy (about 24 MB); a worker that only wants to
know whether the schema will do asks `worker.schema`.
"""

from __future__ import annotations

from worker.migrate.offline import offline_sql
from worker.migrate.online import MigrationReport, downgrade, upgrade
from worker.migrate.revisions import Revision
from worker.migrate.state import SchemaState, SchemaStatus, check, status
from worker.schema import SCHEMA_VERSION, Installation, ensure_compatible

__all__ = [
    "SCHEMA_VERSION",
    "Installation",
    "MigrationReport",
    "Revision",
    "SchemaState",
    "SchemaStatus",
    "check",
    "downgrade",
    "ensure_compatible",
    "offline_sql",
    "status",
    "upgrade",
]
