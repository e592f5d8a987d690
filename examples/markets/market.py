"""What both apps have in common: the row, the errors, and what is said of the table."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import tenacity

from examples.common.clock import Clock
from examples.common.http import Answer
from worker import RetryPolicy

clock = Clock.from_environment()
VARIABLE = "MARKETS_TIMEOUT"
TIMEOUT = float(os.environ.get(VARIABLE, "30"))

TABLE: dict[str, Any] = {
    "table": "example_markets.markets",
    "due": "predict_at",
    "where": "open",
    "every": clock.real(15 * 60),
    "timeout": clock.real(TIMEOUT),
    "retry": RetryPolicy(
        wait=tenacity.wait_fixed(clock.real(120)), stop=tenacity.stop_after_attempt(5)
    ),
}


@dataclass
class Market:
    """The columns that the handler needs; only these are read."""

    id: int
    symbol: str


class Unavailable(Exception):
    """The API could not do it now."""


def good(answer: Answer) -> Any:
    """The answer's body. Raises Unavailable."""
    if answer.status != 200:
        raise Unavailable(f"the API answers {answer.status}")
    return answer.body
