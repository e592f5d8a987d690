"""What the example shows, a scene each. A scene fills the table, waits and tells figures.

Times are seconds of the scenario, as the database has them: a run begins when its worker has
registered, and an order counts as tracked when its result is committed.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from examples.common import http
from examples.common.crew import GRACE, Crew, Member
from examples.common.stage import Stage
from examples.orders.api import MOST, seconds
from examples.orders.original import LIMIT, all_clients, in_batches
from examples.orders.table import Orders, Span
from examples.orders.watch import ALERTS, Watch

API = "examples.orders.api"
APP = "examples.orders.app:app"
SLOTS = 2
PER_TENANT = 10  # as the app says
BUDGET = LIMIT - 60.0  # claiming ends a minute before the limit: what runs must end as well
MINUTE = 60.0
BY_HAND = 500  # rows
RUNS_MOST = 8

# Of 20 clients, the largest first, so that first come first served would be the worst for most.
SIZES = (
    10_000, 1000, 500, 200, 200, 100, 100, 100, 50, 50,
    50, 20, 20, 20, 10, 10, 5, 5, 2, 1,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ended:
    """A run of `worker drain`. said: the counts that it gives. late: seconds after the end of its
    budget at which it began its last call, over: after the limit of 25 minutes at which it had
    ended; real ones, less than 0 if before."""

    code: int
    said: dict[str, int]
    span: Span
    late: float
    over: float


@dataclass(frozen=True, slots=True)
class Client:
    """seconds: from the first run's start until its last order; None if that was in a later run.
    place: how many orders of all clients were tracked by then. queued: the same if it had to wait
    for all that fell due before; share: if each had the same share until it is through. was,
    batches: the run in which the original would have come to its last order, and its first fix."""

    orders: int
    seconds: float | None
    place: int
    queued: int
    share: int
    was: int
    batches: int


@dataclass(frozen=True, slots=True)
class Sample:
    """What somebody who watches has seen. seconds: since the run's start."""

    seconds: float
    numbers: dict[str, Any]
    alerts: Sequence[str]


@dataclass(frozen=True, slots=True)
class Runs:
    """runs: one after the other; by_hand: the one beside the first.
    tracked: how many numbers the carrier has answered for; twice: those more than once."""

    orders: int
    clients: list[Client]
    runs: list[Ended]
    by_hand: Ended
    overlapped: bool
    samples: list[Sample]
    calls: list[int]
    tracked: int
    twice: int
    double_starts: int
    fired_at: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answers:
    """Of a batch: how many numbers each call had, and how its rows ended."""

    calls: list[int]
    outcomes: dict[str, int]
    run: Ended


@dataclass(frozen=True, slots=True)
class Outage:
    """alerts, after: those that fire while the carrier is away, and once it has been back for a
    while. said: what each told. runs: of both times."""

    orders: int
    alerts: list[str]
    said: dict[str, dict[str, Any]]
    after: list[str]
    runs: list[Ended]


