"""A Postgres for benchmarks: durable, on disk, with a gigabyte of shared buffers."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psycopg

from tests.postgres import Cluster
from worker.migrate import upgrade

DURABLE = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
}
_TICKS = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def server() -> Iterator[Cluster]:
    """A migrated server of its own, gone at the end."""
    with Cluster(settings=DURABLE, place=Path("/var/tmp")) as cluster:
        upgrade(cluster.url)
        yield cluster


def seed(cluster: Cluster, rows: int, kind: str = "noop") -> None:
    """Empties the tables and enqueues `rows` jobs of about 120 bytes of arguments."""
    with psycopg.connect(cluster.url, autocommit=True) as connection:
        connection.execute("truncate worker.jobs, worker.jobs_finished, worker.attempts")
        connection.execute(
            "insert into worker.jobs (kind, args)"
            " select %s, jsonb_build_object('i', i, 'pad', repeat('x', 90))"
            " from generate_series(1, %s) i",
            [kind, rows],
        )
        connection.execute("vacuum analyze worker.jobs")
        connection.execute("checkpoint")


async def worker(connection: asyncpg.Connection) -> int:
    """The id of a worker that claims may be made for."""
    found: int = await connection.fetchval(
        "insert into worker.workers (name, host, pid, version, queues, kinds, slots, lease)"
        " values ('bench', 'here', 0, '0', '{}', '{}', 1, '1h') returning id"
    )
    return found


def left(cluster: Cluster) -> int:
    with psycopg.connect(cluster.url) as connection:
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
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(cluster.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    return _own(cluster.pid, reaped=True) + sum(_own(int(pid)) for pid in children)


def backend_cpu(pid: int) -> float:
    """CPU seconds of one backend so far. Waiting for disk, or for a CPU, is not among them."""
    return _own(pid)


def _own(pid: int, *, reaped: bool = False) -> float:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return sum(map(int, fields[11 : 15 if reaped else 13])) / _TICKS
    return 0.0
