"""All that is known of a run: the ledger, the recorded changes, the tables, and the faults."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg

from tests.chaos import ledger
from tests.chaos.ledger import Run
from tests.chaos.workload import Final, Live, Workload


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one live row; the columns are those of chaos.changes."""

    seq: int
    at: float
    transaction: int
    key: str
    what: str
    old_owner: int | None
    new_owner: int | None
    old_token: int | None
    new_token: int | None
    old_attempt: int | None
    new_attempt: int | None
    old_crashes: int | None
    new_crashes: int | None


@dataclass(frozen=True, slots=True)
class WorkerLife:
    """A row of worker.workers. Times are seconds of the wall clock, lease is in seconds."""

    id: int
    pid: int
    lease: float
    started: float
    heartbeat: float
    stopped: float | None
    gone: float | None
    lost: int


@dataclass
class History:
    """What the checker reads.

    acknowledged: keys of rows whose enqueue was committed. finished: whether the run went on until
    every row was final. deaths: when each process ended, by pid; killed: those that were killed
    or ended by their handlers. claim_limit: rows that one claim may take.
    """

    acknowledged: list[str]
    runs: list[Run]
    changes: list[Change]
    finals: list[Final]
    live: list[Live]
    workers: dict[int, WorkerLife]
    attempts: dict[tuple[str, int], set[str]]
    effects: list[tuple[str, int]]
    finished: bool
    deaths: Mapping[int, float] = field(default_factory=dict)
    killed: frozenset[int] = frozenset()
    claim_limit: int = 500

    @cached_property
    def runs_of(self) -> dict[str, list[Run]]:
        return _by_key(self.runs)

    @cached_property
    def changes_of(self) -> dict[str, list[Change]]:
        return _by_key(self.changes)

    @cached_property
    def final_of(self) -> dict[str, Final]:
        return {final.key: final for final in self.finals}

    def end_of(self, run: Run) -> float:
        """When a run surely was over: at its end, or with its process."""
        return run.ended if run.ended is not None else self.deaths.get(run.pid, float("inf"))

    def overlap(self, one: Run, other: Run) -> float:
        """Seconds for which both ran; at most 0 if they never did."""
        return min(self.end_of(one), self.end_of(other)) - max(one.started, other.started)

    def tell(self, key: str) -> str:
        """All that happened to one row, in the order of time."""
        lines: list[tuple[float, str]] = []
        for change in self.changes_of.get(key, []):
            told = " ".join(
                f"{name} {old}->{new}"
                for name, old, new in (
                    ("owner", change.old_owner, change.new_owner),
                    ("token", change.old_token, change.new_token),
                    ("attempt", change.old_attempt, change.new_attempt),
                    ("crashes", change.old_crashes, change.new_crashes),
                )
                if old != new or name == "token"
            )
            lines.append((change.at, f"table   {change.what.lower():7} {told}"))
        for run in self.runs_of.get(key, []):
            who = f"token {run.token} attempt {run.attempt} worker {run.worker} pid {run.pid}"
            lines.append((run.started, f"handler start   {who}"))
            if run.ended is not None:
                lines.append((run.ended, f"handler {run.how:7} {who}"))
            elif run.pid in self.deaths:
                lines.append((self.deaths[run.pid], f"process ended   {who}"))
        lines += [(float("inf"), f"final   {f}") for f in self.finals if f.key == key]
        lines.sort()
        begin = lines[0][0] if lines else 0.0
        return "\n".join(
            f"    {'' if at == float('inf') else f'{at - begin:8.3f}':8}  {text}"
            for at, text in lines
        )


def gather(
    workload: Workload,
    db: psycopg.Connection[Any],
    directory: Path,
    acknowledged: Iterable[str],
    *,
    finished: bool,
    deaths: Mapping[int, float],
    killed: Iterable[int],
    claim_limit: int = 500,
) -> History:
    """Reads everything; `db` is in autocommit mode, and no worker runs any more."""
    changes = db.execute(
        """select seq, extract(epoch from at)::float8, transaction, key, what, old_owner, new_owner,
                  old_token, new_token, old_attempt, new_attempt, old_crashes, new_crashes
             from chaos.changes where source = %s order by seq""",
        [workload.source],
    )
    workers = db.execute(
        """select id, pid, extract(epoch from lease)::float8,
                  extract(epoch from started_at)::float8,
                  extract(epoch from heartbeat_at)::float8,
                  extract(epoch from stopped_at)::float8,
                  extract(epoch from gone_at)::float8, lost
             from worker.workers"""
    )
    attempts: dict[tuple[str, int], set[str]] = defaultdict(set)
    for key, token, outcome in db.execute(
        "select row_key, token, outcome from worker.attempts where source = %s", [workload.source]
    ):
        attempts[key, token].add(outcome)
    effects = db.execute(
        "select key, token from chaos.effects where source = %s", [workload.source]
    )
    return History(
        acknowledged=list(acknowledged),
        runs=[run for run in ledger.read(directory / "ledger") if run.source == workload.source],
        changes=[Change(*row) for row in changes],
        finals=workload.finals(db),
        live=workload.live(db),
        workers={life.id: life for life in (WorkerLife(*row) for row in workers)},
        attempts=dict(attempts),
        effects=effects.fetchall(),
        finished=finished,
        deaths=deaths,
        killed=frozenset(killed),
        claim_limit=claim_limit,
    )


def events(directory: Path) -> list[dict[str, Any]]:
    """What the workers' observer noted: dicts with `event`, `pid`, `at` and the event's fields."""
    path = directory / "events"
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]  # the last may be half written
    return [json.loads(line) for line in lines]


def _by_key(items: Iterable[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = defaultdict(list)
    for item in items:
        found[item.key].append(item)
    return found
