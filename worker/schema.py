"""Which version of schema `worker` this code needs, and whether a database has it.

Light on purpose: a worker asks this at every start and never loads Alembic.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from worker import __version__
from worker.errors import SchemaError

SCHEMA_VERSION = 2
"""What this code needs. A revision that new code depends on raises it, here and in the table."""

INSTALLATION = "select id, schema_version, compatible_with from worker.installation"
MISSING_SQLSTATES = ("42P01", "3F000")
"""What `INSTALLATION` fails with where no migration has run: no such table, no such schema."""

MIGRATE = "worker db migrate"


@dataclass(frozen=True, slots=True)
class Installation:
    """The row of worker.installation.

    id: makes idempotency keys unique across databases.
    schema_version: what the database has.
    compatible_with: the oldest SCHEMA_VERSION whose code may run on it.
    """

    id: uuid.UUID
    schema_version: int
    compatible_with: int


def ensure_compatible(found: Installation | None) -> Installation:
    """`found`, if this code can run on it: the same version, or a newer compatible one.

    None stands for a database without the schema. Raises SchemaError.
    """
    if found is None:
        raise SchemaError(
            "The database has no schema `worker`",
            why="the migrations have not run here",
            hint=MIGRATE,
        )
    if found.schema_version < SCHEMA_VERSION:
        raise SchemaError(
            "The schema `worker` is too old",
            why=f"it has version {found.schema_version}; "
            f"duerow {__version__} needs {SCHEMA_VERSION}",
            hint=MIGRATE,
        )
    if found.compatible_with > SCHEMA_VERSION:
        raise SchemaError(
            f"duerow {__version__} is too old for this database",
            why=f"its schema has version {found.schema_version} and runs with code that knows "
            f"{found.compatible_with} or newer; this one knows {SCHEMA_VERSION}",
            hint="pip install --upgrade duerow",
        )
    return found
