"""A Postgres for benchmarks: durable, on disk, with a gigabyte of shared buffers."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import asyncpg
import psycopg

from tests.postgres import Cluster, with_database
from worker.migrate import upgrade

DURABLE = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
}
_TICKS = os.sysconf("SC_CLK_TCK")


TABLES = "worker.jobs, worker.jobs_finished, worker.attempts"


@contextlib.contextmanager
def server(settings: Mapping[str, str] | None = None) -> Iterator[Cluster]:
    """A migrated server of its own, gone at the end. settings: beside those of DURABLE."""
    with Cluster(settings={**DURABLE, **(settings or {})}, place=Path("/var/tmp")) as cluster:
        upgrade(cluster.url)
        yield cluster


def another(cluster: Cluster, name: str) -> str:
    """The URL of a new, migrated database on the same server."""
    with psycopg.connect(cluster.url, autocommit=True) as connection:
        connection.execute(f"create database {name}".encode())
    url = with_database(cluster.url, name)
    upgrade(url)
    return url


def seed(
    cluster: Cluster, rows: int, kind: str = "noop", *, url: str | None = None, empty: str = TABLES
) -> None:
    """Empties the tables and enqueues `rows` jobs of about 120 bytes of arguments.

    url: of the database, where it is not the first. empty: the tables.
    """
    with psycopg.connect(url or cluster.url, autocommit=True) as connection:
        connection.execute(f"truncate {empty}".encode())
        fill(connection, rows, kind)
        connection.execute("vacuum analyze worker.jobs")
        connection.execute("checkpoint")
    os.sync()  # what the kernel writes later it would write while something is measured


def fill(connection: psycopg.Connection, rows: int, kind: str = "noop") -> None:
    """Enqueues jobs that are due now."""
    connection.execute(
        "insert into worker.jobs (kind, args)"
        " select %s, jsonb_build_object('i', i, 'pad', repeat('x', 90))"
        " from generate_series(1, %s) i",
        [kind, rows],
    )


def clock(url: str) -> dt.datetime:
    """The server's."""
    with psycopg.connect(url) as connection:
        found = connection.execute("select clock_timestamp()").fetchone()
        assert found is not None
        moment: dt.datetime = found[0]
        return moment


def passed(url: str, since: dt.datetime) -> tuple[int, float]:
    """The rows that were finished since then, and the seconds from the first claim to the last
    settle: without what processes need to start and to end."""
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "select count(*), extract(epoch from max(finished_at) - min(claimed_at))::float8"
            " from worker.jobs_finished where finished_at >= %s and state = 'done'",
            [since],
        ).fetchone()
        assert found is not None
        return int(found[0]), float(found[1] or 0.0)


async def worker(connection: asyncpg.Connection) -> int:
    """The id of a worker that claims may be made for."""
    found: int = await connection.fetchval(
        "insert into worker.workers (name, host, pid, version, queues, kinds, slots, lease)"
        " values ('bench', 'here', 0, '0', '{}', '{}', 1, '1h') returning id"
    )
    return found


def left(cluster: Cluster, url: str | None = None) -> int:
    with psycopg.connect(url or cluster.url) as connection:
        found = connection.execute("select count(*) from worker.jobs").fetchone()
        assert found is not None
        return int(found[0])


def wal(cluster: Cluster) -> int:
    """Bytes of WAL written so far."""
    with psycopg.connect(cluster.url) as connection:
        found = connection.execute("select pg_current_wal_lsn() - '0/0'").fetchone()
        assert found is not None
        return int(found[0])


def cpu(cluster: Cluster) -> float:
    """CPU seconds of the whole server so far, ended backends included."""
    assert cluster.pid is not None
    while True:
        ended = _ended(cluster.pid)
        spent = ended + sum(map(_own, [cluster.pid, *_children(cluster.pid)]))
        if _ended(cluster.pid) == ended:  # nobody has gone from one sum to the other meanwhile
            return spent


def _children(pid: int) -> list[int]:
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    return list(map(int, children))


def backend_cpu(pid: int) -> float:
    """CPU seconds of one backend so far. Waiting for disk, or for a CPU, is not among them."""
    return _own(pid)


def process_cpu(pid: int) -> float:
    """CPU seconds of a process so far, of all its threads, to the nanosecond; those of threads that
    have ended are not among them."""
    return (
        sum(
            int((task / "schedstat").read_text().split()[0])
            for task in Path(f"/proc/{pid}/task").iterdir()
        )
        / 1e9
    )


def _own(pid: int) -> float:
    """To the nanosecond."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    return 0.0


def _ended(pid: int) -> float:
    """Of its children that have ended, to a hundredth of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, fields[13:15])) / _TICKS
