"""Writes what runs decided, in batches that form by themselves.

While one batch is on its way the next gathers; there is no timer, so a lone row is written at
once and a busy worker writes hundreds with one statement. Each source has an outbox of its own.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from worker.events import Events, ResultRefused, RowLost, RowSettled, SourceFailed
from worker.link import Blocked, Link
from worker.outcome import MESSAGE_LIMIT, Fault, storable
from worker.row import Row
from worker.source import Settlement, Source
from worker.statements import statement
from worker.transition import GONE_DONE, Transition, Verb

BATCH_MOST = 1000
BUSY_PAUSE = 0.2  # seconds until a row that somebody had locked is tried again
REST_MOST = 5.0  # seconds that a source which cannot be written is left alone


@dataclass(slots=True, eq=False)
class Outbox:
    """The results of one source on their way into its table. One that is locked or broken rests,
    and holds up no other.

    waiting: oldest first. busy: rows that somebody has locked, to be sent again from busy_until on.
    """

    source: Source
    waiting: deque[Settlement] = field(default_factory=deque)
    busy: list[Settlement] = field(default_factory=list)
    busy_until: float = 0.0
    rests_until: float = 0.0
    failures: int = 0

    def __len__(self) -> int:
        return len(self.waiting) + len(self.busy)

    def ready(self, now: float) -> bool:
        """Whether something may be written. now: seconds of the monotonic clock. Rows that were
        locked wait with the others again once their time has come."""
        if self.busy and now >= self.busy_until:
            self.waiting.extend(self.busy)
            self.busy.clear()
        return bool(self.waiting) and now >= self.rests_until

    def ready_at(self) -> float:
        return max(self.rests_until, 0.0 if self.waiting else self.busy_until)

    def batch(self) -> list[Settlement]:
        """The oldest settlements: of one owner (a worker that was declared dead has a new id), and
        no row twice (it was released and taken again)."""
        owner = self.waiting[0].row.owner
        batch: dict[Any, Settlement] = {}
        for settlement in self.waiting:
            row = settlement.row
            if row.owner != owner or row.key in batch or len(batch) == BATCH_MOST:
                break
            batch[row.key] = settlement
        return list(batch.values())

    def rest(self) -> float:
        """Seconds until it is tried again, with another row in front: that may be the trouble."""
        self.failures += 1
        pause = min(REST_MOST, 0.5 * 2.0 ** (self.failures - 1))
        self.rests_until = time.monotonic() + pause
        self.waiting.rotate(-1)
        return pause


class Settler:
    """Gathers settlements and writes them; counts what was settled, released and refused.

    on_written: called when some were written. on_postponed: called with the seconds until one of
    them falls due again. on_failed: called with a source that cannot be written, and for how many
    seconds it is left alone.
    """

    def __init__(self, sources: Mapping[str, Source], link: Link, events: Events) -> None:
        self.on_written: Callable[[], None] = lambda: None
        self.on_postponed: Callable[[float], None] = lambda seconds: None
        self.on_failed: Callable[[str, float], None] = lambda source, seconds: None
        self._link = link
        self._events = events
        self._outboxes = {name: Outbox(source) for name, source in sources.items()}
        self._turns = deque(self._outboxes.values())
        self._lost: deque[tuple[Row, float, str]] = deque()
        self.wake = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()
        self.settled = 0
        self.failed = 0
        self.released = 0
        self.lost = 0

    def add(self, settlement: Settlement) -> None:
        self._outboxes[settlement.row.source].waiting.append(settlement)
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
        return sum(map(len, self._turns))

    def held(self) -> list[Row]:
        """The rows that are ours until they are written."""
        return [s.row for outbox in self._turns for s in (*outbox.waiting, *outbox.busy)]

    async def step(self) -> float:
        """Writes what has gathered. A failed write leaves it where it was."""
        while (outbox := self._next()) or self._lost:
            if self._lost:
                await self._write_lost()
            if outbox:
                await self._write(outbox)
        if self.pending:
            ready_at = min(outbox.ready_at() for outbox in self._turns if outbox)
            return max(0.01, ready_at - time.monotonic())
        self.idle.set()
        return 3600.0

    def _next(self) -> Outbox | None:
        """The sources take turns."""
        now = time.monotonic()
        for _ in range(len(self._turns)):
            self._turns.rotate(-1)
            if self._turns[-1].ready(now):
                return self._turns[-1]
        return None

    async def _write(self, outbox: Outbox) -> None:
        batch = outbox.batch()
        try:
            accepted, busy = await self._send_all(batch)
        except (Blocked, asyncpg.PostgresError) as error:
            pause = outbox.rest()
            why = error.why if isinstance(error, Blocked) else f"{type(error).__name__}: {error}"
            self._events.emit(SourceFailed(outbox.source.name, why, pause))
            self.on_failed(outbox.source.name, pause)
            return
        missing = len(accepted) + len(busy) < len(batch)
        before = await self._confirm(batch) if missing else {}
        outbox.failures = 0
        for settlement in batch:
            outbox.waiting.popleft()
            row, transition = settlement.row, settlement.transition
            if row.key in busy:
                outbox.busy.append(settlement)
                outbox.busy_until = time.monotonic() + BUSY_PAUSE
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

    async def _send_all(self, batch: Sequence[Settlement]) -> tuple[set[Any], set[Any]]:
        """Raises Blocked or PostgresError where it is not for the rows that nothing is written."""
        try:
            return await self._send(batch)
        except (asyncpg.PostgresError, asyncpg.InterfaceError):
            return await self._write_singly(batch)

    async def _write_singly(self, batch: Sequence[Settlement]) -> tuple[set[Any], set[Any]]:
        """Postgres refused something in the batch: one row must not hold up the others."""
        accepted: set[Any] = set()
        busy: set[Any] = set()
        for settlement in batch:
            written, locked = await self._write_one(settlement, some=bool(accepted))
            accepted |= written
            busy |= locked
        return accepted, busy

    async def _write_one(self, settlement: Settlement, *, some: bool) -> tuple[set[Any], set[Any]]:
        """As decided; else without the texts; else as dead: what a user's own table refuses, for
        its constraints or its triggers, must neither run again nor hold up the others.
        some: others were accepted, so that the table itself is in order."""
        for lessen in (_bare, _refused):
            try:
                return await self._send([settlement])
            except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                if not some and _is_of_the_table(error):
                    raise
                self._events.emit(ResultRefused(settlement.row, str(error)))
                settlement.transition = lessen(settlement.transition, error)
        try:
            return await self._send([settlement])
        except (asyncpg.PostgresError, asyncpg.InterfaceError):
            return set(), set()  # lost: the row stays claimed until this worker ends

    async def _send(self, batch: Sequence[Settlement]) -> tuple[set[Any], set[Any]]:
        """Carries out a batch of one source and owner; the keys whose claim was still ours, and
        those that are to be sent again."""
        source = self._outboxes[batch[0].row.source].source
        accepted: set[Any] = set()
        busy: set[Any] = set()
        for sql, params in source.settle(batch[0].row.owner, batch):
            for record in await self._link.fetch(sql, *params):
                (busy if source.busy(record) else accepted).add(source.key(record))
        return accepted, busy

    async def _confirm(self, batch: Sequence[Settlement]) -> dict[Any, Verb]:
        """Those that were written before: by key, as what."""
        source = self._outboxes[batch[0].row.source].source
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
        transition = settlement.transition
        if transition is GONE_DONE:
            self.settled += 1
        else:
            if (seconds := _due_in(transition)) is not None:
                self.on_postponed(seconds)
            match transition.verb:
                case "released":
                    self.released += 1
                case "retry" | "dead":
                    self.failed += 1
                    self.settled += 1
                case _:
                    self.settled += 1
        if RowSettled not in self._events.ignored:
            self._events.emit(RowSettled(settlement.row, transition, settlement.seconds))


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


def _is_of_the_table(error: BaseException) -> bool:
    """A column or the table itself is gone, or a privilege: no row's fault, and to be mended."""
    return str(getattr(error, "sqlstate", None) or "").startswith("42")
