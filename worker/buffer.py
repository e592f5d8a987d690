"""Rows that are claimed and have not started, in the order in which they came.

Rows of a kind that is handled in batches are gathered into lots, each of which takes one slot. A
lot that is not full may wait for more rows: while a claim may bring some, or while they keep coming
one after another; and no longer than its handler says.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from worker.batching import WAIT_MOST, Batching
from worker.row import Row

REMEMBERED = 10_000

Group = tuple[str, str, str | None]  # source, kind, and tenant where lots are of one


@dataclass(slots=True, eq=False)
class Lot:
    """Rows for one call.

    group: None for a row that runs alone. until: when its wait is over. coming: rows of its group
    came one after another. queued: it waits for a slot only.
    """

    batching: Batching
    group: Group | None
    until: float
    coming: bool = False
    queued: bool = False
    rows: list[Row] = field(default_factory=list)

    @property
    def full(self) -> bool:
        return len(self.rows) >= self.batching.size


class Buffer:
    """batching: how rows of a kind are put together; None for one by one.

    queue: what waits for nothing but a slot. filling: lots that are not full. Not to be changed.
    """

    def __init__(self, batching: Callable[[str], Batching | None]) -> None:
        self._batching = batching
        self.queue: deque[Row | Lot] = deque()
        self.filling: dict[Group, Lot] = {}
        self._came: dict[Group, float] = {}  # when the last row of a group did
        self._lots: dict[Lot, None] = {}
        self._singles = 0
        self._first_until = 0.0  # no lot's wait is over before

    def __len__(self) -> int:
        """Rows."""
        if not self._lots:
            return self._singles
        return self._singles + sum(len(lot.rows) for lot in self._lots)

    def __iter__(self) -> Iterator[Row]:
        yield from (entry for entry in self.queue if isinstance(entry, Row))
        for lot in self._lots:
            yield from lot.rows

    @property
    def slots(self) -> float:
        """How many slots its rows will take; a lot that can be filled up takes part of one."""
        if not self._lots:
            return self._singles
        return self._singles + sum(map(_share, self._lots))

    def append(self, row: Row) -> None:
        """A claimed row; it is gathered with those that it may share a call with."""
        batching = self._batching(row.kind)
        if batching is None:
            self._singles += 1
            self.queue.append(row)
        elif batching.then == "singly" and row.attempt > 1:
            self._enqueue(self._open(Lot(batching, None, 0.0, rows=[row])))
        else:
            self._gather(row, batching)

    def _gather(self, row: Row, batching: Batching) -> None:
        now = time.monotonic()
        group = (row.source, row.kind, row.tenant if batching.by_tenant else None)
        lot = self.filling.get(group)
        if lot is None:
            coming = now - self._came.get(group, -math.inf) < batching.wait
            lot = self._open(Lot(batching, group, now + batching.wait, coming))
            self.filling[group] = lot
        if batching.wait:
            self._note(group, now)
        lot.rows.append(row)
        if lot.full:
            del self.filling[group]
            self._enqueue(lot)

    def ready(self, *, more: bool, hurry: bool = False) -> bool:
        """Whether something can start. more: a claim may still bring rows for what is not full.
        hurry: nobody waits for rows that may or may not come."""
        if self.filling:
            now = time.monotonic()
            if not self.queue or now >= self._first_until:
                for lot in list(self.filling.values()):
                    awaited = more or (lot.coming and not hurry)
                    if now >= lot.until or not (awaited or self.queue):
                        self._enqueue(lot)
                waiting = (lot.until for lot in self.filling.values() if not lot.queued)
                self._first_until = min(waiting, default=math.inf)
        return bool(self.queue)

    def take(self) -> list[Row]:
        """The rows of the next call. Only when it is ready."""
        entry = self.queue.popleft()
        if isinstance(entry, Row):
            self._singles -= 1
            return [entry]
        self._forget(entry)
        return entry.rows

    def waits_for(self) -> float | None:
        """Seconds until the first lot has waited long enough; None if none waits."""
        first = min((lot.until for lot in self.filling.values() if not lot.queued), default=None)
        return None if first is None else max(0.0, first - time.monotonic())

    def clear(self) -> list[Row]:
        """Takes everything out, and gives it."""
        rows = list(self)
        self.queue.clear()
        self.filling.clear()
        self._lots.clear()
        self._singles = 0
        return rows

    def remove(self, row: Row) -> None:
        """Takes one out. Raises ValueError where it is not there."""
        for lot in self._lots:
            if row in lot.rows:
                lot.rows.remove(row)
                if not lot.rows:
                    self._forget(lot)
                    if lot.queued:
                        self.queue.remove(lot)
                return
        self.queue.remove(row)
        self._singles -= 1

    def _open(self, lot: Lot) -> Lot:
        self._lots[lot] = None
        self._first_until = min(self._first_until, lot.until)
        return lot

    def _forget(self, lot: Lot) -> None:
        del self._lots[lot]
        if lot.group is not None and self.filling.get(lot.group) is lot:
            del self.filling[lot.group]

    def _enqueue(self, lot: Lot) -> None:
        if not lot.queued:
            lot.queued = True
            self.queue.append(lot)

    def _note(self, group: Group, now: float) -> None:
        self._came[group] = now
        if len(self._came) > REMEMBERED:  # one for each tenant there ever was
            self._came = {g: at for g, at in self._came.items() if now - at < WAIT_MOST}


def _share(lot: Lot) -> float:
    if lot.batching.by_tenant or lot.group is None:
        return 1.0
    return len(lot.rows) / lot.batching.size
