"""The verbs of operators, on a real database, and against workers that run."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import pty
import re
import signal
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest

from tests.cli import CLI, PROGRAM, environment
from tests.facts import until
from tests.workers import drained, job, put, running
from worker import App, Dead
from worker.events import RowStarted


@pytest.fixture
def cli(db_url: str, capsys: pytest.CaptureFixture[str]) -> CLI:
    return CLI(db_url, capsys)


def an_app() -> App:
    app = App()

    @app.handler
    async def hello() -> None: ...

    @app.handler
    async def doomed(why: str = "no good") -> None:
        raise Dead(why)

    @app.handler
    async def for_ever() -> None:
        await asyncio.sleep(3600)

    return app


async def one(connection: asyncpg.Connection, sql: str, *params: Any) -> Any:
    return await connection.fetchval(sql, *params)


async def actions(connection: asyncpg.Connection) -> list[tuple[str, str, str, str | None]]:
    rows = await connection.fetch(
        "select actor, action, target, reason from worker.operator_actions order by id"
    )
    return [tuple(row) for row in rows]


# -- looking ------------------------------------------------------------------------------------


async def test_list_shows_live_and_finished_the_newest_first(
    db_url: str, apg: asyncpg.Connection, cli: CLI
) -> None:
    ids = await put(apg, "hello") + await put(apg, "doomed")
    await drained(an_app(), db_url)
    ids += await put(apg, "later", due_at=dt.datetime.now(dt.UTC) + dt.timedelta(hours=1))
    found = cli("jobs", "list")
    assert found.code == 0
    assert [(row["id"], row["state"], row["kind"]) for row in found.rows] == [
        (str(ids[2]), "scheduled", "later"),
        (str(ids[1]), "dead", "doomed"),
        (str(ids[0]), "done", "hello"),
    ]
    assert cli("jobs", "list", "--json").json[1]["last_error"] == "no good"


@pytest.mark.parametrize(
    ("filters", "kinds"),
    [
        (("--state", "dead"), ["doomed"]),
        (("--state", "dead", "--state", "done"), ["doomed", "hello"]),
        (("--kind", "hello"), ["hello"]),
        (("--queue", "slow"), ["later"]),
        (("--tenant", "acme"), ["later"]),
        (("--error-type", "Dead"), ["doomed"]),
        (("--since", "1m", "--limit", "1"), ["later"]),
        (("--since", "0s"), []),
    ],
)
async def test_list_filters(
    db_url: str, apg: asyncpg.Connection, cli: CLI, filters: tuple[str, ...], kinds: list[str]
) -> None:
    await put(apg, "hello")
    await put(apg, "doomed")
    await drained(an_app(), db_url)
    await put(apg, "later", queue="slow", tenant="acme")
    assert [row["kind"] for row in cli("jobs", "list", *filters).rows] == kinds


def test_list_of_millions_reads_none_in_vain(pg: psycopg.Connection) -> None:
    """The newest are taken from each table's index on the id."""
    from worker.statements import statement

    pg.execute("insert into worker.jobs (kind) select 'k' from generate_series(1, 20000)")
    pg.execute("analyze worker.jobs")
    sql = statement("operate/find")
    for n, value in enumerate(("null", "null", "null", "null", "null", "null", "50"), 1):
        sql = sql.replace(f"${n}", value)
    plan = "\n".join(row[0] for row in pg.execute("explain (analyze, timing off) " + sql))
    assert "Merge Append" in plan
    assert "Sort Key" in plan
    assert "Sort Method" not in plan
    assert "Seq Scan" not in plan


async def test_show_masks_secrets_and_tells_the_attempts(
    db_url: str, apg: asyncpg.Connection, cli: CLI
) -> None:
    [id] = await put(apg, "doomed", json.dumps({"why": "card expired"}))
    [other] = await put(apg, "unknown", json.dumps({"api_key": "abc", "amount": 7}))
    await drained(an_app(), db_url)
    [shown] = cli("jobs", "show", str(id), "--json").json
    assert (shown["state"], shown["last_error"]) == ("dead", "card expired")
    assert [a["outcome"] for a in shown["attempts"]] == ["dead"]
    assert cli("jobs", "show", str(other), "--json").json[0]["args"] == {
        "api_key": "***",
        "amount": 7,
    }
    plain = cli("jobs", "show", str(other)).out
    assert 'args\t{"amount":7,"api_key":"***"}' in plain


