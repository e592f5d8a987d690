"""The built-in source of rows, worker.jobs: a method per file in sql/."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from operator import itemgetter
from typing import Any

from worker.fair import LIST, VISIT, Fair, Listing, between, listing
from worker.link import Fetches, Link
from worker.row import Row
from worker.source import BEGINNING, Settlement, Statement, Stream
from worker.statements import statement


class Jobs:
    """worker.jobs.

    pairs: the (queue, kind) pairs that this process has handlers for; nothing else is claimed.
    fair: of the kinds whose tenants take turns.
    """

    name = "jobs"
    has_tenants = True
    claims_one_each = True
    orphans_every = 600.0  # it reads the whole table

    def __init__(
        self, pairs: Sequence[tuple[str, str]], fair: Mapping[str, Fair] | None = None
    ) -> None:
        self._queues = [queue for queue, _ in pairs]
        self._kinds = [kind for _, kind in pairs]
        self._fair = fair or {}

    async def claim(
        self,
        link: Fetches,
        streams: Sequence[Stream],
        floors: bool,
        limit: int,
        worker: int,
        *,
        gated: bool = False,
    ) -> list[Row]:
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
            gated,
        )
        return _rows(records, worker)

    async def streams(self, link: Link, known: Sequence[Stream] = ()) -> list[Stream]:
        records = await link.fetch(
            statement("claim/streams"),
            self._queues,
            self._kinds,
            [stream.queue for stream in known],
            [stream.kind for stream in known],
            [stream.priority for stream in known],
        )
        now = time.monotonic()
        streams = [
            Stream(
                queue,
                kind,
                priority,
                next_due=None if next_in is None else now + next_in,
                fair=self._fair.get(kind),
            )
            for queue, kind, priority, next_in in records
        ]
        return sorted(streams, key=lambda stream: stream.priority)

    async def tenants(self, link: Link, stream: Stream, after: str | None) -> Listing:
        where = (stream.queue, stream.kind, stream.priority)
        if after is None:
            [(first, last)] = await link.fetch(statement("claim/span"), *where)
            after = None if first is None else between(first, last, "text")
        return listing(await link.fetch(statement("claim/tenants"), *where, after, LIST, VISIT))

    async def claim_tenants(
        self,
        link: Fetches,
        stream: Stream,
        tenants: Sequence[str],
        most: Sequence[int],
        limit: int,
        worker: int,
        *,
        gated: bool = False,
    ) -> list[Row]:
        records = await link.fetch(
            statement("claim/fair"),
            stream.queue,
            stream.kind,
            stream.priority,
            tenants,
            most,
            limit,
            worker,
            gated,
        )
        return _rows(records, worker)

    async def claim_one_each(
        self, link: Link, stream: Stream, after: str, limit: int, worker: int
    ) -> tuple[list[Row], str | None]:
        records = await link.fetch(
            statement("claim/one_each"),
            stream.queue,
            stream.kind,
            stream.priority,
            after,
            limit,
            VISIT,
            worker,
        )
        last = records[0][-1] if records else None
        return _rows([record[:-1] for record in records], worker), last

    def key(self, record: Any) -> Any:
        return record[0]

    def disown(self, worker: int, held: Collection[Row]) -> Statement:
        keys, tokens = [row.key for row in held], [row.token for row in held]
        return statement("claim/disown"), [worker, keys, tokens]

    def settle(
        self, worker: int, batch: Sequence[Settlement], *, wait: bool = False
    ) -> list[Statement]:
        done = [s for s in batch if s.transition.verb == "done"]
        other = []
        if len(done) < len(batch):
            other = [s for s in batch if s.transition.verb != "done"]
        statements = []
        if done:
            statements.append((statement("settle/done"), _done(worker, done)))
        if other:
            statements.append((statement("settle/other"), _other(worker, other)))
        return statements

    def busy(self, record: Any) -> bool:
        return bool(record[1])

    def confirm(self, worker: int, batch: Sequence[Settlement]) -> Statement:
        keys = [s.row.key for s in batch]
        tokens = [s.row.token for s in batch]
        return statement("settle/confirm"), [keys, tokens, worker]

    def sweep(self, absent: Sequence[int], max_crashes: int) -> Statement:
        return statement("chores/sweep"), [absent, max_crashes]

    def cut(self, absent: Sequence[int]) -> Statement:
        return statement("chores/cut"), [absent]

    def orphans(self) -> Statement:
        return statement("chores/orphans"), []

    def abandon(self, worker: int) -> Statement:
        return statement("workers/abandon"), [worker]

    def left(self, most: int) -> Statement:
        return statement("claim/left"), [self._queues, self._kinds, most]

    def redrive(self, kind: str, after: float, times: int, limit: int) -> Statement:
        return statement("chores/redrive"), [kind, after, times, limit]


_ORDER = itemgetter(3, 4, 0)  # priority, due_at, id


def _rows(records: Sequence[Any], worker: int) -> list[Row]:
    records = sorted(records, key=_ORDER)
    return [Row("jobs", worker, *record) for record in records]


def _done(worker: int, batch: Sequence[Settlement]) -> list[Any]:
    results = [s.transition.result for s in batch]
    return [
        [s.row.key for s in batch],
        [s.row.token for s in batch],
        worker,
        [round(s.seconds * 1000) for s in batch],
        results if any(results) else [],  # what a shorter array lacks is null
    ]


def _other(worker: int, batch: Sequence[Settlement]) -> list[Any]:
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
