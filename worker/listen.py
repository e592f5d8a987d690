"""Hears of rows that fell due: LISTEN on a direct connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any

CHANNEL = "duerow"
WORKER_CHANNEL = "duerow_worker"
GATES_CHANNEL = "duerow_gates"
SCHEDULES_CHANNEL = "duerow_schedules"


class Listener:
    """Listens on a connection it is attached to, and calls `heard` for each notification of our
    queues, `called` with the id of a worker that an operator wants something of, `gated` when a
    gate was changed. `live`: whether it would hear one; `wake` is set when it no longer does.
    `rescheduled` is set when schedules were changed, or may have been."""

    def __init__(
        self,
        queues: Collection[str],
        heard: Callable[[], None],
        called: Callable[[str], None],
        gated: Callable[[], None],
    ) -> None:
        self._queues = frozenset(queues)
        self._heard = heard
        self._called = called
        self._gated = gated
        self.wake = asyncio.Event()
        self.rescheduled = asyncio.Event()
        self.live = False

    async def attach(self, connection: Any) -> None:
        """Starts listening on a connection that was just made."""
        await connection.add_listener(CHANNEL, self._notified)
        await connection.add_listener(WORKER_CHANNEL, self._worker_notified)
        await connection.add_listener(GATES_CHANNEL, self._gates_notified)
        await connection.add_listener(SCHEDULES_CHANNEL, self._schedules_notified)
        connection.add_termination_listener(self._ended)
        self.live = True
        self._gated()
        self._heard()  # something may have come while nobody listened
        self.rescheduled.set()

    def _notified(self, connection: Any, pid: int, channel: str, payload: str) -> None:
        if payload in self._queues:
            self._heard()

    def _worker_notified(self, connection: Any, pid: int, channel: str, payload: str) -> None:
        self._called(payload)

    def _gates_notified(self, connection: Any, pid: int, channel: str, payload: str) -> None:
        self._gated()

    def _schedules_notified(self, connection: Any, pid: int, channel: str, payload: str) -> None:
        self.rescheduled.set()

    def _ended(self, connection: Any) -> None:
        self.live = False
        self.wake.set()
        self.rescheduled.set()
