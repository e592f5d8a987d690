"""A worker's row in worker.workers: registered at start, marked at stop."""

from __future__ import annotations

from typing import Any

from worker.link import Link
from worker.statements import statement


async def register(link: Link, **worker: Any) -> int:
    """Inserts the worker's row; its id."""
    order = ("name", "host", "pid", "version", "queues", "kinds", "slots", "lease")
    [record] = await link.fetch(statement("workers/register"), *(worker[name] for name in order))
    return int(record["id"])


async def stop(link: Link, worker: int, settled: int) -> None:
    await link.fetch(statement("workers/stop"), worker, settled)
