"""What the scenario asks to be shown, each as a value.

Times are seconds of the scenario where nothing else is said. A provider's limit is of real seconds,
whatever the clock.
"""

from __future__ import annotations

import bisect
import datetime as dt
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from examples.common import http
from examples.common.crew import LOOK, Crew, Member
from examples.common.ideal import ideal
from examples.common.stage import Stage
from examples.messages.api import LATENCY
from examples.messages.table import Attempts, Conversations, Work

API = "examples.messages.api"
APP = "examples.messages.app:app"
SLOTS = 5
EVERY = 300.0
MOST = 30  # of the original's runs
LEAD = 1.0  # real seconds from filling the table to the due time
STEP_LEAST = 0.25  # real seconds that a call takes at least where those under way are counted
HEARD_WITHIN = 0.25  # real seconds in which every replica has heard of a throttle
PLAN = 60  # connections
POOL = 3  # sessions of each replica
STEPS = ("--concurrency", "3,10:5,51:7,101:10", "--claim-batch", "20,10:30,51:40,101:50")


@dataclass(frozen=True, slots=True)
class Idle:
    """Of a worker with nothing to do. looks: how often it asked for due rows. calls: of the
    providers."""

    seconds: float
    looks: int
    work: Work
    calls: int


@dataclass(frozen=True, slots=True)
class Speed:
    messages: int
    seconds: float
    ideal: float
    was: float
    runs: int


@dataclass(frozen=True, slots=True)
class Change:
    """Of the slots. at: real seconds since the epoch."""

    at: float
    slots: int
    before: int
    why: str


@dataclass(frozen=True, slots=True)
class Adapting:
    """throttled_at: when the provider first did, real seconds since the epoch."""

    messages: int
    due: float
    throttled_at: float
    changes: Sequence[Change]
    attempts: Mapping[str, Attempts]


@dataclass(frozen=True, slots=True)
class Step:
    """due: messages. slots, batch: as the settings say. at_once: calls, as the provider counts;
    claimed: rows of the largest claim."""

    due: int
    slots: int
    batch: int
    at_once: int
    claimed: int


@dataclass(frozen=True, slots=True)
class Throttle:
    """One provider throttles, another does not.

    answers: of 131051. heard: real seconds from the first of them to the last call before the time
    that it named; None if there was none. parked: calls after `within` and before that time.
    again: real seconds from that time to the first call after it. others: calls of the other
    provider meanwhile. within: what parked goes by.
    """

    replicas: int
    named: float
    answers: int
    heard: float | None
    parked: int
    again: float
    others: int
    sent: int
    messages: int
    attempts: Mapping[str, Attempts]
    connections: int
    within: float = HEARD_WITHIN


@dataclass(frozen=True, slots=True)
class Rate:
    """calls, used: within `seconds` real ones. busiest: calls in the fullest second."""

    replicas: int
    limit: int
    seconds: float
    calls: int
    busiest: int
    over: int
    connections: int

    @property
    def used(self) -> float:
        return self.calls / (self.limit * self.seconds)


