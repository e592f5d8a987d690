"""When dead rows are run again without anybody asking: a rule of their handler."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from worker.errors import RegistrationError, UsageError
from worker.outcome import LONGEST_DELAY

LEAST_AFTER = 0.1  # seconds
AT_ONCE = 10_000  # rows in one go


@dataclass(frozen=True, slots=True)
class Redrive:
    """A dead row is run again, with all its attempts, `after` it died; `times` times at most.

    after: seconds or a timedelta. times: for one due time of a row, or for one job; an operator's
        retry that ends dead uses one of them up.
    Raises RegistrationError for what makes no sense.
    """

    after: float | dt.timedelta = dt.timedelta(hours=24)
    times: int = 3

    def __post_init__(self) -> None:
        after: object = self.after
        if isinstance(after, bool) or not isinstance(after, int | float | dt.timedelta):
            raise RegistrationError(
                f"Redrive(after=...) is a {type(after).__name__}",
                hint="give seconds, or timedelta(hours=24)",
            )
        if not LEAST_AFTER <= self.seconds <= LONGEST_DELAY:
            raise RegistrationError(f"Redrive(after={self.after}) is not 0.1 s to ten years")
        times: object = self.times
        if isinstance(times, bool) or not isinstance(times, int) or times < 1:
            raise RegistrationError(
                f"Redrive(times={self.times!r}) is not a whole number above 0",
                hint="leave redrive= out, and dead rows stay dead until an operator retries them",
            )

    @property
    def seconds(self) -> float:
        if isinstance(self.after, dt.timedelta):
            return self.after.total_seconds()
        return float(self.after)

    @property
    def look_every(self) -> float:
        """Seconds between two looks for rows that are ripe: a fiftieth of `after`."""
        return min(300.0, max(0.1, self.seconds / 50))


@dataclass(frozen=True, slots=True)
class Rule:
    """One handler's. source: "jobs", or the adopted table's name, which is its kind too."""

    source: str
    kind: str
    redrive: Redrive

    def refuse_forgetful(self, *, finished: float, attempts: float) -> None:
        """Raises UsageError where history is dropped before the rule has ended: deaths are
        counted in it. finished, attempts: seconds that they are kept."""
        whole = self.redrive.seconds * self.redrive.times
        if 2 * whole > attempts:
            raise UsageError(
                f"redrive of {self.kind!r}: {self.redrive.times} times after "
                f"{self.redrive.seconds:g} s is more than half of the {attempts:g} s that attempts "
                "are kept",
                why="how often a row died is counted in them",
                hint=f"DUEROW_ATTEMPTS_RETENTION={2 * whole:g}s, or less of a redrive",
            )
        if self.source == "jobs" and 2 * self.redrive.seconds > finished:
            raise UsageError(
                f"redrive of {self.kind!r}: {self.redrive.seconds:g} s is more than half of the "
                f"{finished:g} s that finished jobs are kept",
                why="a dead job is dropped with the others of its day",
                hint=f"DUEROW_RETENTION={2 * self.redrive.seconds:g}s, or an earlier redrive",
            )