def test_show_of_what_is_not_there(cli: CLI) -> None:
    found = cli("jobs", "show", "4711")
    assert found.code == 6
    assert found.err == (
        "there is no job 4711\n"
        "  why:  it never was, or retention has dropped it\n"
        "  next: worker jobs list\n"
    )


# -- retry --------------------------------------------------------------------------------------


async def test_retry_moves_a_dead_row_back_under_its_id(
    db_url: str, apg: asyncpg.Connection, cli: CLI
) -> None:
    [id] = await put(apg, "doomed", tenant="acme", priority=3, max_attempts=9, unique_key="k")
    await drained(an_app(), db_url)
    before = await job(apg, id)
    found = cli("jobs", "retry", str(id), "--reason", "card renewed", "--by", "operator")
    assert found.code == 0
    assert found.rows == [{"id": str(id), "outcome": "retried", "detail": "dead"}]
    after = await job(apg, id)
    assert after["state"] == "due"
    assert (after["attempt"], after["crashes"]) == (0, 0)
    for name in ("token", "tenant", "priority", "max_attempts", "unique_key", "created_at", "args"):
        assert after[name] == before[name], name
    assert await one(apg, "select count(*) from worker.jobs_finished") == 0
    assert await actions(apg) == [("operator", "retry", str(id), "card renewed")]


async def test_a_retried_row_runs_under_a_higher_token(
    db_url: str, apg: asyncpg.Connection, cli: CLI
) -> None:
    [id] = await put(apg, "doomed")
    await drained(an_app(), db_url)
    first = await job(apg, id)
    assert cli("jobs", "retry", str(id)).code == 0
    await drained(an_app(), db_url)
    second = await job(apg, id)
    assert (second["state"], second["attempt"]) == ("dead", 1)
    assert second["token"] == first["token"] + 1


async def test_retry_of_a_done_row_keeps_the_record_of_its_run(
    db_url: str, apg: asyncpg.Connection, cli: CLI
) -> None:
    [id] = await put(apg, "hello")
    await drained(an_app(), db_url)
    assert cli("jobs", "retry", str(id)).rows[0]["detail"] == "done"
    await drained(an_app(), db_url)
    [shown] = cli("jobs", "show", str(id), "--json").json
    assert [(a["outcome"], a["token"]) for a in shown["attempts"]] == [("done", 1), ("done", 2)]


async def test_retry_makes_a_waiting_row_due_now(apg: asyncpg.Connection, cli: CLI) -> None:
    later = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    [id] = await put(apg, "hello", due_at=later, attempt=2)
    assert cli("jobs", "retry", str(id)).rows[0]["outcome"] == "due"
    row = await job(apg, id)
    assert (row["state"], row["attempt"]) == ("due", 2)


async def test_retry_says_whose_unique_key_is_in_the_way(
    db_url: str, apg: asyncpg.Connection, cli: CLI
) -> None:
    [id] = await put(apg, "doomed", unique_key="order 7")
    await drained(an_app(), db_url)
    [holder] = await put(apg, "doomed", unique_key="order 7")
    found = cli("jobs", "retry", str(id))
    assert found.code == 6
    assert found.err == (
        f"job {id} was not retried\n"
        f"  why:  another live job has its unique key: {holder}\n"
        f"  next: worker jobs show {holder}\n"
    )
    assert (await job(apg, id))["state"] == "dead"
    assert await actions(apg) == []


async def test_of_two_dead_rows_with_one_unique_key_one_is_retried(
    db_url: str, apg: asyncpg.Connection, cli: CLI
) -> None:
    ids = []
    for _ in range(2):
        ids += await put(apg, "doomed", unique_key="k")
        await drained(an_app(), db_url)
    found = cli("jobs", "retry", *map(str, ids))
    assert found.code == 6
    assert sorted(row["outcome"] for row in found.rows) == ["blocked", "retried"]
    assert await one(apg, "select count(*) from worker.all_jobs") == 2


async def test_retry_of_many_by_what_they_have_in_common(
    db_url: str, apg: asyncpg.Connection, cli: CLI
) -> None:
    ids = await put(apg, "doomed", count=3)
    await put(apg, "hello", count=2)
    await drained(an_app(), db_url)
    refused = cli("jobs", "retry", "--kind", "doomed")
    assert refused.code == 2
    assert refused.err == (
        "this would run 3 dead jobs again\n"
        "  why:  nobody can be asked here\n"
        "  next: add --yes to do it\n"
    )
    found = cli("jobs", "retry", "--kind", "doomed", "--error-type", "Dead", "--yes", "--json")
    assert [row["id"] for row in found.json] == ids
    assert {row["outcome"] for row in found.json} == {"retried"}
    assert cli("jobs", "retry", "--kind", "doomed", "--yes").err == "no job fits\n"


