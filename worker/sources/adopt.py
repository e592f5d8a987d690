"""From a handler of a user's own table to a source of rows: asks the catalog once, at start."""

from __future__ import annotations

from typing import Any

from worker.registry import Handler
from worker.sources.rows import Rows
from worker.tables.catalog import describe_async


async def adopted(connection: Any, handler: Handler) -> Rows:
    """Raises NotFound, UsageError or RegistrationError for a table that cannot be claimed from."""
    assert handler.table is not None
    spec = handler.table.spec
    description = await describe_async(connection, spec.table)
    reads = handler.table.row_type.columns(list(description.types))
    return Rows(spec, description, reads)
