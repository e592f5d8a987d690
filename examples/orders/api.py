"""The carrier's API: up to fifty tracking numbers in one call; one more costs it little.

python -m examples.orders.api

POST /track    {"numbers": ["TN1", ...]}: 200 {"TN1": "delivered" | "on its way" | "ask again"};
               a number that it does not know is left out. 400: more than fifty; 503: try again
GET /counted   how often each number has been answered, and how many numbers each call had:
               {"numbers": {"TN1": 1, ...}, "calls": [50, ...]}
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

from examples.common.api import API, Reply
from examples.common.clock import Clock

CALL = 1.0  # seconds of the scenario, for any call
EACH = 0.28  # and for each number in it
MOST = 50  # numbers in a call


STATES = {"RD": "on its way", "BU": "ask again", "XX": None}  # others are delivered


class Carrier(API):
    """What becomes of a parcel is told by the first letters of its number."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._counting = threading.Lock()
        self._numbers: Counter[str] = Counter()
        self._calls: list[int] = []

    def latency(self, method: str, path: str) -> float:
        return CALL if method == "POST" else 0.0

    def reply(self, method: str, path: str, body: Any) -> Reply:
        match method, path:
            case "POST", "/track":
                return self._track(body["numbers"])
            case "GET", "/counted":
                with self._counting:
                    return Reply(200, {"numbers": dict(self._numbers), "calls": list(self._calls)})
        return Reply(404, {"error": "there is no such thing"})

    def _track(self, numbers: list[str]) -> Reply:
        if len(numbers) > MOST:
            return Reply(400, {"error": f"no more than {MOST}"})
        time.sleep(self.clock.real(EACH * len(numbers)))
        with self._counting:
            self._numbers.update(numbers)
            self._calls.append(len(numbers))
        states = {number: STATES.get(number[:2], "delivered") for number in numbers}
        return Reply(200, {number: state for number, state in states.items() if state})


def seconds(numbers: int) -> float:
    """How long a call of so many numbers takes."""
    return CALL + EACH * numbers


if __name__ == "__main__":
    Carrier(Clock.from_environment()).serve()
