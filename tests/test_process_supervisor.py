"""`worker run --processes N`: real processes, real signals, a real Postgres."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import termios
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.cli import CLI, PROGRAM, Process, environment, run, started
from tests.facts import eventually

pytestmark = pytest.mark.process

APP = '''\
"""Handlers that say where they ran."""

import asyncio
import os
import time
from pathlib import Path

from worker import App, Context

while Path("hold").exists():
    time.sleep(0.01)

app = App()


@app.handler
async def short():
    """Ends when three processes have had one."""
    Path(f"ran.{os.getpid()}").touch()
    while len(list(Path().glob("ran.*"))) < 3:
        await asyncio.sleep(0.01)


@app.handler
async def gated(gate: str):
    """Runs until the gate is opened."""
    while not Path(gate).exists():
        await asyncio.sleep(0.01)


@app.handler
async def a_second(context: Context):
    Path(f"started.{context.id}").touch()
    await asyncio.sleep(1)


@app.handler
async def for_ever(name: str):
    Path(f"running.{name}").write_text(str(os.getpid()))
    await asyncio.sleep(3600)


@app.handler
async def once(name: str):
    place = Path(f"running.{name}")
    if not place.exists():
        place.write_text(str(os.getpid()))
        await asyncio.sleep(3600)


@app.handler
def read():
    input()


@app.handler
async def block():
    Path("running.block").touch()
    while not Path("unblock").exists():
        time.sleep(0.01)
'''


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


@pytest.fixture
def cli(db_url: str, capsys: pytest.CaptureFixture[str]) -> CLI:
    return CLI(db_url, capsys)


@contextlib.contextmanager
def supervised(
    project: Path, url: str, *more: str, env: dict[str, str] | None = None
) -> Iterator[Process]:
    """Three processes with two slots each, all of which are up."""
    arguments = ("run", "--database-url", url, "--processes", "3", "-c", "2", *more)
    with started(*arguments, cwd=project, env=env) as process:
        all_up(process)
        yield process


def all_up(process: Process, times: int = 1) -> None:
    def told() -> bool:
        lines = process.lines("supervisor.processes")
        return sum(line["up"] == line["processes"] for line in lines) >= times

    process.seen("supervisor.started")
    eventually(told, within=30)


def put(pg: psycopg.Connection, kind: str, count: int = 1, **args: Any) -> None:
    pg.execute(
        "select worker.enqueue(%s, %s) from generate_series(1, %s)", [kind, json.dumps(args), count]
    )


def states(pg: psycopg.Connection) -> dict[str, int]:
    rows = pg.execute("select state, count(*) from worker.all_jobs group by state").fetchall()
    return dict(rows)


def live(pg: psycopg.Connection) -> dict[str, int]:
    """The pids of the workers that have not stopped, by their names."""
    rows = pg.execute("select name, pid from worker.workers where stopped_at is null").fetchall()
    return dict(rows)


def is_gone(pid: int) -> bool:
    """One that nobody waits for stays as a zombie."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True


def started_rows(project: Path) -> int:
    """Of the kind that takes a second."""
    return len(list(project.glob("started.*")))


def for_ever_running(project: Path) -> int:
    return len(list(project.glob("running.*")))


def each_row_was_finished_or_given_back(project: Path, pg: psycopg.Connection) -> None:
    assert live(pg) == {}
    assert states(pg).get("done") == started_rows(project)
    assert pg.execute("select count(*) from worker.jobs where owner is not null").fetchone() == (0,)


# -- the start ----------------------------------------------------------------------------------


def test_several_workers_share_the_rows_and_stop_together(
    project: Path, db_url: str, pg: psycopg.Connection
) -> None:
    with supervised(project, db_url, "--worker-name", "w") as process:
        pids = live(pg)
        assert set(pids) == {"w.1", "w.2", "w.3"}
        assert len({*pids.values(), process.popen.pid}) == 4
        [line] = process.lines("supervisor.started")
        assert (line["processes"], line["slots"], line["connections"]) == (3, 6, "up to 18")
        put(pg, "short", 200)
        eventually(lambda: states(pg) == {"done": 200})
        assert {path.suffix for path in project.glob("ran.*")} == {f".{p}" for p in pids.values()}
        process.signal(signal.SIGTERM)
        assert process.end() == 0
        assert process.lines("settings.warning") == []
        assert len(process.lines("worker.stopped")) == 3
        [line] = process.lines("supervisor.stopped")
        assert (line["restarted"], line["code"]) == (0, 0)
        assert process.lines("process.ended") == []
    assert live(pg) == {}


