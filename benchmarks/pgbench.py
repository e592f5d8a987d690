"""The limit: the very same SQL, driven by pgbench instead of Python."""

from __future__ import annotations

import math
import os
import re
import subprocess
import tempfile
from pathlib import Path

import psycopg

from benchmarks import server
from tests.postgres import Cluster
from worker.link import HOT_PATH_PLANNER
from worker.statements import statement

SPARE = 1.5  # calls for so many times the rows: none stops while others still have work
THREADS = 4


def drain(cluster: Cluster, rows: int, *, clients: int = 2, batch: int = 500) -> float:
    """Claims and settles every seeded row; rows a second, first claim to last settle."""
    with psycopg.connect(cluster.url, autocommit=True) as connection:
        found = connection.execute(
            "insert into worker.workers (name, host, pid, version, queues, kinds, slots, lease)"
            " values ('pgbench', 'here', 0, '0', '{}', '{}', 1, '1h') returning id"
        ).fetchone()
    assert found is not None
    calls = math.ceil(SPARE * rows / batch / clients) + 1
    since = server.clock(cluster.url)
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(_script(found[0], batch))
        script.flush()
        _pgbench(cluster, script.name, clients, calls)
    count, seconds = server.passed(cluster.url, since)
    assert count == rows, f"pgbench settled {count} of {rows} rows"
    return rows / seconds


def _script(worker: int, batch: int) -> str:
    """One claim and one settle; each client keeps its floor in variables."""
    claim = _numbered(
        statement("claim/due"),
        [
            "'{default}'",
            "'{noop}'",
            "'{0}'",
            "array[:floor_due::timestamptz]",
            "array[:floor_id::bigint]",
            str(batch),
            str(worker),
            "false",
        ],
    )
    settle = _numbered(
        statement("settle/done"),
        [
            ":ids",
            ":tokens",
            str(worker),
            "array_fill(1, array[:n::int])",
            "array_fill(null::text, array[:n::int])",
        ],
    )
    return "\n".join(
        [
            f"with taken as ({claim.rstrip().rstrip(';')})",
            "select coalesce(array_agg(id), '{}') as ids,",
            "  coalesce(array_agg(token), '{}') as tokens, count(*) as n,",
            "  coalesce(to_timestamp((array_agg(due order by due desc, id desc))[1]), now())",
            "    as floor_due,",
            "  coalesce((array_agg(id order by due desc, id desc))[1], 0) as floor_id",
            r"  from taken \gset",
            r"\if :n > 0",
            settle,
            r"\endif",
        ]
    )


def _numbered(sql: str, values: list[str]) -> str:
    """Comments out, $1, $2, ... replaced by what pgbench is to send, each on one line."""
    sql = re.sub(r"--.*", "", sql)
    return " ".join(re.sub(r"\$(\d+)", lambda m: values[int(m[1]) - 1], sql).split())


def _pgbench(cluster: Cluster, script: str, clients: int, calls: int) -> None:
    planner = " ".join(f"-c {name}={value}" for name, value in HOT_PATH_PLANNER.items())
    done = subprocess.run(
        [
            str(Path(cluster.binaries.directory) / "pgbench"),
            "-n",
            "-M",
            "prepared",
            "-c",
            str(clients),
            "-j",
            str(min(clients, THREADS)),
            "-t",
            str(calls),
            "-D",
            "floor_due=2000-01-01 00:00:00+00",
            "-D",
            "floor_id=0",
            "-f",
            script,
            cluster.url,
        ],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PGOPTIONS": planner},
    )
    if done.returncode:
        raise RuntimeError(f"pgbench failed: {done.stderr}")
