"""What really ran: a file outside the database, which handlers append to.

One line for the start of a run and one for its end, each written by a single `write` to a file
opened with O_APPEND: lines of many processes never mix, and a line stands even if the process is
killed right after. A run without an end line never came to its end.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from worker import Context
from worker.threads import Interrupted

DIRECTORY = "CHAOS_DIRECTORY"  # the variable that names where the workers write
How = Literal["done", "failed", "stopped"]


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one row, as the handler told it. Times are seconds of the wall clock.

    how: `done` when the handler came to its end, `failed` when it raised, `stopped` when it was
    cancelled; None when it never ended: killed, or still at it.
    """

    source: str
    key: str
    token: int
    attempt: int
    worker: int
    pid: int
    started: float
    ended: float | None = None
    how: How | None = None


class Ledger:
    """Appends to `path`; made once in each worker process."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    @contextmanager
    def run(self, context: Context) -> Iterator[None]:
        """Around all that a handler does."""
        self._write("start", context)
        how: How = "failed"
        try:
            yield
            how = "done"
        except (asyncio.CancelledError, Interrupted):
            how = "stopped"
            raise
        finally:
            self._write("end", context, how)

    def _write(self, what: str, context: Context, how: str | None = None) -> None:
        row = context.row
        line = [what, row.source, str(row.key), row.token, row.attempt, row.owner, os.getpid()]
        os.write(self._file, (json.dumps([*line, time.time(), how]) + "\n").encode())


def read(path: Path) -> list[Run]:
    """Every run, in the order of their starts."""
    open_runs: dict[tuple[str, str, int, int], list[Run]] = {}
    runs: list[Run] = []
    # The last line may be half written.
    for line in path.read_text().split("\n")[:-1] if path.exists() else ():
        what, source, key, token, attempt, worker, pid, at, how = json.loads(line)
        runs_of = open_runs.setdefault((source, key, token, pid), [])
        if what == "start":
            runs_of.append(Run(source, key, token, attempt, worker, pid, at))
            continue
        begun = runs_of.pop()
        runs.append(Run(source, key, token, attempt, worker, pid, begun.started, at, how))
    for unended in open_runs.values():
        runs += unended
    return sorted(runs, key=lambda run: run.started)
