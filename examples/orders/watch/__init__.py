"""The numbers to watch and the alerts: a query each, in a file each, for any client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from examples.common.clock import Clock

ALERTS = ("run_time", "error_rate", "backlog")


class Watch:
    """What somebody who watches sees, on the scenario's clock. connection: autocommit."""

    def __init__(self, connection: psycopg.Connection[Any], clock: Clock) -> None:
        self._connection = connection
        minute = f"{clock.real(60):.6f} seconds"
        connection.execute("select set_config('orders.minute', %s, false)", [minute])

    def numbers(self) -> dict[str, Any]:
        [row] = self._asked("numbers")
        return row

    def alerts(self) -> dict[str, dict[str, Any]]:
        """Those that fire, with what they say."""
        found = {alert: self._asked(f"alert_{alert}") for alert in ALERTS}
        return {alert: rows[0] for alert, rows in found.items() if rows}

    def _asked(self, name: str) -> list[dict[str, Any]]:
        query = Path(__file__).with_name(f"{name}.sql").read_bytes()
        with self._connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query).fetchall()