def test_what_is_wrong_for_all_is_told_as_if_there_were_no_supervisor(
    project: Path, db_url: str
) -> None:
    arguments = ("run", "--app", "shop:app", "--database-url", db_url)
    one = run(*arguments, cwd=project)
    several = run(*arguments, "--processes", "3", cwd=project)
    assert one.code == several.code == 5
    assert several.err == one.err


def test_each_error_has_its_code_and_is_told_once(
    project: Path, db_url: str, database_server: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for code, what, *arguments in (
            (2, "nothing can listen on", "--health", f"127.0.0.1:{port}", "--database-url", db_url),
            (4, "The database has no schema", "--database-url", database_server),
        ):
            found = run("run", "--processes", "3", *arguments, cwd=project)
            assert (found.code, found.err.count("\n")) == (code, 3), found.err
            assert found.err.startswith(what)


def test_processes_that_die_at_once_are_given_up(project: Path, db_url: str) -> None:
    (project / "app.py").write_text("import os\n\nimport worker\n\nos.kill(os.getpid(), 9)\n")
    found = run("run", "--database-url", db_url, "--processes", "3", cwd=project)
    assert found.code == 1
    *deaths, what, why, _ = found.err.splitlines()
    told = [json.loads(death) for death in deaths]
    assert [(t["event"], t["process"], t["signal"]) for t in told] == [
        ("process.ended", 1, "SIGKILL")
    ] * 4
    pauses = [t["restart_in_ms"] for t in told]
    assert all(0.75 * 500 * 2**n <= pause <= 500 * 2**n for n, pause in enumerate(pauses))
    assert what == "the worker's processes end as soon as they are started"
    assert "each has ended 4 times" in why


def test_a_stop_before_any_is_up(project: Path, db_url: str, pg: psycopg.Connection) -> None:
    slow = "import time\nfrom pathlib import Path\n\nimport worker\n\n"
    (project / "app.py").write_text(slow + "Path('importing').touch()\ntime.sleep(3600)\n")
    with started("run", "--database-url", db_url, "--processes", "3", cwd=project) as process:
        eventually((project / "importing").exists)
        process.signal(signal.SIGTERM)
        assert process.end(15) == 0  # not the grace of 25 s
        assert process.log == ""
    assert live(pg) == {}


def test_a_drain_is_one_process(project: Path, db_url: str, cli: CLI) -> None:
    found = cli("drain", "--processes", "2")
    assert found.code == 2
    assert found.err.startswith("--processes is for `worker run`\n")
    env = {"DUEROW_PROCESSES": "2"}  # of the app's worker: a drain beside it has the same
    assert run("drain", "--database-url", db_url, cwd=project, env=env).code == 0


# -- signals ------------------------------------------------------------------------------------


def test_each_row_is_finished_or_given_back(
    project: Path, db_url: str, pg: psycopg.Connection
) -> None:
    with supervised(project, db_url, "--grace", "5s", "-c", "6") as process:
        put(pg, "a_second", 3)
        for name in range(3):
            put(pg, "for_ever", name=str(name))
        eventually(lambda: (started_rows(project), for_ever_running(project)) == (3, 3))
        process.signal(signal.SIGTERM)
        assert process.end() == 9
    each_row_was_finished_or_given_back(project, pg)
    assert states(pg)["done"] == 3
    found = pg.execute("select owner, attempt from worker.jobs").fetchall()
    assert found == [(None, 0)] * 3


def test_sigterm_to_every_process_at_once_is_one(
    project: Path, db_url: str, pg: psycopg.Connection
) -> None:
    """As Heroku does it, in any order and several times."""
    with supervised(project, db_url) as process:
        put(pg, "a_second", 12)
        eventually(lambda: started_rows(project) > 0)
        pids = [*live(pg).values(), process.popen.pid]
        for _ in range(3):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):  # it has heard the first
                    os.kill(pid, signal.SIGTERM)
            pids.reverse()
        assert process.end() == 0
        assert len(process.lines("worker.stopped")) == 3
        assert process.lines("supervisor.stopped")[0]["restarted"] == 0
    each_row_was_finished_or_given_back(project, pg)