class Scenes:
    """On one clock, that of the stage and of the API."""

    def __init__(self, stage: Stage, crew: Crew, orders: Orders) -> None:
        self._clock = stage.clock
        self._crew = crew
        self._orders = orders
        self._watch = Watch(stage.connection, stage.clock)

    # -- runs of cron -----------------------------------------------------------------------------

    def runs(self) -> Runs:
        """Run after run until nothing is left; beside the first somebody starts one by hand."""
        since = self._orders.seed(SIZES)
        asked_before, calls_before = self._counted()
        first = self._drain()
        self._crew.until(lambda: self._orders.span(first.name))
        by_hand = self._drain("--max-rows", str(BY_HAND))
        samples = self._watched(first)
        ended = [self._ended(first)]
        hand = self._ended(by_hand)
        while ended[-1].said["left"] and len(ended) < RUNS_MOST:
            ended.append(self._ended(self._drain()))
        asked, calls = self._counted()
        numbers = Counter(asked) - Counter(asked_before)
        fired: dict[str, float] = {}
        for sample in samples:
            for alert in sample.alerts:
                fired.setdefault(alert, sample.seconds)
        return Runs(
            sum(SIZES),
            self._clients(since, ended[0]),
            ended,
            hand,
            _overlap(ended[0].span, hand.span),
            samples,
            calls[len(calls_before) :],
            len(numbers),
            sum(count > 1 for count in numbers.values()),
            self._orders.double_starts(),
            fired,
        )

    def _watched(self, run: Member) -> list[Sample]:
        """A look every minute, until the run has ended."""
        samples: list[Sample] = []
        span = self._crew.until(lambda: self._orders.span(run.name))
        while run.alive:
            now = self._so_far(run)
            if not samples or now >= samples[-1].seconds + MINUTE:
                alerts, numbers = self._watch.alerts(), self._watch.numbers()
                after = self._so_far(run)
                span = self._orders.span(run.name) or span
                if span.stopped is None:  # else it may have been of another run
                    samples.append(Sample(after, numbers, list(alerts)))
            self._crew.check()
            time.sleep(self._clock.real(MINUTE / 10))
        return samples

    def _so_far(self, run: Member) -> float:
        span = self._orders.span(run.name)
        return 0.0 if span is None else self._clock.told(span.seconds)

    def _clients(self, since: dt.datetime, first: Ended) -> list[Client]:
        ends = self._orders.ends(since)
        stopped = first.span.stopped
        assert stopped is not None
        began = (first.span.started - since).total_seconds()
        over = (stopped - since).total_seconds()
        was = all_clients(SIZES, seconds(1))
        batches = in_batches(SIZES, seconds(1))
        found = []
        for n, size in enumerate(SIZES, 1):
            ended, place = ends.get(n, (math.inf, sum(SIZES)))
            found.append(
                Client(
                    size,
                    self._clock.told(ended - began) if ended <= over else None,
                    place,
                    sum(SIZES[:n]),
                    sum(min(size, other) for other in SIZES),
                    was[n - 1],
                    batches[n - 1],
                )
            )
        return found

    # -- a batch ----------------------------------------------------------------------------------

    def answers(self) -> Answers:
        """Fifty orders in one call: 48 delivered, one to be asked about again, one unknown."""
        _, before = self._counted()
        since = self._orders.seed([MOST], {7: "BU", 31: "XX"})
        run = self._ended(self._drain())
        _, calls = self._counted()
        return Answers(calls[len(before) :], self._orders.outcomes(since), run)

    # -- the carrier is away ----------------------------------------------------------------------

    def outage(self, clients: int = 4, orders: int = 50) -> Outage:
        """Orders that have been due for twenty minutes, and a carrier that answers 503; a run later
        it is back. What an earlier example has done must not count: waits until it is old."""
        window = self._clock.real(15 * MINUTE)
        self._crew.until(lambda: not self._orders.tried_within(window), window)
        self._crew.faults({"/track": {"status": 503}})
        self._orders.seed([orders] * clients, ago=self._clock.real(20 * MINUTE))
        runs = [self._ended(self._drain())]
        said = self._watch.alerts()
        self._crew.faults({})
        self._crew.until(lambda: not self._orders.held_back(), self._clock.real(5 * MINUTE))
        runs.append(self._ended(self._drain()))
        self._crew.until(lambda: "error_rate" not in self._watch.alerts(), window)
        after = self._watch.alerts()
        return Outage(orders * clients, [a for a in ALERTS if a in said], said, list(after), runs)

    # -- all of them ------------------------------------------------------------------------------

    def _drain(self, *options: str) -> Member:
        """As cron starts it."""
        return self._crew.start(
            APP,
            *("--concurrency", str(SLOTS)),
            *("--max-seconds", f"{self._budget * 1000:.0f}ms"),
            *("--grace", f"{max(GRACE, self._clock.real(MINUTE)):.0f}s"),
            "--json",
            *options,
            verb="drain",
        )

    @property
    def _budget(self) -> float:
        return self._clock.real(BUDGET)

    def _ended(self, run: Member) -> Ended:
        """Waits for its end."""
        self._crew.until(lambda: not run.alive, self._clock.real(LIMIT))
        said = [line for line in run.said() if line.startswith("{")]
        span = self._orders.span(run.name)
        if span is None or not said:
            raise AssertionError("\n".join(run.said()))
        late = (span.last or 0.0) - self._budget
        over = span.seconds - self._clock.real(LIMIT)
        return Ended(run.process.returncode, json.loads(said[-1]), span, late, over)

    def _counted(self) -> tuple[dict[str, int], list[int]]:
        """By the carrier: how often each number was asked for, and how many each call had."""
        body = http.call("GET", "/counted", url=self._crew.api_url).body
        return body["numbers"], body["calls"]


def _overlap(one: Span, other: Span) -> bool:
    """Whether both were at work at the same time."""
    if one.stopped is None or other.stopped is None:
        return False
    return one.started < other.stopped and other.started < one.stopped
