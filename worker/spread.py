"""Due times of jobs that are enqueued together, spread over time."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from worker.errors import UsageError
from worker.job import Job


@dataclass(frozen=True, slots=True)
class Spread:
    """What `enqueue_many` adds to the due times of its jobs, so that they do not all come due at
    once. Each gets a share of the time in the order given, and a random moment of it.

    over: seconds (or a timedelta) over which they are spread.
    most, per: at most so many come due in each `per` seconds; where `over` is too short for that,
        it takes longer.
    by: what is spread, and counted, on its own: the jobs of each "tenant" (of a kind), or of each
        "kind".

    It knows the jobs of one call. What is due already, or was spread by another call, is not
    counted.
    """

    over: float | dt.timedelta = 0.0
    most: int | None = None
    per: float | dt.timedelta = 60.0
    by: Literal["tenant", "kind"] = "tenant"

    def __post_init__(self) -> None:
        if self.most is None and not _seconds(self.over) > 0:
            raise UsageError("Spread(...) says neither over how long nor how many at most")
        if not 0 <= _seconds(self.over) < math.inf or not 0 < _seconds(self.per) < math.inf:
            raise UsageError(f"{self} is no length of time")
        if self.most is not None and self.most < 1:
            raise UsageError(f"Spread(most={self.most}) lets nothing come due")
        if self.by not in ("tenant", "kind"):
            raise UsageError(f"Spread(by={self.by!r}) is neither 'tenant' nor 'kind'")

    def apply(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs, each due later by its share. What cannot be enqueued is left as it is."""
        groups = [self._group(job) for job in jobs]
        counts = Counter(groups)
        seen: Counter[tuple[object, ...]] = Counter()
        spread = []
        for job, group in zip(jobs, groups, strict=True):
            spread.append(_later(job, self.moment(seen[group], counts[group])))
            seen[group] += 1
        return spread

    def moment(self, index: int, count: int) -> float:
        """Seconds for one of `count` jobs."""
        over, per = _seconds(self.over), _seconds(self.per)
        if self.most is None:
            return (index + random.random()) * over / count
        buckets = max(math.ceil(count / self.most), int(over // per))
        return (index * buckets // count + random.random()) * per

    def _group(self, job: Job) -> tuple[object, ...]:
        kind = getattr(job, "kind", None)
        return (kind, getattr(job, "tenant", None)) if self.by == "tenant" else (kind,)


def _later(job: Any, seconds: float) -> Any:
    if not isinstance(job, Job) or (job.due_at is not None and job.delay is not None):
        return job
    if isinstance(job.due_at, dt.datetime):
        return dataclasses.replace(job, due_at=job.due_at + dt.timedelta(seconds=seconds))
    if isinstance(job.delay, dt.timedelta):
        return dataclasses.replace(job, delay=job.delay + dt.timedelta(seconds=seconds))
    if job.delay is None or isinstance(job.delay, int | float):
        return dataclasses.replace(job, delay=(job.delay or 0.0) + seconds)
    return job


def _seconds(duration: float | dt.timedelta) -> float:
    return duration.total_seconds() if isinstance(duration, dt.timedelta) else duration
