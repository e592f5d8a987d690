"""Rows in batches of 50 beside single rows: handlers that do nothing, and ones that call a slow API
once for each row or once for fifty."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks import drain, server

PAIRS = {"nothing to do": ("noop", "noop_batch"), "an API of 20 ms": ("call", "call_batch")}


def run(rows: int, rounds: int, slots: int) -> dict[str, Any]:
    """Interleaves them, `rounds` times; prints medians and their ratio."""
    figures: dict[str, Any] = {"rows": rows, "slots": slots}
    with server.server() as cluster:
        for name, kinds in PAIRS.items():
            rates: dict[str, list[float]] = {kind: [] for kind in kinds}
            for _ in range(rounds):
                for kind in kinds:
                    count = rows if kind != "call" else max(1, rows // 20)
                    rates[kind].append(drain.rate(cluster, kind, count, slots))
            single, batch = (statistics.median(rates[kind]) for kind in kinds)
            figures[name] = rates
            print(
                f"{name:16} {single:10,.0f} rows/s singly, {batch:10,.0f} in batches:"
                f" {batch / single:.2f} times"
            )
    return figures
