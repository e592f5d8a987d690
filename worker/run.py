"""A handler's call under way: for one row, or for the rows of a batch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from worker.adaptive import Trouble
from worker.context import Context
from worker.items import Batch, Item
from worker.registry import Handler
from worker.row import Row
from worker.seat import Seat

PRESSED = 0.25  # seconds that a session was waited for: there are too few

Reason = Literal["timeout", "stop", "cancelled", "lost"]


@dataclass(slots=True, eq=False)
class Run:
    """One row being run. started, deadline: on time.monotonic()'s clock. context: if the handler
    asks for one. reason: why it was asked to end early, if it was. trouble: what speaks for fewer
    rows at once, if anything did."""

    row: Row
    handler: Handler
    started: float
    deadline: float | None
    context: Context | None = None
    task: asyncio.Task[None] | None = None
    reason: Reason | None = None
    settled: bool = False
    seat: Seat | None = None
    patience: asyncio.TimerHandle | None = None
    trouble: Trouble | None = None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def rows(self) -> Sequence[Row]:
        return (self.row,)

    @property
    def hindered(self) -> Trouble | None:
        """Trouble, or that it had to wait for a session."""
        pressed = self.seat is not None and self.seat.waited > PRESSED
        return self.trouble or ("pool" if pressed else None)

    def cancel(self) -> None:
        """Tells the handler that it should end."""
        if self.context is not None:
            self.context.cancel()


@dataclass(slots=True, eq=False)
class Part:
    """One row of a batch. cancelled: an operator has asked for that."""

    row: Row
    item: Item[Any]
    settled: bool = False
    cancelled: bool = False


@dataclass(slots=True, eq=False)
class BatchRun(Run):
    """Several rows of one kind being run by one call. row is the first.

    batch: what the handler is given. session_open: it has a session, all of whose writes stand or
    fall together. over: nothing is taken from the handler any more.
    """

    parts: list[Part] = field(default_factory=list)
    batch: Batch[Any] | None = None
    unsettled: int = 0
    session_open: bool = False
    over: bool = False

    @property
    def rows(self) -> Sequence[Row]:
        return [part.row for part in self.parts]

    @property
    def open(self) -> list[Part]:
        """The rows that are not settled."""
        return [part for part in self.parts if not part.settled]

    def cancel(self) -> None:
        if self.batch is not None:
            self.batch.cancel()
        for part in self.parts:
            part.item.context.cancel()

    def close(self, part: Part) -> bool:
        """The row is settled, by whoever asks first; whether that is the caller."""
        if part.settled:
            return False
        part.settled = True
        self.unsettled -= 1
        self.settled = self.unsettled == 0
        return True
