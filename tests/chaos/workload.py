"""What the workers of a run work on: a table of due rows, and how to read what became of them.

The runs know only the class `Workload`, so that the same ones can be done on another table.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

RECORD = Path(__file__).parent / "record.sql"


@dataclass(frozen=True, slots=True)
class Final:
    """A row in a final state, and the claim that brought it there."""

    key: str
    kind: str
    state: str
    token: int
    worker: int | None
    attempt: int
    max_attempts: int | None
    crashes: int
    ran: bool  # settled by its worker, rather than by a sweep


@dataclass(frozen=True, slots=True)
class Live:
    """A row in no final state. owner: the worker that has claimed it."""

    key: str
    owner: int | None
    token: int
    attempt: int


class Workload(ABC):
    """One source of rows, and the app that runs them. Connections are in autocommit mode.

    has_priorities: whether rows have a priority, and a limit of attempts of their own; has_queues:
    whether they have queues, so that each worker can have rows apart.
    """

    source: str
    app: str
    has_priorities = False
    has_queues = False

    def prepare(self, db: psycopg.Connection[Any], url: str) -> None:
        """Makes the table, if it is not there, and the trigger that records its changes."""
        db.execute(RECORD.read_bytes())

    def meddling(self, url: str) -> AbstractContextManager[None]:
        """Around the run: what others do to the table meanwhile."""
        return nullcontext()

    def app_for(self, kind: str) -> str:
        """The app whose handler runs rows of that kind."""
        return self.app

    def put_off(self, db: psycopg.Connection[Any]) -> None:
        """Lets none of the rows that are left be due any more."""
        raise NotImplementedError

    @abstractmethod
    def give_back(self, db: psycopg.Connection[Any], pid: int) -> int:
        """Gives back, as its worker should have done, what a process that is no more has left
        claimed; how many rows that were."""

    @abstractmethod
    def load(
        self,
        db: psycopg.Connection[Any],
        count: int,
        kind: str,
        args: Mapping[str, Any],
        **columns: Any,
    ) -> list[str]:
        """Adds `count` rows that are due; their keys, once they are committed."""

    @abstractmethod
    def finals(self, db: psycopg.Connection[Any]) -> list[Final]:
        """All rows in a final state; a row that got there twice stands there twice."""

    @abstractmethod
    def live(self, db: psycopg.Connection[Any]) -> list[Live]: ...

    @abstractmethod
    def unfinished(self, db: psycopg.Connection[Any]) -> int:
        """How many rows are in no final state."""


class Jobs(Workload):
    """The built-in table."""

    source = "jobs"
    app = "tests.chaos.handlers:app"
    has_priorities = True
    has_queues = True

    def give_back(self, db: psycopg.Connection[Any], pid: int) -> int:
        return db.execute(
            """update worker.jobs set owner = null, claimed_at = null, attempt = attempt - 1
                where owner in (select id from worker.workers where pid = %s)""",
            [pid],
        ).rowcount

    def load(
        self,
        db: psycopg.Connection[Any],
        count: int,
        kind: str,
        args: Mapping[str, Any],
        **columns: Any,
    ) -> list[str]:
        rows = db.execute(
            """select worker.enqueue(
                          %(kind)s, %(args)s::jsonb, queue => %(queue)s, priority => %(priority)s,
                          max_attempts => %(max_attempts)s, tenant => %(tenant)s,
                          in_ => make_interval(secs => %(delay)s))
                 from generate_series(1, %(count)s)""",
            {
                "kind": kind,
                "args": json.dumps(dict(args)),
                "count": count,
                "queue": "default",
                "priority": 0,
                "max_attempts": None,
                "tenant": None,
                "delay": 0,
                **columns,
            },
        ).fetchall()
        return [str(key) for (key,) in rows]

    def finals(self, db: psycopg.Connection[Any]) -> list[Final]:
        rows = db.execute(
            """select id::text, kind, state, token, worker, attempt, max_attempts, crashes,
                      run_ms is not null
                 from worker.jobs_finished"""
        )
        return [Final(*row) for row in rows]

    def live(self, db: psycopg.Connection[Any]) -> list[Live]:
        rows = db.execute("select id::text, owner, token, attempt from worker.jobs")
        return [Live(*row) for row in rows]

    def unfinished(self, db: psycopg.Connection[Any]) -> int:
        [count] = db.execute("select count(*) from worker.jobs").fetchone() or [0]
        return int(count)
