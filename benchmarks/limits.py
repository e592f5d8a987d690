"""What limits cost: no-op rows, one worker process, under gates that never close.

Each way drains the same rows in each round; the ratio is to the rows that no gate governs.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import psycopg

from benchmarks import drain, report, server

# What stands in worker.gates, and whether the rows have tenants.
WAYS = {
    "no gates": ("", False),
    "gates of other kinds": (
        "insert into worker.gates (kind, rate, burst) select 'other ' || n, 5, 1"
        " from generate_series(1, 50) n",
        False,
    ),
    "concurrency": ("insert into worker.gates (kind, concurrency) values ('noop', 100000)", False),
    "rate": (
        "insert into worker.gates (kind, rate, burst) values ('noop', 1000000, 1000000)",
        False,
    ),
    "both, and a breaker": (
        "insert into worker.gates (kind, rate, burst, concurrency, trip_after)"
        " values ('noop', 1000000, 1000000, 100000, 10)",
        False,
    ),
    "no gates, 100 tenants": ("", True),
    "concurrency of each of 100 tenants": (
        "insert into worker.gates (kind, tenant, concurrency) values ('noop', '*', 100000)",
        True,
    ),
}
REFERENCE = "no gates"


def run(rows: int, rounds: int, slots: int) -> dict[str, Any]:
    found: dict[str, dict[str, list[float]]] = {way: defaultdict(list) for way in WAYS}
    with server.server() as cluster:
        for _ in range(rounds):
            for way, (gates, tenants) in WAYS.items():
                server.seed(cluster, rows)
                with psycopg.connect(cluster.url, autocommit=True) as db:
                    db.execute("delete from worker.gates")
                    if gates:
                        db.execute(gates.encode())
                    if tenants:
                        db.execute("update worker.jobs set tenant = 'tenant ' || id % 100")
                        db.execute("vacuum full worker.jobs")
                spent = drain.once(cluster, rows, slots)
                client = {"client us/row": 1e6 * spent["cpu"] / rows}
                for figure, value in {**drain.passing(spent), **client}.items():
                    found[way][figure].append(value)
    result = {"rows": rows, "slots": slots, **{way: dict(of) for way, of in found.items()}}
    report.show(result, REFERENCE)
    return result
