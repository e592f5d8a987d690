"""How Alembic runs the revisions of schema `worker`; `worker.migrate` starts it.

Online it is handed a connection, inside a transaction that holds the lock. Offline it writes
such a transaction out. Either way all revisions of one run commit together.
"""

from __future__ import annotations

from typing import Any

from alembic import context

from worker.migrate import frame

attributes = context.config.attributes


def remember(ctx: Any, step: Any, heads: Any, run_args: Any) -> None:
    attributes.setdefault("steps", []).append(step.up_revision_id)


context.configure(
    connection=attributes.get("connection"),
    dialect_name="postgresql",
    version_table=frame.VERSION_TABLE,
    version_table_schema=frame.SCHEMA,
    on_version_apply=remember,
)

with context.begin_transaction():
    if context.is_offline_mode():
        start = context.get_starting_revision_argument() or "base"
        for statement in (frame.wait_at_most(5), frame.LOCK, frame.require_revision(start)):
            context.execute(statement)
    to_base = context.get_revision_argument() is None
    if not to_base:
        context.execute(frame.CREATE_SCHEMA)  # Alembic makes its own table in it, first of all
    context.run_migrations()
    if to_base:
        context.execute(frame.DROP_VERSION_TABLE)