class Scenes:
    def __init__(self, stage: Stage, crew: Crew, table: Conversations) -> None:
        self._clock = stage.clock
        self._crew = crew
        self._table = table

    def worker(self, *options: str, **variables: str) -> Member:
        """One more, at work."""
        return self.workers(1, *options, **variables)[0]

    def workers(self, count: int, *options: str, **variables: str) -> list[Member]:
        pool = ("--pool-size", str(POOL))
        members = [self._crew.start(APP, *LOOK, *pool, *options, **variables) for _ in range(count)]
        for member in members:
            self._crew.until(lambda name=member.name: self._table.registered(name))  # type: ignore[misc]
        return members

    # -- what one worker does ---------------------------------------------------------------------

    def idle(self, seconds: float) -> Idle:
        """A whole life of a worker, real seconds, with nothing due."""
        self._table.clear()
        self._forget()
        before = self._table.work()
        worker = self.worker("--concurrency", str(SLOTS), "--log-level", "debug")
        self._crew.until(lambda: any("row.claimed" in line for line in worker.said()))
        time.sleep(seconds)
        self._crew.stop(worker)
        looks = sum("row.claimed" in line for line in worker.said())
        calls = sum(len(counts["at"]) for counts in self._counts().values())
        work = self._table.work().since(before)
        return Idle(seconds, looks, work, calls)

    def speed(self, messages: int) -> Speed:
        """So many fall due at once, for a worker that is there."""
        due = self._table.seed({"north": messages}, LEAD)
        least = ideal([LATENCY] * messages, SLOTS)
        self._until_sent(messages, least)
        full, rest = divmod(messages, MOST)
        last = ideal([LATENCY] * (rest or min(messages, MOST)), SLOTS)
        runs = full + (rest > 0)
        told = self._clock.told(self._table.last_end(due))
        return Speed(messages, told, least, EVERY * max(0, runs - 1) + last, runs)

    def adapting(self, messages: int, throttle_at: int, seconds: float) -> Adapting:
        """A backlog for one worker of 2 to 40 slots; from its call of that number on its provider
        throttles for so many seconds."""
        self._forget()
        self._put("/throttle", {"north": [throttle_at, seconds]})
        worker = self.worker("--concurrency", "2-40")
        due = self._table.seed({"north": messages}, LEAD)
        self._until_sent(messages, seconds + messages * LATENCY / 2)
        self._crew.until(lambda: changes(worker)[-1].why == "idle")
        refused = self._counts()["north"]["refused"]
        found = changes(worker)
        attempts = self._table.attempts(due)
        self._crew.stop(worker)
        return Adapting(messages, due.timestamp(), min(refused), found, attempts)

    def step(self, due: int, slots: int, batch: int) -> Step:
        """So many are due when a worker with the fixed table of the scenario starts."""
        self._table.seed({"north": due}, 0)
        self._forget()
        latency = max(LATENCY, self._clock.told(STEP_LEAST))
        self._crew.faults({"/north/messages": {"latency": latency}})
        worker = self.worker(*STEPS, "--log-level", "debug")
        self._until_sent(due, ideal([latency] * due, 3))
        self._crew.stop(worker)
        self._crew.faults({})
        claims = [int(n) for line in worker.said() for n in re.findall(r"\bcount=(\d+)", line)]
        at_once = self._counts()["north"]["at_once"]
        return Step(due, slots, batch, at_once, max(claims))

    # -- what a fleet does ------------------------------------------------------------------------

    def throttle(
        self, replicas: int, messages: int, seconds: float = 20.0, within: float = HEARD_WITHIN
    ) -> Throttle:
        """Two providers; after a part of the calls one of them throttles. within: real seconds
        after which none of the replicas may call it any more."""
        self._forget()
        self._put("/throttle", {"north": [messages // 5, seconds]})
        self.workers(replicas, "--concurrency", str(SLOTS))
        due = self._table.seed({"north": messages, "south": messages}, LEAD)
        most = self._until_sent(2 * messages, seconds + messages * LATENCY)
        counts = self._counts()
        at, refused = sorted(counts["north"]["at"]), counts["north"]["refused"]
        first = min(refused)
        until = first + self._clock.real(seconds)
        meanwhile = [moment - first for moment in at if first < moment < until]
        again = next(moment for moment in at if moment >= until)
        self._crew.stop_all()
        return Throttle(
            replicas,
            self._clock.told(until - first),
            len(refused),
            max(meanwhile, default=None),
            sum(after > within for after in meanwhile),
            again - until,
            sum(first < moment < until for moment in counts["south"]["at"]),
            sum(self._table.sent().values()),
            2 * messages,
            self._table.attempts(due),
            most,
            within,
        )

    def rate(self, replicas: int, limit: int, margin: int, seconds: float) -> Rate:
        """More is due than a provider takes. margin: how much less the fleet is told. seconds: real
        ones, from the first call on."""
        self._table.clear()  # the first call is to be of what is seeded, not of what was left over
        self._forget()
        self._put("/limits", {"north": limit})
        slots = ("--concurrency", "24")
        self.workers(replicas, *slots, MESSAGES_LIMITS=f"north={limit - margin}")
        self._table.seed({"north": round(limit * (seconds + 3))}, 0)
        most = self._crew.until(lambda: self._counts().get("north", {}).get("at") and 1)
        ends = time.monotonic() + seconds + 0.2
        while time.monotonic() < ends:
            most = max(most, self._table.connections())
            time.sleep(0.1)
        counts = self._counts()["north"]
        at = sorted(counts["at"])
        self._crew.stop_all()
        self._put("/limits", {"north": None})
        self._table.forget_limits()
        calls = bisect.bisect_left(at, at[0] + seconds)
        return Rate(replicas, limit, seconds, calls, counts["busiest"], counts["over"], most)

    # ---------------------------------------------------------------------------------------------

    def _until_sent(self, messages: int, expected: float = 0.0) -> int:
        """The most connections meanwhile. expected: seconds until then."""
        most = 0

        def sent() -> bool:
            nonlocal most
            most = max(most, self._table.connections())
            return sum(self._table.sent().values()) >= messages

        self._crew.until(sent, self._clock.real(expected))
        return most

    def _forget(self) -> None:
        self._put("/counts", {})

    def _put(self, path: str, body: dict[str, Any]) -> None:
        http.call("PUT", path, body, url=self._crew.api_url)

    def _counts(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = http.call("GET", "/counts", url=self._crew.api_url).body
        return found


def changes(worker: Member) -> list[Change]:
    """Of its slots, from its log."""
    found = []
    for line in worker.log.read_text("utf-8", "replace").splitlines():
        if "worker.slots" in line:
            said = dict(re.findall(r"(\w+)=(\S+)", line))
            at = dt.datetime.fromisoformat(line.split()[0].replace("Z", "+00:00"))
            found.append(
                Change(at.timestamp(), int(said["slots"]), int(said["before"]), said["why"])
            )
    return found or [Change(0.0, 0, 0, "none")]
