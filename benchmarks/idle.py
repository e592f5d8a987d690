"""What workers cost that have nothing to do: `worker run` as a user starts it, 1 and 8 replicas.

Each is measured over two windows, when all replicas have been ready for a while: one for CPU,
memory and transactions; one in which the server logs every statement, for their number and whose
they are (the connections of a worker have names). The server without any worker is the reference.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from benchmarks import report, server
from tests.postgres import Cluster

REPLICAS = (0, 1, 8)
WARM = 12.0  # seconds until what a start brings with it is over, and idle backends have told of it
TOLD = 1.5  # seconds within which busy ones tell of their transactions
READY_WITHIN = 60.0
LOGGED = re.compile(r"^(duerow \w+)\|.*?LOG:  (?:statement|execute)", re.MULTILINE)


def run(rows: int, rounds: int, slots: int, seconds: float, warm: float = WARM) -> dict[str, Any]:
    """seconds: of each window. rows: none are wanted."""
    found: dict[str, dict[str, list[float]]] = {_name(n): defaultdict(list) for n in REPLICAS}
    with server.server({"log_line_prefix": "%a|"}) as cluster:
        for _ in range(rounds):
            for count in REPLICAS:
                with replicas(cluster, count, slots, warm) as pids:
                    for figure, value in measured(cluster, pids, seconds).items():
                        found[_name(count)][figure].append(value)
    result = {"seconds": seconds, **{name: dict(of) for name, of in found.items()}}
    report.show(result, _name(1))
    return result


@contextmanager
def replicas(cluster: Cluster, count: int, slots: int, warm: float) -> Iterator[list[int]]:
    """Their process ids, when all have registered and had time for what comes first."""
    command = [sys.executable, "-m", "worker", "run", "--app", "benchmarks.noop:app"]
    environment = {**os.environ, "DATABASE_URL": cluster.url}
    given = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
    processes = [
        subprocess.Popen([*command, "--concurrency", str(slots)], **given)  # type: ignore[call-overload]
        for _ in range(count)
    ]
    try:
        _wait_for(cluster, [process.pid for process in processes])
        time.sleep(warm)
        yield [process.pid for process in processes]
        assert all(process.poll() is None for process in processes), "a worker has ended"
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(READY_WITHIN)


def measured(cluster: Cluster, pids: list[int], seconds: float) -> dict[str, float]:
    """A second: statements, transactions, ms of CPU of all the workers and of the server."""
    transactions, client, cpu = _transactions(cluster), _cpu(pids), server.cpu(cluster)
    time.sleep(seconds)
    spent = {
        "client ms/s": 1000 * (_cpu(pids) - client) / seconds,
        "server ms/s": 1000 * (server.cpu(cluster) - cpu) / seconds,
        "transactions/s": (_transactions(cluster) - transactions) / seconds,
    }
    if pids:
        spent["RSS MB of one"] = sum(map(_rss, pids)) / len(pids)
    statements = _statements(cluster, seconds)
    spent["statements/s"] = sum(statements.values()) / seconds
    return spent | {f"statements/s, {name}": n / seconds for name, n in sorted(statements.items())}


def _wait_for(cluster: Cluster, pids: list[int]) -> None:
    until = time.monotonic() + READY_WITHIN
    with psycopg.connect(cluster.url, autocommit=True) as connection:
        while time.monotonic() < until:
            found = connection.execute(
                "select count(*) from worker.workers where pid = any (%s)", [pids]
            ).fetchone()
            if found == (len(pids),):
                return
            time.sleep(0.1)
    raise RuntimeError(f"{len(pids)} workers were not ready within {READY_WITHIN:.0f} s")


def _transactions(cluster: Cluster) -> int:
    """Those that the server has been told of. Our own looks are two in a window."""
    time.sleep(TOLD)
    with psycopg.connect(cluster.url) as connection:
        found = connection.execute(
            "select xact_commit + xact_rollback from pg_stat_database"
            " where datname = current_database()"
        ).fetchone()
        assert found is not None
        return int(found[0])


def _statements(cluster: Cluster, seconds: float) -> Counter[str]:
    """Of a window of its own, by the connection that sent them."""
    with psycopg.connect(cluster.url, autocommit=True) as connection:
        connection.execute("alter system set log_statement = 'all'")
        connection.execute("select pg_reload_conf()")
        time.sleep(TOLD)  # every backend has read it
        begun = len(cluster.log)
        time.sleep(seconds)
        told = cluster.log[begun:]
        connection.execute("alter system reset log_statement")
        connection.execute("select pg_reload_conf()")
    return Counter(LOGGED.findall(told))


def _cpu(pids: list[int]) -> float:
    return sum(map(server.process_cpu, pids))


def _rss(pid: int) -> float:
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found is not None
    return int(found[1]) / 1024


def _name(count: int) -> str:
    return f"{count} replica{'s' * (count > 1)}" if count else "no worker"
