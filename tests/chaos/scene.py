"""A database, its rows and its workers: what every run begins with, and how it is judged."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import psycopg

from tests.chaos.checker import check, excuse, report
from tests.chaos.figures import Figures
from tests.chaos.fleet import Fleet
from tests.chaos.history import History, gather
from tests.chaos.ledger import Run, read
from tests.chaos.place import Place
from tests.chaos.workload import Workload


class Violated(AssertionError):
    """The checker found violations; the message tells them with what happened to the rows."""


@dataclass
class Scene:
    """One run at its place. `fleet` takes the keyword arguments."""

    place: Place
    fleet: Fleet
    workload: Workload
    acknowledged: list[str] = field(default_factory=list)
    _db: psycopg.Connection[Any] | None = None
    _others: ExitStack = field(default_factory=ExitStack)

    @classmethod
    def at(cls, place: Place, **fleet: Any) -> Scene:
        workload = place.workload()
        workers = Fleet(place.url, place.directory, sql=place.sql, **{"app": workload.app, **fleet})
        scene = cls(place, workers, workload)
        scene.workload.prepare(scene.db, place.url)
        return scene

    def __enter__(self) -> Scene:
        self._others.enter_context(self.workload.meddling(self.place.url))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.fleet.__exit__(kind, error, trace)
        self._others.close()
        if self._db is not None:
            self._db.close()

    @property
    def db(self) -> psycopg.Connection[Any]:
        """A connection in autocommit mode."""
        if self._db is None:
            self._db = psycopg.connect(self.place.url, autocommit=True)
        return self._db

    def server_was_away(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def one(self, sql: str, *parameters: Any) -> Any:
        """The single value that a query gives."""
        row = self.db.execute(sql, parameters).fetchone()
        return row[0] if row else None

    def load(self, count: int, kind: str = "work", columns: Any = None, **args: Any) -> list[str]:
        """Adds rows that are due; their keys. args: those of the handler."""
        keys = self.workload.load(self.db, count, kind, args, **(columns or {}))
        self.acknowledged += keys
        return keys

    def load_mixed(self, count: int, ms: tuple[float, float], failing: float = 0.1) -> None:
        """Rows of every kind of ordinary work, with run times spread over `ms`; the share
        `failing` of them fails once or twice before it succeeds."""
        kinds = {
            "work": 0.4,
            "work_in_thread": 0.15,
            "work_in_session": 0.15,
            "work_in_batch": 0.15,
            "work_in_batch_session": 0.15,
        }
        steps = 10
        for kind, share in kinds.items():
            each = round(count * share / steps)
            for step in range(steps):
                spread = ms[0] + (ms[1] - ms[0]) * step / (steps - 1)
                failures = round(each * failing)
                self.load(failures // 2, kind, ms=spread, fails=1)
                self.load(failures - failures // 2, kind, ms=spread, fails=2)
                self.load(each - failures, kind, ms=spread)

    def keep_busy(self, least: int, ms: tuple[float, float]) -> None:
        """Returns while at least so many rows are left: a fleet that was quicker than who looks at
        it is given as many anew."""

        def busy() -> bool:
            if self.workload.unfinished(self.db) >= least:
                return True
            self.load_mixed(2 * least, ms)
            return False

        self.fleet.until(busy)

    def runs(self) -> list[Run]:
        """What the ledger tells by now."""
        return read(self.place.directory / "ledger")

    def drained(self) -> bool:
        return self.workload.unfinished(self.db) == 0

    def history(self, *, finished: bool = True) -> History:
        """Ends what still runs, and gathers what is known."""
        return gather(
            self.workload,
            self.db,
            self.place.directory,
            self.acknowledged,
            finished=finished,
            deaths=self.fleet.deaths,
            killed=self.fleet.crashed,
            claim_limit=int(str(self.fleet.settings.get("claim_batch", 500))),
        )

    def judge(self, figures: Figures, *, finished: bool = True) -> History:
        """Adds what every run must show. Raises Violated when an invariant does not hold."""
        history = self.history(finished=finished)
        violations = check(history)
        states = Counter(final.state for final in history.finals)
        runs = Counter(run.key for run in history.runs)
        excuses = Counter(
            why
            for run in history.runs
            if (final := history.final_of.get(run.key)) is None or final.token != run.token
            if (why := excuse(history, run))
        )
        rows = len(history.acknowledged)
        figures.add("rows acknowledged", rows)
        figures.add("rows final", len(history.finals), exactly=rows if finished else None)
        for state, count in sorted(states.items()):
            figures.add(f"  {state}", count)
        figures.add(
            "rows lost", len([v for v in violations if v.rule == "nothing_lost"]), exactly=0
        )
        figures.add("executions", len(history.runs))
        for why, count in sorted(excuses.items()):
            figures.add(f"  repeated after {why}", count)
        figures.add("executions of one row, at most", max(runs.values(), default=0))
        figures.add("late results refused", sum(w.lost for w in history.workers.values()))
        figures.add("violations of the invariants", len(violations), exactly=0)
        if violations:
            raise Violated(f"{figures}\n{report(history, violations)}")
        return history
