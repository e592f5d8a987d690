"""Drain: no-op rows, one worker process, beside the same SQL driven by pgbench."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from typing import Any

from benchmarks import pgbench, server
from tests.postgres import Cluster


def run(rows: int, rounds: int, slots: int) -> dict[str, Any]:
    """Interleaves both, `rounds` times; prints medians, spread and the ratio."""
    ours: list[dict[str, float]] = []
    limit: list[float] = []
    with server.server() as cluster:
        for _ in range(rounds):
            server.seed(cluster, rows)
            ours.append(once(cluster, rows, slots))
            server.seed(cluster, rows)
            limit.append(pgbench.drain(cluster, rows))
    rates = [rows / one["seconds"] for one in ours]
    figures = {
        "rows": rows,
        "slots": slots,
        "rows/s": rates,
        "pgbench rows/s": limit,
        "client us/row": [1e6 * one["cpu"] / rows for one in ours],
        "server us/row": [1e6 * one["server_cpu"] / rows for one in ours],
        "WAL bytes/row": [one["wal"] / rows for one in ours],
        "peak RSS MB": [one["rss_mb"] for one in ours],
    }
    for name, values in figures.items():
        if isinstance(values, list):
            print(f"{name:16} {_median(values)}")
    share = statistics.median(rates) / statistics.median(limit)
    print(f"{'share of limit':16} {share:.2f}  (one worker / two pgbench clients, the same SQL)")
    return figures


def rate(cluster: Cluster, kind: str, rows: int, slots: int) -> float:
    """Rows a second of one worker, for a kind of benchmarks.noop."""
    server.seed(cluster, rows, kind)
    return rows / once(cluster, rows, slots)["seconds"]


def once(cluster: Cluster, rows: int, slots: int) -> dict[str, float]:
    cpu, wal = server.cpu(cluster), server.wal(cluster)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.noop", cluster.url, str(slots)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    figures: dict[str, float] = json.loads(done.stdout)
    assert figures["rows"] == rows, f"{figures['rows']} of {rows} rows were settled"
    figures["server_cpu"] = server.cpu(cluster) - cpu
    figures["wal"] = server.wal(cluster) - wal
    return figures


def _median(values: list[float]) -> str:
    spread = f"{min(values):,.1f} to {max(values):,.1f}, {len(values)} runs"
    return f"{statistics.median(values):10,.1f}  ({spread})"
