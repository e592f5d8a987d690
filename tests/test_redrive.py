"""Dead rows that are run again by the rule of their handler."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
from typing import Any

import asyncpg
import pytest
import tenacity

from tests.adopted import Donation, make_donations, one, outcomes, theirs
from tests.cli import CLI
from tests.facts import until
from tests.test_rows_operate import actions, register
from tests.workers import job, put, running
from worker import App, Dead, Redrive, RetryPolicy
from worker.errors import RegistrationError, UsageError
from worker.events import ChoreRan, RowSettled
from worker.redrive import Rule

SOON = Redrive(after=0.2, times=2)
TWICE = RetryPolicy(stop=tenacity.stop_after_attempt(2), wait=tenacity.wait_fixed(0.01))


def an_app(redrive: Redrive | None, works_from: int = 10**9) -> App:
    """Rows and jobs that fail until the given run."""
    app = App()
    runs = 0

    @app.rows("donations", due="next_at", redrive=redrive, retry=TWICE)
    async def charge(donation: Donation) -> None:
        work()

    @app.handler("charge", redrive=redrive, retry=TWICE)
    async def charge_job() -> None:
        work()

    def work() -> None:
        nonlocal runs
        runs += 1
        if runs < works_from:
            raise OSError("provider down")

    return app


async def look(apg: asyncpg.Connection, chore: str) -> None:
    """Until the chore has been done three times from now on."""
    seen: set[Any] = set()

    async def enough() -> bool:
        seen.add(await apg.fetchval("select last_run_at from worker.chores where name = $1", chore))
        return len(seen) > 3

    await until(enough)


async def test_a_dead_row_is_run_again_so_many_times_and_no_more(
    db_url: str, apg: asyncpg.Connection
) -> None:
    await make_donations(apg, 1)
    columns = await theirs(apg)
    async with running(an_app(SOON), db_url) as worker:
        await until(lambda: len(worker.seen.of(RowSettled)) == 6)
        await _ripe(apg)
        await look(apg, "redrive donations")
    assert await outcomes(apg) == [(1, "retry"), (2, "dead")] * 3
    assert (await one(apg))["duerow_state"] == "dead"
    assert await theirs(apg) == columns
    assert await actions(apg) == [
        ("redrive rule", "redrive", "donations", "1", "time 1 of 2"),
        ("redrive rule", "redrive", "donations", "1", "time 2 of 2"),
    ]
    assert len([e for e in worker.seen.of(ChoreRan) if e.chore == "redrive donations"]) == 2


async def test_not_before_its_time(db_url: str, apg: asyncpg.Connection) -> None:
    """`after` counts from the death, not from the claim: this one takes longer to die."""
    app = App()

    @app.rows("donations", due="next_at", redrive=SOON)
    async def charge(donation: Donation) -> None:
        await asyncio.sleep(2 * SOON.seconds)
        raise Dead("no")

    await make_donations(apg, 1)
    async with running(app, db_url) as worker:
        await until(lambda: len(worker.seen.of(RowSettled)) == 3)
    died = await apg.fetch(
        "select ended_at from worker.attempts where outcome = 'dead' order by ended_at"
    )
    again = await apg.fetch("select at from worker.operator_actions order by at")
    assert len(again) == 2
    for (death,), (redriven,) in zip(died, again, strict=False):
        assert redriven - death >= dt.timedelta(seconds=SOON.seconds)


async def test_success_and_a_new_due_time_start_the_count_again(
    db_url: str, apg: asyncpg.Connection
) -> None:
    await make_donations(apg, 1)
    async with running(an_app(SOON, works_from=5), db_url) as worker:
        await until(lambda: len(worker.seen.of(RowSettled)) == 5)
    assert await outcomes(apg) == [
        (1, "retry"),
        (2, "dead"),
        (1, "retry"),
        (2, "dead"),
        (1, "done"),
    ]
    await apg.execute("update donations set next_at = now() - interval '1 h'")
    async with running(an_app(SOON), db_url) as worker:
        await until(lambda: len(worker.seen.of(RowSettled)) == 6)
    assert [outcome for _, outcome in await outcomes(apg)].count("dead") == 5


async def test_a_row_that_crashed_too_often_is_run_again_too(
    db_url: str, apg: asyncpg.Connection
) -> None:
    """It died in a sweep, not by its handler's answer."""
    await make_donations(apg, 1)
    await apg.execute(
        "insert into worker.workers (name, host, pid, version, queues, kinds, slots,"
        " lease, heartbeat_at) values ('gone', 'h', 1, '0', '{}', '{}', 1, '1 s',"
        " now() - interval '1 min')"
    )
    await apg.execute(
        "update donations set duerow_owner = 1, duerow_attempt = 3, duerow_crashes = 2,"
        " duerow_held_for = next_at, duerow_retry_at = next_at, duerow_claimed_at = now(),"
        " duerow_token = extract(epoch from clock_timestamp()) * 1000000"
    )
    async with running(an_app(SOON, works_from=1), db_url) as worker:
        await until(lambda: len(worker.seen.of(RowSettled)) == 1)
    assert await outcomes(apg) == [(3, "dead"), (1, "done")]


