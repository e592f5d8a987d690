"""Due times spread over time when jobs are enqueued."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from typing import Any

import asyncpg
import psycopg
import pytest

from worker import Job, Spread, enqueue, enqueue_many
from worker.errors import UsageError

NOON = dt.datetime(2030, 1, 1, 12, tzinfo=dt.UTC)


def offsets(spread: Spread, jobs: list[Job]) -> list[float]:
    delays = [job.delay for job in spread.apply(jobs)]
    return [float(delay) for delay in delays if isinstance(delay, int | float)]


def test_each_has_a_share_of_its_own() -> None:
    found = offsets(Spread(over=3600), [Job("refresh")] * 60)
    assert [int(seconds // 60) for seconds in found] == list(range(60))
    assert len(set(found)) == 60  # and a random moment in it


def test_each_tenant_over_the_whole_time() -> None:
    jobs = [Job("refresh", tenant=t) for t in "aaaaaaaaaabb"]
    found = offsets(Spread(over=dt.timedelta(seconds=100)), jobs)
    assert [int(seconds // 10) for seconds in found[:10]] == list(range(10))
    assert [int(seconds // 50) for seconds in found[10:]] == [0, 1]


def test_all_of_a_kind_together() -> None:
    jobs = [Job(kind, tenant=tenant) for kind in ("refresh", "send") for tenant in "abcd"]
    found = offsets(Spread(over=40, by="kind"), jobs)
    assert [int(seconds // 10) for seconds in found] == [0, 1, 2, 3] * 2


@pytest.mark.parametrize(
    ("count", "spread", "buckets"),
    [
        (100, Spread(most=10, per=60), 10),
        (101, Spread(most=10, per=60), 11),
        (5, Spread(most=10, per=60), 1),
        (100, Spread(over=60 * 20, most=10, per=60), 20),
        (100, Spread(over=60, most=10, per=60), 10),
    ],
)
def test_no_more_than_so_many_in_each_bucket(count: int, spread: Spread, buckets: int) -> None:
    assert spread.most is not None
    for _ in range(20):
        found = Counter(int(s // 60) for s in offsets(spread, [Job("refresh")] * count))
        assert max(found.values()) <= spread.most
        assert set(found) == set(range(buckets))
        assert max(found.values()) - min(found.values()) <= 1


def test_it_is_added_to_the_due_time_of_a_job() -> None:
    jobs = [
        Job("a", due_at=NOON),
        Job("b", delay=100),
        Job("c", delay=dt.timedelta(seconds=100)),
        Job("d"),
    ]
    at, later, duration, now = Spread(over=10).apply(jobs)
    assert at.due_at is not None
    assert dt.timedelta() <= at.due_at - NOON < dt.timedelta(seconds=10)
    assert isinstance(later.delay, float)
    assert 100 <= later.delay < 110
    assert isinstance(duration.delay, dt.timedelta)
    assert 100 <= duration.delay.total_seconds() < 110
    assert isinstance(now.delay, float)
    assert 0 <= now.delay < 10
    assert jobs[3].delay is None  # the jobs themselves are left alone


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"over": 0},
        {"over": -1},
        {"over": float("nan")},
        {"most": 0},
        {"most": 5, "per": 0},
        {"over": 5, "by": "queue"},
    ],
)
def test_what_spreads_nothing_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Spread(**options)


async def test_many_are_enqueued_spread(apg: asyncpg.Connection) -> None:
    jobs = [Job("refresh", {"n": n}, tenant="ab"[n % 2]) for n in range(200)]
    await enqueue_many(apg, jobs, spread=Spread(over=3600, most=5, per=60))
    rows = await apg.fetch(
        "select tenant, floor(extract(epoch from due_at - created_at) / 60) as bucket, count(*)"
        " from worker.jobs group by 1, 2"
    )
    assert sum(row["count"] for row in rows) == 200
    assert max(row["count"] for row in rows) <= 5
    assert len({row["bucket"] for row in rows}) == 60


def test_one_is_enqueued_with_jitter(pg: psycopg.Connection[Any]) -> None:
    for _ in range(5):
        enqueue(pg, Job("refresh"), spread=Spread(over=1000))
    found = pg.execute("select extract(epoch from due_at - created_at) from worker.jobs").fetchall()
    assert len({seconds for (seconds,) in found}) == 5
    assert all(0 <= seconds < 1000 for (seconds,) in found)


def test_what_is_no_job_is_refused_as_ever(pg: psycopg.Connection[Any]) -> None:
    with pytest.raises(UsageError, match="not a Job"):
        enqueue_many(pg, [Job("a"), "b"], spread=Spread(over=10))  # type: ignore[list-item]
    both = Job("a", due_at=NOON, delay=5)
    with pytest.raises(UsageError, match="both say when to run"):
        enqueue(pg, both, spread=Spread(over=10))
