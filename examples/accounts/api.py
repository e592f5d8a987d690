"""The social network's API: it takes 3 seconds for each account, whatever one does.

python -m examples.accounts.api

GET /accounts/@user1   200 {"handle": "@user1", "videos": 15}; 404: there is no such account;
                       429: more than 30 at a time; 500, 503: try again
"""

from __future__ import annotations

import re
from typing import Any

from examples.common.api import API, Reply
from examples.common.clock import Clock

LATENCY = 3.0  # seconds of the scenario
AT_A_TIME = 30


class Network(API):
    def latency(self, method: str, path: str) -> float:
        return LATENCY

    def reply(self, method: str, path: str, body: Any) -> Reply:
        found = re.fullmatch(r"/accounts/(@user(\d+))", path)
        if found is None or method != "GET":
            return Reply(404, {"error": "there is no such account"})
        return Reply(200, {"handle": found[1], "videos": videos(int(found[2]))})


def videos(number: int) -> int:
    """How many videos the account @user<number> has."""
    return 5 + number * 10 % 37


if __name__ == "__main__":
    Network(Clock.from_environment(), AT_A_TIME).serve()
