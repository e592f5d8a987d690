"""What runs for as long as the worker does: coroutines that step, and the one that owns them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from worker.events import Events, ServiceFailed
from worker.link import Link, LinkDown

FAILURES_MOST = 10


class ServiceDied(Exception):
    """A service failed many times in a row: the process is better started anew."""


class Service:
    """One service: `step()` does a round and returns the seconds to pause, or None to end.

    A step that finds the database down is repeated when its link allows; one that fails otherwise
    is logged and repeated, and after ten failures in a row the service gives up.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], Awaitable[float | None]],
        events: Events,
        *,
        link: Link | None = None,
        wake: asyncio.Event | None = None,
    ) -> None:
        self.name = name
        self._step = step
        self._events = events
        self._link = link
        self._wake = wake

    async def run(self) -> None:
        """Until a step says that it is the end. Raises ServiceDied."""
        failures = 0
        while True:
            try:
                pause = await self._step()
                failures = 0
            except LinkDown:
                await asyncio.sleep(self._link.pause() if self._link else 1.0)
                continue
            except Exception as error:
                failures += 1
                self._events.emit(ServiceFailed(self.name, error))
                if failures >= FAILURES_MOST:
                    raise ServiceDied(self.name) from error
                await asyncio.sleep(min(5.0, 0.1 * 2**failures))
                continue
            if pause is None:
                return
            await self._rest(pause)

    async def _rest(self, pause: float) -> None:
        """Waits `pause` seconds, or until woken."""
        if self._wake is None:
            await asyncio.sleep(pause)
            return
        if pause > 0:
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                pass
        else:
            await asyncio.sleep(0)
        self._wake.clear()
