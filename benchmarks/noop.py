"""The app that benchmarks run, and the process that drains it.

Run as `python -m benchmarks.noop URL SLOTS [OPTIONS]`: drains until nothing is due and prints one
line of JSON: seconds, client CPU seconds, peak RSS in MB, rows, CPU seconds of its own backends.
OPTIONS is JSON: `settings` of the worker, `max_rows` to claim, `wait` for a line on stdin before it
begins, having said `ready`. The event loop is the one that `worker run` takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.memory import peak_rss_mb
from worker.app import App
from worker.drain import Budget
from worker.items import Batch
from worker.link import Link
from worker.runtime import Worker
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


class Measured(Worker):
    """Notes what its backends have spent when the last row is written, before it looks what is
    left. backends: CPU seconds, of those that claim and settle."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.backends: dict[str, float] = {}

    async def _drain(self) -> int:
        for link in (self.parts.claim_link, self.parts.settle_link):
            self.backends[link.name] = backend_spent(link)
        return await super()._drain()


def backend_spent(link: Link) -> float:
    """CPU seconds of the backend that a link leads to; 0 where there is none on this machine."""
    if link.connected:
        with contextlib.suppress(OSError):
            pid = link._connection.get_server_pid()
            return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    return 0.0


def new_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the loop that `worker run` takes: uvloop's where it is installed, unless
    DUEROW_UVLOOP=0."""
    if os.environ.get("DUEROW_UVLOOP") != "0":
        with contextlib.suppress(ImportError):
            import uvloop

            factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
            return factory
    return None


async def drain(url: str, slots: int, options: dict[str, Any]) -> dict[str, Any]:
    settings = Settings.load(**{"concurrency": slots, **options.get("settings", {})})
    started = time.perf_counter()
    cpu = time.process_time()
    worker = Measured(app, settings, DatabaseURL.parse(url))
    report = await worker.run(drain=Budget(max_rows=options.get("max_rows")))
    return {
        "seconds": time.perf_counter() - started,
        "cpu": time.process_time() - cpu,
        "rss_mb": peak_rss_mb(),
        "rows": report.settled,
        "backends": worker.backends,
    }


if __name__ == "__main__":
    given = json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}
    with asyncio.Runner(loop_factory=new_loop()) as runner:
        gc.freeze()  # as `worker run` does
        if given.get("wait"):
            print("ready", flush=True)
            sys.stdin.readline()
        print(json.dumps(runner.run(drain(sys.argv[1], int(sys.argv[2]), given))))