def test_retry_of_nothing_in_particular(cli: CLI) -> None:
    found = cli("jobs", "retry", "--yes")
    assert found.code == 2
    assert found.err.startswith("no job is named\n  next: give ids, or say which: --kind")


def test_retry_of_what_is_not_there(cli: CLI) -> None:
    assert cli("jobs", "retry", "4711").err.startswith("there is no job 4711")


# -- cancel -------------------------------------------------------------------------------------


async def test_cancel_finishes_a_waiting_row(apg: asyncpg.Connection, cli: CLI) -> None:
    [id] = await put(apg, "hello")
    found = cli("jobs", "cancel", str(id), "--yes", "--reason", "ordered twice", "--by", "operator")
    assert found.rows == [{"id": str(id), "outcome": "cancelled", "detail": ""}]
    row = await job(apg, id)
    assert row["state"] == "cancelled"
    assert row["last_error"] == "cancelled by operator: ordered twice"
    assert await one(apg, "select count(*) from worker.jobs") == 0
    assert await actions(apg) == [("operator", "cancel", str(id), "ordered twice")]


async def test_cancel_needs_yes_off_a_terminal(apg: asyncpg.Connection, cli: CLI) -> None:
    [id] = await put(apg, "hello")
    found = cli("jobs", "cancel", str(id))
    assert found.code == 2
    assert found.err.startswith(f"this would cancel job {id}\n")
    assert (await job(apg, id))["state"] == "due"


@pytest.mark.parametrize(("answer", "code", "state"), [("n", 2, "due"), ("y", 0, "cancelled")])
def test_cancel_asks_on_a_terminal(
    db_url: str, pg: psycopg.Connection, tmp_path: Path, answer: str, code: int, state: str
) -> None:
    [[id]] = pg.execute("insert into worker.jobs (kind) values ('hello') returning id").fetchall()
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, "jobs", "cancel", str(id), "--database-url", db_url],
        cwd=tmp_path,
        env=environment(),
        stdin=follower,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    asked = b""
    while b"[y/N]" not in asked:
        asked += os.read(leader, 1024)
    assert f"This will cancel job {id}. Go on?".encode() in asked
    os.write(leader, f"{answer}\n".encode())
    assert process.wait(60) == code
    os.close(leader)
    assert pg.execute("select state from worker.all_jobs").fetchall() == [(state,)]


async def test_cancel_of_what_is_finished(db_url: str, apg: asyncpg.Connection, cli: CLI) -> None:
    [id] = await put(apg, "hello")
    await drained(an_app(), db_url)
    found = cli("jobs", "cancel", str(id), "--yes")
    assert found.code == 6
    assert f"job {id} was not cancelled\n  why:  it is done\n" in found.err


async def test_cancel_ends_a_running_handler_at_once(
    db_url: str, apg: asyncpg.Connection, cli: CLI
) -> None:
    """With a lease whose heartbeat comes every 20 s: the worker is told, it does not find out."""
    async with running(an_app(), db_url, lease=60.0) as worker:
        [id] = await put(apg, "for_ever")
        await until(lambda: worker.seen.of(RowStarted))
        found = await asyncio.to_thread(cli, "jobs", "cancel", str(id), "--yes", "--wait", "10s")
        assert found.code == 0
        assert found.rows == [{"id": str(id), "outcome": "cancelled", "detail": "while it ran"}]
        assert (await job(apg, id))["state"] == "cancelled"
        await until(
            lambda: one(
                apg, "select handled_at is not null from worker.operator_actions where worker = $1",
                worker.id,
            )
        )  # fmt: skip
    assert await one(apg, "select count(*) from worker.operator_actions") == 1


async def test_cancel_reaches_a_worker_that_does_not_listen_with_its_heartbeat(
    db_url: str, apg: asyncpg.Connection, cli: CLI
) -> None:
    async with running(an_app(), db_url, listen=False, lease=6.0) as worker:
        [id] = await put(apg, "for_ever")
        await until(lambda: worker.seen.of(RowStarted))
        found = await asyncio.to_thread(cli, "jobs", "cancel", str(id), "--yes", "--wait", "10s")
        assert found.rows[0]["outcome"] == "cancelled"


