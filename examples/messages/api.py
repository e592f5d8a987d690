"""Chat providers on the loopback: 2.5 seconds for a message, and error 131051 when they throttle.

python -m examples.messages.api

POST /north/messages  {"to": "+49 1", "question": 3}: 200; or 429 and {"error": {"code": 131051,
                      "retry_after": 12.5}}: nothing more for so many (real) seconds
PUT /limits           {"north": 30}: how many calls a provider takes in any (real) second; more are
                      throttled. Null: any number
PUT /throttle         {"north": [50, 20]}: from its 50th call on, for so many seconds of the
                      scenario, every call is
PUT /counts           {}: counts from nothing again
GET /counts           what each provider has counted: see Counts
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from dataclasses import asdict, dataclass, field
from typing import Any

from examples.common.api import API, Reply
from examples.common.clock import Clock

LATENCY = 2.5  # seconds of the scenario
THROTTLED = 131051
SECOND = 1.0


@dataclass(slots=True)
class Counts:
    """busiest: calls in the fullest second, wherever it begins. at_once: calls under way, at most.
    over: calls beyond the limit. at: when each call came, and refused: those of them that were
    throttled; seconds since the epoch."""

    busiest: int = 0
    at_once: int = 0
    over: int = 0
    at: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)


class Provider:
    """One of them. Its numbers are its own: they are taken when a call arrives."""

    def __init__(self) -> None:
        self.limit: float | None = None
        self.closes: tuple[int, float] | None = None  # at which call, and for how many seconds
        self._closed_until = 0.0
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        with self._lock:
            self.counts = Counts()
            self._second: deque[float] = deque()
            self._now = 0

    def arrives(self) -> float | None:
        """None if it is let in; else for how many seconds it is to stay away."""
        now = time.time()
        with self._lock:
            self.counts.at.append(now)
            self._second.append(now)
            while self._second[0] <= now - SECOND:
                self._second.popleft()
            self.counts.busiest = max(self.counts.busiest, len(self._second))
            if self.closes is not None and len(self.counts.at) >= self.closes[0]:
                self._closed_until = now + self.closes[1]
                self.closes = None
            closed_for = self._closed_until - now
            if self.limit is not None and len(self._second) > self.limit:
                self.counts.over += 1
                closed_for = max(closed_for, SECOND)
            if closed_for > 0:
                self.counts.refused.append(now)
                return closed_for
            self._now += 1
            self.counts.at_once = max(self.counts.at_once, self._now)
        return None

    def leaves(self) -> None:
        with self._lock:
            self._now -= 1


class Chat(API):
    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._providers: defaultdict[str, Provider] = defaultdict(Provider)

    def latency(self, method: str, path: str) -> float:
        return LATENCY

    def exchange(self, method: str, path: str, key: str | None, body: Any) -> Reply:
        match method, path:
            case "PUT", "/limits":
                for name, limit in body.items():
                    self._providers[name].limit = limit
            case "PUT", "/throttle":
                for name, (call, seconds) in body.items():
                    self._providers[name].closes = call, self.clock.real(seconds)
            case "PUT", "/counts":
                for provider in self._providers.values():
                    provider.forget()
            case "GET", "/counts":
                return Reply(200, {n: asdict(p.counts) for n, p in self._providers.items()})
            case _:
                return self._message(method, path, key, body)
        return Reply(200, {})

    def _message(self, method: str, path: str, key: str | None, body: Any) -> Reply:
        provider = self._providers[path.split("/")[1]]
        seconds = provider.arrives()
        if seconds is not None:
            error = {"code": THROTTLED, "message": "too many", "retry_after": seconds}
            return Reply(429, {"error": error})
        try:
            return super().exchange(method, path, key, body)
        finally:
            provider.leaves()

    def reply(self, method: str, path: str, body: Any) -> Reply:
        return Reply(200, {"to": body["to"], "question": body["question"]})


if __name__ == "__main__":
    Chat(Clock.from_environment()).serve()
