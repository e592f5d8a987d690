"""The example's table: made, filled, and asked."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from examples.common.tables import create
from examples.donations.app import charge
from worker import audit
from worker.demo.api import DECLINED

SOURCE = "donations"
TABLES = Path(__file__).with_name("tables.sql")
PAYS = "4242424242424242"

# Which cards are declined is spread evenly, not all at the end.
SEED = """
insert into example_donations.donations (donor, cents, card, next_charge_at)
select 'donor ' || n, 500 + n * 37 %% 9500,
       case when n * %(declined)s %% %(rows)s < %(declined)s then %(bad)s else %(good)s end, %(due)s
  from generate_series(1, %(rows)s) n
returning id::text, cents
"""
CHARGED = """
select count(*) filter (where next_charge_at > %(due)s),
       count(*) filter (where duerow_state = 'dead'),
       count(*)
  from example_donations.donations
"""
# Of each class of error: how often, and how long after it the row was due again.
WAITS = """
select error_type, attempt, outcome, count(*),
       min(extract(epoch from next_at - ended_at))::float8,
       max(extract(epoch from next_at - ended_at))::float8
  from worker.attempts
 where source = 'donations' and ended_at >= %(since)s and outcome in ('retry', 'dead')
 group by error_type, attempt, outcome
 order by outcome desc, error_type, attempt
"""
# Rows of which an attempt failed for a while, and how many of them were charged in the end, or
# died because of their card.
RECOVERED = """
with row as (
    select row_key, bool_or(outcome = 'retry') as failed, bool_or(outcome = 'done') as done,
           bool_or(error_type = 'Declined') as declined
      from worker.attempts where source = 'donations' and ended_at >= %(since)s
     group by row_key
)
select count(*), count(*) filter (where done), count(*) filter (where declined)
  from row where failed
"""
OUTCOMES = """
select outcome, count(*) from worker.attempts
 where source = 'donations' and ended_at >= %(since)s group by outcome
"""
ENDS = """
select extract(epoch from ended_at - %(since)s)::float8 from worker.attempts
 where source = 'donations' and ended_at >= %(since)s and outcome in ('done', 'dead')
 order by ended_at
"""
ENDED = """
select count(*) from worker.attempts a join worker.workers w on w.id = a.worker
 where a.source = 'donations' and a.ended_at >= %(since)s and w.name = %(name)s
   and a.outcome = %(outcome)s
"""


@dataclass(frozen=True, slots=True)
class Count:
    """Rows by what they are."""

    charged: int
    dead: int
    rows: int

    @property
    def settled(self) -> int:
        return self.charged + self.dead


@dataclass(frozen=True, slots=True)
class Wait:
    """Attempts that failed alike. shortest, longest: seconds until their rows were due again; None
    for those that died."""

    error: str
    attempt: int
    outcome: str
    times: int
    shortest: float | None
    longest: float | None

    @property
    def between(self) -> tuple[float | None, float | None]:
        return self.shortest, self.longest


@dataclass(frozen=True, slots=True)
class Recovery:
    """Rows with a transient failure: how many, charged in the end, and dead for their card."""

    rows: int
    charged: int
    declined: int


class Table:
    """connection: autocommit."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def create(self) -> str:
        """Makes it anew and adopts it; the command that would."""
        return create(self._connection, TABLES, charge.handler)

    def seed(self, rows: int, due: dt.datetime, declined: int = 0) -> dict[str, int]:
        """Replaces all donations by so many, of which so many have a card that does not pay. Cents
        by donation."""
        self._connection.execute("delete from example_donations.donations")
        said = {"rows": rows, "declined": declined, "due": due, "bad": DECLINED, "good": PAYS}
        made = dict(self._all(SEED, said))
        self._connection.execute("vacuum analyze example_donations.donations")
        return made

    def due_again(self, due: dt.datetime) -> None:
        """As after a month: the owner's own update."""
        update = "update example_donations.donations set next_charge_at = %s"
        self._connection.execute(update.encode(), [due])

    def soon(self, seconds: float) -> dt.datetime:
        [(moment,)] = self._all("select clock_timestamp() + make_interval(secs => %s)", [seconds])
        assert isinstance(moment, dt.datetime)
        return moment

    def due(self) -> dt.datetime:
        """The first due time of all."""
        [(moment,)] = self._all("select min(next_charge_at) from example_donations.donations", None)
        assert isinstance(moment, dt.datetime)
        return moment

    def new_cards(self) -> None:
        """The owner's own update."""
        update = "update example_donations.donations set card = %s where card = %s"
        self._connection.execute(update.encode(), [PAYS, DECLINED])

    def declined(self) -> set[str]:
        """The donations whose card does not pay."""
        query = "select id::text from example_donations.donations where card = %s"
        return {donation for (donation,) in self._all(query, [DECLINED])}

    def dead(self) -> set[str]:
        query = "select id::text from example_donations.donations where duerow_state = 'dead'"
        return {donation for (donation,) in self._all(query, None)}

    def count(self, due: dt.datetime) -> Count:
        """due: of the charge; a row that is due later has been charged."""
        return Count(*self._all(CHARGED, {"due": due})[0])

    def waits(self, since: dt.datetime) -> list[Wait]:
        return [Wait(*row) for row in self._all(WAITS, {"since": since})]

    def recovery(self, since: dt.datetime) -> Recovery:
        return Recovery(*self._all(RECOVERED, {"since": since})[0])

    def outcomes(self, since: dt.datetime) -> Mapping[str, int]:
        return dict(self._all(OUTCOMES, {"since": since}))

    def ends(self, due: dt.datetime) -> list[float]:
        """Of each row, real seconds from the due time to its charge, or its death; in order."""
        return [seconds for (seconds,) in self._all(ENDS, {"since": due})]

    def ended(self, worker: str, outcome: str, since: dt.datetime) -> int:
        """How many attempts of that worker ended so."""
        said = {"since": since, "name": worker, "outcome": outcome}
        return int(self._all(ENDED, said)[0][0])

    def double_starts(self) -> int:
        return len(audit.run(self._connection, "double_starts", queue=SOURCE)[1])

    def registered(self, worker: str) -> bool:
        """Whether the worker of that name is at work."""
        query = "select from worker.workers where name = %s and stopped_at is null"
        return bool(self._all(query, [worker]))

    def _all(self, query: str, params: Any) -> list[tuple[Any, ...]]:
        return self._connection.execute(query.encode(), params).fetchall()
