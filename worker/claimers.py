"""The claimers of all sources as one. They take turns; one that fails is left alone for a while."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import asyncpg

from worker.claim import Claimer
from worker.events import Events, SourceFailed
from worker.link import Blocked, LinkDown
from worker.row import Row

FAILED_PAUSE_MOST = 30.0


class Claimers:
    """The claimers of all sources as one. They take turns at being asked first, so that a source
    with a long backlog never starves another. One that fails (its table is locked, a column was
    dropped) is left alone for a while, and the others go on."""

    def __init__(self, claimers: Sequence[Claimer], events: Events) -> None:
        self._claimers = list(claimers)
        self._events = events

    async def step(self, limit: int, worker: int) -> list[Row]:
        """Up to `limit` rows, claimed for the worker of that id. Raises LinkDown where the database
        is down and none has come yet."""
        self._claimers.append(self._claimers.pop(0))
        rows: list[Row] = []
        for claimer in self._claimers:
            claimer.looked = False
            if len(rows) < limit and time.monotonic() >= claimer.rests_until:
                try:
                    rows += await self._ask(claimer, limit - len(rows), worker)
                except LinkDown:
                    if not rows:
                        raise
                    break  # what the others gave must not be forgotten
        return rows

    def hurry(self) -> None:
        """Somebody waits until nothing is due."""
        for claimer in self._claimers:
            claimer.hurries = True

    def rest(self, source: str, seconds: float) -> None:
        """Its results cannot be written: no more of it for a while."""
        for claimer in self._claimers:
            if claimer.name == source:
                claimer.rests_until = max(claimer.rests_until, time.monotonic() + seconds)

    async def reconcile(self, worker: int, held: dict[str, list[Row]]) -> None:
        """A source that cannot be asked rests: it must not keep the others from being claimed."""
        for claimer in self._claimers:
            if claimer.unsure and time.monotonic() >= claimer.rests_until:
                with self._resting(claimer):
                    await claimer.reconcile(worker, held)

    @property
    def unsure(self) -> bool:
        return any(claimer.unsure for claimer in self._claimers)

    @property
    def owes_look(self) -> bool:
        """Whether the next step should come at once: the last one put its look off, so that the
        rows it had found could start."""
        return any(claimer.owes_look for claimer in self._claimers)

    @property
    def looked(self) -> bool:
        """Whether the last step went over everything that was due, in every source."""
        return all(claimer.looked for claimer in self._claimers)

    def next_look_in(self) -> float:
        return max((claimer.next_look_in() for claimer in self._claimers), default=0.0)

    def next_due_in(self) -> float | None:
        times = [claimer.next_due_in() for claimer in self._claimers]
        return min((time for time in times if time is not None), default=None)

    async def _ask(self, claimer: Claimer, limit: int, worker: int) -> list[Row]:
        with self._resting(claimer):
            try:
                rows = await claimer.step(limit, worker)
                claimer.failures = 0
                return rows
            except (Blocked, asyncpg.PostgresError):
                claimer.unsure = False  # the statement failed: nothing was claimed
                raise
        return []

    @contextmanager
    def _resting(self, claimer: Claimer) -> Iterator[None]:
        """A source that fails is left alone for a while; an outage of the database is not its."""
        try:
            yield
        except LinkDown as error:
            if not isinstance(error, Blocked):
                raise
            why = error.why
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
        else:
            return
        claimer.failures += 1
        pause = min(FAILED_PAUSE_MOST, 2.0 ** (claimer.failures - 1))
        claimer.rests_until = time.monotonic() + pause
        self._events.emit(SourceFailed(claimer.name, why, pause))
