"""Rows that may start at a given time, not before, and not long after."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable, Iterator

from worker.row import Row

LATE = 0.1
"""Seconds. A row that could not start by then, or by its `not_after`, has missed its turn: started
all the same, rows that were meant to come one after the other would come at once."""


class Timetable:
    """Rows in the order of their `not_before`. wake: called when the first of them is due."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._rows: list[tuple[float, int, Row]] = []
        self._numbers = itertools.count()
        self._alarm: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return (row for _, _, row in self._rows)

    def append(self, row: Row) -> None:
        assert row.not_before is not None
        heapq.heappush(self._rows, (row.not_before, next(self._numbers), row))

    def remove(self, row: Row) -> None:
        self._rows = [entry for entry in self._rows if entry[2] is not row]
        heapq.heapify(self._rows)

    def due(self, most: int) -> list[Row]:
        """Takes those whose time has come, at most `most`; asks to be woken for the next."""
        now = time.monotonic()
        taken: list[Row] = []
        while self._rows and len(taken) < most and self._rows[0][0] <= now:
            taken.append(heapq.heappop(self._rows)[2])
        self._set_alarm(now)
        return taken

    def late(self) -> list[Row]:
        """Takes those that have missed their turn."""
        now = time.monotonic()
        due = []
        while self._rows and self._rows[0][0] <= now:
            due.append(heapq.heappop(self._rows))
        for entry in due:
            if _missed_at(entry[2]) >= now:
                heapq.heappush(self._rows, entry)
        return [row for _, _, row in due if _missed_at(row) < now]

    def clear(self) -> list[Row]:
        rows = [row for _, _, row in self._rows]
        self._rows.clear()
        return rows

    def _set_alarm(self, now: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._rows:
            # where no slot was free: one that gets free asks, or the turn is missed
            first = self._rows[0][2]
            at = self._rows[0][0] if self._rows[0][0] > now else _missed_at(first) + 0.001
            delay = max(0.0, at - now)
            self._alarm = asyncio.get_running_loop().call_later(delay, self._wake)


def _missed_at(row: Row) -> float:
    if row.not_after is not None:
        return row.not_after
    assert row.not_before is not None
    return row.not_before + LATE
