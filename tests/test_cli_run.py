"""`worker run` and `worker drain` as processes: start, signals, exit codes."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import time
import urllib.request
from pathlib import Path

import psycopg
import pytest

from tests.cli import Process, Result, run, started
from tests.facts import eventually

pytestmark = pytest.mark.process

APP = '''\
"""Handlers that end well, badly, late or never."""

import asyncio
import time
from pathlib import Path

from worker import App

app = App()


def running(kind):
    Path(f"{kind}.running").touch()


@app.handler
async def hello(name: str = "you"):
    pass


@app.handler
async def bad():
    raise ValueError("no good")


@app.handler
async def nul():
    raise ValueError("before\\x00after")


@app.handler
async def a_second():
    running("a_second")
    await asyncio.sleep(1)


@app.handler
async def for_ever():
    running("for_ever")
    await asyncio.sleep(3600)


@app.handler
async def spin():
    running("spin")
    while True:
        pass


@app.handler
async def block():
    running("block")
    time.sleep(3600)


@app.handler
async def stubborn():
    running("stubborn")
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass


@app.handler
def thread():
    running("thread")
    time.sleep(3600)
'''


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def put(pg: psycopg.Connection, kind: str, count: int = 1) -> None:
    pg.execute("select worker.enqueue(%s) from generate_series(1, %s)", [kind, count])


def states(pg: psycopg.Connection) -> dict[str, int]:
    rows = pg.execute("select state, count(*) from worker.all_jobs group by state").fetchall()
    return dict(rows)


def is_running(project: Path, kind: str, process: Process) -> None:
    process.seen("worker.started")
    eventually((project / f"{kind}.running").exists)


# -- the start ----------------------------------------------------------------------------------


def test_the_start_says_what_it_runs_with(
    project: Path, db_url: str, pg: psycopg.Connection
) -> None:
    put(pg, "hello", 3)
    with started("run", "--database-url", db_url, "--grace", "7s", cwd=project) as process:
        line = process.seen("worker.started")
        assert line["queues"] == ["default"]
        assert "hello" in line["handlers"]
        assert (line["grace"], line["lease"], line["slots"]) == ("7s", "30s", 10)
        assert line["schema"] >= 1
        assert line["pooler"] == "none, LISTEN"
        assert "pool" in line
        assert "health" not in line
        eventually(lambda: len(process.lines("row.settled")) == 3)
        process.signal(signal.SIGTERM)
        assert process.end() == 0
        assert process.lines("worker.stopped")[0]["settled"] == 3
    assert process.popen.stdout is not None
    assert states(pg) == {"done": 3}


def test_nothing_goes_to_stdout(project: Path, db_url: str) -> None:
    with started("run", "--database-url", db_url, cwd=project) as process:
        process.seen("worker.started")
        process.signal(signal.SIGTERM)
        out, _ = process.popen.communicate(timeout=30)
    assert out == ""


def test_where_it_tells_how_it_is(project: Path, db_url: str) -> None:
    arguments = ("run", "--database-url", db_url, "--health", "127.0.0.1:0")
    with started(*arguments, cwd=project) as process:
        line = process.seen("worker.started")
        with urllib.request.urlopen(f"http://{line['health']}/healthz", timeout=10) as answer:
            assert json.load(answer)["worker"] == line["worker"]


def test_settings_come_from_the_project_file_and_the_environment(
    project: Path, db_url: str
) -> None:
    (project / "pyproject.toml").write_text('[tool.duerow]\nconcurrency = 3\ngrace = "4s"\n')
    env = {"DATABASE_URL": db_url, "DUEROW_GRACE": "5s"}
    with started("run", cwd=project, env=env) as process:
        line = process.seen("worker.started")
    assert (line["slots"], line["grace"]) == (3, "5s")


def test_a_database_that_is_down_is_one_message_at_once(project: Path) -> None:
    with socket.socket() as bound:  # nobody listens there, nor can somebody else meanwhile
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        url = f"postgresql://u:hunter2@127.0.0.1:{port}/d"
        begun = time.monotonic()
        found = run("run", "--database-url", url, "--connect-timeout", "40s", cwd=project)
        assert time.monotonic() - begun < 20
    assert found.code == 3
    assert found.err.startswith(f"no connection to postgresql://u:***@127.0.0.1:{port}/d")
    assert "Connect call failed" in found.err or "refused" in found.err
    assert "\n  next: check DATABASE_URL, and that the server runs: pg_isready" in found.err
    assert found.err.count("\n") == 3
    assert "hunter2" not in found.err


def test_a_database_that_swallows_packets_is_given_up_in_time(project: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/d"
        begun = time.monotonic()
        arguments = ("run", "--database-url", url, "--connect-timeout", "1s")
        found = run(*arguments, cwd=project, env={"DUEROW_CONNECT_TIMEOUT": "40s"})
        assert time.monotonic() - begun < 20
    assert (found.code, found.err.count("\n")) == (3, 3)


def test_a_schema_that_is_missing(project: Path, database_server: str) -> None:
    for verb in (("run",), ("drain",), ("jobs", "list")):
        found = run(*verb, "--database-url", database_server, cwd=project)
        assert found.code == 4
        assert found.err == (
            "The database has no schema `worker`\n"
            "  why:  the migrations have not run here\n"
            "  next: worker db migrate\n"
        )


def test_an_app_that_is_missing(tmp_path: Path, db_url: str) -> None:
    found = run("run", "--app", "shop.jobs:app", "--database-url", db_url, cwd=tmp_path)
    assert found.code == 5
    assert found.err.startswith("there is no module 'shop' to load the app 'shop.jobs' from\n")


# -- signals ------------------------------------------------------------------------------------


def test_a_row_that_runs_may_end_within_the_grace(
    project: Path, db_url: str, pg: psycopg.Connection
) -> None:
    put(pg, "a_second")
    with started("run", "--database-url", db_url, cwd=project) as process:
        is_running(project, "a_second", process)
        for _ in range(3):  # Heroku may send several, to every process
            process.signal(signal.SIGTERM)
        assert process.end() == 0
    assert states(pg) == {"done": 1}


GRACE, TRIES = 3, 4


@pytest.mark.parametrize(
    ("kind", "uvloop"),
    [
        ("for_ever", "1"),
        ("spin", "1"),
        ("spin", "0"),
        ("block", "1"),
        ("block", "0"),
        ("stubborn", "1"),
        ("thread", "1"),
    ],
)
def test_a_row_that_does_not_end_is_given_back_within_the_grace(
    project: Path, db_url: str, pg: psycopg.Connection, kind: str, uvloop: str
) -> None:
    arguments = ("run", "--database-url", db_url, "--grace", f"{GRACE}s")
    for _ in range(TRIES):
        put(pg, kind)
        with started(*arguments, cwd=project, env={"DUEROW_UVLOOP": uvloop}) as process:
            is_running(project, kind, process)
            begun = time.monotonic()
            process.signal(signal.SIGTERM)
            assert process.end() == 9
            seconds = time.monotonic() - begun
        assert seconds < GRACE + 10, "not for as long as the row would take"
        found = pg.execute("select owner, attempt from worker.jobs").fetchall()
        told = pg.execute("select count(*) from worker.workers where stopped_at is null").fetchone()
        if (found, told) == ([(None, 0)], (0,)) or seconds < 0.9 * GRACE:
            break
        # the machine had it stand still in the moment that is kept for giving rows back
        pg.execute("delete from worker.jobs")
        pg.execute("delete from worker.workers")
        (project / f"{kind}.running").unlink()
    assert found == [(None, 0)]
    assert told == (0,)


def test_off_a_terminal_int_is_term_however_often(
    project: Path, db_url: str, pg: psycopg.Connection
) -> None:
    put(pg, "for_ever")
    with started("run", "--database-url", db_url, "--grace", "2s", cwd=project) as process:
        is_running(project, "for_ever", process)
        process.signal(signal.SIGINT)
        process.seen("worker.draining")
        begun = time.monotonic()
        while process.popen.poll() is None and time.monotonic() - begun < 1.2:
            process.signal(signal.SIGINT)
            time.sleep(0.1)  # an impatient sender
        assert process.end() == 9


def test_on_a_terminal_a_second_ctrl_c_after_a_second_gives_back_and_leaves(
    project: Path, db_url: str, pg: psycopg.Connection
) -> None:
    put(pg, "spin")
    leader, follower = pty.openpty()
    arguments = ("run", "--database-url", db_url, "--log-format", "json")
    for _ in range(TRIES):  # on a machine that stands still between them two are no double press
        with started(*arguments, cwd=project, stdin=follower) as process:
            is_running(project, "spin", process)
            process.signal(signal.SIGINT)
            eventually(lambda: "Ctrl-C again" in process.log)
            process.signal(signal.SIGINT)  # too soon: a nervous double press
            begun = time.monotonic()
            eventually(lambda: time.monotonic() - begun > 1.1)  # noqa: B023
            if stayed := process.popen.poll() is None:
                process.signal(signal.SIGINT)
            assert process.end(15) == 130  # not the grace of 25 s
        if stayed:
            break
        (project / "spin.running").unlink()
    assert stayed
    os.close(leader)
    os.close(follower)
    found = pg.execute("select owner, attempt from worker.jobs").fetchall()
    assert found == [(None, 0)]


def test_quit_shows_what_runs_and_changes_nothing(
    project: Path, db_url: str, pg: psycopg.Connection
) -> None:
    put(pg, "for_ever")
    put(pg, "thread")
    with started("run", "--database-url", db_url, cwd=project) as process:
        is_running(project, "for_ever", process)
        is_running(project, "thread", process)
        process.signal(signal.SIGQUIT)
        for words in (
            "2 rows running",
            " in for_ever\n",  # where the task waits
            f'File "{project}/app.py", line ',
            "for_ever attempt 1, ",
            "Current thread",
            " in thread\n",  # faulthandler's, of the handler's thread
        ):
            eventually(lambda: words in process.log)  # noqa: B023
        assert process.popen.poll() is None


def test_a_worker_that_has_grown_too_large_drains_and_exits_with_0(
    project: Path, db_url: str, pg: psycopg.Connection
) -> None:
    put(pg, "a_second")
    with started("run", "--database-url", db_url, "--max-rss-mb", "1", cwd=project) as process:
        assert process.end() == 0
        assert process.lines("worker.too_large")[0]["rss_mb"] > 1
    assert states(pg) == {"done": 1}


# -- drain --------------------------------------------------------------------------------------


def test_drain_ends_when_nothing_is_due(project: Path, db_url: str, pg: psycopg.Connection) -> None:
    put(pg, "hello", 30)
    found = run("drain", "--database-url", db_url, cwd=project)
    assert found.code == 0
    counts = {"settled": "30", "failed": "0", "released": "0", "lost": "0", "left": "0"}
    assert found.record == counts
    assert states(pg) == {"done": 30}


def test_drain_tells_failures_with_its_exit_code(
    project: Path, db_url: str, pg: psycopg.Connection
) -> None:
    put(pg, "bad")
    put(pg, "hello")
    found = run("drain", "--json", "--database-url", db_url, cwd=project)
    assert found.code == 7
    assert found.json == [{"settled": 2, "failed": 1, "released": 0, "lost": 0, "left": 0}]


def test_drain_of_no_more_than_so_many(project: Path, db_url: str, pg: psycopg.Connection) -> None:
    put(pg, "hello", 30)
    found = run("drain", "--max-rows", "10", "--json", "--database-url", db_url, cwd=project)
    assert (found.code, found.json[0]["settled"], found.json[0]["left"]) == (0, 10, 20)
    assert states(pg) == {"done": 10, "due": 20}


def test_drain_for_no_longer_than_this_finishes_what_it_holds(
    project: Path, db_url: str, pg: psycopg.Connection
) -> None:
    put(pg, "a_second", 20)
    arguments = ("--max-seconds", "2s", "--concurrency", "2", "--json")
    found = run("drain", *arguments, "--database-url", db_url, cwd=project)
    assert found.code == 0
    done = states(pg)["done"]
    assert done == found.json[0]["settled"]
    assert 20 - done == found.json[0]["left"]
    assert 2 <= done <= 12  # two at a time, and as many ahead
    assert states(pg) == {"done": done, "due": 20 - done}


def test_a_nul_in_an_error_does_not_keep_its_row_from_being_settled(
    project: Path, db_url: str, pg: psycopg.Connection
) -> None:
    put(pg, "nul")
    found: Result = run("drain", "--database-url", db_url, cwd=project)
    assert found.code == 7
    [row] = pg.execute("select state, worker, last_error from worker.all_jobs").fetchall()
    assert row == ("retrying", None, "before\\x00after")


# -- with no database named ---------------------------------------------------------------------


def test_with_no_url_an_embedded_postgres_is_used_and_migrated(project: Path) -> None:
    """The first five minutes: a directory, two commands."""
    (project / "pyproject.toml").touch()  # this is the project, whatever lies above
    project.chmod(0o755)
    found = run("enqueue", "hello", '{"name": "world"}', "--json", cwd=project)
    assert found.code == 0, found.err
    assert "no database URL: using the embedded Postgres in " in found.err
    assert "embedded Postgres: migrated from nothing" in found.err
    drained = run("drain", "--json", cwd=project)
    assert drained.code == 0, drained.err
    assert drained.json[0]["settled"] == 1
    assert '"event":"database.embedded"' in drained.err