async def test_without_a_rule_dead_stays_dead_and_a_rule_takes_up_what_died_before_it(
    db_url: str, apg: asyncpg.Connection
) -> None:
    await make_donations(apg, 1)
    async with running(an_app(None), db_url) as worker:
        await until(lambda: len(worker.seen.of(RowSettled)) == 2)
        await _ripe(apg)
    assert await actions(apg) == []
    async with running(an_app(SOON, works_from=1), db_url) as worker:
        await until(lambda: len(worker.seen.of(RowSettled)) == 1)
    assert (await outcomes(apg))[-1] == (1, "done")


async def test_what_is_cancelled_or_moved_by_its_user_is_let_be(
    db_url: str, apg: asyncpg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    await make_donations(apg, 3)
    await register(apg)
    async with running(an_app(None), db_url) as worker:
        await until(lambda: len(worker.seen.of(RowSettled)) == 6)
    cli = CLI(db_url, capsys)
    assert cli("rows", "retry", "donations", "1").code == 0
    assert cli("rows", "cancel", "donations", "1", "--yes").code == 0
    await apg.execute("update donations set next_at = null where id = 2")
    await _ripe(apg)
    async with running(an_app(SOON, works_from=1), db_url) as worker:
        await until(lambda: len(worker.seen.of(RowSettled)) == 1)
        await look(apg, "redrive donations")
    assert [row.row.key for row in worker.seen.of(RowSettled)] == [3]


async def test_a_dead_job_is_run_again_so_many_times_and_no_more(
    db_url: str, apg: asyncpg.Connection
) -> None:
    [key] = await put(apg, "charge")
    await make_donations(apg)
    async with running(an_app(SOON), db_url) as worker:
        await until(lambda: len(worker.seen.of(RowSettled)) == 6)
        await _ripe(apg)
        await look(apg, "redrive charge")
    assert await outcomes(apg, key) == [(1, "retry"), (2, "dead")] * 3
    assert (await job(apg, key))["state"] == "dead"
    assert await actions(apg) == [
        ("redrive rule", "redrive", "jobs", str(key), "time 1 of 2"),
        ("redrive rule", "redrive", "jobs", str(key), "time 2 of 2"),
    ]


async def test_a_dead_job_whose_unique_key_is_taken_waits(
    db_url: str, apg: asyncpg.Connection
) -> None:
    await make_donations(apg)
    [first] = await put(apg, "charge", unique_key="a")
    async with running(an_app(None), db_url) as worker:
        await until(lambda: len(worker.seen.of(RowSettled)) == 2)
    later = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    [second] = await put(apg, "charge", unique_key="a", due_at=later)
    await _ripe(apg)
    async with running(an_app(SOON, works_from=1), db_url) as worker:
        await look(apg, "redrive charge")
        assert (await job(apg, first))["state"] == "dead"
        await apg.execute("delete from worker.jobs where id = $1", second)
        await until(lambda: worker.seen.of(RowSettled))
    assert (await job(apg, first))["state"] == "done"


async def test_other_kinds_of_dead_jobs_are_left_alone(
    db_url: str, apg: asyncpg.Connection
) -> None:
    app = an_app(SOON, works_from=1)

    @app.handler("other")
    async def other() -> None:
        raise Dead("no")

    await make_donations(apg)
    [key] = await put(apg, "other")
    async with running(app, db_url) as worker:
        await until(lambda: worker.seen.of(RowSettled))
        await _ripe(apg)
        await look(apg, "redrive charge")
    assert await outcomes(apg, key) == [(1, "dead")]


@pytest.mark.parametrize(
    "made",
    [
        lambda: Redrive(after=0),
        lambda: Redrive(after=float("nan")),
        lambda: Redrive(after="1 day"),  # type: ignore[arg-type]
        lambda: Redrive(times=0),
        lambda: Redrive(times=1.5),  # type: ignore[arg-type]
        lambda: App().handler("x", redrive=3)(lambda: None),  # type: ignore[arg-type]
    ],
)
def test_rules_that_make_no_sense(made: Any) -> None:
    with pytest.raises(RegistrationError):
        made()


def test_a_rule_that_outlives_its_history_is_refused() -> None:
    """The deaths are counted in the log of attempts: dropped, they would be forgotten."""
    day = 86_400.0
    rule = Rule("jobs", "charge", Redrive())
    rule.refuse_forgetful(finished=14 * day, attempts=30 * day)
    with pytest.raises(UsageError, match="attempts"):
        rule.refuse_forgetful(finished=14 * day, attempts=5 * day)
    with pytest.raises(UsageError, match="finished jobs"):
        rule.refuse_forgetful(finished=day, attempts=30 * day)
    dataclasses.replace(rule, source="donations").refuse_forgetful(finished=day, attempts=30 * day)


async def _ripe(apg: asyncpg.Connection) -> None:
    """Until whatever died is older than the rule asks for."""

    async def old() -> bool:
        return bool(
            await apg.fetchval(
                "select max(ended_at) < now() - make_interval(secs => $1) from worker.attempts"
                " where outcome = 'dead'",
                SOON.seconds,
            )
        )

    await until(old)
