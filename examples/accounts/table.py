"""The example's tables: made, filled, and asked."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from examples.accounts.app import app
from examples.common.tables import create

SOURCE = "accounts"
TABLES = Path(__file__).with_name("tables.sql")
SHARES = (0.5, 0.3, 0.2)  # of the accounts, by organisation: 50 + 30 + 20 in the reference case

SEED = """
with organisation as (
    insert into example_accounts.organisations
    select n, 'organisation ' || n from generate_series(1, cardinality(%(sizes)s)) n
), account as (
    select row_number() over (order by o.ordinality, n) as id, o.ordinality as organisation,
           (n - 1) / 10 as project
      from unnest(%(sizes)s) with ordinality o(size), generate_series(1, o.size) n
), project as (
    insert into example_accounts.projects
    select distinct organisation * 10000 + project, organisation, 'project ' || project from account
)
insert into example_accounts.accounts (id, organisation_id, project_id, handle, refresh_due_at)
select id, organisation, organisation * 10000 + project, '@user' || id,
       %(due)s + id * interval '1 microsecond'
  from account
"""
RUNS = """
select row_key::bigint, outcome, extract(epoch from started_at - %(since)s)::float8,
       extract(epoch from ended_at - %(since)s)::float8, tenant::bigint
  from worker.attempts
 where source = 'accounts' and ended_at >= %(since)s
 order by ended_at
"""
BY_WORKER = """
select w.name, count(*) from worker.attempts a join worker.workers w on w.id = a.worker
 where a.source = 'accounts' and a.ended_at >= %(since)s and a.outcome = 'done'
 group by w.name order by w.name
"""
CLAIMED = "select from example_accounts.accounts where duerow_owner is not null limit 1"
HELD_UNTIL = """
select id, refresh_due_at,
       case when duerow_held_for = refresh_due_at then duerow_retry_at else refresh_due_at end
  from example_accounts.accounts order by id
"""


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt. began, ended: seconds after the moment that was asked for."""

    account: int
    outcome: str
    began: float
    ended: float
    organisation: int


@dataclass(frozen=True, slots=True)
class Due:
    """When an account is due, and until when the jitter, or a retry, holds it back."""

    account: int
    due: dt.datetime
    held_until: dt.datetime


class Accounts:
    """connection: autocommit."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def create(self) -> str:
        """Makes the tables anew and adopts one; the command for the latter."""
        return create(self._connection, TABLES, app.registry.get(SOURCE))

    def seed(self, sizes: Sequence[int], due_in: float) -> dt.datetime:
        """Replaces all accounts by so many for each organisation, a microsecond apart, so that the
        order is known. due_in: real seconds from now until the first is due. Gives that moment."""
        self.retire()
        self._connection.execute("delete from example_accounts.organisations")
        [due] = self._one("select clock_timestamp() + make_interval(secs => %s)", due_in)
        self._connection.execute(SEED, {"sizes": list(sizes), "due": due})
        self._connection.execute("analyze example_accounts.accounts")
        found: dt.datetime = due
        return found

    def retire(self) -> None:
        """Waits until no worker has a row in hand. A handler that has updated its row locks its
        organisation when the row is settled; to delete that meanwhile would be a deadlock."""
        self._connection.execute("update example_accounts.accounts set active = false")
        while self._all(CLAIMED, {}):
            time.sleep(0.02)

    def runs(self, since: dt.datetime) -> list[Run]:
        """Every attempt that has ended since, in the order of their ends."""
        return [Run(*run) for run in self._all(RUNS, {"since": since})]

    def dues(self) -> list[Due]:
        return [Due(*row) for row in self._all(HELD_UNTIL, {})]

    def by_worker(self, since: dt.datetime) -> dict[str, int]:
        """How many accounts each worker has refreshed since, by its name."""
        return dict(self._all(BY_WORKER, {"since": since}))

    def registered(self, worker: str) -> bool:
        """Whether the worker of that name is at work."""
        query = "select from worker.workers where name = %s and stopped_at is null"
        return bool(self._all(query, [worker]))

    def _all(self, query: str, params: Any) -> list[tuple[Any, ...]]:
        return self._connection.execute(query.encode(), params).fetchall()

    def _one(self, query: str, *params: Any) -> tuple[Any, ...]:
        return self._all(query, params)[0]


def shared_out(accounts: int) -> list[int]:
    """So many accounts, by organisation."""
    sizes = [round(accounts * share) for share in SHARES]
    return [accounts - sum(sizes[1:]), *sizes[1:]]
