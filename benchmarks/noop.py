"""The app that benchmarks run, and the process that drains it.

Run as `python -m benchmarks.noop URL SLOTS`: drains until nothing is due and prints one line of
JSON: seconds, client CPU seconds, peak RSS in MB, rows.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from benchmarks.memory import peak_rss_mb
from worker.app import App
from worker.items import Batch
from worker.runtime import Budget, Worker
from worker.settings import Settings
from worker.url import DatabaseURL

CALL = 0.02  # seconds that the outside world takes, for one row or for fifty

app = App()


@app.handler
async def noop(i: int, pad: str) -> None:
    pass


@app.handler
async def wait(i: int, pad: str) -> None:
    await asyncio.sleep(0.05)


@app.batch("noop_batch", size=50)
async def noop_batch(rows: Batch[dict[str, Any]]) -> None:
    for row in rows:
        row.done()


@app.handler
async def call(i: int, pad: str) -> None:
    await asyncio.sleep(CALL)


@app.batch("call_batch", size=50)
async def call_batch(rows: Batch[dict[str, Any]]) -> None:
    await asyncio.sleep(CALL)
    for row in rows:
        row.done()


async def drain(url: str, slots: int) -> dict[str, float]:
    settings = Settings.load(concurrency=slots)
    started = time.perf_counter()
    cpu = time.process_time()
    report = await Worker(app, settings, DatabaseURL.parse(url)).run(drain=Budget())
    return {
        "seconds": time.perf_counter() - started,
        "cpu": time.process_time() - cpu,
        "rss_mb": peak_rss_mb(),
        "rows": report.settled,
    }


if __name__ == "__main__":
    with asyncio.Runner() as runner:
        print(json.dumps(runner.run(drain(sys.argv[1], int(sys.argv[2])))))