@contextlib.contextmanager
def on_a_terminal(project: Path, url: str) -> Iterator[tuple[Process, int]]:
    """Three processes whose controlling terminal it is; typing is writing to what is given."""
    leader, follower = os.openpty()
    log = project / "stderr.log"
    arguments = ("run", "--database-url", url, "--processes", "3", "-c", "6")
    with log.open("w") as stderr:
        popen = subprocess.Popen(
            [*PROGRAM, *arguments, "--log-format", "json"],
            cwd=project,
            env=environment(),
            stdin=follower,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
    process = Process(popen, log)
    try:
        all_up(process)
        yield process, leader
    finally:
        popen.kill()
        popen.communicate()
        os.close(leader)
        os.close(follower)


def test_ctrl_c_reaches_each_process_once(
    project: Path, db_url: str, pg: psycopg.Connection
) -> None:
    with on_a_terminal(project, db_url) as (process, keyboard):
        put(pg, "read")
        assert process.seen("row.retry")["error_type"] == "EOFError"
        put(pg, "a_second", 12)
        eventually(lambda: started_rows(project) > 0)
        assert all(os.getpgid(pid) == pid for pid in live(pg).values())  # no key reaches them
        os.write(keyboard, b"\x1c")  # Ctrl-\
        eventually(lambda: process.log.count(" rows running\n") == 3)
        os.write(keyboard, b"\x03")
        assert process.end() == 0
        assert process.log.count(" rows running\n") == 3
        assert len(process.lines("worker.draining")) == 3
        assert process.log.count("Ctrl-C again") == 1
    each_row_was_finished_or_given_back(project, pg)


def test_a_second_ctrl_c_gives_everything_back_and_leaves(
    project: Path, db_url: str, pg: psycopg.Connection
) -> None:
    with on_a_terminal(project, db_url) as (process, keyboard):
        for name in range(6):
            put(pg, "for_ever", name=str(name))
        eventually(lambda: for_ever_running(project) == 6)
        os.write(keyboard, b"\x03")
        eventually(lambda: len(process.lines("worker.draining")) == 3)
        begun = time.monotonic()
        eventually(lambda: time.monotonic() - begun > 1)  # sooner it would mean nothing
        os.write(keyboard, b"\x03")
        assert process.end(15) == 130  # not the grace of 25 s
    assert live(pg) == {}
    found = pg.execute("select owner, attempt from worker.jobs").fetchall()
    assert found == [(None, 0)] * 6


def test_a_process_that_does_not_stop_is_killed_when_the_grace_is_over(
    project: Path, db_url: str, pg: psycopg.Connection
) -> None:
    with supervised(project, db_url, "--grace", "4s", "--worker-name", "w") as process:
        os.kill(live(pg)["w.2"], signal.SIGSTOP)
        process.signal(signal.SIGTERM)
        assert process.end(20) == 1
    assert set(live(pg)) == {"w.2"}  # for the sweep to find


# -- deaths -------------------------------------------------------------------------------------


def test_one_that_is_killed_is_started_again_and_its_row_runs_elsewhere(
    project: Path, db_url: str, pg: psycopg.Connection
) -> None:
    with supervised(project, db_url, "--lease", "2s", "--worker-name", "w") as process:
        put(pg, "once", name="first")
        victim = int(eventually(lambda: _text(project / "running.first")))
        os.kill(victim, signal.SIGKILL)
        ended = process.seen("process.ended")
        assert (ended["pid"], ended["signal"]) == (victim, "SIGKILL")
        assert 375 <= ended["restart_in_ms"] <= 500
        all_up(process, times=2)
        assert [line["up"] for line in process.lines("supervisor.processes")] == [3, 2, 3]
        name = f"w.{ended['process']}"
        eventually(lambda: live(pg)[name] != victim)
        eventually(lambda: states(pg) == {"done": 1})
        process.signal(signal.SIGTERM)
        assert process.end() == 0
        assert process.lines("supervisor.stopped")[0]["restarted"] == 1


def test_quit_shows_what_each_runs_and_one_that_is_told_to_stop_is_replaced(
    project: Path, db_url: str, pg: psycopg.Connection
) -> None:
    with supervised(project, db_url, "--worker-name", "w") as process:
        put(pg, "a_second", 12)
        eventually(lambda: started_rows(project) > 0)
        process.signal(signal.SIGQUIT)
        eventually(lambda: "3 of 3 processes up\n" in process.log)
        eventually(lambda: process.log.count(" rows running\n") == 3)
        old = live(pg)
        os.kill(old["w.2"], signal.SIGTERM)
        assert process.seen("process.ended")["code"] == 0
        all_up(process, times=2)
        new = live(pg)
        assert new["w.2"] != old["w.2"]
        assert (new["w.1"], new["w.3"]) == (old["w.1"], old["w.3"])


def test_an_app_that_can_be_imported_no_more_ends_all_in_peace(
    project: Path, db_url: str, pg: psycopg.Connection
) -> None:
    with supervised(project, db_url, "--worker-name", "w") as process:
        put(pg, "a_second", 12)
        eventually(lambda: started_rows(project) > 0)
        (project / "app.py").write_text("import worker\n\nnonsense\n")
        os.kill(live(pg)["w.1"], signal.SIGTERM)
        assert process.end() == 5
        assert process.log.count("\n  next: ") == 1
    each_row_was_finished_or_given_back(project, pg)


@pytest.mark.parametrize("fork", ["1", "0"])
def test_without_their_supervisor_they_stop_as_if_asked(
    project: Path, db_url: str, pg: psycopg.Connection, fork: str
) -> None:
    with supervised(project, db_url, env={"DUEROW_FORK": fork}) as process:
        put(pg, "a_second", 12)
        eventually(lambda: started_rows(project) > 0)
        pids = live(pg).values()
        process.popen.kill()
        try:
            eventually(lambda: all(is_gone(pid) for pid in pids))
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        assert len(process.lines("worker.stopped")) == 3
    each_row_was_finished_or_given_back(project, pg)


# -- health -------------------------------------------------------------------------------------


def asked(port: int, path: str) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def answered(port: int, path: str) -> tuple[int, dict[str, Any]] | None:
    """The same, if each of the workers has answered in time."""
    code, told = asked(port, path)
    return (code, told) if silent(told) == 0 else None


def silent(told: dict[str, Any]) -> int:
    """How many workers have not answered in time."""
    return [worker.get("answers", True) for worker in told["workers"]].count(False)


def test_the_supervisor_answers_for_all(project: Path, db_url: str, pg: psycopg.Connection) -> None:
    health = ("--health", "127.0.0.1:0", "--worker-name", "w", "-c", "6")
    with supervised(project, db_url, *health) as process:
        port = int(process.seen("supervisor.started")["health"].removeprefix("127.0.0.1:"))
        put(pg, "gated", 4, gate="first")
        eventually(lambda: asked(port, "/healthz")[1]["running"] == 4)
        code, told = eventually(lambda: answered(port, "/readyz"))
        assert (code, told["ready"], told["up"], told["slots"]) == (200, True, 3, 18)
        assert {w["name"]: w["pid"] for w in told["workers"]} == live(pg)
        (project / "first").touch()
        eventually(lambda: asked(port, "/healthz")[1]["settled"] == 4)

        put(pg, "block")
        eventually((project / "running.block").exists)
        eventually(lambda: silent(asked(port, "/livez")[1]) == 1)
        assert asked(port, "/livez")[0] == 503
        (project / "unblock").touch()
        eventually(lambda: asked(port, "/livez")[0] == 200)

        (project / "hold").touch()  # whoever comes in its place has to wait
        os.kill(live(pg)["w.3"], signal.SIGKILL)
        process.seen("process.ended")
        code, told = asked(port, "/healthz")
        assert (code, told["up"], told["workers"][2]["ready"]) == (503, 2, False)
        (project / "hold").unlink()
        all_up(process, times=2)
        eventually(lambda: asked(port, "/healthz")[0] == 200)
        assert asked(port, "/healthz")[1]["restarted"] == 1

        put(pg, "gated", 6, gate="second")
        eventually(lambda: asked(port, "/healthz")[1]["running"] == 6)
        process.signal(signal.SIGTERM)
        process.seen("supervisor.stopping")
        code, told = asked(port, "/readyz")
        assert (code, told["draining"]) == (503, True)
        (project / "second").touch()
        assert process.end() == 0


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
