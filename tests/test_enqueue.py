"""Jobs go in with the caller's transaction, in order, as they were given, and workers are woken."""

from __future__ import annotations

import datetime as dt
import json
import math
import uuid
from dataclasses import dataclass
from decimal import Decimal
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Any

import asyncpg
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row
from pydantic import BaseModel

from tests.producers import PRODUCERS
from worker import Enqueued, batch, enqueue, enqueue_many
from worker.app import App
from worker.carrier import send
from worker.job import Job
from worker.statements import statement

everywhere = pytest.mark.parametrize("kind", PRODUCERS)
UTC = dt.UTC
MINUTE = dt.timedelta(minutes=1)


def rows(pg: psycopg.Connection, order: str = "id") -> list[dict[str, Any]]:
    with pg.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            f"select *, due_at - created_at as due_in from worker.jobs order by {order}"
        ).fetchall()


def many(n: int, **options: Any) -> list[Job]:
    return [Job("charge", {"n": i}, **options) for i in range(n)]


# -- the transaction ----------------------------------------------------------------------------


@everywhere
async def test_commit_makes_the_rows(kind: str, db_url: str, pg: psycopg.Connection) -> None:
    async with PRODUCERS[kind](db_url) as producer:
        one = await producer.enqueue(Job("charge", {"n": 0}))
        keyed = await producer.enqueue(Job("charge", {"n": 1}, unique_key="k"))
        some = await producer.enqueue_many([Job("charge", {"n": 2}), Job("refund", {"n": 3})])
        mixed = await producer.enqueue_many([*many(1), *many(2, unique_key="k")])
        assert rows(pg) == []
        await producer.commit()
    results = [one, keyed, *some, *mixed]
    assert [r.created for r in results] == [True] * 5 + [False] * 2
    assert mixed[1:] == [Enqueued(keyed.id, False)] * 2
    assert [(r["id"], r["kind"], r["args"]["n"]) for r in rows(pg)] == [
        (one.id, "charge", 0),
        (keyed.id, "charge", 1),
        (some[0].id, "charge", 2),
        (some[1].id, "refund", 3),
        (mixed[0].id, "charge", 0),
    ]


@everywhere
async def test_rollback_leaves_none(kind: str, db_url: str, pg: psycopg.Connection) -> None:
    async with PRODUCERS[kind](db_url) as producer:
        await producer.enqueue(Job("charge"))
        await producer.enqueue(Job("charge", unique_key="k", unique_for=60))
        await producer.enqueue_many(many(3))
        await producer.enqueue_many(many(1, unique_key="l"))
        await producer.rollback()
    assert rows(pg) == []
    assert pg.execute("select count(*) from worker.unique_keys").fetchone() == (0,)


@everywhere
async def test_twenty_thousand_in_one_call(kind: str, db_url: str, pg: psycopg.Connection) -> None:
    async with PRODUCERS[kind](db_url) as producer:
        results = await producer.enqueue_many(Job("charge", {"n": i}) for i in range(20_000))
        await producer.commit()
    ids = [r.id for r in results]
    assert ids == sorted(set(ids))
    stored = pg.execute("select id, (args->>'n')::integer from worker.jobs order by id").fetchall()
    assert stored == list(zip(ids, range(20_000), strict=True))


def test_none_at_all(pg: psycopg.Connection) -> None:
    assert enqueue_many(pg, []) == []
    assert enqueue_many(pg, iter(())) == []


def test_an_autocommit_connection_takes_all_or_none(
    pg: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "CHUNK_ROWS", 4)
    pg.execute("alter table worker.jobs add constraint no_seven check (args->>'n' <> '7')")
    with pytest.raises(psycopg.errors.CheckViolation):
        enqueue_many(pg, many(10))
    assert rows(pg) == []
    assert len(enqueue_many(pg, many(7))) == len(rows(pg)) == 7


