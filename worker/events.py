"""What happened, as frozen values. Logs, metrics and traces are observers of these.

The dotted `name` of each is the name of its log line, and part of the public surface.
An observer is any callable that takes an event; one that raises is logged and breaks nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, ClassVar

from worker.row import Row
from worker.transition import Transition


@dataclass(frozen=True, slots=True)
class Event:
    name: ClassVar[str]


@dataclass(frozen=True, slots=True)
class RowsClaimed(Event):
    """A claim came back. seconds: the call's duration; asked, count: rows."""

    name: ClassVar[str] = "row.claimed"
    source: str
    asked: int
    count: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RowStarted(Event):
    """A handler begins, or the call of a batch that the row is in."""

    name: ClassVar[str] = "row.started"
    row: Row


@dataclass(frozen=True, slots=True)
class BatchRan(Event):
    """The call of a batch is over. count: rows that it was given; seconds: how long it took."""

    name: ClassVar[str] = "batch.ran"
    source: str
    kind: str
    count: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RowSettled(Event):
    """A transition was accepted. seconds: run time of the handler."""

    name: ClassVar[str] = "row.settled"
    row: Row
    transition: Transition
    seconds: float

    @property
    def wait(self) -> float:
        """Seconds from due to claimed."""
        return self.row.wait


@dataclass(frozen=True, slots=True)
class RowLost(Event):
    """A result was refused: the claim was no longer ours."""

    name: ClassVar[str] = "row.lost"
    row: Row
    refused: str


@dataclass(frozen=True, slots=True)
class RowSwept(Event):
    """The row of a dead worker was returned (outcome "crashed"), or ended ("dead", or "cancelled"
    where an operator had asked for that)."""

    name: ClassVar[str] = "row.swept"
    source: str
    key: Any
    kind: str
    queue: str
    outcome: str
    crashes: int


@dataclass(frozen=True, slots=True)
class RowAbandoned(Event):
    """A handler did not end at its timeout. Its slot is free, its result will be refused."""

    name: ClassVar[str] = "row.abandoned"
    row: Row
    seconds: float


@dataclass(frozen=True, slots=True)
class ResultRefused(Event):
    """A handler's result could not be stored; the row is done without it."""

    name: ClassVar[str] = "row.result_refused"
    row: Row
    why: str


@dataclass(frozen=True, slots=True)
class WorkerStarted(Event):
    """It is registered and begins to claim. worker: its id. slots: rows that it runs at a time."""

    name: ClassVar[str] = "worker.started"
    worker: int
    worker_name: str
    queues: tuple[str, ...]
    kinds: tuple[str, ...]
    slots: int


@dataclass(frozen=True, slots=True)
class WorkerDraining(Event):
    """It claims no more. running, buffered: rows that have begun, and that have not. grace: seconds
    that it has.
    """

    name: ClassVar[str] = "worker.draining"
    worker: int
    running: int
    buffered: int
    grace: float


@dataclass(frozen=True, slots=True)
class WorkerStopped(Event):
    """The last word of a worker. Rows that it has written, given back, and lost to another."""

    name: ClassVar[str] = "worker.stopped"
    worker: int
    settled: int
    released: int
    lost: int


@dataclass(frozen=True, slots=True)
class WorkerGone(Event):
    """Another worker's lease ran out; it was declared dead."""

    name: ClassVar[str] = "worker.gone"
    worker: int
    worker_name: str


@dataclass(frozen=True, slots=True)
class WorkerFenced(Event):
    """This worker was declared dead and starts over under a new id. rows: how many it held."""

    name: ClassVar[str] = "worker.fenced"
    worker: int
    rows: int


@dataclass(frozen=True, slots=True)
class SlotsChanged(Event):
    """An adaptive concurrency follows what happens. why: "backlog" or "idle" (more or less is due),
    "throttled", "timeout", "pool" (sessions are short)."""

    name: ClassVar[str] = "worker.slots"
    worker: int
    slots: int
    before: int
    why: str


@dataclass(frozen=True, slots=True)
class DatabaseLost(Event):
    """A call failed for a reason that may pass. link: which connection. retry_in: seconds."""

    name: ClassVar[str] = "db.reconnecting"
    link: str
    why: str
    retry_in: float


@dataclass(frozen=True, slots=True)
class DatabaseBack(Event):
    """The connection is there again. after: seconds without it."""

    name: ClassVar[str] = "db.connected"
    link: str
    after: float


