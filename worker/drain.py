"""A drain: works until nothing is due any more or its budget is spent; counts what it leaves."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass

import asyncpg

from worker.execute import Executor
from worker.link import Link, LinkDown
from worker.loop import Loop
from worker.settle import Settler
from worker.source import Source
from worker.ticker import Ticker

# What is left is counted up to so many rows, and for so many seconds, at the most.
LEFT_MOST = 1_000_000
LEFT_WITHIN = 5.0

TICKS_WITHIN = 5.0  # seconds that a drain waits for the first look at the schedules


@dataclass(frozen=True, slots=True)
class Budget:
    """When a drain ends of itself: once nothing is due, and no later than these say."""

    max_seconds: float | None = None
    max_rows: int | None = None


class Drain:
    """Made before the first claim, which must not take more rows than the budget has."""

    def __init__(
        self, budget: Budget, loop: Loop, executor: Executor, settler: Settler, ticker: Ticker
    ) -> None:
        self._budget = budget
        self._loop = loop
        self._executor = executor
        self._settler = settler
        self._ticker = ticker
        loop.row_budget = budget.max_rows
        loop.wait_for_empty()

    async def over(self) -> None:
        """Returns when the drain has nothing more to do, or no more time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._budget.max_seconds):
                await self._until_done()

    async def _until_done(self) -> None:
        """Until nothing is due and everything is settled, or that many rows are."""
        max_rows, taken = self._budget.max_rows, -1
        with contextlib.suppress(TimeoutError):  # their jobs are due too
            async with asyncio.timeout(TICKS_WITHIN):
                await self._ticker.looked.wait()
        self._loop.ask_again()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await self._loop.empty.wait()
            if max_rows is not None and self._loop.kept >= max_rows:
                await self._quiet()  # no more are claimed; what waits for a slot is among them
                if self._loop.kept >= max_rows:
                    return
                self._loop.ask_again()  # some had to wait for too long, and went back
            if not self._loop.empty.is_set():
                continue
            await self._quiet()
            if taken == self._loop.taken:
                return
            taken = self._loop.taken
            self._loop.ask_again()

    async def _quiet(self) -> None:
        """Until nothing runs and everything is written."""
        while self._executor.running or self._loop.buffered:
            await self._executor.wait_for_runs(time.monotonic() + 1)
            await asyncio.sleep(0 if self._executor.running else 0.01)
        await self._settler.idle.wait()


async def count_left(sources: Iterable[Source], link: Link, seconds: float) -> int | None:
    """How many rows are due in these and in nobody's hands; None where that is not known within
    `seconds`, or LEFT_WITHIN."""
    try:
        async with asyncio.timeout(min(LEFT_WITHIN, seconds)):
            left = 0
            for source in sources:
                sql, params = source.left(LEFT_MOST - left)
                [(found,)] = await link.fetch(sql, *params)
                left += found
            return left
    except (LinkDown, TimeoutError, asyncpg.PostgresError):
        return None
