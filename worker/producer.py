"""Puts jobs on the queue, over the connection and in the transaction that the caller has.

    enqueue(connection, Job("charge", {"donation_id": 7}))        # psycopg, SQLAlchemy, Django
    await enqueue(connection, Job("charge", {"donation_id": 7}))  # asyncpg, and their async kin

Nothing is committed: the jobs are there when the caller's transaction is. Whatever can be checked
is checked before anything is sent, so that a bad job does not end that transaction.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from worker.batch import KEYED, PLAIN, Batch, Encode, Key
from worker.carrier import Talk, converse
from worker.job import Job
from worker.jsonb import PAYLOAD_LIMIT
from worker.spread import Spread
from worker.statements import statement

if TYPE_CHECKING:
    from worker.carrier import AsyncCarrier, SyncConnection

# How often a job is offered again whose key was held by one that nobody could see.
OFFERS = 5


class Enqueued(NamedTuple):
    """What became of a job.

    id: of the job; where its unique key was taken, of the one that holds it, or None if that one
        came and went too fast to be seen. created: whether this call made it.
    """

    id: int | None
    created: bool


@overload
def enqueue(
    connection: SyncConnection,
    job: Job,
    *,
    encode: Encode | None = None,
    limit: int = PAYLOAD_LIMIT,
    spread: Spread | None = None,
) -> Enqueued: ...
@overload
def enqueue(
    connection: AsyncCarrier,
    job: Job,
    *,
    encode: Encode | None = None,
    limit: int = PAYLOAD_LIMIT,
    spread: Spread | None = None,
) -> Awaitable[Enqueued]: ...
def enqueue(
    connection: Any,
    job: Job,
    *,
    encode: Encode | None = None,
    limit: int = PAYLOAD_LIMIT,
    spread: Spread | None = None,
) -> Any:
    """Enqueues one job. On an async connection the answer has to be awaited.

    encode: writes a job's args as JSON text (default: as pydantic does). limit: bytes of it.
    spread: what to add to the due time.
    Raises PayloadInvalid for args, UsageError for anything else that cannot be enqueued, both
    before anything is sent; and what the driver raises.
    """
    batch = Batch([job] if spread is None else spread.apply([job]), encode, limit)
    return converse(connection, _one(batch), together=batch.keyed)


@overload
def enqueue_many(
    connection: SyncConnection,
    jobs: Iterable[Job],
    *,
    encode: Encode | None = None,
    limit: int = PAYLOAD_LIMIT,
    spread: Spread | None = None,
) -> list[Enqueued]: ...
@overload
def enqueue_many(
    connection: AsyncCarrier,
    jobs: Iterable[Job],
    *,
    encode: Encode | None = None,
    limit: int = PAYLOAD_LIMIT,
    spread: Spread | None = None,
) -> Awaitable[list[Enqueued]]: ...
def enqueue_many(
    connection: Any,
    jobs: Iterable[Job],
    *,
    encode: Encode | None = None,
    limit: int = PAYLOAD_LIMIT,
    spread: Spread | None = None,
) -> Any:
    """Enqueues jobs: all of them or, where anything raises, none that the caller could commit.

    Gives what became of each, in the order given. Jobs without a unique key get ids that ascend.
    All jobs are held in memory; hundreds of thousands are better passed in several calls.
    Arguments and errors as for `enqueue`.
    """
    given = list(jobs)
    batch = Batch(given if spread is None else spread.apply(given), encode, limit)
    return converse(connection, _all(batch), together=True)


def _one(batch: Batch) -> Talk[Enqueued]:
    if batch.keyed:
        [enqueued] = yield from _with_keys(batch)
        return enqueued
    args, *columns = batch.params(range(1), PLAIN)
    rows = yield statement("enqueue/one"), [args, *(c[0] if c else None for c in columns)]
    return Enqueued(rows[0][0], True)


def _all(batch: Batch) -> Talk[list[Enqueued]]:
    return (yield from (_with_keys(batch) if batch.keyed else _without_keys(batch)))


def _without_keys(batch: Batch) -> Talk[list[Enqueued]]:
    ids: list[int] = []
    for chunk in batch.chunks(range(len(batch))):
        rows = yield statement("enqueue/plain"), batch.params(chunk, PLAIN)
        ids += rows[0][0]
    return list(map(Enqueued, ids, repeat(True)))


def _with_keys(batch: Batch) -> Talk[list[Enqueued]]:
    results = [Enqueued(None, False)] * len(batch)
    keys = list(batch.keys())
    firsts, twins = _twins(keys)
    chunks = batch.chunks(firsts)
    if len(chunks) > 1:  # one order for all callers, lest two wait for each other
        chunks = batch.chunks(sorted(firsts, key=lambda i: (keys[i][0], keys[i][1] or "")))
    for chunk in chunks:
        yield from _offer(batch, chunk, keys, results)
    for twin, first in twins:
        results[twin] = Enqueued(results[first].id, False)
    return results


def _twins(keys: list[Key]) -> tuple[list[int], list[tuple[int, int]]]:
    """The indexes of jobs to offer; and (twin, first) of each that asks for the same as a first.

    For a period and while live is not the same: one may be held where the other is not.
    """
    seen: dict[Key, int] = {}
    firsts: list[int] = []
    twins: list[tuple[int, int]] = []
    for i, key in enumerate(keys):
        first = i if key[1] is None else seen.setdefault(key, i)
        if first == i:
            firsts.append(i)
        else:
            twins.append((i, first))
    return firsts, twins


def _offer(
    batch: Batch, chunk: Sequence[int], keys: list[Key], results: list[Enqueued]
) -> Talk[None]:
    """Sets the results of the jobs in `chunk`; offers again those whose holder was not seen."""
    for _ in range(OFFERS):
        rows = yield statement("enqueue/unique"), batch.params(chunk, KEYED)
        ids, created, booked, _queues = rows[0]
        for i, enqueued in zip(chunk, map(Enqueued, ids, created), strict=True):
            results[i] = enqueued
        vain = [(id_, *keys[i][:2]) for i, id_ in zip(chunk, booked, strict=True) if id_]
        if vain:
            yield statement("enqueue/forget"), [list(column) for column in zip(*vain, strict=True)]
        chunk = [i for i in chunk if results[i].id is None]
        if not chunk:
            return
