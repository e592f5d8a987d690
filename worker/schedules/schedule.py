"""What a schedule says: when, what, and what follows when something is late or still runs."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from worker.batch import PLAIN, Batch
from worker.errors import RegistrationError
from worker.job import Job
from worker.jsonb import PAYLOAD_LIMIT
from worker.outcome import storable
from worker.schedules.timing import Timing, zone

if TYPE_CHECKING:
    from worker.registry import Handler

CatchUp = Literal["skip", "one", "all"]
Overlap = Literal["skip", "allow"]

NAME_LIMIT = 200
LIMIT_MOST = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """One schedule: enqueues a job at each of its ticks.

    name: unique among all schedules of the database. kind, args, queue, priority, tenant,
        max_attempts: of the jobs, as in `Job`. queue: default: the handler's where it stands in the
        same code, else "default".
    cron: five fields, or six with seconds first, in the time zone `tz`. every: seconds, or a
        timedelta, from when the schedule was made. at: once; in `tz` unless it names a zone.
    tick_as: the argument that is given the time of the tick, in `tz`.
    catch_up: what follows when ticks were missed, because no worker lived: "one" job for all of
        them, a job for "all" (the last `catch_up_limit` of them), or "skip": none for a tick that
        is more than a minute late.
    overlap: "skip" a tick while the job of the last one is live, or "allow"; default: skip, and
        allow with catch_up="all".
    jitter: seconds, or a timedelta; each job is due a random part of it after its tick.

    Raises RegistrationError, UsageError or PayloadInvalid for what could never work.
    """

    name: str = field(kw_only=False)
    kind: str
    args: Mapping[str, Any] = field(default_factory=dict)
    cron: str | None = None
    every: float | dt.timedelta | None = None
    at: dt.datetime | None = None
    tz: str = "UTC"
    tick_as: str | None = None
    queue: str | None = None
    priority: int = 0
    tenant: str | None = None
    max_attempts: int | None = None
    catch_up: CatchUp = "one"
    catch_up_limit: int = 100
    overlap: Overlap | None = None
    jitter: float | dt.timedelta = 0.0

    def __post_init__(self) -> None:
        _check_name(self.name)
        try:
            self._check()
        except RegistrationError as error:
            raise RegistrationError(
                f"schedule {self.name!r}: {error.what}", why=error.why, hint=error.hint
            ) from None

    @property
    def timing(self) -> Timing:
        """Raises RegistrationError for a time zone that is not known."""
        every = None if self.every is None else _seconds(self.every)
        at: dt.datetime | None = self.at
        if at is not None:
            at = (at.replace(tzinfo=zone(self.tz)) if at.tzinfo is None else at).astimezone(dt.UTC)
        return Timing(self.cron, every, at, self.tz)

    @property
    def overlaps(self) -> Overlap:
        return self.overlap or ("allow" if self.catch_up == "all" else "skip")

    def for_handler(self, handler: Handler) -> Schedule:
        """The same, in the queue of the handler of its kind. Raises RegistrationError or
        PayloadInvalid where the handler could not run its jobs."""
        if handler.table is not None:
            raise RegistrationError(
                f"schedule {self.name!r}: {self.kind!r} cannot be enqueued",
                why=f"its handler runs the rows of {handler.table.spec.table}, not jobs",
                hint="@app.rows(..., every=...) says when its rows are due again",
            )
        tick = self.timing.after(dt.datetime.now(dt.UTC))
        handler.signature.write(self.args_with(tick or dt.datetime.now(dt.UTC)))
        return replace(self, queue=self.queue or handler.queue)

    def row(self) -> dict[str, Any]:
        """The columns of worker.schedules that say what it is, as JSON has them."""
        timing = self.timing
        return {
            "name": self.name,
            "cron": self.cron,
            "every": timing.every,
            "at": timing.at and timing.at.isoformat(),
            "tz": self.tz,
            "kind": self.kind,
            "queue": self.queue or "default",
            "args": json.loads(self._args_text()),
            "tick_as": self.tick_as,
            "priority": self.priority,
            "tenant": self.tenant,
            "max_attempts": self.max_attempts,
            "catch_up": self.catch_up,
            "catch_up_limit": self.catch_up_limit,
            "overlap": self.overlaps,
            "jitter": _seconds(self.jitter),
        }

    def args_with(self, tick: dt.datetime) -> dict[str, Any]:
        """The arguments of the job of one tick."""
        args: dict[str, Any] = json.loads(self._args_text())
        if self.tick_as is not None:
            args[self.tick_as] = told(tick, self.tz)
        return args

    def _args_text(self) -> str:
        job = Job(
            self.kind,
            self.args,
            queue=self.queue or "default",
            priority=self.priority,
            tenant=self.tenant,
            max_attempts=self.max_attempts,
        )
        text: str = Batch([job], None, PAYLOAD_LIMIT).params(range(1), PLAIN)[0]
        return text

    def _check(self) -> None:
        _check_types(self)
        self.timing.check()
        if self.catch_up not in ("skip", "one", "all"):
            raise RegistrationError(
                f"catch_up={self.catch_up!r} is no policy", hint='"skip", "one" or "all"'
            )
        if self.overlap not in (None, "skip", "allow"):
            raise RegistrationError(
                f"overlap={self.overlap!r} is no policy", hint='"skip" or "allow"'
            )
        if self.catch_up == "all" and self.overlap == "skip":
            raise RegistrationError(
                'catch_up="all" and overlap="skip" contradict each other',
                why="of the ticks to be made up for only the first would get a job",
                hint='overlap="allow", or catch_up="one"',
            )
        if not 1 <= self.catch_up_limit <= LIMIT_MOST:
            raise RegistrationError(
                f"catch_up_limit={self.catch_up_limit} is not between 1 and {LIMIT_MOST}"
            )
        longest = 86_400.0 if self.every is None else min(86_400.0, _seconds(self.every))
        if not 0 <= _seconds(self.jitter) <= longest:
            raise RegistrationError(
                f"jitter={_seconds(self.jitter):g} is not between 0 and {longest:g} seconds",
                why="a longer one would put a job off beyond the next tick"
                if longest < 86_400
                else "",
            )
        if self.tick_as is not None and self.tick_as in self.args:
            raise RegistrationError(f"args has {self.tick_as!r}, which tick_as fills in")
        self._args_text()


def told(tick: dt.datetime, tz: str) -> str:
    """A tick as a handler is told of it: ISO 8601 with the offset of its zone."""
    return tick.astimezone(zone(tz)).isoformat()


def _check_name(name: object) -> None:
    good = isinstance(name, str) and 1 <= len(name) <= NAME_LIMIT and storable(name) == name
    if not good:
        raise RegistrationError(
            f"{name!r} cannot be the name of a schedule",
            why=f"a name is a text of 1 to {NAME_LIMIT} characters that Postgres can store",
        )


def _check_types(schedule: Schedule) -> None:
    for name, types, says in (
        ("cron", str | None, "text"),
        ("every", int | float | dt.timedelta | None, "seconds, or a timedelta"),
        ("at", dt.datetime | None, "a datetime"),
        ("tz", str, "the name of a time zone"),
        ("tick_as", str | None, "the name of an argument"),
        ("catch_up_limit", int, "a whole number"),
        ("jitter", int | float | dt.timedelta, "seconds, or a timedelta"),
        ("args", Mapping, "a dict of arguments by name"),
    ):
        value = getattr(schedule, name)
        if not isinstance(value, types):
            raise RegistrationError(
                f"{name} is of type {type(value).__name__}", hint=f"give {says}"
            )


def _seconds(duration: float | dt.timedelta) -> float:
    return duration.total_seconds() if isinstance(duration, dt.timedelta) else float(duration)