@dataclass(frozen=True, slots=True)
class ChoreRan(Event):
    """A step of housekeeping was done here. seconds: how long it took."""

    name: ClassVar[str] = "chore.ran"
    chore: str
    result: str
    seconds: float


@dataclass(frozen=True, slots=True)
class SourceFailed(Event):
    """Rows of one source cannot be claimed, settled or swept for now; the others go on."""

    name: ClassVar[str] = "source.failed"
    source: str
    why: str
    retry_in: float


@dataclass(frozen=True, slots=True)
class SourceCaution(Event):
    """What should be known of an adopted table, and keeps no row from being claimed."""

    name: ClassVar[str] = "source.caution"
    source: str
    what: str
    why: str
    next: str


@dataclass(frozen=True, slots=True)
class ServiceFailed(Event):
    """One of the worker's own services raised. It is restarted."""

    name: ClassVar[str] = "service.failed"
    service: str
    error: BaseException


@dataclass(frozen=True, slots=True)
class KindsUnclaimed(Event):
    """Live rows of kinds that no live worker has a handler for."""

    name: ClassVar[str] = "kinds.unclaimed"
    kinds: tuple[tuple[str, str], ...]
    since: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class KeyThrottled(Event):
    """A handler was told to come back later; nothing of that key is claimed until then."""

    name: ClassVar[str] = "key.throttled"
    queue: str | None
    kind: str | None
    tenant: str | None
    seconds: float
    why: str


@dataclass(frozen=True, slots=True)
class BreakerChanged(Event):
    """A circuit breaker opened, or closed. open_for: seconds until one row may try."""

    name: ClassVar[str] = "breaker.changed"
    scope: str
    state: str
    open_for: float | None


@dataclass(frozen=True, slots=True)
class ScheduleTicked(Event):
    """A tick was decided and its job enqueued. tick: the time that the schedule names."""

    name: ClassVar[str] = "schedule.tick"
    schedule: str
    tick: dt.datetime
    kind: str
    queue: str
    key: int


@dataclass(frozen=True, slots=True)
class ScheduleOverlapped(Event):
    """A tick got no job: the job of the last one is live, and the schedule says overlap="skip"."""

    name: ClassVar[str] = "schedule.overlapped"
    schedule: str
    tick: dt.datetime
    kind: str
    queue: str


@dataclass(frozen=True, slots=True)
class ScheduleMissed(Event):
    """Ticks got no job of their own, as catch_up says: nobody was there in time. tick: the last of
    them; count: how many, at_least: or more."""

    name: ClassVar[str] = "schedule.missed"
    schedule: str
    tick: dt.datetime
    count: int
    at_least: bool


@dataclass(frozen=True, slots=True)
class ScheduleChanged(Event):
    """What stands in the code was written down. change: made, changed, or back: it was retired."""

    name: ClassVar[str] = "schedule.changed"
    schedule: str
    change: str


@dataclass(frozen=True, slots=True)
class ScheduleRetired(Event):
    """No live worker's code has named it for an hour."""

    name: ClassVar[str] = "schedule.retired"
    schedule: str


@dataclass(frozen=True, slots=True)
class ScheduleFailed(Event):
    """A schedule does not tick: nothing can be made of what it says, or its name is taken."""

    name: ClassVar[str] = "schedule.failed"
    schedule: str
    why: str


Observer = Callable[[Event], None]


EACH_ROW = frozenset({RowStarted, RowSettled})


class Events:
    """Hands each event to every observer.

    ignored: of those that come with each row, the ones that nobody would look at: they need not be
        made.
    """

    def __init__(self, observers: tuple[Observer, ...] = ()) -> None:
        self._observers = observers
        self.ignored: frozenset[type[Event]] = frozenset() if observers else EACH_ROW

    def subscribe(self, observer: Observer, ignores: Collection[type[Event]] = ()) -> None:
        """ignores: what the observer does not look at."""
        self._observers = (*self._observers, observer)
        self.ignored = self.ignored.intersection(ignores)

    def emit(self, event: Event) -> None:
        for observer in self._observers:
            try:
                observer(event)
            except Exception:
                import structlog  # dear, and rarely needed

                structlog.get_logger("duerow").exception("observer.failed", event_name=event.name)
