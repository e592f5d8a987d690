"""What becomes of a row, by what its handler does: a worker on a real database."""

from __future__ import annotations

import asyncio
import datetime as dt
import functools
import json
import sys
import time
from typing import Any, NoReturn

import asyncpg
import pydantic
import pytest
import tenacity

from tests.facts import until
from tests.workers import drained, job, put, running
from worker import App, Cancel, Context, Dead, PermanentError, Retry, RetryPolicy, Snooze
from worker.events import ResultRefused, RowLost, RowSettled, RowStarted, ServiceFailed

AT_ONCE = RetryPolicy(wait=tenacity.wait_none(), stop=tenacity.stop_after_attempt(3))


async def attempts(connection: asyncpg.Connection, key: int) -> list[tuple[int, str]]:
    """(attempt, outcome) of each recorded one, in order."""
    records = await connection.fetch(
        "select attempt, outcome from worker.attempt_log where row_key = $1::text"
        " order by ended_at, token",
        str(key),
    )
    return [tuple(record) for record in records]


def calls(app: App, kind: str, result: Any, **options: Any) -> list[int]:
    """Registers a handler that returns `result`, or calls or raises it; the attempts it saw."""
    seen: list[int] = []

    @app.handler(kind, **options)
    async def handler(context: Context) -> Any:
        seen.append(context.attempt)
        if isinstance(result, BaseException):
            raise result
        return result() if callable(result) else result

    return seen


# -- the outcomes ---------------------------------------------------------------------------------


