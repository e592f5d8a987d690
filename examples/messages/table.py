"""The example's table: made, filled, and asked."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from examples.common.tables import create
from examples.messages.app import KIND, app
from worker import audit

TABLES = Path(__file__).with_name("tables.sql")

# The providers' messages are mixed as they fall due.
SEED = """
insert into example_messages.conversations (provider, contact, next_question_scheduled_for)
select provider, provider || ' ' || n, %(due)s + n * interval '1 microsecond'
  from unnest(%(providers)s::text[], %(counts)s::int[]) as p(provider, count),
       generate_series(1, count) n
"""
SENT = """
select provider, count(*) from example_messages.conversations where question > 1 group by provider
"""
LAST = """
select extract(epoch from max(ended_at) - %(since)s)::float8 from worker.attempts
 where source = %(source)s and ended_at >= %(since)s and outcome = 'done'
"""
ATTEMPTS = """
select outcome, count(*), max(attempt) from worker.attempts
 where source = %(source)s and ended_at >= %(since)s group by outcome
"""
HELD = "select from example_messages.conversations where duerow_owner is not null limit 1"
# What every session is told to have done with the table when it has ended.
WORK = """
select coalesce(t.seq_scan + t.idx_scan, 0), t.seq_tup_read + coalesce(t.idx_tup_fetch, 0),
       t.n_tup_ins + t.n_tup_upd + t.n_tup_del
  from pg_stat_user_tables t where t.relid = 'example_messages.conversations'::regclass
"""
CONNECTIONS = """
select count(*) from pg_stat_activity
 where datname = current_database() and application_name like 'duerow%%'
"""


@dataclass(frozen=True, slots=True)
class Work:
    """What Postgres counts for the table. scans: of it or of one of its indexes."""

    scans: int
    rows_read: int
    rows_written: int

    def since(self, before: Work) -> Work:
        return Work(
            self.scans - before.scans,
            self.rows_read - before.rows_read,
            self.rows_written - before.rows_written,
        )


@dataclass(frozen=True, slots=True)
class Attempts:
    count: int
    highest: int


class Conversations:
    """connection: autocommit."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def create(self) -> str:
        """Makes the table anew and adopts it; the command for the latter."""
        return create(self._connection, TABLES, app.registry.get(KIND))

    def seed(self, counts: Mapping[str, int], due_in: float) -> dt.datetime:
        """Replaces all conversations by so many of each provider. due_in: real seconds from now
        until they are due. Gives that moment."""
        self.clear()
        query = "select clock_timestamp() + make_interval(secs => %s)"
        [(due,)] = self._all(query, [due_in])
        said = {"providers": list(counts), "counts": list(counts.values()), "due": due}
        self._connection.execute(SEED.encode(), said)
        self._connection.execute("analyze example_messages.conversations")
        assert isinstance(due, dt.datetime)
        return due

    def clear(self) -> None:
        """Waits until no worker has a row in hand."""
        self._connection.execute("update example_messages.conversations set open = false")
        while self._all(HELD, None):
            time.sleep(0.02)
        self._connection.execute("delete from example_messages.conversations")

    def sent(self) -> dict[str, int]:
        """How many messages, by provider."""
        return dict(self._all(SENT, None))

    def last_end(self, since: dt.datetime) -> float:
        """Real seconds until the last message was sent."""
        [(seconds,)] = self._all(LAST, {"since": since, "source": KIND})
        return float(seconds or 0)

    def attempts(self, since: dt.datetime) -> dict[str, Attempts]:
        """By outcome."""
        found = self._all(ATTEMPTS, {"since": since, "source": KIND})
        return {outcome: Attempts(count, highest) for outcome, count, highest in found}

    def double_starts(self) -> int:
        return len(audit.run(self._connection, "double_starts", queue=KIND)[1])

    def work(self) -> Work:
        return Work(*self._all(WORK, None)[0])

    def connections(self) -> int:
        """How many the workers have open."""
        return int(self._all(CONNECTIONS, [])[0][0])

    def registered(self, worker: str) -> bool:
        """Whether the worker of that name is at work."""
        query = "select from worker.workers where name = %s and stopped_at is null"
        return bool(self._all(query, [worker]))

    def forget_limits(self) -> None:
        """What the app said of limits; a table of an example's own database alone would not need
        it."""
        self._connection.execute("delete from worker.gates where kind = %s", [KIND])

    def _all(self, query: str, params: Any) -> list[tuple[Any, ...]]:
        return self._connection.execute(query.encode(), params).fetchall()
