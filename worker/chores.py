"""Housekeeping, done by whichever replica gets to it.

Each chore runs in one transaction that begins with a try-lock and a look whether it is due: at
most one replica does it, and one that freezes loses the lock with its transaction, which the others
end when the chore is overdue. No lock outlives a transaction, so it works behind a transaction
pooler too.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import asyncpg

from worker.events import (
    ChoreRan,
    Event,
    Events,
    KindsUnclaimed,
    RowSwept,
    SourceFailed,
    WorkerGone,
)
from worker.link import Link
from worker.redrive import AT_ONCE, Rule
from worker.source import Source
from worker.statements import statement

# In a chore's transaction: it must not wait long for a lock, nor hold its own for ever.
_BOUNDS = "set local lock_timeout = '2s'; set local statement_timeout = '60s'"

FAILED_EVERY = 5.0  # seconds: somebody's lock was in the way, say

# In a sweep: the rows that were found are written by their place, never by reading a whole table.
_PROBES = "set local enable_hashjoin = off; set local enable_mergejoin = off"


@dataclass(frozen=True, slots=True)
class Retention:
    """finished, attempts: seconds that they are kept. ahead: days of partitions made in advance."""

    finished: float
    attempts: float
    ahead: int


@dataclass(slots=True)
class Chore:
    """every: seconds between two runs in the whole fleet. run: does it in the given transaction
    and says what it did ("" for nothing)."""

    name: str
    every: float
    run: Callable[[Any], Awaitable[str]]
    next_try: float = 0.0


class Chores:
    """Tries each chore when it may be due."""

    def __init__(
        self,
        link: Link,
        events: Events,
        sources: Sequence[Source],
        *,
        worker: Callable[[], int],
        lease: float,
        max_crashes: int,
        retention: Retention,
        rules: Sequence[Rule] = (),
    ) -> None:
        self._link = link
        self._events = events
        self._sources = sources
        self._worker = worker
        self._max_crashes = max_crashes
        self._retention = retention
        self._told: list[Event] = []
        self._chores = [
            *(Chore(_of("sweep", s), lease / 3, partial(self._sweep, s)) for s in sources),
            *(
                Chore(_of("orphans", s), s.orphans_every, partial(self._orphans, s))
                for s in sources
            ),
            Chore("gates", lease / 3, self._gates),
            Chore("partitions", 3600, self._partitions),
            Chore("stats", 60, self._stats),
            Chore("unclaimed", 60, self._unclaimed),
            Chore("retention", 3600, self._retain),
            Chore("tidy", 3600, self._tidy),
            *(
                Chore(f"redrive {rule.kind}", rule.redrive.look_every, partial(self._redrive, rule))
                for rule in rules
                if any(source.name == rule.source for source in sources)
            ),
        ]

    async def step(self) -> float:
        """Does what is due; seconds until something is again."""
        if not self._link.connected:
            await self._link.connect()
        for chore in self._chores:
            now = time.monotonic()
            if now >= chore.next_try:
                chore.next_try = now + min(chore.every, FAILED_EVERY)
                await self._attempt(chore)  # where it fails that is when it is tried again
                chore.next_try = now + chore.every * random.uniform(0.9, 1.0)
        return max(0.05, min(c.next_try for c in self._chores) - time.monotonic())

    async def _attempt(self, chore: Chore) -> None:
        started = time.monotonic()
        self._told.clear()
        async with self._link.transaction() as connection:
            await connection.execute(_BOUNDS)
            begin = statement("chores/begin")
            if not await connection.fetch(begin, chore.name, chore.every, self._worker()):
                await connection.fetch(statement("chores/depose"), chore.name, chore.every)
                return
            result = await chore.run(connection)
            await connection.execute(statement("chores/end"), chore.name, result)
        for event in self._told:  # not before it is committed
            self._events.emit(event)
        if result:
            self._events.emit(ChoreRan(chore.name, result, time.monotonic() - started))

    async def _sweep(self, source: Source, connection: Any) -> str:
        absent = await connection.fetch(statement("chores/absent"))
        for worker in absent:
            if worker["newly"]:
                self._told.append(WorkerGone(worker["id"], worker["name"]))
        if not absent:
            return ""
        ids = [worker["id"] for worker in absent]
        count = -1
        async with self._apart(connection, source):
            count = await self._return(connection, source, ids)
        if count >= 0:
            await self._cut(connection, source, ids)
        return f"{count} rows returned" if count > 0 else ""

    async def _cut(self, connection: Any, source: Source, absent: Sequence[int]) -> None:
        """A session that this role may not end must not keep the sweep from being written."""
        async with self._apart(connection, source):
            sql, params = source.cut(absent)
            await connection.fetch(sql, *params)

    async def _orphans(self, source: Source, connection: Any) -> str:
        """Rows whose owner is no live worker though no sweep returned them: claimed by a worker
        that was frozen inside the claim for minutes, or put off by their user while they ran."""
        async with self._apart(connection, source):
            sql, params = source.orphans()
            owners = [record["owner"] for record in await connection.fetch(sql, *params)]
            count = await self._return(connection, source, owners) if owners else 0
            return f"{count} orphans returned" if count else ""
        return ""

    @asynccontextmanager
    async def _apart(self, connection: Any, source: Source) -> AsyncIterator[None]:
        """What is done to one source in a savepoint of its own: a user's table that is locked, or
        lacks a column since, must not end the worker. What could not be swept is swept again for
        as long as `absent` lists its owners, then found as orphaned."""
        try:
            async with connection.transaction():
                await connection.execute(_PROBES)
                yield
        except asyncpg.PostgresError as error:
            if connection.is_closed():
                raise
            why = f"{type(error).__name__}: {error}"
            self._events.emit(SourceFailed(source.name, why, self._chores[0].every))

    async def _return(self, connection: Any, source: Source, owners: Sequence[int]) -> int:
        sql, params = source.sweep(owners, self._max_crashes)
        rows = await connection.fetch(sql, *params)
        for row in rows:
            self._told.append(RowSwept(source.name, *row))
        return len(rows)

    async def _gates(self, connection: Any) -> str:
        """After the sweeps: what a dead worker held of a limit comes back with its rows."""
        back = await connection.fetch(statement("flow/reclaim"))
        count = sum(record["in_use"] for record in back)
        return f"{count} of the limits' slots returned" if count else ""

    async def _redrive(self, rule: Rule, connection: Any) -> str:
        [source] = [source for source in self._sources if source.name == rule.source]
        redrive = rule.redrive
        async with self._apart(connection, source):
            if source.name == "jobs":  # 10,000 that move are matched with one another
                await connection.execute("set local enable_hashjoin = on; set local jit = off")
            sql, params = source.redrive(rule.kind, redrive.seconds, redrive.times, AT_ONCE)
            count = await connection.fetchval(sql, *params)
            return f"{count} dead rows run again" if count else ""
        return ""  # the table is locked, say: the next time

    async def _partitions(self, connection: Any) -> str:
        made = await connection.fetch(statement("chores/partitions"), self._retention.ahead)
        return ", ".join(f"made {record[0]}" for record in made)

    async def _retain(self, connection: Any) -> str:
        dropped = await connection.fetch(
            statement("chores/retention"), self._retention.finished, self._retention.attempts
        )
        return ", ".join(f"dropped {record[0]}" for record in dropped)

    async def _stats(self, connection: Any) -> str:
        rolled = await connection.fetch(statement("chores/stats"))
        return f"{len(rolled)} roll-ups" if rolled else ""

    async def _unclaimed(self, connection: Any) -> str:
        found = await connection.fetch(statement("chores/unclaimed"))
        if not found:
            return ""
        self._told.append(KindsUnclaimed(tuple((r["queue"], r["kind"]) for r in found)))
        return f"{len(found)} kinds without a worker"

    async def _tidy(self, connection: Any) -> str:
        await connection.execute(statement("chores/tidy"), self._retention.attempts)
        return ""


def _of(what: str, source: Source) -> str:
    """A chore for each source, since a replica without the source can do it for the others only."""
    return what if source.name == "jobs" else f"{what} {source.name}"