async def test_done_with_a_result(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()

    @app.handler
    async def add(a: int, b: int = 10) -> dict[str, int]:
        return {"sum": a + b}

    @app.handler
    def shout(text: str) -> str:
        return text.upper()

    [first] = await put(apg, "add", '{"a": 1}')
    [second] = await put(apg, "shout", '{"text": "straße"}')
    one = await drained(app, db_url)
    assert one.report is not None
    assert (one.report.settled, one.report.failed, one.report.code) == (2, 0, 0)
    done = await job(apg, first)
    assert (done["state"], done["attempt"], json.loads(done["result"])) == ("done", 1, {"sum": 11})
    assert done["worker"] == one.id
    assert done["finished_at"] >= done["claimed_at"] >= done["due_at"]
    assert json.loads((await job(apg, second))["result"]) == "STRASSE"
    assert await attempts(apg, first) == [(1, "done")]


async def test_retry_with_a_delay_runs_again_no_sooner(
    db_url: str, apg: asyncpg.Connection
) -> None:
    app = App()
    times: list[float] = []

    @app.handler
    async def twice(context: Context) -> Retry | None:
        times.append(time.monotonic())
        return Retry("not yet", after=0.3) if context.attempt == 1 else None

    [key] = await put(apg, "twice")
    async with running(app, db_url):
        await until(lambda: len(times) == 2)
    assert times[1] - times[0] >= 0.3
    assert await attempts(apg, key) == [(1, "retry"), (2, "done")]
    [record] = await apg.fetch("select message, next_at, ended_at from worker.attempts")
    assert record["message"] == "not yet"
    assert abs((record["next_at"] - record["ended_at"]).total_seconds() - 0.3) < 0.01


async def test_a_snooze_costs_no_attempt(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()
    answers: list[Any] = [Snooze("busy", after=0), Snooze(after=0), None]
    seen = calls(app, "wait", lambda: answers.pop(0), retry=AT_ONCE)
    [key] = await put(apg, "wait", max_attempts=1)
    await drained(app, db_url)
    assert seen == [1, 1, 1]
    row = await job(apg, key)
    assert (row["state"], row["attempt"], row["token"]) == ("done", 1, 3)
    assert await attempts(apg, key) == [(1, "snooze"), (1, "snooze"), (1, "done")]


@pytest.mark.parametrize("raised", [True, False])
@pytest.mark.parametrize(
    ("answer", "state", "last_error"),
    [
        (Cancel("not needed"), "cancelled", "not needed"),
        (Dead("card stolen"), "dead", "card stolen"),
        (Dead(), "dead", "the handler gave up"),
    ],
)
async def test_final_outcomes_returned_or_raised(
    db_url: str,
    apg: asyncpg.Connection,
    answer: Cancel | Dead,
    state: str,
    last_error: str,
    raised: bool,
) -> None:
    app = App()

    @app.handler
    async def decide() -> Any:
        if raised:
            raise answer
        return answer

    [key] = await put(apg, "decide")
    await drained(app, db_url)
    row = await job(apg, key)
    assert (row["state"], row["last_error"], row["attempt"]) == (state, last_error, 1)
    assert await attempts(apg, key) == [(1, state)]


async def test_retry_and_snooze_can_be_raised_from_deep_inside(
    db_url: str, apg: asyncpg.Connection
) -> None:
    app = App()
    answers: list[Exception] = [Snooze(after=0), Retry(after=0)]

    @app.handler
    def deep() -> None:
        if answers:
            raise answers.pop(0)

    [key] = await put(apg, "deep")
    await drained(app, db_url)
    assert await attempts(apg, key) == [(1, "snooze"), (1, "retry"), (2, "done")]


async def test_failures_use_up_the_attempts(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()
    seen = calls(app, "fail", ValueError("no"), retry=AT_ONCE)
    [key] = await put(apg, "fail")
    one = await drained(app, db_url)
    assert seen == [1, 2, 3]
    row = await job(apg, key)
    assert (row["state"], row["attempt"], row["last_error"]) == ("dead", 3, "no")
    assert await attempts(apg, key) == [(1, "retry"), (2, "retry"), (3, "dead")]
    records = await apg.fetch("select error_type, fingerprint, traceback from worker.attempts")
    assert {r["error_type"] for r in records} == {"ValueError"}
    assert len({r["fingerprint"] for r in records}) == 1
    assert all("ValueError: no" in r["traceback"] for r in records)
    assert one.report is not None
    assert one.report.failed == 3


async def test_the_rows_own_limit_of_attempts(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()
    seen = calls(app, "fail", ValueError("no"), retry=AT_ONCE)
    [key] = await put(apg, "fail", max_attempts=2)
    await drained(app, db_url)
    assert seen == [1, 2]
    assert (await job(apg, key))["state"] == "dead"


async def test_permanent_errors_are_not_tried_again(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()
    policy = RetryPolicy(wait=tenacity.wait_none(), permanent=(ZeroDivisionError,))
    seen = calls(app, "divide", lambda: 1 // 0, retry=policy)
    gone = calls(app, "gone", PermanentError("no such donation"), retry=AT_ONCE)
    await put(apg, "divide")
    [key] = await put(apg, "gone")
    await drained(app, db_url)
    assert (seen, gone) == ([1], [1])
    assert (await job(apg, key))["last_error"] == "no such donation"


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(3),
        KeyboardInterrupt("in a handler"),
        GeneratorExit("x"),
        asyncio.CancelledError("by itself"),
        BaseException("bare"),
        RecursionError("deep"),
        StopAsyncIteration("end"),
        BaseExceptionGroup("several", [SystemExit(1), ValueError("2")]),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("where", ["async", "thread"])
async def test_whatever_a_handler_raises_only_its_row_fails(
    db_url: str, apg: asyncpg.Connection, error: BaseException, where: str
) -> None:
    app = App()
    if where == "async":
        calls(app, "hostile", error, retry=AT_ONCE)
    else:

        @app.handler("hostile", retry=AT_ONCE)
        def hostile() -> NoReturn:
            raise error

    fine = calls(app, "fine", "ok")
    [key] = await put(apg, "hostile")
    await put(apg, "fine", count=3)
    one = await drained(app, db_url)
    row = await job(apg, key)
    assert (row["state"], row["attempt"]) == ("dead", 3)
    [kind] = await apg.fetch(
        "select distinct error_type from worker.attempts where row_key = $1", str(key)
    )
    told = "RuntimeError" if where == "thread" and isinstance(error, GeneratorExit) else None
    assert kind[0] == (told or type(error).__name__)
    assert fine == [1, 1, 1]
    assert not one.seen.of(ServiceFailed)


async def test_stop_iteration_in_either_kind_of_handler(
    db_url: str, apg: asyncpg.Connection
) -> None:
    app = App()

    @app.handler(retry=AT_ONCE)
    def plain() -> None:
        next(iter(()))

    @app.handler(retry=AT_ONCE)
    async def coroutine() -> None:
        next(iter(()))

    await put(apg, "plain")
    await put(apg, "coroutine")
    await drained(app, db_url)
    seen = {r["kind"]: r["last_error"] for r in await apg.fetch("select * from worker.all_jobs")}
    assert seen == {
        "plain": "the handler raised StopIteration",
        "coroutine": "coroutine raised StopIteration",
    }


async def test_sys_exit_by_name(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()

    @app.handler(retry=AT_ONCE)
    def leave() -> None:
        sys.exit("cannot go on")

    [key] = await put(apg, "leave")
    await drained(app, db_url)
    assert (await job(apg, key))["last_error"] == "cannot go on"


# -- payloads -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ('{"n": "seven"}', "n: Input should be a valid integer"),
        ("{}", "n: Field required"),
        ('{"n": 1, "m": 2}', "m: Extra inputs are not permitted"),
        ('{"n": ' + "[" * 400 + "]" * 400 + "}", "recursion limit exceeded"),
    ],
)
async def test_a_payload_that_does_not_fit_is_dead_at_once(
    db_url: str, apg: asyncpg.Connection, args: str, why: str
) -> None:
    app = App()

    @app.handler(retry=AT_ONCE)
    async def count(n: int) -> None:
        raise AssertionError("never called")

    [key] = await put(apg, "count", args)
    await drained(app, db_url)
    row = await job(apg, key)
    assert (row["state"], row["attempt"]) == ("dead", 1)
    assert "the arguments of 'count' do not fit its handler" in row["last_error"]
    assert why in row["last_error"]


class Harmful(pydantic.BaseModel):
    number: str

    @pydantic.field_validator("number")
    @classmethod
    def check(cls, number: str) -> str:
        raise SystemExit("harm")


async def test_a_validator_that_means_harm(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()

    @app.handler
    async def charge(card: Harmful) -> None: ...

    [key] = await put(apg, "charge", '{"card": {"number": "4"}}')
    await drained(app, db_url)
    row = await job(apg, key)
    assert row["state"] == "dead"
    assert row["last_error"] == "the arguments could not be read: SystemExit: harm"


# -- texts and results that Postgres would refuse -------------------------------------------------


async def test_an_error_text_that_postgres_refuses(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()
    calls(app, "fail", ValueError("card\0 \udc80 \U0010ffff"), retry=AT_ONCE)
    [key] = await put(apg, "fail")
    await drained(app, db_url)
    assert (await job(apg, key))["last_error"] == "card\\x00 \\udc80 \U0010ffff"


async def test_an_error_that_cannot_be_told(db_url: str, apg: asyncpg.Connection) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    app = App()
    calls(app, "fail", Mute(), retry=AT_ONCE)
    [key] = await put(apg, "fail")
    await drained(app, db_url)
    assert (await job(apg, key))["last_error"] == "its text could not be read: RuntimeError"


class Hostile(dict[str, int]):
    def items(self) -> Any:
        raise KeyError("no items")


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (object(), "Object of type object is not JSON serializable"),
        ({"a": float("nan")}, "Out of range float values are not JSON compliant"),
        ({1, 2}, "Object of type set is not JSON serializable"),
        ("x" * 70_000, "70002 bytes are over the limit of 65536"),
        ("é" * 40_000, "80002 bytes are over the limit of 65536"),
        ("a\0b", "it holds a NUL, which Postgres does not store"),
        ("\ud800", "surrogates not allowed"),
        (10**5000, "Exceeds the limit"),
        (Hostile(a=1), "no items"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_result_that_cannot_be_stored_is_left_out(
    db_url: str, apg: asyncpg.Connection, result: Any, why: str
) -> None:
    app = App()
    calls(app, "give", lambda: result, retry=AT_ONCE)
    [key] = await put(apg, "give")
    one = await drained(app, db_url)
    row = await job(apg, key)
    assert (row["state"], row["result"]) == ("done", None)
    [refused] = one.seen.of(ResultRefused)
    assert why in refused.why


async def test_a_result_nested_too_deep_for_postgres(
    db_url: str, apg: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres refuses it when it is written; the row is done without it, its neighbours too."""
    deep = functools.reduce(lambda inner, _: [inner], range(32_000), [1])
    monkeypatch.setattr(
        "worker.answers.json.dumps",
        lambda value, **_: "[" * 32_000 + "]" * 32_000 if value is deep else f'"{value}"',
    )
    app = App()
    calls(app, "deep", lambda: deep)
    calls(app, "fine", "ok")
    [key] = await put(apg, "deep")
    await put(apg, "fine", count=5)
    one = await drained(app, db_url)
    row = await job(apg, key)
    assert (row["state"], row["result"]) == ("done", None)
    assert (
        await apg.fetchval("select count(*) from worker.jobs_finished where result = '\"ok\"'") == 5
    )
    [refused] = one.seen.of(ResultRefused)
    assert "stack depth limit exceeded" in refused.why


@pytest.mark.parametrize("where", ["coroutine", "generator", "nested"])
async def test_a_plain_handler_that_hands_back_what_nobody_runs(
    db_url: str, apg: asyncpg.Connection, where: str
) -> None:
    app = App()
    ran = []

    async def inner() -> None:
        ran.append(1)

    def wrapped() -> Any:
        return inner() if where != "generator" else (ran.append(1) for _ in range(3))

    if where == "nested":

        @functools.wraps(wrapped)
        async def outer() -> Any:
            return inner()

        app.handler("odd", retry=AT_ONCE)(outer)
    else:
        app.handler("odd", retry=AT_ONCE)(wrapped)
    [key] = await put(apg, "odd")
    await drained(app, db_url)
    row = await job(apg, key)
    assert (row["state"], row["attempt"], ran) == ("dead", 1, [])
    assert (
        f"the handler of 'odd' returned a {'generator' if where == 'generator' else 'coroutine'}"
        in row["last_error"]
    )


# -- policies that mean harm ----------------------------------------------------------------------


@pytest.mark.parametrize("error", [ZeroDivisionError("policy"), SystemExit("policy")])
@pytest.mark.parametrize("part", ["wait", "stop", "retry_if"])
async def test_a_policy_that_raises(
    db_url: str, apg: asyncpg.Connection, part: str, error: BaseException
) -> None:
    def broken(state: Any) -> NoReturn:
        raise error

    app = App()
    calls(app, "fail", ValueError("no"), retry=RetryPolicy(**{part: broken}))  # type: ignore[arg-type]
    [key] = await put(apg, "fail")
    one = await drained(app, db_url)
    row = await job(apg, key)
    assert (row["state"], row["attempt"], row["worker"]) == ("retrying", 1, None)
    assert "policy" in row["last_error"]
    assert not one.seen.of(ServiceFailed)


@pytest.mark.parametrize("endless", [float("inf"), 1e200, float("nan"), -5.0])
async def test_a_wait_that_no_timestamp_can_hold(
    db_url: str, apg: asyncpg.Connection, endless: float
) -> None:
    app = App()
    policy = RetryPolicy(wait=tenacity.wait_fixed(endless), stop=tenacity.stop_after_attempt(2))
    calls(app, "fail", ValueError("no"), retry=policy)
    [key] = await put(apg, "fail")
    one = await drained(app, db_url)
    row = await job(apg, key)
    assert row["state"] in ("retrying", "dead")
    assert row["worker"] is None or row["state"] == "dead"
    assert not one.seen.of(ServiceFailed)


# -- the context ----------------------------------------------------------------------------------


async def test_the_context(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()
    keys: dict[int, set[str]] = {}
    seen: list[Any] = []

    @app.handler("ask", queue="payments", retry=AT_ONCE, timeout=7)
    async def ask(context: Context) -> None:
        keys.setdefault(context.id, set()).add(context.idempotency_key)
        seen.append((context.kind, context.queue, context.tenant, context.trace))
        assert context.deadline is not None
        assert context.remaining is not None
        assert 2 < context.deadline - time.monotonic() <= 7
        assert 2 < context.remaining <= 7
        assert not context.cancelled
        context.log.info("hello")
        if context.attempt < 3:
            raise ValueError("again")

    options = {"queue": "payments", "tenant": "acme", "trace": "00-ab-cd-01"}
    ids = await put(apg, "ask", count=3, **options)
    await drained(app, db_url)
    assert set(keys) == set(ids)
    assert all(len(of_one) == 1 for of_one in keys.values()), "stable over attempts"
    assert len(set().union(*keys.values())) == 3, "unique over rows"
    assert set(seen) == {("ask", "payments", "acme", "00-ab-cd-01")}


async def test_no_timeout_no_deadline(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()
    seen: list[Any] = []

    @app.handler(timeout=0)
    def ask(context: Context) -> None:
        seen.append((context.deadline, context.remaining, context.wait_cancelled(0)))

    await put(apg, "ask")
    await drained(app, db_url)
    assert seen == [(None, None, False)]


# -- what is claimed, and when --------------------------------------------------------------------


async def test_only_registered_kinds_and_queues_are_claimed(
    db_url: str, apg: asyncpg.Connection
) -> None:
    app = App()
    seen = calls(app, "known", None)
    [unknown] = await put(apg, "unknown", priority=-5)
    [elsewhere] = await put(apg, "known", queue="elsewhere")
    await put(apg, "known")
    await drained(app, db_url)
    assert seen == [1]
    for key in (unknown, elsewhere):
        row = await job(apg, key)
        assert (row["state"], row["attempt"], row["token"]) == ("due", 0, 0)


async def test_rows_go_by_priority_then_due_time(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()
    order: list[int] = []

    @app.handler
    async def note(n: int) -> None:
        order.append(n)

    now = dt.datetime.now(dt.UTC)
    for n, priority, ago in ((5, 10, 9), (2, 0, 5), (3, 0, 1), (1, -10, 0), (4, 10, 60)):
        due = now - dt.timedelta(seconds=ago)
        await put(apg, "note", json.dumps({"n": n}), priority=priority, due_at=due)
    await drained(app, db_url, concurrency=1, claim_batch=1)
    assert order == [1, 2, 3, 4, 5]


async def test_a_delayed_row_runs_on_time_without_a_notification(
    db_url: str, apg: asyncpg.Connection
) -> None:
    app = App()
    ran: list[dt.datetime] = []

    @app.handler
    async def note() -> None:
        ran.append(dt.datetime.now(dt.UTC))

    due = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=0.7)
    await put(apg, "note", due_at=due)
    async with running(app, db_url, listen=False, poll_interval=20, poll_max=60):
        await until(lambda: ran)
    assert 0 <= (ran[0] - due).total_seconds() < 10, "a poll would come 20 s later"


async def test_a_notification_wakes_at_once(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()
    seen = calls(app, "note", None)
    async with running(app, db_url, poll_interval=30, poll_max=30) as one:
        await until(lambda: one.worker.parts.listener.live)
        began = time.monotonic()
        await apg.execute("select worker.enqueue('note')")
        await until(lambda: seen)
        assert time.monotonic() - began < 10, "a poll would come 30 s later"


async def test_a_retry_runs_on_time_though_the_poll_is_slow(
    db_url: str, apg: asyncpg.Connection
) -> None:
    app = App()
    times: list[float] = []

    @app.handler(retry=RetryPolicy(wait=tenacity.wait_fixed(0.3)))
    async def twice(context: Context) -> None:
        times.append(time.monotonic())
        if context.attempt == 1:
            raise ValueError("again")

    async with running(app, db_url, poll_interval=30, poll_max=30) as one:
        await until(lambda: one.worker.parts.listener.live)
        await apg.execute("select worker.enqueue('twice')")
        await until(lambda: len(times) == 2)
    assert times[1] - times[0] < 10, "a poll would come 30 s later"


async def test_a_paused_queue_rests_and_goes_on(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()
    seen = calls(app, "note", None)
    await apg.execute("insert into worker.gates (queue, paused_at) values ('default', now())")
    await put(apg, "note", count=3)
    other = calls(app, "other", None, queue="other")
    await put(apg, "other", queue="other")
    async with running(app, db_url):
        await until(lambda: other)
        claimed = "select count(*) from worker.jobs where kind = 'note' and token > 0"
        assert await apg.fetchval(claimed) == 0
        assert not seen
        await apg.execute("update worker.gates set paused_at = null")
        await until(lambda: len(seen) == 3)


async def test_kinds_of_one_priority_take_turns(db_url: str, apg: asyncpg.Connection) -> None:
    """A kind with a long backlog does not starve the others."""
    app = App()
    order: list[str] = []

    @app.handler
    async def many() -> None:
        order.append("many")

    @app.handler
    async def few() -> None:
        order.append("few")

    await put(apg, "many", count=200)
    await put(apg, "few", count=3)
    await drained(app, db_url, concurrency=2, claim_batch=2)
    assert "few" in order[:10]


async def test_a_slow_handler_gives_back_what_it_hoards(
    db_url: str, apg: asyncpg.Connection
) -> None:
    """Rows that were claimed ahead for handlers of microseconds go back when one takes seconds:
    an idle replica gets them."""
    app, other_app = App(), App()
    release = asyncio.Event()
    ran: list[int] = []

    @app.handler("work")
    async def work(n: int) -> None:
        ran.append(n)
        if n >= 300:
            await release.wait()

    @other_app.handler("work")
    async def elsewhere(n: int) -> None:
        ran.append(-n)

    await apg.execute(
        "insert into worker.jobs (kind, args) select 'work', jsonb_build_object('n', n)"
        " from generate_series(1, 700) n"
    )
    async with running(app, db_url, concurrency=2, claim_batch=100) as one:
        await until(lambda: len(ran) == 301)
        await until(lambda: one.worker.parts.loop.buffered == 0)
        async with running(other_app, db_url, concurrency=2):
            await until(lambda: len(ran) == 700)
        release.set()
    assert sorted(abs(n) for n in ran) == list(range(1, 701)), "each ran once"


async def test_events_of_a_rows_way(db_url: str, apg: asyncpg.Connection) -> None:
    app = App()
    calls(app, "note", {"a": 1})

    @app.observe
    def broken(event: Any) -> None:
        raise RuntimeError("an observer that fails breaks nothing")

    [key] = await put(apg, "note")
    one = await drained(app, db_url)
    [started], [settled] = one.seen.of(RowStarted), one.seen.of(RowSettled)
    assert started.row.key == settled.row.key == key
    assert settled.transition.verb == "done"
    assert 0 <= settled.seconds < 5
    assert settled.wait >= 0
    assert not one.seen.of(RowLost)
