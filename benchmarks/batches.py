"""Rows in batches of 50 beside single rows: handlers that do nothing, and ones that call a slow API
once for each row or once for fifty."""

from __future__ import annotations

from typing import Any

from benchmarks import drain, report, server

PAIRS = {"nothing to do": ("noop", "noop_batch"), "an API of 20 ms": ("call", "call_batch")}


def run(rows: int, rounds: int, slots: int) -> dict[str, Any]:
    """Interleaves each pair, `rounds` times; prints medians and their ratio."""
    result: dict[str, Any] = {"rows": rows, "slots": slots}
    with server.server() as cluster:
        for about, kinds in PAIRS.items():
            names = [f"{about}, {how}" for how in ("singly", "in batches")]
            found: dict[str, dict[str, list[float]]] = {name: {"rows/s": []} for name in names}
            for _ in range(rounds):
                for name, kind in zip(names, kinds, strict=True):
                    count = rows if kind != "call" else max(1, rows // 20)
                    found[name]["rows/s"].append(drain.rate(cluster, kind, count, slots))
            report.show({"rows": rows, **found})
            result |= found
    return result
