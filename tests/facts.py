"""Waiting for facts, not for time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(fact: Callable[[], T], within: float = 15.0) -> T:
    """The first true value of `fact()`; AssertionError when there is none within the seconds."""
    deadline = time.monotonic() + within
    while not (value := fact()):
        assert time.monotonic() < deadline, f"not within {within} s: {fact}"
        time.sleep(0.02)
    return value
