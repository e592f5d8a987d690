"""The example's tables: made, filled, and asked."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from examples.common.tables import create
from examples.markets.app import app

TABLES = Path(__file__).with_name("tables.sql")

SEED = """
insert into example_markets.markets (id, symbol, predict_at)
select n, 'M' || n, %(due)s + n * interval '1 microsecond' from generate_series(1, %(count)s) n
"""
RUNS = """
select row_key::bigint, outcome, error_type,
       extract(epoch from started_at - %(since)s)::float8,
       extract(epoch from ended_at - %(since)s)::float8
  from worker.attempts
 where source = 'markets' and ended_at >= %(since)s
 order by ended_at
"""
PREDICTIONS = """
select m.id, count(p) from example_markets.markets m
  left join example_markets.predictions p on p.market_id = m.id
 group by m.id order by m.id
"""
WAITING = """
select pid from pg_stat_activity
 where datname = current_database() and application_name = 'duerow handler'
   and wait_event_type = 'Lock'
"""


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt. began, ended: seconds after the moment that was asked for."""

    market: int
    outcome: str
    error: str | None
    began: float
    ended: float

    @property
    def seconds(self) -> float:
        return self.ended - self.began


class Markets:
    """connection: autocommit."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def create(self) -> str:
        """Makes the tables anew and adopts one; the command for the latter."""
        return create(self._connection, TABLES, app.registry.get("markets"))

    def seed(self, count: int, due_in: float) -> dt.datetime:
        """Replaces all markets by so many, due a microsecond apart, so that the order is known.
        due_in: real seconds from now until the first is due. Gives that moment."""
        self._connection.execute("delete from example_markets.markets")
        [due] = self._one("select clock_timestamp() + make_interval(secs => %s)", due_in)
        self._connection.execute(SEED, {"count": count, "due": due})
        self._connection.execute("analyze example_markets.markets")
        found: dt.datetime = due
        return found

    def runs(self, since: dt.datetime) -> list[Run]:
        """Every attempt that has ended since, in the order of their ends."""
        return [Run(*row) for row in self._all(RUNS, {"since": since})]

    def predictions(self) -> dict[int, int]:
        """How many each market has."""
        return dict(self._all(PREDICTIONS, {}))

    def written(self) -> int:
        """How many predictions were ever written, committed or not: ids are never given back."""
        sequence = "pg_get_serial_sequence('example_markets.predictions', 'id')"
        found = self._one(f"select coalesce(pg_sequence_last_value({sequence}::regclass), 0)")
        return int(found[0])

    def claimed(self, market: int) -> bool:
        query = "select duerow_owner from example_markets.markets where id = %s"
        return self._one(query, market)[0] is not None

    def waiting(self) -> int | None:
        """The backend of a session that waits for a lock, if there is one."""
        found = self._all(WAITING, {})
        return found[0][0] if found else None

    def alive(self, backend: int) -> bool:
        return bool(self._all("select from pg_stat_activity where pid = %s", [backend]))

    def _all(self, query: str, params: Any) -> list[tuple[Any, ...]]:
        return self._connection.execute(query.encode(), params).fetchall()

    def _one(self, query: str, *params: Any) -> tuple[Any, ...]:
        return self._all(query, params)[0]
