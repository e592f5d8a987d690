"""`worker schedules`: on a real database, and against a worker that ticks."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest

from tests.cli import CLI
from tests.facts import until
from tests.workers import drained, running
from worker import App, Schedule, add_schedule, audit
from worker.events import ScheduleTicked


@pytest.fixture
def cli(
    db_url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> CLI:
    monkeypatch.chdir(tmp_path)  # where no app is
    return CLI(db_url, capsys)


def an_app(cron: str = "0 9 * * mon") -> App:
    app = App()

    @app.schedule(cron, tz="Europe/Berlin", name="weekly", args={"password": "hunter2"})
    @app.handler("report")
    def report(password: str) -> None: ...

    return app


def actions(pg: psycopg.Connection[Any]) -> list[Any]:
    return pg.execute(
        "select actor, action, source, target, reason from worker.operator_actions order by id"
    ).fetchall()


async def started(app: App, url: str) -> None:
    """Its schedules stand in the table."""
    await drained(app, url)


async def test_list(db_url: str, cli: CLI, pg: psycopg.Connection[Any]) -> None:
    async with running(an_app(), db_url) as one:
        await until(lambda: one.worker.parts.ticker.looked.is_set())
        add_schedule(pg, Schedule("often", kind="beat", every=90))
        found = {row["name"]: row for row in cli("schedules", "list").rows}
        weekly = found["weekly"]
        assert weekly["state"] == "active"
        assert weekly["when"] == "0 9 * * mon"
        next_at = dt.datetime.fromisoformat(weekly["next_at"])
        assert next_at.astimezone().strftime("%A %M:%S") == "Monday 00:00"
        assert found["often"]["when"] == "every 1m30s"
        told = {row["name"]: row for row in cli("schedules", "list", "--json").json}
        assert len(told["weekly"]["next"]) == 3
        first, second, third = map(dt.datetime.fromisoformat, told["often"]["next"])
        assert second - first == third - second == dt.timedelta(seconds=90)
        assert told["weekly"]["origin"] == "code"
        assert told["often"]["origin"] == "operator"
    assert cli("schedules", "list", "--json").json[1]["state"] == "unheld"


async def test_show_masks_secrets_and_tells_the_last_ticks(
    db_url: str, cli: CLI, apg: asyncpg.Connection
) -> None:
    async with running(an_app(), db_url) as one:
        await until(lambda: one.worker.parts.ticker.looked.is_set())
        await apg.execute("update worker.schedules set next_at = now(), cron = cron")
        await until(lambda: one.seen.of(ScheduleTicked))
        await until(lambda: apg.fetchval("select count(*) = 1 from worker.jobs_finished"))
        [told] = cli("schedules", "show", "weekly", "--json").json
        assert told["args"] == {"password": "***"}
        [tick] = told["ticks"]
        assert (tick["outcome"], tick["state"], tick["worker"]) == ("enqueued", "done", one.id)
        assert told["last_state"] == "done"
        text = cli("schedules", "show", "weekly").out
        assert "hunter2" not in text
        assert "enqueued" in text
        assert (
            len(cli("schedules", "show", "weekly", "--ticks", "0", "--json").json[0]["ticks"]) == 0
        )


async def test_pause_and_resume(
    db_url: str, cli: CLI, pg: psycopg.Connection[Any], apg: asyncpg.Connection
) -> None:
    async with running(an_app("* * * * * *"), db_url) as one:
        await until(lambda: one.seen.of(ScheduleTicked))
        paused = cli("schedules", "pause", "weekly", "--by", "ada", "--reason", "too loud")
        assert paused.record["paused_by"] == "ada"
        again = cli("schedules", "pause", "weekly", "--by", "bob")
        assert "was paused already" in again.err
        assert again.record["paused_by"] == "ada"
        at = await apg.fetchval("select paused_at from worker.schedules")
        [row] = cli("schedules", "list").rows
        assert (row["state"], row["paused_by"], row["reason"]) == ("paused", "ada", "too loud")
        assert row["next_at"] == ""
        await until(lambda: apg.fetchval("select now() > $1::timestamptz + interval '2.5 s'", at))
        resumed = cli("schedules", "resume", "weekly", "--by", "bob", "--reason", "fine")
        assert dt.datetime.fromisoformat(resumed.record["was_paused_at"]) == at.replace(
            microsecond=at.microsecond // 1000 * 1000
        )
        since = await apg.fetchval("select at from worker.operator_actions where action = 'resume'")
        late = "select count(*) from worker.schedule_ticks where tick_at > $1"
        await until(lambda: apg.fetchval(late, since))
    between = await apg.fetchval(
        "select count(*) from worker.schedule_ticks where tick_at > $1 and tick_at < $2", at, since
    )
    assert between == 0
    assert "was not paused" in cli("schedules", "resume", "weekly").err
    assert actions(pg) == [
        ("ada", "pause", "schedules", "weekly", "too loud"),
        ("bob", "resume", "schedules", "weekly", "fine"),
    ]


async def test_run_now(db_url: str, cli: CLI, pg: psycopg.Connection[Any]) -> None:
    app = App()
    seen: list[dt.datetime] = []

    @app.schedule("0 9 1 1 *", tick_as="tick", args={"n": 1})
    @app.handler("yearly")
    def yearly(tick: dt.datetime, n: int) -> None:
        seen.append(tick)

    await started(app, db_url)
    cli("schedules", "pause", "yearly")
    before = pg.execute("select next_at from worker.schedules").fetchone()
    made = cli("schedules", "run-now", "yearly", "--by", "ada", "--reason", "asked for")
    [(job,)] = pg.execute("select id from worker.jobs").fetchall()
    assert made.record == {"schedule": "yearly", "job_id": str(job)}
    await drained(app, db_url)
    [tick] = seen
    assert abs(tick - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=1)
    assert pg.execute("select next_at from worker.schedules").fetchone() == before
    assert actions(pg)[1:] == [("ada", "run now", "schedules", "yearly", "asked for")]
    [told] = cli("schedules", "show", "yearly", "--json").json
    assert [(t["outcome"], t["state"]) for t in told["ticks"]] == [("by hand", "done")]


def test_add_change_remove(cli: CLI, pg: psycopg.Connection[Any]) -> None:
    added = cli(
        "schedules", "add", "nightly", "cleanup", '{"days": 30}', "--cron", "0 3 * * *",
        "--tz", "Europe/Berlin", "--queue", "slow", "--priority", "5", "--tenant", "acme",
        "--max-attempts", "3", "--tick-as", "tick", "--catch-up", "all", "--catch-up-limit", "7",
        "--jitter", "5m", "--by", "ada", "--reason", "disk",
    )  # fmt: skip
    assert added.code == 0, added.err
    assert added.record["outcome"] == "added"
    assert dt.datetime.fromisoformat(added.record["next_at"]) > dt.datetime.now(dt.UTC)
    row = pg.execute(
        "select cron, tz, kind, queue, args, priority, tenant, max_attempts, tick_as, catch_up,"
        " catch_up_limit, overlap, jitter, origin, created_by from worker.schedules"
    ).fetchone()
    assert row == (
        "0 3 * * *", "Europe/Berlin", "cleanup", "slow", {"days": 30}, 5, "acme", 3, "tick", "all",
        7, "allow", dt.timedelta(minutes=5), "operator", "ada",
    )  # fmt: skip
    again = cli("schedules", "add", "nightly", "cleanup", "--every", "1h")
    assert again.code == 2
    assert "there is a schedule 'nightly'" in again.err
    changed = cli("schedules", "add", "nightly", "cleanup", "--every", "1h", "--replace")
    assert changed.record["outcome"] == "changed"
    assert pg.execute("select cron, every from worker.schedules").fetchone() == (
        None,
        dt.timedelta(hours=1),
    )
    refused = cli("schedules", "remove", "nightly")
    assert refused.code == 2
    assert "--yes" in refused.err
    removed = cli("schedules", "remove", "nightly", "--yes", "--by", "ada")
    assert removed.record == {"schedule": "nightly", "removed": "true"}
    assert [action[1] for action in actions(pg)] == ["add", "change", "remove"]
    assert cli("schedules", "remove", "nightly", "--yes").code == 6


def test_add_once(cli: CLI, pg: psycopg.Connection[Any]) -> None:
    add = ("schedules", "add", "party", "invite", "--tz", "Europe/Berlin", "--at")
    assert cli(*add, "2099-01-01T00:00").code == 0
    assert pg.execute("select at from worker.schedules").fetchone() == (
        dt.datetime(2098, 12, 31, 23, tzinfo=dt.UTC),
    )
    past = cli(*add, "2020-01-01T00:00+00:00", "--replace")
    assert past.code == 2
    assert "has passed" in past.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cron", "0 25 * * *"], "'0 25 * * *' is no cron expression"),
        (["--cron", "0 9 * * *", "--every", "5m"], "needs one of cron, every and at"),
        ([], "needs one of cron, every and at"),
        (["--cron", "0 9 * * *", "--tz", "Europe/Berln"], "tz='Europe/Berlin'"),
        (["--every", "200ms"], "every=0.2 is not between one second"),
        (["--every", "1h", "--jitter", "2h"], "jitter=7200"),
        (["--every", "1h", "--catch-up", "all", "--overlap", "skip"], "contradict each other"),
        (["--every", "1h", "--catch-up-limit", "0"], "catch_up_limit=0"),
        (["--at", "soon"], "a time is written like"),
        (["--every", "1h", "--priority", "99999"], "priority"),
        (["[]", "--every", "1h"], "JSON array"),
    ],
)
def test_add_refuses(cli: CLI, arguments: list[str], message: str) -> None:
    found = cli("schedules", "add", "nightly", "cleanup", *arguments)
    assert found.code == 2
    assert message in found.err
    assert cli("schedules", "list").rows == []


def test_add_checks_against_the_app(cli: CLI, tmp_path: Path) -> None:
    (tmp_path / "jobs_of_ours.py").write_text(
        "import datetime as dt\nfrom worker import App\n\napp = App()\n\n\n"
        "@app.handler(queue='slow')\ndef cleanup(days: int, tick: dt.datetime) -> None: ...\n"
    )
    every = ("--every", "1h", "--app", "jobs_of_ours:app")
    wrong = cli("schedules", "add", "a", "cleanup", '{"days": "many"}', "--tick-as", "tick", *every)
    assert wrong.code == 2
    assert "days" in wrong.err
    assert "cleanup" in cli("schedules", "add", "a", "clean", *every).err
    assert cli("schedules", "add", "a", "cleanup", '{"days": 1}', *every).code == 2  # no tick
    good = cli("schedules", "add", "a", "cleanup", '{"days": 1}', "--tick-as", "tick", *every)
    assert good.code == 0, good.err
    assert cli("schedules", "list", "--json").json[0]["queue"] == "slow"


async def test_what_stands_in_the_code_is_left_to_it(db_url: str, cli: CLI) -> None:
    async with running(an_app(), db_url) as one:
        await until(lambda: one.worker.parts.ticker.looked.is_set())
        for verb in (
            ("remove", "weekly", "--yes"),
            ("add", "weekly", "report", "--every", "1h", "--replace"),
        ):
            refused = cli("schedules", *verb)
            assert refused.code == 2
            assert "it stands in the code of a worker" in refused.err
            assert "worker schedules pause weekly" in refused.err
    assert cli("schedules", "remove", "weekly", "--yes").code == 0


@pytest.mark.parametrize("verb", ["show", "pause", "resume", "run-now"])
def test_one_that_is_not_there(cli: CLI, pg: psycopg.Connection[Any], verb: str) -> None:
    add_schedule(pg, Schedule("nightly", kind="cleanup", every=60))
    found = cli("schedules", verb, "nightyl")
    assert found.code == 6
    assert "there is no schedule 'nightyl'" in found.err
    assert "did you mean 'nightly'?" in found.err


async def test_the_history(db_url: str, cli: CLI, pg: psycopg.Connection[Any]) -> None:
    async with running(an_app("* * * * * *"), db_url) as one:
        await until(lambda: len(one.seen.of(ScheduleTicked)) >= 2)
        name = one.worker.name
    cli("schedules", "run-now", "weekly")
    columns, rows = audit.run(pg, "schedule_history")
    found = [dict(zip(columns, row, strict=True)) for row in rows]
    assert found[0]["outcome"] == "by hand"
    assert found[0]["job_state"] == "due"
    ticked = [row for row in found if row["outcome"] == "enqueued"]
    assert len(ticked) >= 2
    assert ticked[-1]["decided_by"] == name
    assert ticked[-1]["late"] < dt.timedelta(seconds=10)
    assert audit.run(pg, "schedule_history", schedule="other")[1] == []
    assert len(audit.run(pg, "schedule_history", lines=1)[1]) == 1
    assert audit.run(pg, "schedule_history", since="0 s")[1] == []
