"""Drain by one and by two worker processes, beside pgbench with one, two and four clients.

All of them take turns in each round. Worker processes have started and imported everything before
they are let go together; the time is the server's, from the first claim to the last settle. Which
number of pgbench clients is quickest, and so the limit, depends on the cores.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import ExitStack
from typing import Any

from benchmarks import pgbench, report, server
from benchmarks.drainer import Drainer
from tests.postgres import Cluster

PROCESSES = (1, 2)
CLIENTS = (1, 2, 4)
RATE = "rows/s"


def run(rows: int, rounds: int, slots: int) -> dict[str, Any]:
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with server.server() as cluster:
        for _ in range(rounds):
            for count in PROCESSES:
                server.seed(cluster, rows)
                for name, value in drain(cluster, rows, slots, count).items():
                    found[_workers(count)][name].append(value)
            for count in CLIENTS:
                server.seed(cluster, rows)
                cpu = server.cpu(cluster)
                found[_clients(count)][RATE].append(pgbench.drain(cluster, rows, clients=count))
                spent = server.cpu(cluster) - cpu
                found[_clients(count)]["server us/row"].append(1e6 * spent / rows)
    result = {"rows": rows, "slots": slots, **{name: dict(of) for name, of in found.items()}}
    report.show(result)
    tell(result)
    return result


def drain(cluster: Cluster, rows: int, slots: int, count: int) -> dict[str, float]:
    """Drains `rows` rows with so many worker processes. least: the share of the one that had the
    fewest rows, of what would be fair."""
    with ExitStack() as stack:
        workers = [stack.enter_context(Drainer(cluster.url, slots)) for _ in range(count)]
        since, cpu = server.clock(cluster.url), server.cpu(cluster)
        for worker in workers:
            worker.begin()
        spent = [worker.ended() for worker in workers]
        server_cpu = server.cpu(cluster) - cpu
    settled, seconds = server.passed(cluster.url, since)
    assert settled == sum(one["rows"] for one in spent) == rows, f"{settled} of {rows} rows"
    return {
        RATE: rows / seconds,
        "client us/row": 1e6 * sum(one["cpu"] for one in spent) / rows,
        "server us/row": 1e6 * server_cpu / rows,
        "least rows of one, share": count * min(one["rows"] for one in spent) / rows,
    }


def tell(result: dict[str, Any]) -> None:
    limits = {count: report.median(result, _clients(count), RATE) for count in CLIENTS}
    best = max(limits, key=limits.__getitem__)
    print(f"the limit: pgbench with {best} client{'s' * (best > 1)}, {limits[best]:,.0f} rows/s")
    for count in PROCESSES:
        rate = report.median(result, _workers(count), RATE)
        print(f"share of it, {_workers(count)}: {rate / limits[best]:.2f}")


def _workers(count: int) -> str:
    return f"duerow, {count} process{'es' * (count > 1)}"


def _clients(count: int) -> str:
    return f"pgbench, {count} client{'s' * (count > 1)}"
