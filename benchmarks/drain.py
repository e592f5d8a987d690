"""Drain: no-op rows, one worker process, beside the same SQL driven by pgbench."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from benchmarks import pgbench, report, server
from benchmarks.drainer import Drainer
from tests.postgres import Cluster

OURS = "duerow"
LIMIT = "pgbench, 2 clients"
PASSING = "rows/s, first claim to last settle"


def run(rows: int, rounds: int, slots: int) -> dict[str, Any]:
    """Interleaves both, `rounds` times; prints medians, spread and the ratio."""
    ours: dict[str, list[float]] = defaultdict(list)
    limit: list[float] = []
    with server.server() as cluster:
        for _ in range(rounds):
            server.seed(cluster, rows)
            for name, value in figures(once(cluster, rows, slots)).items():
                ours[name].append(value)
            server.seed(cluster, rows)
            limit.append(pgbench.drain(cluster, rows))
    result = {"rows": rows, "slots": slots, OURS: dict(ours), LIMIT: {PASSING: limit}}
    report.show(result)
    share = report.median(result, OURS, PASSING) / report.median(result, LIMIT, PASSING)
    print(f"share of the limit: {share:.2f}  (one worker / two pgbench clients, the same SQL)")
    return result


def figures(spent: Mapping[str, Any]) -> dict[str, float]:
    """What `once` gives, as it is told: most of it a row."""
    rows = spent["rows"]
    return {
        "rows/s": rows / spent["seconds"],
        **passing(spent),
        "client us/row": 1e6 * spent["cpu"] / rows,
        "server us/row": 1e6 * spent["server_cpu"] / rows,
        "WAL bytes/row": spent["wal"] / rows,
        "peak RSS MB": spent["rss_mb"],
    }


def passing(spent: Mapping[str, Any]) -> dict[str, float]:
    """Of what `once` gives, what does not count its beginning and its end."""
    rows = spent["rows"]
    backends = {f"{name}'s backend us/row": 1e6 * s / rows for name, s in spent["backends"].items()}
    return {PASSING: rows / spent["passing"], **backends}


def rate(cluster: Cluster, kind: str, rows: int, slots: int) -> float:
    """Rows a second of one worker, for a kind of benchmarks.noop."""
    server.seed(cluster, rows, kind)
    return rows / float(once(cluster, rows, slots)["seconds"])


def once(
    cluster: Cluster,
    rows: int,
    slots: int,
    *,
    url: str | None = None,
    options: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Drains `rows` rows with one worker process. seconds: of the worker's run, its connecting and
    its end included. passing: from its first claim to its last settle. Other figures are sums.

    url: of the database, where it is not the server's first. options: of benchmarks.noop.
    environment: of that process, beside this one's.
    """
    url = url or cluster.url
    with Drainer(url, slots, options, environment) as worker:
        since = server.clock(url)
        cpu, wal = server.cpu(cluster), server.wal(cluster)
        worker.begin()
        spent = worker.ended()
        spent["server_cpu"] = server.cpu(cluster) - cpu
        spent["wal"] = server.wal(cluster) - wal
    found, spent["passing"] = server.passed(url, since)
    assert spent["rows"] == found == rows, f"{spent['rows']}, {found} of {rows} rows were settled"
    return spent
