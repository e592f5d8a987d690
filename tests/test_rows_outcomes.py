"""What a handler's answer does to an adopted row, and what its user does to it meanwhile."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
import tenacity

from tests.adopted import Donation, make_donations, one, outcomes, theirs, utc
from tests.facts import until
from tests.workers import Running, drained, running
from worker import App, Cancel, Context, Dead, Retry, RetryPolicy, Snooze
from worker.events import ResultRefused, RowLost, RowSettled, ServiceFailed, SourceFailed

AT_ONCE = RetryPolicy(wait=tenacity.wait_none(), stop=tenacity.stop_after_attempt(3))
IN_AN_HOUR = dt.timedelta(hours=1)


def answering(*answers: Any, **options: Any) -> tuple[App, list[Context]]:
    """An app whose handler answers, or raises, these in turn, then None; the contexts it saw."""
    app, seen = App(), []
    left = list(answers)

    @app.rows("donations", due="next_at", **options)
    async def charge(row: Donation, context: Context) -> Any:
        seen.append(context)
        answer = left.pop(0) if left else None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return app, seen


# -- what is written ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "state", "attempt", "error"),
    [
        (Retry("not yet", after=3600), None, 1, "not yet"),
        (ValueError("boom"), None, 1, "boom"),
        (Snooze("busy", after=3600), None, 0, "busy"),
        (Cancel("not needed"), "cancelled", 1, "not needed"),
        (Dead("stolen"), "dead", 1, "stolen"),
    ],
    ids=lambda answer: type(answer).__name__,
)
async def test_only_bookkeeping_is_written(
    db_url: str,
    apg: asyncpg.Connection,
    answer: Any,
    state: str | None,
    attempt: int,
    error: str,
) -> None:
    await make_donations(apg, 2)
    before = await theirs(apg)
    wait = RetryPolicy(wait=tenacity.wait_fixed(3600))
    app, _ = answering(answer, answer, retry=wait, every=IN_AN_HOUR)
    await drained(app, db_url)
    assert await theirs(apg) == before, "no column of the user's changed, the due time neither"
    row = await one(apg)
    assert (row["duerow_state"], row["duerow_attempt"], row["duerow_error"]) == (
        state,
        attempt,
        error,
    )
    assert row["duerow_held_for"] == row["next_at"]
    assert row["duerow_owner"] is row["duerow_claimed_at"] is None
    if state:
        assert row["duerow_retry_at"] == dt.datetime.max, "infinity"
    else:
        now = await apg.fetchval("select now()")
        assert 3500 < (row["duerow_retry_at"] - now).total_seconds() <= 3600
    again = await drained(app, db_url)
    assert not again.seen.of(RowSettled), "not due again"


async def test_done_clears_what_failures_left(db_url: str, apg: asyncpg.Connection) -> None:
    await make_donations(apg, 1)
    before = await theirs(apg)
    app, seen = answering(
        Retry("one", after=0), Snooze(after=0), ValueError("two"), retry=AT_ONCE, every=IN_AN_HOUR
    )
    await drained(app, db_url)
    assert [c.attempt for c in seen] == [1, 2, 2, 3]
    assert await outcomes(apg) == [(1, "retry"), (2, "snooze"), (2, "retry"), (3, "done")]
    row = await one(apg)
    assert (row["duerow_attempt"], row["duerow_crashes"]) == (0, 0)
    for column in ("retry_at", "held_for", "state", "error", "owner", "claimed_at"):
        assert row[f"duerow_{column}"] is None, column
    [left] = await theirs(apg)
    assert left["next_at"] == before[0]["next_at"] + IN_AN_HOUR
    assert {**left, "next_at": None} == {**before[0], "next_at": None}


async def test_attempts_are_used_up_and_counted_anew_for_the_next_due_time(
    db_url: str, apg: asyncpg.Connection
) -> None:
    await make_donations(apg, 1)
    app, seen = answering(*[ValueError("no")] * 3, retry=AT_ONCE)
    await drained(app, db_url)
    assert [c.attempt for c in seen] == [1, 2, 3]
    assert (await one(apg))["duerow_state"] == "dead"
    await apg.execute("update donations set next_at = now()")
    await drained(app, db_url)
    assert [c.attempt for c in seen] == [1, 2, 3, 1], "a new due time brings a dead row back"
    row = await one(apg)
    assert (row["duerow_state"], row["duerow_error"], row["next_at"]) == (None, None, None)


async def test_what_is_recorded(db_url: str, apg: asyncpg.Connection) -> None:
    await make_donations(apg, 1)
    app, seen = answering(ValueError("no"), tenant="org", retry=AT_ONCE, every=IN_AN_HOUR)
    worker = await drained(app, db_url)
    failed, done = await apg.fetch("select * from worker.attempts order by ended_at")
    for record in (failed, done):
        assert (record["source"], record["queue"], record["kind"]) == ("donations",) * 3
        assert (record["row_key"], record["tenant"], record["worker"]) == ("1", "org 1", worker.id)
        assert record["started_at"] <= record["ended_at"]
    assert [failed["token"], done["token"]] == [c.row.token for c in seen]
    assert failed["token"] < done["token"]
    assert (failed["error_type"], failed["message"]) == ("ValueError", "no")
    assert "ValueError: no" in failed["traceback"]
    assert (done["error_type"], done["next_at"]) == (None, (await one(apg))["next_at"])


async def test_the_idempotency_key_is_the_occurrences(db_url: str, apg: asyncpg.Connection) -> None:
    await make_donations(apg, 2)
    await apg.execute("update donations set next_at = '2026-01-01 12:00+00'")
    app, seen = answering(*[Retry(after=0)] * 4, every=IN_AN_HOUR, catch_up=True)
    async with running(app, db_url, concurrency=1):
        await until(lambda: len(seen) >= 10)
    keys: dict[tuple[int, dt.datetime], set[str]] = {}
    for c in seen:
        assert c.row.occurrence is not None
        keys.setdefault((c.id, c.row.occurrence), set()).add(c.idempotency_key)
    assert all(len(found) == 1 for found in keys.values()), "stable over the attempts"
    assert len(set.union(*keys.values())) == len(keys), "and new for every row and occurrence"
    assert sum(c.attempt > 1 for c in seen) >= 3


async def test_a_result_that_is_no_time_is_left_out(db_url: str, apg: asyncpg.Connection) -> None:
    await make_donations(apg, 1)
    app, _ = answering({"charged": 10}, every=IN_AN_HOUR)
    await drained(app, db_url)
    assert await outcomes(apg) == [(1, "done")]


async def test_a_row_that_does_not_fit_is_dead_and_the_others_run(
    db_url: str, apg: asyncpg.Connection
) -> None:
    await make_donations(apg, 3)
    await apg.execute(
        "alter table donations alter amount drop not null;"
        "update donations set amount = null where id = 2"
    )
    app, seen = answering()
    await drained(app, db_url)
    assert sorted(c.id for c in seen) == [1, 3]
    row = await one(apg, 2)
    assert (row["duerow_state"], row["duerow_attempt"]) == ("dead", 1)
    assert "a row of 'donations' does not fit Donation" in row["duerow_error"]
    assert "amount: Input should be a valid integer" in row["duerow_error"]


# -- what its user does meanwhile -----------------------------------------------------------------


@asynccontextmanager
async def in_flight(
    db_url: str, apg: asyncpg.Connection, answer: Any = None, **options: Any
) -> AsyncIterator[Running]:
    """A worker whose handler runs on row 1 during the block, and answers at its end. The block of
    the worker goes on until that is settled."""
    app, started, go = App(), asyncio.Event(), asyncio.Event()

    @app.rows("donations", due="next_at", **{"every": IN_AN_HOUR, **options})
    async def charge(row: Donation, context: Context) -> Any:
        if context.row.occurrence in occurrences:
            return Snooze(after=3600)  # a second run is none of ours
        occurrences.append(context.row.occurrence)
        started.set()
        await go.wait()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    occurrences: list[Any] = []
    await make_donations(apg, 1, where=options.get("where"))
    async with running(app, db_url) as worker:
        await started.wait()
        yield worker
        go.set()
        await until(lambda: worker.seen.of(RowSettled) or worker.seen.of(RowLost))


ANSWERS = [None, Retry("again", after=7200), Snooze(after=7200), Dead("no"), Cancel("no")]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: type(answer).__name__)
async def test_a_due_time_that_its_user_changed_in_flight_wins(
    db_url: str, apg: asyncpg.Connection, answer: Any
) -> None:
    later = utc(2031, 1, 1)
    async with in_flight(db_url, apg, answer) as worker:
        await apg.execute("update donations set next_at = $1, note = 'mine'", later)
    row = await one(apg)
    assert (row["next_at"], row["note"]) == (later, "mine")
    assert row["duerow_held_for"] != later, "nothing holds the new due time back"
    assert row["duerow_owner"] is row["duerow_state"] is None
    assert not worker.seen.of(RowLost)
    await apg.execute("update donations set next_at = now()")
    app, seen = answering()
    await drained(app, db_url)
    assert [c.attempt for c in seen] == [1], "and it starts with a first attempt"


async def test_a_due_time_brought_forward_in_flight_runs_at_once(
    db_url: str, apg: asyncpg.Connection
) -> None:
    ran = []
    app, started, go = App(), asyncio.Event(), asyncio.Event()

    @app.rows("donations", due="next_at")
    async def charge(row: Donation, context: Context) -> None:
        ran.append(context.row.occurrence)
        started.set()
        if len(ran) == 1:
            await go.wait()

    await make_donations(apg, 1)
    async with running(app, db_url, poll_max=0.2):
        await started.wait()
        await apg.execute("update donations set next_at = '2026-01-01 00:00+00'")
        go.set()
        await until(lambda: len(ran) == 2)
        await until(lambda: _is_null(apg))
    assert ran[1] == utc(2026, 1, 1)


async def _is_null(apg: asyncpg.Connection) -> bool:
    return (await one(apg))["next_at"] is None


@pytest.mark.parametrize("answer", ANSWERS[:2], ids=lambda answer: type(answer).__name__)
async def test_a_due_time_set_to_null_in_flight_stays_null(
    db_url: str, apg: asyncpg.Connection, answer: Any
) -> None:
    async with in_flight(db_url, apg, answer):
        await apg.execute("update donations set next_at = null")
    row = await one(apg)
    assert row["next_at"] is row["duerow_owner"] is None


async def test_other_columns_changed_in_flight_stay(db_url: str, apg: asyncpg.Connection) -> None:
    due = None
    async with in_flight(db_url, apg):
        due = (await one(apg))["next_at"]
        await apg.execute("update donations set note = 'mine', amount = 99, org = null")
    row = await one(apg)
    assert (row["note"], row["amount"], row["org"]) == ("mine", 99, None)
    assert row["next_at"] == due + IN_AN_HOUR


async def test_a_condition_that_ends_in_flight(db_url: str, apg: asyncpg.Connection) -> None:
    async with in_flight(db_url, apg, Retry(after=0), where="status = 'active'") as worker:
        await apg.execute("update donations set status = 'gone'")
    assert worker.seen.of(RowSettled)
    row = await one(apg)
    assert (row["duerow_owner"], row["duerow_attempt"], row["status"]) == (None, 1, "gone")
    assert await outcomes(apg) == [(1, "retry")]


@pytest.mark.parametrize("answer", [None, Retry(after=0)], ids=["done", "retry"])
async def test_a_row_deleted_in_flight(db_url: str, apg: asyncpg.Connection, answer: Any) -> None:
    """Nobody else can have it: what its handler did counts, and is on record."""
    async with in_flight(db_url, apg, answer) as worker:
        await apg.execute("delete from donations")
    assert not worker.seen.of(RowLost)
    assert await outcomes(apg) == [(1, "retry" if answer else "done")]
    assert await apg.fetchval("select count(*) from donations") == 0


async def test_a_row_deleted_and_inserted_again_in_flight(
    db_url: str, apg: asyncpg.Connection
) -> None:
    """The new row is another: the old run's result must not settle it, though its key is the
    same and the same worker has claimed it."""
    ran, gates = [], [asyncio.Event(), asyncio.Event()]
    app = App()

    @app.rows("donations", due="next_at", every=IN_AN_HOUR)
    async def charge(row: Donation, context: Context) -> None:
        ran.append(context.row.token)
        await gates[len(ran) - 1].wait()

    await make_donations(apg, 1)
    async with running(app, db_url, poll_max=0.2) as worker:
        await until(lambda: len(ran) == 1)
        async with apg.transaction():
            await apg.execute("delete from donations")
            await apg.execute(
                "insert into donations (id, amount) overriding system value values (1, 10)"
            )
        due = (await one(apg))["next_at"]
        await until(lambda: len(ran) == 2)
        gates[0].set()
        [lost] = await until(lambda: worker.seen.of(RowLost))
        assert lost.row.token == ran[0]
        row = await one(apg)
        assert (row["duerow_owner"], row["duerow_token"]) == (worker.id, ran[1])
        assert row["next_at"] == due
        gates[1].set()
        await until(lambda: worker.seen.of(RowSettled))
    assert (await one(apg))["next_at"] == due + IN_AN_HOUR


@pytest.mark.parametrize("ended", ["backoff", "dead", "cancelled"])
async def test_a_new_due_time_ends_every_hold(
    db_url: str, apg: asyncpg.Connection, ended: str
) -> None:
    answer = {"backoff": Retry(after=3600), "dead": Dead("no"), "cancelled": Cancel("no")}[ended]
    await make_donations(apg, 1)
    app, seen = answering(answer)
    await drained(app, db_url)
    await apg.execute("update donations set note = 'an update of another column'")
    await drained(app, db_url)
    assert len(seen) == 1, "which ends no hold"
    await apg.execute("update donations set next_at = '2026-01-01 00:00+00'")
    await drained(app, db_url)
    assert [c.attempt for c in seen] == [1, 1]
    assert seen[0].idempotency_key != seen[1].idempotency_key


# -- its user's locks and triggers ----------------------------------------------------------------


async def test_an_update_of_the_row_while_it_is_settled(
    db_url: str, apg: asyncpg.Connection
) -> None:
    """The result waits for the lock, is not lost for what changed meanwhile, and holds up no
    other row."""
    app, go = App(), asyncio.Event()

    @app.rows("donations", due="next_at", every=IN_AN_HOUR)
    async def charge(row: Donation, context: Context) -> None:
        await go.wait()

    await make_donations(apg, 4)
    async with running(app, db_url) as worker:
        await until(lambda: len(worker.worker.running) == 4)
        async with apg.transaction():
            await apg.execute("update donations set note = 'mine' where id = 2")
            go.set()
            await until(lambda: len(worker.seen.of(RowSettled)) == 3)
            await until(lambda: worker.worker.parts.settler._outboxes["donations"].busy)
        await until(lambda: len(worker.seen.of(RowSettled)) == 4)
        row = await one(apg, 2)
        assert (row["note"], row["duerow_owner"]) == ("mine", None)
        assert row["next_at"] > dt.datetime.now(dt.UTC)
        assert not worker.seen.of(RowLost)
    assert await outcomes(apg, 2) == [(1, "done")]


async def test_no_deadlock_with_updates_of_many_rows(db_url: str, apg: asyncpg.Connection) -> None:
    """The user's own transactions update rows in an order of theirs; none of them, and no worker,
    is chosen as the victim of a deadlock."""
    await make_donations(apg, 40)
    await apg.execute("update donations set next_at = now() - interval '1 day'")
    app, ran = App(), []

    @app.rows("donations", due="next_at", every=1e-3, catch_up=True)
    async def charge(row: Donation) -> None:
        ran.append(row.id)

    other = await asyncpg.connect(db_url)
    async with running(app, db_url, concurrency=20) as worker:
        for i in range(60):
            async with other.transaction():
                for key in sorted(range(1, 41), key=lambda k: (k * (i + 7)) % 41)[:8]:
                    await other.execute("update donations set note = 'x' where id = $1", key)
        await until(lambda: len(ran) > 100)
        assert not worker.seen.of(SourceFailed) + worker.seen.of(ServiceFailed)
        assert not worker.seen.of(RowLost)
    await other.close()


REFUSALS = {
    "not null": ("alter table donations alter next_at set not null", "null value in column"),
    "check": (
        "alter table donations add check (next_at < '2030-01-01')",
        "violates check constraint",
    ),
    "trigger": (
        "create function refuse() returns trigger language plpgsql as"
        " $$ begin if new.next_at is distinct from old.next_at then raise 'not so'; end if;"
        " return new; end $$;"
        "create trigger refuse before update on donations for each row execute function refuse()",
        "not so",
    ),
}


@pytest.mark.parametrize("by", REFUSALS)
async def test_what_the_table_refuses_makes_the_row_dead_and_holds_up_no_other(
    db_url: str, apg: asyncpg.Connection, by: str
) -> None:
    """It has run, and must not run again for an answer that cannot be stored."""
    await make_donations(apg, 5)
    refusal, why = REFUSALS[by]
    await apg.execute(refusal)
    answers = {3: None if by == "not null" else utc(2031, 1, 1)}
    app, ran = App(), []

    @app.rows("donations", due="next_at")
    async def charge(row: Donation) -> Any:
        ran.append(row.id)
        return answers.get(row.id, Retry(after=3600))

    worker = await drained(app, db_url)
    assert sorted(ran) == [1, 2, 3, 4, 5]
    row = await one(apg, 3)
    assert row["duerow_state"] == "dead"
    assert why in row["duerow_error"]
    assert "refused the outcome 'done'" in row["duerow_error"]
    assert [await outcomes(apg, k) for k in (1, 3)] == [[(1, "retry")], [(1, "dead")]]
    assert worker.seen.of(ResultRefused)
    assert not worker.seen.of(ServiceFailed) + worker.seen.of(RowLost)


async def test_a_trigger_that_refuses_every_update_holds_up_no_other_result(
    db_url: str, apg: asyncpg.Connection
) -> None:
    app, go = App(), asyncio.Event()

    @app.rows("donations", due="next_at", every=IN_AN_HOUR)
    async def charge(row: Donation) -> None:
        await go.wait()

    await make_donations(apg, 3)
    async with running(app, db_url) as worker:
        await until(lambda: len(worker.worker.running) == 3)
        await apg.execute(
            "create function refuse() returns trigger language plpgsql as"
            " $$ begin if old.id = 2 then raise 'never'; end if; return new; end $$;"
            "create trigger refuse before update on donations"
            " for each row execute function refuse()"
        )
        go.set()
        [lost] = await until(lambda: worker.seen.of(RowLost))
        assert lost.row.key == 2
        await until(lambda: len(worker.seen.of(RowSettled)) == 2)
        assert not worker.seen.of(ServiceFailed)
        await apg.execute("drop trigger refuse on donations")
