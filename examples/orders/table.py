"""The example's tables: made, filled, and asked."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from examples.common.tables import create
from examples.orders.app import app
from worker import audit

SOURCE = "orders"
TABLES = Path(__file__).with_name("tables.sql")

SEED = """
with client as (
    insert into example_orders.clients
    select n, 'client ' || n from generate_series(1, cardinality(%(sizes)s)) n
)
insert into example_orders.orders (id, client_id, tracking_number, next_check_at)
select id, client, coalesce(%(odd)s::jsonb ->> id::text, 'TN') || id,
       %(due)s + id * interval '1 microsecond'
  from (select row_number() over (order by c.ordinality, n) as id, c.ordinality as client
          from unnest(%(sizes)s) with ordinality c(size), generate_series(1, c.size) n) o
"""
ENDS = """
select tenant::bigint, extract(epoch from max(ended_at) - %(since)s)::float8, max(place)
  from (select tenant, ended_at, count(*) over (order by ended_at) as place
          from worker.attempts
         where source = 'orders' and outcome = 'done' and ended_at >= %(since)s) done
 group by tenant
"""
OUTCOMES = """
select outcome, count(*) from worker.attempts
 where source = 'orders' and ended_at >= %(since)s and outcome <> 'released' group by outcome
"""
SPAN = """
select w.started_at, coalesce(w.stopped_at, w.gone_at),
       extract(epoch from coalesce(w.stopped_at, w.gone_at, now()) - w.started_at)::float8,
       (select extract(epoch from max(a.started_at) - w.started_at)::float8 from worker.attempts a
         where a.worker = w.id and a.source = 'orders'),
       (select count(*) from worker.attempts a
         where a.worker = w.id and a.source = 'orders' and a.outcome = 'done')
  from worker.workers w where w.name = %(name)s
"""


@dataclass(frozen=True, slots=True)
class Span:
    """A run, as the tables tell. seconds: from its start to its end, or so far; last: from its
    start to that of its last call, None without any (both are real). done: orders."""

    started: dt.datetime
    stopped: dt.datetime | None
    seconds: float
    last: float | None
    done: int


class Orders:
    """connection: autocommit."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def create(self) -> str:
        """Makes the tables anew and adopts one; the command for the latter."""
        return create(self._connection, TABLES, app.registry.get(SOURCE))

    def seed(
        self, sizes: Sequence[int], odd: Mapping[int, str] | None = None, *, ago: float = 0.0
    ) -> dt.datetime:
        """Replaces all orders by so many for each client, in the order in which they are due. No
        worker may be at work. odd: how the numbers of some orders begin. ago: real seconds since
        they are due. Gives the moment."""
        self._connection.execute("delete from example_orders.clients")
        query = "select clock_timestamp() - make_interval(secs => %s)"
        [(due,)] = self._all(query, [ago])
        said = {"sizes": list(sizes), "due": due, "odd": json.dumps(dict(odd or {}))}
        self._connection.execute(SEED.encode(), said)
        self._connection.execute("analyze example_orders.orders")
        [(now,)] = self._all("select clock_timestamp()", None)
        assert isinstance(now, dt.datetime)
        return now

    def ends(self, since: dt.datetime) -> dict[int, tuple[float, int]]:
        """Of each client: real seconds until its last order was done, and how many orders of all
        clients were done by then."""
        found = self._all(ENDS, {"since": since})
        return {client: (seconds, place) for client, seconds, place in found}

    def outcomes(self, since: dt.datetime) -> dict[str, int]:
        return dict(self._all(OUTCOMES, {"since": since}))

    def span(self, worker: str) -> Span | None:
        """Of the run of that name; None before it has begun."""
        found = self._all(SPAN, {"name": worker})
        return Span(*found[0]) if found else None

    def double_starts(self) -> int:
        return len(audit.run(self._connection, "double_starts", queue=SOURCE)[1])

    def held_back(self) -> int:
        """How many orders wait for another try."""
        query = "select count(*) from example_orders.orders where duerow_retry_at > now()"
        return int(self._all(query, None)[0][0])

    def tried_within(self, seconds: float) -> bool:
        """Whether any attempt has ended within so many real seconds."""
        query = (
            "select from worker.attempts where source = 'orders'"
            " and ended_at > now() - make_interval(secs => %s) limit 1"
        )
        return bool(self._all(query, [seconds]))

    def _all(self, query: str, params: Any) -> list[tuple[Any, ...]]:
        return self._connection.execute(query.encode(), params).fetchall()
