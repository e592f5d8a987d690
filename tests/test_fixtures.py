"""The tests' own Postgres: each test has a database to itself, or a server to kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import asyncpg
import psycopg
import pytest

from tests.facts import eventually
from tests.postgres import Cluster, NoPostgres, local_binaries, with_database
from worker.embedded.keeper import command_of

pytestmark = pytest.mark.process

REPOSITORY = Path(__file__).parent.parent


@pytest.mark.parametrize("time_round", [1, 2])
def test_each_test_has_a_fresh_database(pg: psycopg.Connection, time_round: int) -> None:
    assert pg.execute("select to_regclass('public.left_behind')").fetchone() == (None,)
    pg.execute("create table left_behind ()")


async def test_both_drivers_see_the_same_database(
    pg: psycopg.Connection, apg: asyncpg.Connection
) -> None:
    pg.execute("create table seen as select 7 as number")
    assert await apg.fetchval("select number from seen") == 7


def test_the_database_is_a_copy_of_the_template(
    pg: psycopg.Connection, database_server: str, template_db: str
) -> None:
    count = "select count(*) from pg_class where relnamespace = to_regnamespace('worker')"
    with psycopg.connect(with_database(database_server, template_db)) as template:
        assert pg.execute(count).fetchone() == template.execute(count).fetchone()


def test_a_server_to_stop_and_start(postgres_server: Cluster) -> None:
    url = postgres_server.url
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create table kept as select 1 as answer")
        postgres_server.stop()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")
    assert not postgres_server.running
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)
    assert postgres_server.start() == url
    first = postgres_server.pid
    for mode in ("immediate", "fast", "kill"):
        assert postgres_server.restart(mode) == url
        assert postgres_server.pid != first
        first = postgres_server.pid
    with psycopg.connect(url) as connection:
        assert connection.execute("select answer from kept").fetchone() == (1,)


def test_a_server_over_tcp_goes_with_its_directory() -> None:
    with Cluster(tcp=True, settings={"max_connections": "17"}) as cluster:
        with psycopg.connect(cluster.tcp_url) as connection:
            assert connection.info.host == "127.0.0.1"
            assert connection.execute("show max_connections").fetchone() == ("17",)
        assert cluster.home.exists()
        pid = cluster.pid
        assert pid
    assert not cluster.home.exists()
    assert command_of(pid) == ""


def test_a_cluster_is_gone_after_its_process_was_killed() -> None:
    code = (
        "from tests.postgres import Cluster; c = Cluster(); c.start(); "
        "print(c.pid, c.home, flush=True); input()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with owner:
        assert owner.stdout
        pid, home = owner.stdout.readline().split()
        owner.send_signal(signal.SIGKILL)
    eventually(lambda: command_of(int(pid)) == "" and not Path(home).exists())


INNER = """
import pytest
@pytest.mark.parametrize("number", range(4))
def test_server(pg, number):
    print("\\nSERVER", pg.info.server_version // 10_000, pg.info.host)
"""

OURS = ("-p", "tests.conftest", "-p", "no:cacheprovider", "-c", "/dev/null", "-q")


def inner_session(tmp_path: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Another pytest with our conftest. It is nobody's worker: as one it would share its server
    with every other such session on this machine."""
    test = tmp_path / "test_inner.py"
    test.write_text(INNER)
    around = {name: v for name, v in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", *OURS, *arguments, str(test)],
        cwd=REPOSITORY,
        env={**around, **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("major", ["16", "18"])
def test_a_version_can_be_asked_for(tmp_path: Path, major: str) -> None:
    done = inner_session(tmp_path, "-s", WORKER_TEST_PG_VERSION=major, WORKER_TEST_DATABASE_URL="")
    assert f"SERVER {major}" in done.stdout, done.stdout
    assert "4 passed" in done.stdout, done.stdout


def test_a_version_that_is_not_there_fails(tmp_path: Path) -> None:
    done = inner_session(tmp_path, WORKER_TEST_PG_VERSION="99", WORKER_TEST_DATABASE_URL="")
    assert done.returncode == 1
    assert "no Postgres 99 on this machine, only: " in done.stdout


def test_a_given_server_is_used_and_left_clean(tmp_path: Path, postgres_server: Cluster) -> None:
    count = "select count(*) from pg_database"
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        before = connection.execute(count).fetchone()
        done = inner_session(
            tmp_path, WORKER_TEST_DATABASE_URL=postgres_server.url, WORKER_TEST_PG_VERSION=""
        )
        assert "4 passed" in done.stdout, done.stdout
        assert connection.execute(count).fetchone() == before
        created = "select sum(xact_commit) from pg_stat_database where datname = 'duerow'"
        assert connection.execute(created).fetchone() != (0,)


def test_workers_of_a_session_share_one_server(tmp_path: Path) -> None:
    done = inner_session(
        tmp_path, "-n", "2", "-rP", WORKER_TEST_DATABASE_URL="", WORKER_TEST_PG_VERSION=""
    )
    assert "4 passed" in done.stdout, done.stdout
    sockets = {line for line in done.stdout.splitlines() if line.startswith("SERVER")}
    assert len(sockets) == 1


def test_no_version_is_an_error_that_says_what_there_is() -> None:
    with pytest.raises(NoPostgres, match=r"no Postgres 99 on this machine, only: \d+"):
        local_binaries(99)
