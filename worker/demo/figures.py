"""What the tables and the payments API say: while it runs, and at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg

from worker import audit
from worker.demo.table import Donations

ROWS = """
select count(*) filter (where next_charge_at > now()),
       count(*) filter (where duerow_state is not null),
       count(*) filter (where duerow_owner is not null),
       count(*) filter (where open and try_at <= now()),
       count(*) filter (where open and try_at > now())
  from {table} t,
       lateral (select next_charge_at <= now() and duerow_owner is null and duerow_state is null,
                       case when duerow_held_for = next_charge_at then duerow_retry_at
                            else next_charge_at end) as x (open, try_at)
"""
CREW = """
select w.pid, w.id, w.gone_at is not null, w.gone_at - w.heartbeat_at,
       coalesce(a.charged, 0), coalesce(t.holds, 0)
  from worker.workers w
  left join (select worker, count(*) as charged from worker.attempts
              where source = %(source)s and ended_at >= %(since)s and outcome = 'done'
              group by worker) a on a.worker = w.id
  left join (select duerow_owner, count(*) as holds from {table}
              where duerow_owner is not null
              group by duerow_owner) t on t.duerow_owner = w.id
 where %(source)s = any (w.queues)
"""
HELD = "select id::text from {table} where duerow_owner = %s"
ENDED = """
select outcome, count(*) from worker.attempts where source = %s and ended_at >= %s group by outcome
"""
LEFT_BEHIND = """
select row_key from worker.attempts
 where source = %s and ended_at >= %s and outcome = 'crashed'
 order by started_at, row_key
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
    source: str
    left_behind: str | None  # a row that the killed worker held
    problems: list[str] = field(default_factory=list)

    @property
    def true(self) -> bool:
        return not self.problems


class Figures:
    """Of one table, from one moment on."""

    def __init__(self, connection: psycopg.Connection[Any], table: Donations) -> None:
        self._connection = connection
        self._table = table
        self._source = table.schema
        [self._since] = self._all("select now()")[0]

    def progress(self) -> Progress:
        [(done, given_up, running, due, later)] = self._all(ROWS)
        found = self._all(CREW, {"source": self._source, "since": self._since})
        shifts = {
            pid: Shift(id, gone, silence and silence.total_seconds(), charged, holds)
            for pid, id, gone, silence, charged, holds in found
        }
        return Progress(done, given_up, running, due, later, shifts)

    def held_by(self, worker: int) -> set[str]:
        """The donations that it has claimed and not settled."""
        return {donation for (donation,) in self._all(HELD, [worker])}

    def verdict(
        self, donations: Mapping[str, int], ledger: Mapping[str, Any], seconds: float
    ) -> Verdict:
        """donations: cents by donation, as they were made. ledger: what the API says."""
        found = self.progress()
        attempts = dict(self._all(ENDED, [self._source, self._since]))
        _, double = audit.run(self._connection, "double_starts", queue=self._source)
        left = self._all(LEFT_BEHIND, [self._source, self._since])
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
            source=self._source,
            left_behind=left[0][0] if left else None,
        )
        verdict.problems.extend(_problems(verdict, donations, ledger["charges"]))
        return verdict

    def _all(self, query: str, params: Any = None) -> list[tuple[Any, ...]]:
        return self._connection.execute(self._table.filled(query), params).fetchall()


def charged_once(donations: Mapping[str, int], charges: list[dict[str, Any]]) -> int:
    """How many donations have exactly one charge in the ledger, of the right amount."""
    times = Counter(charge["donation"] for charge in charges)
    right = {
        charge["donation"]
        for charge in charges
        if donations.get(charge["donation"]) == charge["cents"]
    }
    return sum(1 for donation in donations if times[donation] == 1 and donation in right)


def _problems(
    verdict: Verdict, donations: Mapping[str, int], charges: list[dict[str, Any]]
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
