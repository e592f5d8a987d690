"""Writes what runs decided, in batches that form by themselves.

While one batch is on its way the next gathers; there is no timer, so a lone row is written at
once and a busy worker writes hundreds with one statement.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import asyncpg

from worker.events import Events, ResultRefused, RowLost, RowSettled
from worker.link import Blocked, Link
from worker.outcome import MESSAGE_LIMIT, Fault, storable
from worker.row import Row
from worker.source import Settlement, Source
from worker.statements import statement
from worker.transition import Transition, Verb

BATCH_MOST = 1000
BUSY_PAUSE = 0.2  # seconds until a row that somebody had locked is tried again


class Settler:
    """Gathers settlements and writes them; counts what was settled, released and refused.

    on_written: called when some were written. on_postponed: called with the seconds until one of
    them falls due again.
    """

    def __init__(self, sources: Mapping[str, Source], link: Link, events: Events) -> None:
        self.on_written: Callable[[], None] = lambda: None
        self.on_postponed: Callable[[float], None] = lambda seconds: None
        self._sources = sources
        self._link = link
        self._events = events
        self._waiting: deque[Settlement] = deque()
        self._busy: list[Settlement] = []  # somebody has their rows locked: to be sent again
        self._busy_until = 0.0
        self._lost: deque[tuple[Row, float, str]] = deque()
        self.wake = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()
        self.settled = 0
        self.failed = 0
        self.released = 0
        self.lost = 0

    def add(self, settlement: Settlement) -> None:
        self._waiting.append(settlement)
        self.idle.clear()
        self.wake.set()

    def add_lost(self, row: Row, seconds: float, refused: str) -> None:
        """A result that was refused already: by a session's commit, or because the worker had
        been declared dead."""
        self.lost += 1
        self._events.emit(RowLost(row, refused))
        self._lost.append((row, seconds, refused))
        self.idle.clear()
        self.wake.set()

    def note_committed(self, settlement: Settlement) -> None:
        """A handler's own session has written this one."""
        self._count(settlement)

    @property
    def pending(self) -> int:
        """Rows decided but not yet written."""
        return len(self._waiting) + len(self._busy)

    def held(self) -> list[Row]:
        """The rows that are ours until they are written."""
        return [settlement.row for settlement in (*self._waiting, *self._busy)]

    async def step(self) -> float:
        """Writes what has gathered. A failed write leaves it where it was."""
        self._take_up_busy()
        while self._waiting or self._lost:
            if self._lost:
                await self._write_lost()
            if self._waiting:
                await self._write(self._next_batch())
            self._take_up_busy()
        if self._busy:
            return BUSY_PAUSE
        self.idle.set()
        return 3600.0

    def _take_up_busy(self) -> None:
        """Puts the rows that were locked behind the others, once they have had time."""
        if self._busy and time.monotonic() >= self._busy_until:
            self._waiting.extend(self._busy)
            self._busy.clear()

    def _next_batch(self) -> list[Settlement]:
        """The oldest settlements: of one source, of one owner (a worker that was declared dead
        has a new id), and no row twice (it was released and taken again)."""
        first = self._waiting[0].row
        batch: dict[Any, Settlement] = {}
        for settlement in self._waiting:
            row = settlement.row
            if row.source != first.source or row.owner != first.owner:
                break
            if row.key in batch or len(batch) == BATCH_MOST:
                break
            batch[row.key] = settlement
        return list(batch.values())

    async def _write(self, batch: list[Settlement]) -> None:
        try:
            accepted, busy = await self._send(batch)
        except Blocked:
            self._put_back(batch[0].row.source)
            raise
        except (asyncpg.PostgresError, asyncpg.InterfaceError):
            accepted, busy = await self._write_singly(batch)
        missing = len(accepted) + len(busy) < len(batch)
        before = await self._confirm(batch) if missing else {}
        for _ in batch:
            self._waiting.popleft()
        for settlement in batch:
            row, transition = settlement.row, settlement.transition
            if row.key in busy:
                self._busy.append(settlement)
                self._busy_until = time.monotonic() + BUSY_PAUSE
                continue
            if row.key not in accepted:
                if row.key not in before:
                    if transition.recorded:  # else it never ran, there is nothing to lose
                        self.add_lost(row, settlement.seconds, transition.verb)
                    continue
                if before[row.key] != transition.verb:  # a session's commit, whose answer was lost
                    settlement.transition = Transition(before[row.key])
            self._count(settlement)
        self.on_written()

    def _put_back(self, source: str) -> None:
        """A source whose table is locked must not hold up the results of the others."""
        blocked = [s for s in self._waiting if s.row.source == source]
        others = [s for s in self._waiting if s.row.source != source]
        self._waiting = deque((*others, *blocked))

    async def _write_singly(self, batch: Sequence[Settlement]) -> tuple[set[Any], set[Any]]:
        """Postgres refused something in the batch: one row must not hold up the others."""
        accepted: set[Any] = set()
        busy: set[Any] = set()
        for settlement in batch:
            written, locked = await self._write_one(settlement)
            accepted |= written
            busy |= locked
        return accepted, busy

    async def _write_one(self, settlement: Settlement) -> tuple[set[Any], set[Any]]:
        """As decided; else without the texts; else as dead: what a user's own table refuses, for
        its constraints or its triggers, must neither run again nor hold up the others."""
        for lessen in (_bare, _refused):
            try:
                return await self._send([settlement])
            except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                self._events.emit(ResultRefused(settlement.row, str(error)))
                settlement.transition = lessen(settlement.transition, error)
        try:
            return await self._send([settlement])
        except (asyncpg.PostgresError, asyncpg.InterfaceError):
            return set(), set()  # lost: the row stays claimed until this worker ends

    async def _send(self, batch: Sequence[Settlement]) -> tuple[set[Any], set[Any]]:
        """Carries out a batch of one source and owner; the keys whose claim was still ours, and
        those that are to be sent again."""
        source = self._sources[batch[0].row.source]
        accepted: set[Any] = set()
        busy: set[Any] = set()
        for sql, params in source.settle(batch[0].row.owner, batch):
            for record in await self._link.fetch(sql, *params):
                (busy if source.busy(record) else accepted).add(source.key(record))
        return accepted, busy

    async def _confirm(self, batch: Sequence[Settlement]) -> dict[Any, Verb]:
        """Those that were written before: by key, as what."""
        source = self._sources[batch[0].row.source]
        sql, params = source.confirm(batch[0].row.owner, batch)
        records = await self._link.fetch(sql, *params)
        return {source.key(record): record["outcome"] for record in records}

    async def _write_lost(self) -> None:
        lost = list(self._lost)
        rows = [row for row, _, _ in lost]
        await self._link.fetch(
            statement("settle/lost"),
            [row.source for row in rows],
            [row.row_key for row in rows],
            [row.queue for row in rows],
            [row.kind for row in rows],
            [row.attempt for row in rows],
            [row.token for row in rows],
            [row.owner for row in rows],
            [round(seconds * 1000) for _, seconds, _ in lost],
            [refused for _, _, refused in lost],
        )
        for _ in lost:
            self._lost.popleft()

    def _count(self, settlement: Settlement) -> None:
        if (seconds := _due_in(settlement.transition)) is not None:
            self.on_postponed(seconds)
        match settlement.transition.verb:
            case "released":
                self.released += 1
            case "retry" | "dead":
                self.failed += 1
                self.settled += 1
            case _:
                self.settled += 1
        self._events.emit(
            RowSettled(settlement.row, settlement.transition, settlement.seconds, settlement.wait)
        )


def _due_in(transition: Transition) -> float | None:
    """Seconds until the row falls due again, if the transition says when."""
    if transition.next_at is not None:
        left = (transition.next_at - dt.datetime.now(dt.UTC)).total_seconds()
        return max(0.0, left + transition.put_off)
    return None if transition.delay is None else transition.delay + transition.put_off


def _bare(transition: Transition, error: BaseException) -> Transition:
    """The transition without the texts that Postgres might refuse."""
    return Transition(
        transition.verb,
        transition.next_at,
        transition.delay,
        transition.refund,
        recorded=transition.recorded,
        put_off=transition.put_off,
    )


def _refused(transition: Transition, error: BaseException) -> Transition:
    message = f"the table refused the outcome {transition.verb!r}: {error}"
    fault = Fault("ResultRefused", storable(message, MESSAGE_LIMIT), "ResultRefused", None)
    return Transition("dead", fault=fault, recorded=transition.recorded)
