"""What the scenario asks to be shown, each as a value."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.common import http
from examples.common.clock import Clock
from examples.common.crew import Crew, Member
from examples.common.ideal import ideal, in_batches
from examples.donations.api import LATENCY
from examples.donations.table import Count, Recovery, Table, Wait
from worker.demo.figures import charged_once
from worker.errors import DuerowError
from worker.url import DatabaseURL

APP = "examples.donations.app:app"
REPLICAS = 4
SLOTS = 25  # of each
ERRORS = 0.1  # share of the API's requests that fail
DECLINED = 0.02  # share of the donations whose card does not pay
KILL_AT = 0.25  # of the rows settled
STOP_AT = 0.5
BATCH = 50  # of the original's first fix
LEAD = 1.0  # real seconds from filling the table to the due time
PATIENCE = 60.0  # real seconds without any progress
MEMORY = 512  # MB that a worker may take

# A worker that is idle looks at the table as often as this: nobody tells it of new rows.
LOOK = ("--concurrency", str(SLOTS), "--poll-interval", "100ms", "--poll-max", "250ms")


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds of the scenario. most: until 95 % were charged. once: how many the API has charged
    once a month. new_keys: how many under another key in the second month; None in the first."""

    donations: int
    errors: float
    seconds: float
    most: float
    ideal: float
    was: float  # one after another
    batches: float  # the first fix, without any error
    once: int
    new_keys: int | None


@dataclass(frozen=True, slots=True)
class Trouble:
    """Of a run on which a worker was killed and another stopped."""

    donations: int
    declined: int
    settled: Count
    once: int  # charged exactly once in the API's ledger, of those whose card pays
    declined_charged: int
    right_dead: bool  # the dead rows are those whose card is declined
    recovery: Recovery
    faults: Mapping[str, int]
    replays: int
    conflicts: int
    waits: Sequence[Wait]
    outcomes: Mapping[str, int]
    killed_with: int
    stop_code: int | None
    double_starts: int
    seconds: float

    @property
    def problems(self) -> list[str]:
        """Why it is not as it should be, in sentences."""
        pay = self.donations - self.declined
        again = [one for one in self.waits if one.outcome == "retry"]
        dead = [one for one in self.waits if one.outcome == "dead"]
        found = {
            f"{pay - self.once} donations were not charged exactly once": self.once != pay,
            f"{self.declined_charged} were charged although declined": self.declined_charged,
            "the dead rows are not those whose card is declined": not self.right_dead,
            "transient failures were not recovered": unrecovered(self.recovery),
            "a retry did not come after 2, 4 or 8 s": not all(map(_as_agreed, again)),
            "a permanent error was tried again": any(one.error == "Declined" for one in again),
            "a row died of another error than its card": any(
                one.error != "Declined" for one in dead
            ),
            "the killed worker held nothing": not self.killed_with,
            f"the stopped worker ended with {self.stop_code}": self.stop_code != 0,
            "an idempotency key was used for two charges": self.conflicts,
            "a row was in two hands at once": self.double_starts,
            "no answer of the API was lost": not self.replays,
        }
        return [problem for problem, wrong in found.items() if wrong]


@dataclass(frozen=True, slots=True)
class Memory:
    """peaks: MB of each worker, from /proc. per_second: rows, in real seconds."""

    donations: int
    peaks: Sequence[float]
    once: int
    per_second: float


