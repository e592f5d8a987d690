"""Keeps `alembic revision --autogenerate` from proposing to drop what we added to a user's table.

In the user's env.py:

    from worker.tables.autogenerate import include_object

    context.configure(..., include_object=include_object)
"""

from __future__ import annotations

from typing import Any

OURS = ("duerow_",)
"""How the names of our columns and indexes start."""


def include_object(
    object: Any, name: str | None, type_: str, reflected: bool, compare_to: Any
) -> bool:
    """False for our columns and indexes in the database, and for the schema `worker`."""
    if not reflected or name is None:
        return True
    if getattr(object, "schema", None) == "worker":
        return False
    return not (type_ in ("column", "index") and name.startswith(OURS))
