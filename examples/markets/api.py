"""The API of markets and of the model that predicts them: 10 to 15 seconds for a market.

python -m examples.markets.api

GET  /markets/M1/prices     a fifth of that time
GET  /markets/M1/news       three tenths of it
POST /markets/M1/forecast   {"prices": ..., "news": ...}: half of it; gives probabilities
"""

from __future__ import annotations

import re
from typing import Any

from examples.common.api import API, Reply
from examples.common.clock import Clock

PATH = re.compile(r"/markets/M(\d+)/(prices|news|forecast)")
SHARES = {"prices": 0.2, "news": 0.3, "forecast": 0.5}
OUTCOMES = ("up", "flat", "down")


class Markets(API):
    def latency(self, method: str, path: str) -> float:
        found = PATH.fullmatch(path)
        return 0.0 if found is None else seconds(int(found[1])) * SHARES[found[2]]

    def reply(self, method: str, path: str, body: Any) -> Reply:
        found = PATH.fullmatch(path)
        if found is None:
            return Reply(404, {"error": "there is no such market"})
        number = int(found[1])
        match method, found[2]:
            case "GET", "prices":
                return Reply(200, [100 + number, 101 + number, 99 + number])
            case "GET", "news":
                return Reply(200, [f"M{number} was mentioned"])
            case "POST", "forecast":
                return Reply(200, dict(zip(OUTCOMES, (0.5, 0.2, 0.3), strict=True)))
        return Reply(405, {"error": "not this way"})


def seconds(number: int) -> float:
    """How long the three calls take together for the market M<number>: 10 to 15."""
    return 10 + number * 3 % 11 / 2


if __name__ == "__main__":
    Markets(Clock.from_environment()).serve()
