"""What the tables and the payments API say: while it runs, and at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg

from worker import audit

LIVE = """
select count(*) filter (where owner is not null),
       count(*) filter (where owner is null and due_at <= now()),
       count(*) filter (where owner is null and due_at > now())
  from worker.jobs where queue = %s
"""
FINISHED = """
select count(*) filter (where state = 'done'), count(*) filter (where state <> 'done')
  from worker.jobs_finished where queue = %s and finished_at >= %s
"""
CREW = """
select w.pid, w.id, w.gone_at is not null, w.gone_at - w.heartbeat_at,
       (select count(*) from worker.jobs_finished f
         where f.worker = w.id and f.queue = %(queue)s and f.finished_at >= %(since)s),
       (select count(*) from worker.jobs j where j.owner = w.id and j.queue = %(queue)s)
  from worker.workers w where %(queue)s = any (w.queues)
"""
HELD = """
select (args ->> 'donation')::integer from worker.jobs where queue = %s and owner = %s
"""
ENDED = """
select outcome, count(*) from worker.attempt_log
 where queue = %s and ended_at >= %s
 group by outcome
"""
LEFT_BEHIND = """
select a.row_key from worker.attempts a
 where a.queue = %s and a.ended_at >= %s and a.outcome = 'crashed'
 order by a.row_key::bigint
 limit 1
"""


@dataclass(frozen=True, slots=True)
class Shift:
    """What the tables say of one worker. silence: seconds from its last heartbeat to when it was
    declared dead; charged: rows that it has done; holds: rows that it has claimed."""

    id: int
    gone: bool
    silence: float | None
    charged: int
    holds: int


@dataclass(frozen=True, slots=True)
class Progress:
    """Rows by what they are. later: they failed and wait for their next try."""

    done: int
    given_up: int
    running: int
    due: int
    later: int
    shifts: Mapping[int, Shift]  # by pid

    @property
    def live(self) -> int:
        return self.running + self.due + self.later


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether it is true. problems: why not, in sentences."""

    donations: int
    charged_once: int
    rows_done: int
    attempts: Mapping[str, int]  # by outcome
    double_starts: int
    requests: int
    faults: Mapping[str, int]
    replays: int
    conflicts: int
    seconds: float
    left_behind: int | None  # a row that the killed worker held
    problems: list[str] = field(default_factory=list)

    @property
    def true(self) -> bool:
        return not self.problems


class Figures:
    """Of one queue, from one moment on."""

    def __init__(self, connection: psycopg.Connection[Any], queue: str) -> None:
        self._connection = connection
        self._queue = queue
        self._since = self._row("select now()")[0]

    def progress(self) -> Progress:
        running, due, later = self._row(LIVE, self._queue)
        done, given_up = self._row(FINISHED, self._queue, self._since)
        asked = {"queue": self._queue, "since": self._since}
        shifts = {
            pid: Shift(id, gone, silence and silence.total_seconds(), charged, holds)
            for pid, id, gone, silence, charged, holds in self._connection.execute(CREW, asked)
        }
        return Progress(done, given_up, running, due, later, shifts)

    def held_by(self, worker: int) -> set[int]:
        """The donations that it has claimed and not settled."""
        return {row[0] for row in self._connection.execute(HELD, [self._queue, worker])}

    def verdict(
        self, donations: Mapping[int, int], ledger: Mapping[str, Any], seconds: float
    ) -> Verdict:
        """donations: cents by donation, as they were enqueued. ledger: what the API says."""
        found = self.progress()
        attempts = dict(self._connection.execute(ENDED, [self._queue, self._since]).fetchall())
        _, double = audit.run(self._connection, "double_starts", queue=self._queue)
        left = self._connection.execute(LEFT_BEHIND, [self._queue, self._since]).fetchone()
        verdict = Verdict(
            donations=len(donations),
            charged_once=charged_once(donations, ledger["charges"]),
            rows_done=found.done,
            attempts=attempts,
            double_starts=len(double),
            requests=ledger["requests"],
            faults=ledger["faults"],
            replays=ledger["replays"],
            conflicts=ledger["conflicts"],
            seconds=round(seconds, 1),
            left_behind=None if left is None else int(left[0]),
        )
        verdict.problems.extend(_problems(verdict, donations, ledger["charges"]))
        return verdict

    def withdraw(self) -> None:
        """Deletes what is left of a demo that ends early. Its workers are gone."""
        self._connection.execute("delete from worker.jobs where queue = %s", [self._queue])

    def _row(self, sql: str, *params: object) -> tuple[Any, ...]:
        row = self._connection.execute(sql, params).fetchone()
        assert row is not None
        return tuple(row)


def charged_once(donations: Mapping[int, int], charges: list[dict[str, Any]]) -> int:
    """How many donations have exactly one charge in the ledger, of the right amount."""
    times = Counter(charge["donation"] for charge in charges)
    right = {
        charge["donation"]
        for charge in charges
        if donations.get(charge["donation"]) == charge["cents"]
    }
    return sum(1 for donation in donations if times[donation] == 1 and donation in right)


def _problems(
    verdict: Verdict, donations: Mapping[int, int], charges: list[dict[str, Any]]
) -> list[str]:
    times = Counter(charge["donation"] for charge in charges)
    missing = sum(1 for donation in donations if not times[donation])
    twice = sum(1 for donation in donations if times[donation] > 1)
    wrong = len(donations) - verdict.charged_once - missing - twice
    unknown = sum(1 for donation in times if donation not in donations)
    found = {
        f"{missing} donations were never charged": missing,
        f"{twice} donations were charged more than once": twice,
        f"{wrong} donations were charged a wrong amount": wrong,
        f"{unknown} charges are for donations that nobody made": unknown,
        f"{verdict.conflicts} requests used a key again with another body": verdict.conflicts,
        f"{verdict.donations - verdict.rows_done} rows are not done": verdict.donations
        - verdict.rows_done,
        f"{verdict.double_starts} rows were in two hands at once": verdict.double_starts,
    }
    return [problem for problem, count in found.items() if count]