class Scenes:
    def __init__(self, crew: Crew, table: Table, clock: Clock, url: DatabaseURL) -> None:
        self._url = url
        self._crew = crew
        self._table = table
        self._clock = clock
        self._workers: list[Member] = []

    def start(self) -> None:
        """As many workers as are missing, at work."""
        while len(self._workers) < REPLICAS:
            url = self._crew.api_url
            self._workers.append(self._crew.start(APP, *LOOK, PAYMENTS_URL=url))
        names = [worker.name for worker in self._workers]
        self._until(lambda: sum(map(self._table.registered, names)), REPLICAS)

    def speed(self, donations: int = 100) -> list[Speed]:
        """So many fall due at once; and a month later again, when the API fails now and then."""
        self._errors(0)
        due = self._table.soon(LEAD)
        cents = self._table.seed(donations, due)
        first = self._timed(due, cents, 0, second=False)
        self._errors(ERRORS)
        due = self._table.soon(LEAD)
        self._table.due_again(due)
        return [first, self._timed(due, cents, ERRORS, second=True)]

    def trouble(self, donations: int = 1000) -> Trouble:
        """In the middle of it a worker is killed, and another is asked to stop."""
        self._errors(ERRORS)
        before = self._ledger()
        due = self._table.soon(LEAD)
        cents = self._table.seed(donations, due, round(donations * DECLINED))
        declined = self._table.declined()
        self._until_settled(due, KILL_AT * donations)
        killed = self._workers.pop(0)
        self._crew.kill(killed)
        self._until_settled(due, STOP_AT * donations)
        stopped = self._workers.pop(0)
        self._crew.stop(stopped)
        self._until_settled(due, donations)
        ledger = self._ledger()
        charges = [one for one in ledger["charges"] if one["donation"] in cents]
        paying = {donation: cents[donation] for donation in cents.keys() - declined}
        return Trouble(
            donations,
            len(declined),
            self._table.count(due),
            charged_once(paying, charges),
            sum(one["donation"] in declined for one in charges),
            self._table.dead() == declined,
            self._table.recovery(due),
            _since(before["faults"], ledger["faults"]),
            ledger["replays"] - before["replays"],
            ledger["conflicts"],
            self._told(self._table.waits(due)),
            self._table.outcomes(due),
            self._table.ended(killed.name, "crashed", due),
            stopped.process.returncode,
            self._table.double_starts(),
            self._clock.told(self._table.ends(due)[-1]),
        )

    def by_hand(self) -> tuple[int, int]:
        """The donors whose card was declined give another, and somebody retries the dead rows: how
        many those are, and how many of them the API has charged then, exactly once."""
        declined = self._table.declined()
        due = self._table.due()
        self._table.new_cards()
        retry = ["rows", "retry", "donations", "--error-type", "Declined", "--yes"]
        environment = {**os.environ, "DUEROW_DATABASE_URL": self._url.unmasked()}
        subprocess.run(
            [sys.executable, "-m", "worker", *retry, "--reason", "other cards"],
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        self._until(lambda: self._table.count(due).charged, self._table.count(due).rows)
        charges = Counter(one["donation"] for one in self._ledger()["charges"])
        return len(declined), sum(charges[donation] == 1 for donation in declined)

    def memory(self, donations: int = 10_000, until: float = 1.0) -> Memory:
        """All of them due at once, for fresh workers. until: the share that is waited for."""
        self._crew.stop_all()
        self._workers.clear()
        self.start()
        self._errors(ERRORS)
        due = self._table.soon(LEAD)
        cents = self._table.seed(donations, due)
        self._until_settled(due, until * donations)
        peaks = [peak_megabytes(worker.pid) for worker in self._workers]
        once = charged_once(cents, self._ledger()["charges"])
        ends = self._table.ends(due)
        return Memory(donations, peaks, once, len(ends) / ends[-1])

    def _timed(
        self, due: dt.datetime, cents: Mapping[str, int], errors: float, *, second: bool
    ) -> Speed:
        self._until_settled(due, len(cents))
        charges = [one for one in self._ledger()["charges"] if one["donation"] in cents]
        keys = Counter(one["donation"] for one in charges)
        seconds = [LATENCY] * len(cents)
        ends = [self._clock.told(end) for end in self._table.ends(due)]
        return Speed(
            len(cents),
            errors,
            ends[-1],
            ends[round(0.95 * len(ends)) - 1],
            ideal(seconds, REPLICAS * SLOTS),
            sum(seconds),
            in_batches(seconds, BATCH, 0),
            sum(times == 1 + second for times in keys.values()),
            len({one["key"] for one in charges}) // 2 if second else None,
        )

    def _told(self, waits: Sequence[Wait]) -> list[Wait]:
        """In the scenario's seconds."""
        return [
            Wait(
                one.error,
                one.attempt,
                one.outcome,
                one.times,
                one.shortest and self._clock.told(one.shortest),
                one.longest and self._clock.told(one.longest),
            )
            for one in waits
        ]

    def _errors(self, share: float) -> None:
        http.call("PUT", "/errors", {"share": share}, url=self._crew.api_url)

    def _ledger(self) -> dict[str, Any]:
        found: dict[str, Any] = http.call("GET", "/ledger", url=self._crew.api_url).body
        return found

    def _until_settled(self, due: dt.datetime, donations: float) -> None:
        self._until(lambda: self._table.count(due).settled, donations)

    def _until(self, count: Callable[[], int], wanted: float) -> None:
        """Waits until there are so many, as long as they become more."""
        before, given_up = -1, 0.0
        while (now := count()) < wanted:
            self._crew.check()
            if now != before:
                before, given_up = now, time.monotonic() + PATIENCE
            if time.monotonic() > given_up:
                raise DuerowError(
                    f"nothing has moved for {PATIENCE:g} s: {now} of {wanted:g}",
                    why="this machine is very busy, or a worker cannot reach the API",
                    hint="run it again",
                )
            time.sleep(0.05)


def _as_agreed(wait: Wait) -> bool:
    """Within a tenth of a second."""
    agreed = min(2.0**wait.attempt, 8.0)
    return all(seconds is not None and abs(seconds - agreed) < 0.1 for seconds in wait.between)


def unrecovered(recovery: Recovery) -> int:
    """Rows with a transient failure that were given up for another reason than their card; all of
    them if there was none to recover from."""
    if not recovery.rows:
        return 1
    return recovery.rows - recovery.charged - recovery.declined


def peak_megabytes(pid: int) -> float:
    """The most memory that a process has had resident so far, from /proc."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


def _since(before: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    return {what: count - before[what] for what, count in now.items()}
