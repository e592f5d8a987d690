"""The built-in source of rows, worker.jobs: a method per file in sql/."""

from __future__ import annotations

import datetime as dt
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from worker.link import Link
from worker.row import Row
from worker.statements import statement
from worker.transition import Transition

BEGINNING = (dt.datetime(1, 1, 1, tzinfo=dt.UTC), 0)


@dataclass(slots=True, eq=False)
class Stream:
    """The rows of one queue, kind and priority, which are taken in the order of (due_at, id).

    floor: (due_at, id) of the last row taken from it.
    next_due: when its next row falls due, as far as is known, on time.monotonic()'s clock.
    """

    queue: str
    kind: str
    priority: int
    floor: tuple[dt.datetime, int] = BEGINNING
    next_due: float | None = None


@dataclass(slots=True, eq=False)
class Settlement:
    """One claim's result on its way into the table. seconds: the handler's run time; wait: from
    due to start."""

    row: Row
    transition: Transition
    seconds: float
    wait: float

    @property
    def run_ms(self) -> int | None:
        return round(self.seconds * 1000) if self.transition.recorded else None


class Jobs:
    """worker.jobs."""

    name = "jobs"

    async def claim(
        self, link: Link, streams: Sequence[Stream], floors: bool, limit: int, worker: int
    ) -> list[Row]:
        """At most `limit` due rows, from the streams in their order; above the floors, or from the
        beginning."""
        at = [stream.floor if floors else BEGINNING for stream in streams]
        records = await link.fetch(
            statement("claim/due"),
            [stream.queue for stream in streams],
            [stream.kind for stream in streams],
            [stream.priority for stream in streams],
            [floor[0] for floor in at],
            [floor[1] for floor in at],
            limit,
            worker,
        )
        return [Row("jobs", *record, worker) for record in records]

    async def streams(self, link: Link, pairs: Sequence[tuple[str, str]]) -> list[Stream]:
        """The streams of these (queue, kind) pairs that have live rows, highest priority first."""
        records = await link.fetch(
            statement("claim/streams"), [queue for queue, _ in pairs], [kind for _, kind in pairs]
        )
        now = time.monotonic()
        streams = [
            Stream(queue, kind, priority, BEGINNING, None if next_in is None else now + next_in)
            for queue, kind, priority, next_in in records
        ]
        return sorted(streams, key=lambda stream: stream.priority)

    async def disown(self, link: Link, worker: int, held: Sequence[int]) -> list[int]:
        """Gives back rows claimed under `worker` that it does not know of."""
        return [r["id"] for r in await link.fetch(statement("claim/disown"), worker, held)]

    async def settle(self, link: Link, worker: int, batch: Sequence[Settlement]) -> set[int]:
        """Writes the transitions; the ids of those whose claim was still ours."""
        accepted: set[int] = set()
        for sql, params in settle_statements(worker, batch):
            accepted.update(record["id"] for record in await link.fetch(sql, *params))
        return accepted

    async def confirm(self, link: Link, worker: int, batch: Sequence[Settlement]) -> set[int]:
        """The ids among `batch` whose final row carries that very claim."""
        records = await link.fetch(
            statement("settle/confirm"),
            [s.row.key for s in batch],
            [s.row.token for s in batch],
            worker,
        )
        return {record["id"] for record in records}

    async def record_lost(
        self, link: Link, worker: int, lost: Sequence[tuple[Row, float, str]]
    ) -> None:
        """Records refused results: (row, run time in seconds, what was refused)."""
        await link.fetch(
            statement("settle/lost"),
            [str(row.key) for row, _, _ in lost],
            [row.queue for row, _, _ in lost],
            [row.kind for row, _, _ in lost],
            [row.attempt for row, _, _ in lost],
            [row.token for row, _, _ in lost],
            worker,
            [round(seconds * 1000) for _, seconds, _ in lost],
            [refused for _, _, refused in lost],
            self.name,
        )


def settle_statements(worker: int, batch: Sequence[Settlement]) -> list[tuple[str, list[Any]]]:
    """What to send to carry out `batch`: at most two statements, each giving the accepted ids."""
    done = [s for s in batch if s.transition.verb == "done"]
    other = [s for s in batch if s.transition.verb != "done"]
    sends = []
    if done:
        sends.append((statement("settle/done"), _done_params(worker, done)))
    if other:
        sends.append((statement("settle/other"), _other_params(worker, other)))
    return sends


def _done_params(worker: int, batch: Sequence[Settlement]) -> list[Any]:
    return [
        [s.row.key for s in batch],
        [s.row.token for s in batch],
        worker,
        [round(s.seconds * 1000) for s in batch],
        [s.transition.result for s in batch],
    ]


def _other_params(worker: int, batch: Sequence[Settlement]) -> list[Any]:
    transitions = [s.transition for s in batch]
    faults = [t.fault for t in transitions]
    return [
        [s.row.key for s in batch],
        [s.row.token for s in batch],
        worker,
        [t.verb for t in transitions],
        [t.next_at for t in transitions],
        [t.delay for t in transitions],
        [t.refund for t in transitions],
        [s.run_ms for s in batch],
        [f and f.type for f in faults],
        [f and f.message for f in faults],
        [f and f.fingerprint for f in faults],
        [f and f.traceback for f in faults],
    ]


async def register(link: Link, **worker: Any) -> int:
    """Inserts the worker's row; its id."""
    order = ("name", "host", "pid", "version", "queues", "kinds", "slots", "lease")
    [record] = await link.fetch(statement("workers/register"), *(worker[name] for name in order))
    return int(record["id"])


async def stop(link: Link, worker: int) -> None:
    await link.fetch(statement("workers/stop"), worker)


async def installation(link: Link) -> uuid.UUID:
    """The database's own id."""
    [record] = await link.fetch("select id from worker.installation")
    found: uuid.UUID = record["id"]
    return found