@pytest.mark.parametrize(
    ("limit", "value"), [("CHUNK_ROWS", 1), ("CHUNK_ROWS", 4), ("CHUNK_BYTES", 30)]
)
@pytest.mark.parametrize("key", [None, "k{}"])
def test_chunks_are_no_difference(
    limit: str, value: int, key: str | None, pg: psycopg.Connection, monkeypatch: Any
) -> None:
    monkeypatch.setattr(batch, limit, value)
    jobs = [
        Job("charge", {"n": i}, tenant=f"t{i}" if i % 3 else None, unique_key=key and f"k{i}")
        for i in range(10)
    ]
    results = enqueue_many(pg, jobs)
    assert [r.created for r in results] == [True] * 10
    stored = {r["id"]: (r["args"]["n"], r["tenant"], r["unique_key"]) for r in rows(pg)}
    assert [stored[r.id] for r in results] == [
        (i, f"t{i}" if i % 3 else None, key and f"k{i}") for i in range(10)
    ]


# -- what is stored -----------------------------------------------------------------------------

AT = dt.datetime(2031, 5, 6, 7, 8, 9, 123_456, dt.timezone(dt.timedelta(hours=2)))
DIFFERENT = [
    Job("charge", {"a": 1}),
    Job("refund", {"b": [1, None]}, queue="payments", priority=-5, tenant="org 7"),
    Job("charge", delay=60, max_attempts=3),
    Job("charge", delay=dt.timedelta(minutes=2), trace="00-4bf92f35-00f067aa-01"),
    Job("mail", due_at=AT, priority=32_767, tenant='quo"ted, \\ {naïve}\n'),
    Job("mail", due_at=dt.datetime(2001, 1, 1, tzinfo=UTC), priority=-32_768),
]


def facts(row: dict[str, Any]) -> tuple[Any, ...]:
    names = ["kind", "queue", "priority", "tenant", "max_attempts", "trace", "args"]
    return tuple(row[name] for name in names)


def expected(job: Job) -> tuple[Any, ...]:
    j = job
    return j.kind, j.queue, j.priority, j.tenant, j.max_attempts, j.trace, dict(j.args)


@pytest.mark.parametrize("how", ["one by one", "at once", "at once with keys", "all the same"])
@pytest.mark.parametrize("kind", ["asyncpg", "psycopg"])
async def test_each_field_arrives(how: str, kind: str, db_url: str, pg: psycopg.Connection) -> None:
    for job in DIFFERENT:
        job.unique_key = None
    async with PRODUCERS[kind](db_url) as producer:
        if how == "one by one":
            for job in DIFFERENT:
                await producer.enqueue(job)
        elif how == "all the same":
            for job in DIFFERENT:
                await producer.enqueue_many([job] * 3)
        else:
            for i, job in enumerate(DIFFERENT):
                job.unique_key = f"k{i}" if how == "at once with keys" and i != 1 else None
            await producer.enqueue_many(DIFFERENT)
        await producer.commit()
    stored = rows(pg)[:: 3 if how == "all the same" else 1]
    assert [facts(r) for r in stored] == [expected(job) for job in DIFFERENT]
    assert [r["unique_key"] for r in stored] == [job.unique_key for job in DIFFERENT]
    assert [r["due_in"] for r in stored[:4]] == [0 * MINUTE, 0 * MINUTE, MINUTE, 2 * MINUTE]
    assert [r["due_at"] for r in stored[4:]] == [job.due_at for job in DIFFERENT[4:]]
    assert all((r["attempt"], r["token"], r["owner"]) == (0, 0, None) for r in stored)


def test_subclasses_are_stored_as_what_they_hold(pg: psycopg.Connection) -> None:
    class Kind(StrEnum):
        CHARGE = "charge it"
        REFUND = "refund it"

    class Urgency(IntEnum):
        HIGH = -3
        LOW = 3

    for key in (None, "k"):
        jobs = [
            Job(Kind.CHARGE, priority=Urgency.LOW, unique_key=key, delay=True),
            Job(Kind.REFUND, priority=Urgency.HIGH, unique_key=key, delay=1.5),
        ]
        enqueue_many(pg, jobs)
        assert [(r["kind"], r["priority"]) for r in rows(pg)] == [
            ("charge it", 3),
            ("refund it", -3),
        ]
        pg.execute("delete from worker.jobs")


