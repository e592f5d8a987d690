"""At most one live job of a kind has a unique key, or one in a period, whoever asks and when."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg
import pytest

from tests.facts import eventually
from worker import Enqueued, enqueue, enqueue_many
from worker.job import Job

HOUR = 3600


def live(pg: psycopg.Connection) -> list[Any]:
    return pg.execute("select id, kind, unique_key from worker.jobs order by id").fetchall()


def booked(pg: psycopg.Connection) -> list[Any]:
    return pg.execute(
        "select kind, unique_key, job_id, expires_at > now() from worker.unique_keys order by 1, 2"
    ).fetchall()


def finish(pg: psycopg.Connection, id_: int | None) -> None:
    """What a settle does to the live row."""
    assert pg.execute("delete from worker.jobs where id = %s", [id_]).rowcount == 1


def expire(pg: psycopg.Connection) -> None:
    pg.execute("update worker.unique_keys set expires_at = now()")


def by_enqueue(connection: psycopg.Connection, job: Job) -> Enqueued:
    return enqueue(connection, job)


def by_enqueue_many(connection: psycopg.Connection, job: Job) -> Enqueued:
    _other, result = enqueue_many(connection, [Job("other"), job])
    return result


def by_sql(connection: psycopg.Connection, job: Job) -> Enqueued:
    """The function gives an id alone; the id tells whether it is new."""
    row = connection.execute(
        """
        with before as materialized (select last_value from worker.jobs_id_seq)
        select worker.enqueue(%s, unique_key => %s, unique_for => %s::text::interval), last_value
          from before
        """,
        [job.kind, job.unique_key, None if job.unique_for is None else f"{job.unique_for} s"],
    ).fetchone()
    assert row
    return Enqueued(row[0], row[0] > row[1])


Way = Callable[[psycopg.Connection, Job], Enqueued]
every_way = pytest.mark.parametrize("way", [by_enqueue, by_enqueue_many, by_sql])


@every_way
def test_unique_while_live(way: Way, pg: psycopg.Connection) -> None:
    pg.execute("select worker.enqueue('first')")  # the sequence has been used
    job = Job("charge", unique_key="k")
    first = way(pg, job)
    assert first.created
    assert way(pg, job) == Enqueued(first.id, False)
    assert way(pg, Job("refund", unique_key="k")).created
    assert way(pg, Job("charge", unique_key="l")).created
    finish(pg, first.id)
    second = way(pg, job)
    assert second.created
    assert second.id != first.id
    assert booked(pg) == []


@every_way
def test_unique_for_a_period(way: Way, pg: psycopg.Connection) -> None:
    pg.execute("select worker.enqueue('first')")
    job = Job("charge", unique_key="k", unique_for=HOUR)
    first = way(pg, job)
    assert first.created
    assert way(pg, job) == Enqueued(first.id, False)
    finish(pg, first.id)
    assert way(pg, job) == Enqueued(first.id, False)
    assert booked(pg) == [("charge", "k", first.id, True)]
    assert way(pg, Job("refund", unique_key="k", unique_for=HOUR)).created
    expire(pg)
    second = way(pg, job)
    assert second.created
    assert booked(pg)[0] == ("charge", "k", second.id, True)


@every_way
def test_a_live_job_holds_a_period_too(way: Way, pg: psycopg.Connection) -> None:
    pg.execute("select worker.enqueue('first')")
    first = way(pg, Job("charge", unique_key="k"))
    assert way(pg, Job("charge", unique_key="k", unique_for=HOUR)) == Enqueued(first.id, False)
    assert booked(pg) == [("charge", "k", first.id, True)]
    finish(pg, first.id)
    assert way(pg, Job("charge", unique_key="k", unique_for=HOUR)) == Enqueued(first.id, False)
    assert way(pg, Job("charge", unique_key="k")).created


def test_twins_in_one_call(pg: psycopg.Connection) -> None:
    def job(n: int, unique_key: str | None = None, unique_for: float | None = None) -> Job:
        return Job("charge", {"n": n}, unique_key=unique_key, unique_for=unique_for)

    results = enqueue_many(
        pg,
        [
            job(0, "a"),
            job(1),
            job(2, "a"),
            job(3, "b", HOUR),
            job(4, "b"),  # the other way of asking for the same key
            job(5, "b", HOUR),
            job(6, "c"),
            job(7, "c", HOUR),
            job(8, "a"),
            job(9),
        ],
    )
    assert [r.created for r in results] == [
        *(True, True, False, True, False, False, True, False, False, True)
    ]
    of = [r.id for r in results]
    assert of[2] == of[8] == of[0]
    assert of[4] == of[5] == of[3]
    assert of[7] == of[6]
    stored = pg.execute("select id, (args->>'n')::integer from worker.jobs order by id").fetchall()
    assert stored == [(of[n], n) for n in (0, 1, 3, 6, 9)]
    assert booked(pg) == [("charge", "b", of[3], True), ("charge", "c", of[6], True)]


def test_a_thousand_twins(pg: psycopg.Connection) -> None:
    results = enqueue_many(pg, [Job("charge", unique_key=f"k{n % 10}") for n in range(1000)])
    assert [r.created for r in results] == [True] * 10 + [False] * 990
    assert [r.id for r in results] == [r.id for r in results[:10]] * 100


# -- two transactions at once -------------------------------------------------------------------


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


def blocked(pg: psycopg.Connection) -> bool:
    row = pg.execute(
        "select count(*) from pg_stat_activity"
        " where datname = current_database() and wait_event_type = 'Lock'"
    ).fetchone()
    return bool(row and row[0] > 0)


class Race:
    """`one` enqueues and leaves its transaction open; `two` then has to wait for it."""

    def __init__(
        self, url: str, pg: psycopg.Connection, threads: ThreadPoolExecutor, way: Way
    ) -> None:
        self.one, self.two = psycopg.connect(url), psycopg.connect(url)
        self._pg, self._threads, self._way = pg, threads, way

    def start(self, ones: Job, twos: Job) -> tuple[Enqueued, Future[Enqueued]]:
        first = self._way(self.one, ones)
        assert first.created
        later = self._threads.submit(self._way, self.two, twos)
        eventually(lambda: blocked(self._pg))
        return first, later

    def close(self) -> None:
        self.one.close()
        self.two.close()


@pytest.fixture(params=[by_enqueue, by_enqueue_many, by_sql])
def race(
    request: pytest.FixtureRequest,
    db_url: str,
    pg: psycopg.Connection,
    threads: ThreadPoolExecutor,
) -> Iterator[Race]:
    pg.execute("select worker.enqueue('first')")
    with closing(Race(db_url, pg, threads, request.param)) as race:
        yield race


PERIODS = [(None, None), (HOUR, HOUR), (None, HOUR), (HOUR, None)]


def jobs(periods: tuple[float | None, float | None]) -> tuple[Job, Job]:
    one, two = (Job("charge", unique_key="k", unique_for=period) for period in periods)
    return one, two


@pytest.mark.parametrize("periods", PERIODS)
def test_the_second_finds_the_first_one_committed(
    periods: Any, race: Race, pg: psycopg.Connection
) -> None:
    first, later = race.start(*jobs(periods))
    race.one.commit()
    assert later.result(15).id == first.id
    race.two.commit()
    assert [row for row in live(pg) if row[2]] == [(first.id, "charge", "k")]
    assert booked(pg) == ([("charge", "k", first.id, True)] if any(periods) else [])


@pytest.mark.parametrize("periods", PERIODS)
def test_the_second_goes_in_where_the_first_one_rolled_back(
    periods: Any, race: Race, pg: psycopg.Connection
) -> None:
    first, later = race.start(*jobs(periods))
    race.one.rollback()
    second = later.result(15)
    race.two.commit()
    assert second.created
    assert second.id != first.id
    assert [row for row in live(pg) if row[2]] == [(second.id, "charge", "k")]
    assert booked(pg) == ([("charge", "k", second.id, True)] if periods[1] else [])


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_a_snapshot_that_cannot_see_the_holder_fails_as_postgres_says(
    isolation: str, db_url: str, pg: psycopg.Connection
) -> None:
    job = Job("charge", unique_key="k")
    with closing(psycopg.connect(db_url)) as old:
        old.execute(f"set transaction isolation level {isolation}")
        old.execute("select 1 from worker.jobs")
        assert enqueue(pg, job).created
        with pytest.raises(psycopg.errors.SerializationFailure):
            enqueue(old, job)


@pytest.mark.parametrize("period", [None, HOUR])
def test_calls_with_the_same_keys_in_any_order_do_not_deadlock(
    period: float | None, db_url: str, pg: psycopg.Connection, threads: ThreadPoolExecutor
) -> None:
    keys = [f"k{n}" for n in range(3_000)]
    start = threading.Barrier(2)

    def produce(order: list[str], rounds: int = 4) -> int:
        created = 0
        with psycopg.connect(db_url) as connection:
            for n in range(rounds):
                batch = [Job(f"charge{n}", unique_key=key, unique_for=period) for key in order]
                start.wait(15)
                created += sum(r.created for r in enqueue_many(connection, batch))
                connection.commit()
        return created

    both = [threads.submit(produce, keys), threads.submit(produce, keys[::-1])]
    assert sum(each.result(60) for each in both) == 12_000
    assert pg.execute("select count(*) from worker.jobs").fetchone() == (12_000,)


def test_plain_sql_makes_the_job_when_the_holder_ends_while_it_looks(
    db_url: str, pg: psycopg.Connection, threads: ThreadPoolExecutor
) -> None:
    """A trigger of the test's own stops the function between its insert and its look."""
    first = enqueue(pg, Job("charge", unique_key="k"))
    pg.execute(
        """
        create function hold() returns trigger language plpgsql as $$
        begin perform pg_advisory_xact_lock(7); return null; end $$;
        create trigger hold after insert on worker.jobs
            for each statement execute function hold();
        select pg_advisory_lock(7)
        """
    )

    def produce() -> int:
        with psycopg.connect(db_url) as connection:
            return by_sql(connection, Job("charge", unique_key="k", unique_for=HOUR)).id or 0

    later = threads.submit(produce)
    eventually(lambda: blocked(pg))
    finish(pg, first.id)
    pg.execute("select pg_advisory_unlock(7)")
    made = later.result(15)
    assert live(pg) == [(made, "charge", "k")]
    assert booked(pg) == [("charge", "k", made, True)]
