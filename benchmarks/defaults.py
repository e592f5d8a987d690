"""Default settings beside tuned ones: `worker drain` as a user starts it, with its log in a file.

Drain: no-op rows with nothing set, against settings that might be better. I/O-bound: rows that wait
for 50 ms, with nothing set but 100 slots, against the same. The time is the server's, from the
first claim to the last settle.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from benchmarks import report, server
from benchmarks.turns import turns
from tests.postgres import Cluster

DEFAULT = "default"
IO_SHARE = 25  # of so many no-op rows, one that waits
IO_SLOTS = {"concurrency": "100"}
RATE = "rows/s"

# Settings by name; names in capitals are variables of the environment.
TUNED: dict[str, dict[str, str]] = {
    "50 slots": {"concurrency": "50"},
    "200 slots, claims of 1,000": {"concurrency": "200", "claim_batch": "1000"},
    "logging warnings only": {"log_level": "WARNING"},
    "200 slots, 1,000, warnings": {
        "concurrency": "200",
        "claim_batch": "1000",
        "log_level": "WARNING",
    },
    "asyncio's own event loop": {"DUEROW_UVLOOP": "0"},
}
IO_TUNED: dict[str, dict[str, str]] = {
    "claims of 100": {"claim_batch": "100"},
    "claims of 1,000": {"claim_batch": "1000"},
    "logging warnings only": {"log_level": "WARNING"},
    "no timeout": {"timeout": "0"},
    "asyncio's own event loop": {"DUEROW_UVLOOP": "0"},
}


def run(rows: int, rounds: int, slots: int) -> dict[str, Any]:
    few = max(1, rows // IO_SHARE)
    with server.server() as cluster:
        found = {
            **_compared(cluster, rounds, "drain", "noop", rows, {}, TUNED),
            **_compared(cluster, rounds, "io", "wait", few, IO_SLOTS, IO_TUNED),
        }
    result: dict[str, Any] = {"rows": rows, "io_rows": few, **found}
    for task in ("drain", "io"):
        names = [name for name in found if name.startswith(f"{task}, ")]
        shown = {"rows": rows if task == "drain" else few, **{name: found[name] for name in names}}
        report.show(shown, f"{task}, {DEFAULT}")
        rates = {name: report.median(result, name, RATE) for name in names}
        best = max(rates, key=rates.__getitem__)
        share = rates[f"{task}, {DEFAULT}"] / rates[best]
        print(f"{task}: the default reaches {share:.2f} of the best, {best.partition(', ')[2]}")
    return result


def _compared(
    cluster: Cluster,
    rounds: int,
    task: str,
    kind: str,
    rows: int,
    always: Mapping[str, str],
    tuned: Mapping[str, Mapping[str, str]],
) -> dict[str, dict[str, list[float]]]:
    ways = {DEFAULT: {}, **tuned}
    found: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in ways}
    for name, settings in turns(rounds, ways.items()):
        server.seed(cluster, rows, kind)
        for figure, value in _drain(cluster, rows, {**always, **settings}).items():
            found[name][figure].append(value)
    return {f"{task}, {name}": dict(of) for name, of in found.items()}


def _drain(cluster: Cluster, rows: int, settings: Mapping[str, str]) -> dict[str, float]:
    """By `worker drain`. CPU: of the whole process, its start included."""
    variables = {name: value for name, value in settings.items() if name.isupper()}
    flags = [
        part
        for name, value in settings.items()
        if not name.isupper()
        for part in (f"--{name.replace('_', '-')}", value)
    ]
    command = [sys.executable, "-m", "worker", "drain", "--app", "benchmarks.noop:app", "--json"]
    since = server.clock(cluster.url)
    with tempfile.TemporaryFile() as log:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [*command, *flags],
            check=True,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, "DATABASE_URL": cluster.url, **variables},
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        logged = log.seek(0, os.SEEK_END)
    count, seconds = server.passed(cluster.url, since)
    told = json.loads(done.stdout)["settled"]
    assert told == count == rows, f"{told}, {count} of {rows} rows were settled"
    a_line_each = logged > 50 * rows
    assert a_line_each == ("log_level" not in settings), f"{logged} bytes were logged"
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {RATE: rows / seconds, "client us/row, with its start": 1e6 * cpu / rows}
