"""What the example shows, a scene each. A scene fills the table, waits and tells figures.

Times are seconds of the scenario, as the database's log of attempts has them: a run counts as ended
when its result is committed.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from examples.accounts.api import LATENCY
from examples.accounts.table import SOURCE, Accounts, Run, shared_out
from examples.common.crew import LOOK, Crew, Member
from examples.common.ideal import ends, ideal, in_batches
from examples.common.stage import Stage
from worker import audit

API = "examples.accounts.api"
APP = "examples.accounts.app:app"
SLOTS = 10
EVERY = 300.0
JITTER = 60.0
PAUSE = 2.0  # between two accounts, in the original
BATCH_PAUSE = 1.0  # between two batches, in its first fix
STARTED_WITHIN = 2.0  # real seconds: how long a worker takes to be at work
LEAD = 1.0  # real seconds from filling the table to the first due time
SLOW = 60.0  # what the slow account takes,
SLOW_LEAST = 3.0  # but as many real seconds: others are through by then on any machine


@dataclass(frozen=True, slots=True)
class Speed:
    """was: one after another; batches: the first fix."""

    accounts: int
    seconds: float
    ideal: float
    was: float
    batches: float


@dataclass(frozen=True, slots=True)
class Spread:
    """counts: accounts that are to run in each second after the first due time. at_once: in the
    first second, if it were not for the jitter."""

    counts: Counter[int]
    at_once: int


@dataclass(frozen=True, slots=True)
class Trouble:
    """Of accounts of which one fails and one is slow. seconds, ideal: of the others. failing: the
    runs of the one that does. latency: of the slow one."""

    others: int
    seconds: float
    ideal: float
    slow_ended: float
    batches: float
    failing: Sequence[Run]
    latency: float = SLOW


@dataclass(frozen=True, slots=True)
class Overlap:
    """by_worker: refreshes, by the worker's name. refreshed: accounts for which the API has given a
    good answer; twice: accounts and due times for which it gave more than one; throttled: answers
    that were "slow down"."""

    accounts: int
    by_worker: dict[str, int]
    refreshed: int
    twice: int
    throttled: int
    double_starts: int


@dataclass(frozen=True, slots=True)
class Share:
    """Of a large and a small organisation that fall due together, the large one first. seconds:
    until the small one's last account was refreshed; ideal: on half of the slots; queued: if it had
    to wait behind the large one. meanwhile: accounts of the large one that were refreshed."""

    large: int
    small: int
    seconds: float
    ideal: float
    queued: float
    meanwhile: int


@dataclass(frozen=True, slots=True)
class Drift:
    """late: seconds that a run began after its due time, at most. off: real seconds by which the
    next due times differ from the ones that they should be, at most."""

    rounds: int
    late: float
    off: float


class Scenes:
    """On one clock, that of the stage and of the API. Workers are started by who plays."""

    def __init__(self, stage: Stage, crew: Crew, accounts: Accounts) -> None:
        self._connection = stage.connection
        self._clock = stage.clock
        self._crew = crew
        self._accounts = accounts

    def worker(self, *options: str, **variables: str) -> Member:
        """One more, at work."""
        member = self._crew.start(APP, "--concurrency", str(SLOTS), *LOOK, *options, **variables)
        self._crew.until(lambda: self._accounts.registered(member.name))
        return member

    def speed(self, accounts: int) -> Speed:
        """So many accounts fall due at once."""
        due = self._accounts.seed(shared_out(accounts), LEAD)
        seconds = [LATENCY] * accounts
        least = ideal(seconds, SLOTS)
        runs = self._done(due, accounts, least)
        return Speed(
            accounts,
            self._clock.told(runs[-1].ended),
            least,
            PAUSE * accounts,
            in_batches(seconds, SLOTS, BATCH_PAUSE),
        )

    def spread(self) -> Spread:
        """When the accounts that have just been refreshed are to run again."""
        found = self._accounts.dues()
        first = min(one.due for one in found)

        def second(moment: dt.datetime) -> int:
            return math.floor(self._clock.told((moment - first).total_seconds()))

        counts = Counter(second(one.held_until) for one in found)
        return Spread(counts, sum(second(one.due) == 0 for one in found))

    def trouble(self, accounts: int = 50, failing: int = 13, slow: int = 7) -> Trouble:
        """One account always fails, one takes a minute."""
        seconds = [LATENCY] * accounts
        seconds[slow - 1] = max(SLOW, self._clock.told(SLOW_LEAST))
        self._crew.faults(
            {
                f"/accounts/@user{failing}": {"status": 500},
                f"/accounts/@user{slow}": {"latency": seconds[slow - 1]},
            }
        )
        due = self._accounts.seed(shared_out(accounts), LEAD)
        expected = ends(seconds, SLOTS)
        done = self._done(due, accounts - 1, max(expected))
        failed = [run for run in self._accounts.runs(due) if run.account == failing]
        self._crew.faults({})
        others = [run for run in done if run.account != slow]
        [slow_ended] = [run.ended for run in done if run.account == slow]
        return Trouble(
            len(others),
            self._clock.told(others[-1].ended),
            max(expected[: slow - 1] + expected[slow:]),
            self._clock.told(slow_ended),
            in_batches(seconds, SLOTS, BATCH_PAUSE),
            failed,
            seconds[slow - 1],
        )

    def overlap(self) -> Overlap:
        """While the workers are at it another one starts, and so does a cron job."""
        accounts = self._long_enough()
        asked = len(self._crew.requests())
        due = self._accounts.seed(shared_out(accounts), LEAD)
        self._done(due, 1, 0)
        self.worker()
        cron = self._crew.start(APP, "--concurrency", str(SLOTS), verb="drain")
        self._done(due, accounts, ideal([LATENCY] * accounts, SLOTS))
        self._crew.until(lambda: not cron.alive)
        requests = self._crew.requests()[asked:]
        good = [seen for seen in requests if seen["status"] == 200]
        answered = Counter((seen["path"], seen["key"]) for seen in good)
        _, double = audit.run(self._connection, "double_starts", queue=SOURCE)
        return Overlap(
            accounts,
            self._accounts.by_worker(due),
            len({seen["path"] for seen in good}),
            sum(count > 1 for count in answered.values()),
            sum(seen["status"] == 429 for seen in requests),
            len(double),
        )

    def share(self, large: int = 10_000, small: int = 20) -> Share:
        """An organisation with so many accounts, and a small one."""
        due = self._accounts.seed([large, small], LEAD)
        least = ideal([LATENCY] * small, SLOTS // 2)

        def found() -> list[Run] | None:
            runs = [run for run in self._accounts.runs(due) if run.outcome == "done"]
            return runs if sum(run.organisation == 2 for run in runs) == small else None

        runs = self._crew.until(found, self._clock.real(least))
        last = max(run.ended for run in runs if run.organisation == 2)
        return Share(
            large,
            small,
            self._clock.told(last),
            least,
            ideal([LATENCY] * (large + small), SLOTS),
            sum(run.organisation == 1 and run.ended <= last for run in runs),
        )

    def _long_enough(self) -> int:
        """So many accounts that two workers are busy until two more have started."""
        waves = max(5, math.ceil(STARTED_WITHIN / self._clock.real(LATENCY)))
        return waves * 2 * SLOTS

    def from_due(self, accounts: int = 10, rounds: int = 2) -> Drift:
        """Rounds of accounts that are due five minutes after they were due."""
        due = self._accounts.seed(shared_out(accounts), LEAD)
        first = {one.account: one.due for one in self._accounts.dues()}
        every = dt.timedelta(seconds=self._clock.real(EVERY))
        runs = self._done(due, rounds * accounts, rounds * (EVERY + JITTER), rounds)
        off = [  # it may be several rounds later by now
            abs((one.due - first[one.account] + every / 2) % every - every / 2).total_seconds()
            for one in self._accounts.dues()
        ]
        late = max(run.began % self._clock.real(EVERY) for run in runs)
        return Drift(rounds, self._clock.told(late), max(off))

    def from_now(self, accounts: int = 10) -> Drift:
        """Accounts that are due five minutes after their refresh has ended. The workers must run
        with ACCOUNTS_AGAIN=now."""
        due = self._accounts.seed(shared_out(accounts), LEAD)
        runs = self._done(due, accounts, LATENCY)
        ended = {run.account: run.ended for run in runs}
        every = self._clock.real(EVERY)
        off = [
            abs((one.due - due).total_seconds() - ended[one.account] - every)
            for one in self._accounts.dues()
        ]
        return Drift(1, self._clock.told(max(run.began for run in runs)), max(off))

    def _done(self, due: dt.datetime, wanted: int, expected: float, rounds: int = 1) -> list[Run]:
        """The runs since `due` that went well, once they are so many; the first of each account, or
        the first `rounds`. expected: seconds."""

        def found() -> list[Run] | None:
            runs: list[Run] = []
            times: Counter[int] = Counter()
            for run in self._accounts.runs(due):
                if run.outcome == "done" and times[run.account] < rounds:
                    times[run.account] += 1
                    runs.append(run)
            return runs if len(runs) >= wanted else None

        return self._crew.until(found, self._clock.real(expected))