async def test_cancel_does_not_wait_for_ever(apg: asyncpg.Connection, cli: CLI) -> None:
    """The owner of the row does not answer."""
    owner = await one(
        apg,
        "insert into worker.workers (name, host, pid, version, queues, kinds, slots, lease)"
        " values ('w', 'h', 1, '0', '{default}', '{hello}', 1, '1 hour') returning id",
    )
    [id] = await put(apg, "hello", owner=owner, token=5, attempt=1)
    found = cli("jobs", "cancel", str(id), "--yes", "--wait", "0s")
    assert found.rows == [{"id": str(id), "outcome": "asked", "detail": str(owner)}]
    cli("jobs", "cancel", str(id), "--yes", "--wait", "0s")
    pending = await apg.fetch("select worker, token, target from worker.operator_actions")
    assert [tuple(row) for row in pending] == [(owner, 5, str(id))]


async def test_cancel_waits_for_a_row_that_is_being_claimed(
    db_url: str, apg: asyncpg.Connection, cli: CLI
) -> None:
    [id] = await put(apg, "hello")
    async with apg.transaction():
        await apg.execute("select from worker.jobs where id = $1 for update", id)
        held = cli("jobs", "cancel", str(id), "--yes", "--wait", "0s")
        assert held.code == 6
        assert "it was just being claimed or settled" in held.err
    assert cli("jobs", "cancel", str(id), "--yes").code == 0


async def test_cancel_holds_when_the_owner_dies_before_it_hears_of_it(
    db_url: str, apg: asyncpg.Connection, cli: CLI
) -> None:
    """A row that kills its worker must not come back after it was cancelled."""
    owner = await one(
        apg,
        "insert into worker.workers (name, host, pid, version, queues, kinds, slots, lease,"
        " heartbeat_at) values ('w', 'h', 1, '0', '{default}', '{hello}', 1, '1 s',"
        " now() - interval '1 minute') returning id",
    )
    kept, cancelled = await put(apg, "hello", count=2, owner=owner, token=5, attempt=1)
    assert cli("jobs", "cancel", str(cancelled), "--yes", "--wait", "0s").code == 0
    async with running(an_app(), db_url) as worker:
        await until(lambda: one(apg, "select count(*) = 2 from worker.jobs_finished"))
        assert [started.row.key for started in worker.seen.of(RowStarted)] == [kept]
    assert (await job(apg, kept))["state"] == "done"
    assert (await job(apg, cancelled))["state"] == "cancelled"
    assert await one(apg, "select handled_at is not null from worker.operator_actions")


# -- snooze -------------------------------------------------------------------------------------


async def test_snooze_puts_a_waiting_row_off(apg: asyncpg.Connection, cli: CLI) -> None:
    [id] = await put(apg, "hello", attempt=2)
    assert cli("jobs", "snooze", str(id), "--in", "10m", "--reason", "bank holiday").code == 0
    row = await job(apg, id)
    wait = row["due_at"] - dt.datetime.now(dt.UTC)
    assert 590 < wait.total_seconds() <= 600
    assert row["attempt"] == 2
    assert cli("jobs", "snooze", str(id), "--at", "2030-01-01T00:00+00:00").code == 0
    assert (await job(apg, id))["due_at"] == dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
    assert [action[1] for action in await actions(apg)] == ["snooze", "snooze"]


async def test_snooze_of_a_running_row_is_refused(apg: asyncpg.Connection, cli: CLI) -> None:
    [id] = await put(apg, "hello", owner=1, token=1, attempt=1)
    found = cli("jobs", "snooze", str(id), "--in", "10m")
    assert found.code == 6
    assert found.err == (
        f"job {id} was not snoozed\n  why:  it is running\n  next: worker jobs cancel {id}\n"
    )


# -- queues and workers -------------------------------------------------------------------------


async def test_a_paused_queue_is_not_claimed_from_until_it_is_resumed(
    db_url: str, apg: asyncpg.Connection, cli: CLI
) -> None:
    [id] = await put(apg, "hello")
    assert cli("queues", "pause", "default", "--reason", "bank is down", "--by", "me").code == 0
    await drained(an_app(), db_url)
    assert (await job(apg, id))["state"] == "due"
    [queue] = cli("queues", "list").rows
    assert (queue["queue"], queue["due"]) == ("default", "1")
    assert (queue["paused_by"], queue["reason"]) == ("me", "bank is down")
    again = cli("queues", "pause", "default")
    assert again.err == "queue 'default' was paused already\n"
    assert again.record["reason"] == "bank is down"
    woken: list[str] = []
    await apg.add_listener("duerow_gates", lambda *told: woken.append(told[-1]))
    async with running(an_app(), db_url):
        assert (await asyncio.to_thread(cli, "queues", "resume", "default")).code == 0
        await until(lambda: one(apg, "select id from worker.jobs_finished where id = $1", id))
    assert woken == [""], "all workers look again"
    assert [action[1:] for action in await actions(apg)] == [
        ("pause", "queue default", "bank is down"),
        ("resume", "queue default", None),
    ]


