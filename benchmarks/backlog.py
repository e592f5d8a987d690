"""The first rows of a long backlog, beside as many rows with nothing behind them.

One worker claims so many rows and stops (`worker drain --max-rows`); both take turns. The time is
the server's, from the first claim to the last settle, as a drain counts afterwards what it leaves.
"""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

from benchmarks import drain, report, server
from benchmarks.turns import turns

ALONE = "no backlog"
REST = 15.0  # seconds: a disk that has just taken a million rows is slow for a while


def run(rows: int, rounds: int, slots: int, backlog: int, rest: float = REST) -> dict[str, Any]:
    """backlog: rows that are due, those that are claimed among them."""
    behind = f"of {backlog:,} due"
    found: dict[str, dict[str, list[float]]] = {ALONE: defaultdict(list), behind: defaultdict(list)}
    with server.server() as cluster:
        for name, due in turns(rounds, ((ALONE, rows), (behind, backlog))):
            server.seed(cluster, due)
            time.sleep(rest)
            spent = drain.once(cluster, rows, slots, options={"max_rows": rows})
            left = server.left(cluster)
            assert left == due - rows, f"{left} rows are left of {due} less {rows}"
            for figure, value in drain.passing(spent).items():
                found[name][figure].append(value)
    result = {"rows": rows, "slots": slots, **{name: dict(of) for name, of in found.items()}}
    report.show(result)
    return result
