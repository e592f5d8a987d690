"""What the example shows, a scene each. A scene fills the table, waits and tells figures.

Times are seconds of the scenario, as the database's log of attempts has them: a run counts as ended
when its result is committed.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from examples.common.crew import LOOK, Crew, Member
from examples.common.ideal import ends, ideal
from examples.common.stage import Stage
from examples.markets.api import OUTCOMES, seconds
from examples.markets.market import TIMEOUT, VARIABLE
from examples.markets.pool import PoolUse, PoolWatch, health_of, told
from examples.markets.table import Markets, Run

API = "examples.markets.api"
APPS = {"async def": "examples.markets.app:app", "def": "examples.markets.threads:app"}
WAYS = tuple(APPS)
MARKETS = 20
LEAD = 1.0  # real seconds from filling the table to the first due time
PATIENT = {VARIABLE: "600"}  # where a timeout is not what is shown


@dataclass(frozen=True, slots=True)
class Speed:
    """missing: markets without exactly their predictions."""

    slots: int
    seconds: float
    ideal: float
    one_by_one: float
    missing: int
    pool: PoolUse


@dataclass(frozen=True, slots=True)
class Hang:
    """late: real seconds from the timeout of the market that hangs until its slot was free: a
    thread that blocks is given a moment to end. seconds, ideal: of the others."""

    late: float
    outcome: str
    error: str | None
    seconds: float
    ideal: float
    others: int
    pool: PoolUse


@dataclass(frozen=True, slots=True)
class Kill:
    """Predictions of one market: written by the session that was killed, there after the kill, and
    there once it has run again. claimed: whether it still was after the kill. outcomes: of its
    attempts. told: sessions in use and the pool's size, by the health endpoint before the kill."""

    written: int
    after: int
    again: int
    outcomes: Sequence[str]
    claimed: bool
    told: tuple[int, int]


class Scenes:
    """way: a key of APPS, each time."""

    def __init__(self, stage: Stage, crew: Crew, markets: Markets) -> None:
        self._clock = stage.clock
        self._url = stage.url
        self._crew = crew
        self._markets = markets
        self._health = ""  # where the last worker tells how it is

    def worker(self, way: str, slots: int, pool: int, **variables: str) -> Member:
        """One more, at work."""
        size = ("--concurrency", str(slots), "--pool-size", str(pool))
        member = self._crew.start(APPS[way], *LOOK, *size, "--health", "127.0.0.1:0", **variables)
        self._health = self._crew.until(lambda: health_of(member))
        return member

    def speed(self, way: str, slots: int = 3, pool: int = 3) -> Speed:
        """All markets fall due at once."""
        worker = self.worker(way, slots, pool, **PATIENT)
        due = self._markets.seed(MARKETS, LEAD)
        durations = [seconds(market) for market in range(1, MARKETS + 1)]
        least = ideal(durations, slots)
        with PoolWatch(self._url, pool, self._health) as watch:
            runs = self._ended(due, MARKETS, least, markets=MARKETS, outcomes=("done",))
        self._crew.stop(worker)
        counts = self._markets.predictions().values()
        return Speed(
            slots,
            self._clock.told(runs[-1].ended),
            least,
            sum(durations),
            sum(count != len(OUTCOMES) for count in counts),
            watch.found,
        )

    def hang(self, way: str, slots: int = 3, pool: int = 3, hangs: int = 7) -> Hang:
        """One market's news are never answered."""
        self._crew.faults({f"/markets/M{hangs}/news": {"latency": None}})
        worker = self.worker(way, slots, pool)
        due = self._markets.seed(MARKETS, LEAD)
        durations = [seconds(market) for market in range(1, MARKETS + 1)]
        durations[hangs - 1] = TIMEOUT
        with PoolWatch(self._url, pool, self._health) as watch:
            runs = self._ended(due, MARKETS, ideal(durations, slots), markets=MARKETS)
        self._crew.stop(worker)
        self._crew.faults({})
        others = [run for run in runs if run.market != hangs]
        hung = next(run for run in runs if run.market == hangs)  # its retry may have ended as well
        ended = ends(durations, slots)
        return Hang(
            hung.seconds - self._clock.real(TIMEOUT),
            hung.outcome,
            hung.error,
            self._clock.told(others[-1].ended),
            max(ended[: hangs - 1] + ended[hangs:]),
            len(others),
            watch.found,
        )

    def kill(self, way: str) -> Kill:
        """A worker is killed between its predictions and the row's completion.

        Whoever locks the row of the market holds up its completion, not the predictions; the API
        waits for that lock.
        """
        self._crew.faults({"/markets/M1/forecast": {"latency": None}})
        worker = self.worker(way, 1, 1, **PATIENT)
        due = self._markets.seed(1, LEAD)
        written = self._markets.written()
        self._crew.until(lambda: self._markets.claimed(1))
        with psycopg.connect(self._url.psycopg_conninfo()) as lock:
            lock.execute("select from example_markets.markets where id = 1 for no key update")
            self._crew.faults({})
            backend = self._crew.until(self._markets.waiting, self._clock.real(15))
            before = self._markets.written() - written
            pool = told(self._health)
            self._crew.kill(worker)
            lock.rollback()
        self._crew.until(lambda: not self._markets.alive(backend))
        after, claimed = self._markets.predictions()[1], self._markets.claimed(1)
        second = self.worker(way, 1, 1, **PATIENT)
        runs = self._ended(due, 2, 15)
        self._crew.stop(second)
        again = self._markets.predictions()[1]
        return Kill(before, after, again, [run.outcome for run in runs], claimed, pool)

    def _ended(
        self,
        due: dt.datetime,
        wanted: int,
        expected: float,
        markets: int = 1,
        outcomes: Sequence[str] = (),
    ) -> list[Run]:
        """The runs since `due`, once they are so many, and so many markets have had one with one of
        the outcomes (any, unless some are named)."""

        def found() -> list[Run] | None:
            runs = self._markets.runs(due)
            seen = {run.market for run in runs if not outcomes or run.outcome in outcomes}
            return runs if len(runs) >= wanted and len(seen) >= markets else None

        return self._crew.until(found, self._clock.real(expected))
