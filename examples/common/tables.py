"""The tables of an example: made from its SQL, and one adopted as `worker tables add` would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg

from worker.demo.table import adopt
from worker.registry import Handler


def create(connection: psycopg.Connection[Any], tables: Path, handler: Handler) -> str:
    """Makes them anew and adopts the one whose rows the handler takes; the command for the latter.

    connection: autocommit. tables: the file with the SQL.
    """
    connection.execute(tables.read_bytes())
    assert handler.table is not None
    command, _ = adopt(connection, handler.table.spec)
    return command
