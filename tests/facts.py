"""Waiting for facts, not for time."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(fact: Callable[[], T], within: float = 60.0) -> T:
    """The first true value of `fact()`; AssertionError when there is none within the seconds."""
    deadline = time.monotonic() + within
    while not (value := fact()):
        assert time.monotonic() < deadline, f"not within {within} s: {fact}"
        time.sleep(0.02)
    return value


async def until(fact: Callable[[], T | Awaitable[T]], within: float = 60.0) -> T:
    """As `eventually`, while the event loop goes on; `fact` may be async."""
    deadline = time.monotonic() + within
    while True:
        found = fact()
        value: T = await found if inspect.isawaitable(found) else found
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {within} s: {inspect.getsource(fact)}"
        await asyncio.sleep(0.005)


async def alone() -> None:
    """Until no other task runs. One that is left behind is cancelled when the loop is closed, and
    what it then begins, say at the database, is never ended: another test would be blamed."""
    await until(lambda: len(asyncio.all_tasks()) == 1)