def test_args_as_pydantic_writes_them(pg: psycopg.Connection) -> None:
    @dataclass
    class Donor:
        name: str

    class Amount(BaseModel):
        value: Decimal

    args = MappingProxyType(
        {
            "at": dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
            "on": dt.date(2026, 1, 2),
            "id": uuid.UUID(int=7),
            "fee": Decimal("1.10"),
            "donor": Donor("Ada"),
            "amount": Amount(value=Decimal("2.50")),
            "tags": ("a", "b"),
        }
    )
    enqueue(pg, Job("charge", args))
    enqueue(pg, Job("charge", Amount(value=Decimal(1))))  # type: ignore[arg-type]
    first, second = rows(pg)
    assert first["args"] == {
        "at": "2026-01-02T03:04:05Z",
        "on": "2026-01-02",
        "id": "00000000-0000-0000-0000-000000000007",
        "fee": "1.10",
        "donor": {"name": "Ada"},
        "amount": {"value": "2.50"},
        "tags": ["a", "b"],
    }
    assert second["args"] == {"value": "1"}


def test_an_encoder_of_ones_own(pg: psycopg.Connection) -> None:
    app = App()

    @app.handler("charge")
    def charge(donation_id: int, note: str = "") -> None: ...

    def validated(job: Job) -> str:
        return app.registry.get(job.kind).signature.write(dict(job.args))

    enqueue(pg, Job("charge", {"donation_id": 1, "note": "🐘\n"}), encode=validated)
    pretty = [json.dumps({"donation_id": n, "note": "a\nb"}, indent=2) for n in (2, 3)]
    texts = iter(pretty)
    enqueue_many(pg, [Job("charge"), Job("charge")], encode=lambda _: next(texts))
    assert [r["args"] for r in rows(pg)] == [
        {"donation_id": 1, "note": "🐘\n"},
        {"donation_id": 2, "note": "a\nb"},
        {"donation_id": 3, "note": "a\nb"},
    ]


_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
    | st.sampled_from(["NaN", "Infinity", "\\u0000", "\\ud800", "\n", "}{", "\\", '"'])
)
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner) | st.dictionaries(st.text("ab\n\\Naé", max_size=3), inner),
    max_leaves=20,
)
_payloads = st.dictionaries(st.text('xyz\t"', min_size=1, max_size=3), _values, max_size=4)


@settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(_payloads, min_size=1, max_size=5), st.booleans())
def test_any_json_comes_back_as_it_went(
    pg: psycopg.Connection, payloads: list[dict[str, Any]], keyed: bool
) -> None:
    results = enqueue_many(
        pg,
        [Job("any", p, unique_key=str(i) if keyed else None) for i, p in enumerate(payloads)],
    )
    texts = pg.execute(
        "delete from worker.jobs where id = any(%s) returning id, args::text",
        [[r.id for r in results]],
    ).fetchall()
    stored = dict(texts)
    for result, payload in zip(results, payloads, strict=True):
        assert _alike(json.loads(stored[result.id]), payload)


def _alike(stored: Any, given_: Any) -> bool:
    """Equal; jsonb keeps no sign of zero, and writes 1e22 as an integer, which Python equals."""
    if isinstance(given_, dict):
        return stored.keys() == given_.keys() and all(
            _alike(stored[k], v) for k, v in given_.items()
        )
    if isinstance(given_, list):
        return len(stored) == len(given_) and all(map(_alike, stored, given_))
    if isinstance(given_, float):
        return math.isclose(stored, given_, rel_tol=0, abs_tol=0)
    return type(stored) is type(given_) and stored == given_


