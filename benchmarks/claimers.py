"""How many may claim at once: 1 to 64 connections, each claiming and settling 50 rows a call.

pgbench sends our own SQL, so that what is measured is the server: how claimers get in each other's
way. Each begins where its own last claim ended.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from benchmarks import pgbench, report, server
from benchmarks.turns import turns

COUNTS = (1, 2, 8, 32, 64)
BATCH = 50


def run(rows: int, rounds: int, slots: int) -> dict[str, Any]:
    found: dict[str, dict[str, list[float]]] = {_name(n): defaultdict(list) for n in COUNTS}
    with server.server() as cluster:
        for count in turns(rounds, COUNTS):
            server.seed(cluster, rows)
            cpu, wal = server.cpu(cluster), server.wal(cluster)
            rate = pgbench.drain(cluster, rows, clients=count, batch=BATCH)
            of = found[_name(count)]
            of["rows/s"].append(rate)
            of["server us/row"].append(1e6 * (server.cpu(cluster) - cpu) / rows)
            of["WAL bytes/row"].append((server.wal(cluster) - wal) / rows)
    result = {"rows": rows, "batch": BATCH, **{name: dict(of) for name, of in found.items()}}
    report.show(result)
    return result


def _name(count: int) -> str:
    return f"{count} claimer{'s' * (count > 1)}"
