"""Where the SQL and the migrations lie: beside this file in a wheel, at the root in a checkout."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _resolve(packaged: str, checkout: str) -> Path:
    inside = _PACKAGE / packaged
    return inside if inside.is_dir() else _PACKAGE.parent / checkout


def sql_directory() -> Path:
    return _resolve("_sql", "sql")


def alembic_directory() -> Path:
    return _resolve("_alembic", "alembic")