def test_a_queue_that_nobody_names_is_paused_with_a_warning(cli: CLI) -> None:
    found = cli("queues", "pause", "defalt")
    assert found.code == 0
    assert found.err.startswith("no job and no worker names the queue 'defalt'")


def test_resume_of_what_is_not_paused(cli: CLI) -> None:
    found = cli("queues", "resume", "default")
    assert (found.code, found.err) == (0, "queue 'default' was not paused\n")


async def test_workers_are_listed_while_they_live(
    db_url: str, apg: asyncpg.Connection, cli: CLI
) -> None:
    async with running(an_app(), db_url) as worker:
        [row] = cli("workers", "list").rows
        assert (row["id"], row["state"]) == (str(worker.id), "running")
        assert row["queues"] == "default"
    assert cli("workers", "list").rows == []
    assert cli("workers", "list", "--all").rows[0]["state"] == "stopped"


# -- status -------------------------------------------------------------------------------------


async def test_status_counts(db_url: str, apg: asyncpg.Connection, cli: CLI) -> None:
    await put(apg, "doomed")
    await drained(an_app(), db_url)
    await put(apg, "hello", count=3)
    await put(apg, "hello", due_at=dt.datetime.now(dt.UTC) + dt.timedelta(hours=1))
    await put(apg, "hello", owner=1, token=1, attempt=1)
    [status] = cli("status", "--json").json
    counts = {name: status[name] for name in ("due", "scheduled", "retrying", "running")}
    assert counts == {"due": 3, "scheduled": 1, "retrying": 0, "running": 1}
    assert status["dead_last_day"] == 1
    assert status["workers"] == 0


async def test_status_check_says_what_is_wrong(
    db_url: str, apg: asyncpg.Connection, cli: CLI
) -> None:
    found = cli("status", "--check")
    assert (found.code, found.err) == (8, "no worker is alive\n  next: worker run\n")
    async with running(an_app(), db_url):
        assert cli("status", "--check").code == 0
        long_ago = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=10)
        await put(apg, "stranger", due_at=long_ago)
        found = cli("status", "--check")
        assert found.code == 8
        assert re.search(r"a row has been due for 6\d\d s, longer than 300 s", found.err)
        assert "no live worker runs these kinds: stranger in default" in found.err
        await asyncio.to_thread(cli, "queues", "pause", "default")
        assert "has been due for" not in cli("status", "--check").err


def test_status_watched_in_a_pipe_is_a_line_each_time(db_url: str, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*PROGRAM, "status", "--watch", "--every", "50ms", "--database-url", db_url],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        # a shell's background job ignores it, and so would what is started there
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    names, *values = [process.stdout.readline().rstrip("\n").split("\t") for _ in range(4)]
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    process.stdout.close()
    assert names[:2] == ["at", "due"]
    assert [len(line) for line in values] == [len(names)] * 3
    assert len({line[0] for line in values}) == 3


# -- audit --------------------------------------------------------------------------------------


async def test_audit_runs_a_query_with_its_parameters_as_flags(
    db_url: str, apg: asyncpg.Connection, cli: CLI
) -> None:
    await put(apg, "doomed", count=3)
    await drained(an_app(), db_url)
    found = cli("audit", "run", "dead_rows", "--lines", "2")
    assert [row["kind"] for row in found.rows] == ["doomed", "doomed"]
    assert len(cli("audit", "run", "dead_rows", "--json").json) == 3


def test_audit_of_an_unknown_query_names_the_nearest(cli: CLI) -> None:
    found = cli("audit", "run", "dead_row")
    assert found.code == 6
    assert "did you mean dead_rows?" in found.err


def test_audit_without_a_parameter_that_it_needs(cli: CLI) -> None:
    found = cli("audit", "run", "timeline")
    assert found.code == 2
    assert "next: worker audit run timeline --row ..." in found.err
