"""Calls that are handed over to an event loop, from any thread."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any


def call_in(loop: asyncio.AbstractEventLoop, call: Any, *args: Any) -> None:
    """At once if that loop's thread asks: what comes after it may depend on it."""
    try:
        here = asyncio.get_running_loop() is loop
    except RuntimeError:
        here = False
    if here:
        call(*args)
    else:
        hand_over(loop, call, *args)


def hand_over(loop: asyncio.AbstractEventLoop, call: Any, *args: Any) -> None:
    """At its next turn; never, once it is closed: the worker has stopped. Safe in a signal
    handler."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call, *args)