# -- waking -------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, "k{}"])
async def test_one_notification_for_each_queue_with_due_rows(
    key: str | None, apg: asyncpg.Connection, db_url: str
) -> None:
    heard: list[str] = []
    await apg.add_listener("duerow", lambda *told: heard.append(told[3]))

    async def notified() -> list[str]:
        """What has arrived by the time that a notification of our own has."""
        fence = uuid.uuid4().hex
        producer = await asyncpg.connect(db_url)
        await producer.execute("select pg_notify('duerow', $1)", fence)
        await producer.close()
        while fence not in heard:
            await apg.fetchval("select pg_sleep(0.01)")
        told = [h for h in heard if h != fence]
        heard.clear()
        return told

    def job(n: int, **options: Any) -> Job:
        return Job("charge", unique_key=key and key.format(n), **options)

    producer = await asyncpg.connect(db_url)
    await enqueue_many(producer, [job(n, queue=f"q{n % 3}") for n in range(300)])
    assert sorted(await notified()) == ["q0", "q1", "q2"]

    await enqueue(producer, job(300, queue="one"))
    assert await notified() == ["one"]

    past, future = (dt.datetime(year, 1, 1, tzinfo=UTC) for year in (2001, 2222))
    await enqueue_many(producer, [job(301, delay=120), job(302, due_at=future, queue="later")])
    await enqueue(producer, job(304, due_at=future))
    assert await notified() == []

    await enqueue(producer, job(303, delay=0.5, queue="nearly"))  # it is slept for, not polled
    assert await notified() == ["nearly"]

    await enqueue_many(
        producer,
        [job(305, due_at=past, queue="late"), job(306, delay=120, queue="soon"), job(307, delay=0)],
    )
    assert sorted(await notified()) == ["default", "late"]

    if key:  # what is not made wakes nobody
        await enqueue_many(producer, [job(n, queue="again") for n in range(10)])
        await enqueue(producer, job(1, queue="again"))
        assert await notified() == []

    transaction = producer.transaction()
    await transaction.start()
    await enqueue_many(producer, [job(400), job(401)])
    assert await notified() == []
    await transaction.rollback()
    assert await notified() == []
    await producer.close()


# -- plain SQL ----------------------------------------------------------------------------------


def test_from_plain_sql(pg: psycopg.Connection) -> None:
    def call(arguments: str) -> int:
        row = pg.execute(f"select worker.enqueue({arguments})").fetchone()
        assert row
        return int(row[0])

    ids = [
        call("'charge'"),
        call("""'charge', '{"n": 1}', 'payments', -2"""),
        call("kind => 'charge', in_ => '1 minute', tenant => 'org', max_attempts => 4"),
        call("'charge', due_at => '2031-05-06 05:08:09.123456+00', trace => 't', priority => 9"),
        call("'charge', unique_key => 'k', args => '{}'"),
        call("'charge', unique_key => 'k', unique_for => '1 hour'"),
    ]
    stored = rows(pg)
    assert [r["id"] for r in stored] == ids[:5]
    assert ids[5] == ids[4]
    assert [facts(r) for r in stored[:4]] == [
        ("charge", "default", 0, None, None, None, {}),
        ("charge", "payments", -2, None, None, None, {"n": 1}),
        ("charge", "default", 0, "org", 4, None, {}),
        ("charge", "default", 9, None, None, "t", {}),
    ]
    assert [r["due_in"] for r in stored[:3]] == [0 * MINUTE, 0 * MINUTE, MINUTE]
    assert stored[3]["due_at"] == AT
    assert call("'charge', unique_key => 'other'") > ids[4]


def test_plain_sql_refuses_what_is_no_object(pg: psycopg.Connection) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="must be a JSON object, got a"):
        pg.execute("select worker.enqueue('charge', '[1]')")
    with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="over the limit of 262144"):
        pg.execute("select worker.enqueue('c', jsonb_build_object('a', repeat('x', 262144)))")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="unique_for needs a unique_key"):
        pg.execute("select worker.enqueue('charge', unique_for => '1 hour')")
    assert rows(pg) == []


# -- plans --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "names"), [("plain", batch.PLAIN), ("unique", batch.KEYED)])
def test_no_plan_is_dear_enough_to_be_compiled(
    name: str, names: tuple[str, ...], pg: psycopg.Connection
) -> None:
    """Above `jit_above_cost` Postgres compiles a statement, here for three times its run time."""
    jobs = [Job("c", tenant=f"t{i}", delay=i, unique_key=f"k{i}") for i in range(20_000)]
    params = batch.Batch(jobs, None, 100).params(range(20_000), names)
    [[[plan]]] = send(pg, "explain (format json) " + statement(f"enqueue/{name}"), params)
    [[limit]] = pg.execute("show jit_above_cost").fetchall()
    assert plan["Plan"]["Total Cost"] < float(limit)
