"""The SQL files, read once. Parameters are $1, $2, ... in every file."""

from __future__ import annotations

from functools import cache

from worker.assets import sql_directory


@cache
def statement(name: str) -> str:
    """The text of sql/<name>.sql, e.g. statement("claim/due")."""
    return (sql_directory() / f"{name}.sql").read_bytes().decode()
