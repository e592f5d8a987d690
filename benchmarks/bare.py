"""How near Python's own limit a worker is: what a row costs in a bare loop, beside one in a drain.

All of it is CPU of the client per row, of a no-op handler, with the event loop of the standard
library and with uvloop's: awaited in a loop; in a task of its own, ten at a time, as a worker runs
its rows; the same with the arguments read as the handler's signature asks; claims and settles of
500 rows over asyncpg with no handler between; and a worker's drain. Each number holds what the
one above it does, but for the claims, which hold no handler.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks import drain, report, server
from benchmarks.noop import app, new_loop, noop
from benchmarks.passing import Passing
from tests.postgres import Cluster

LIMIT = 500
FIGURE = "client us/row"
ARGS: dict[str, Any] = {"i": 7, "pad": "x" * 90}
TEXT = json.dumps(ARGS)
PAIRED = 10
PLAIN, READ = "a task per row", "and arguments read"
SQL, DRAIN = "claimed and settled, no handler", "a worker's drain"

Way = Callable[[int], Awaitable[None]]
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


async def _awaited(rows: int) -> None:
    for _ in range(rows):
        await noop(**ARGS)


async def _in_tasks(rows: int) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(rows // PAIRED):
        for task in [loop.create_task(noop(**ARGS)) for _ in range(PAIRED)]:
            await task


async def _read_and_in_tasks(rows: int) -> None:
    loop = asyncio.get_running_loop()
    read = app.registry.get("noop").signature.read
    for _ in range(rows // PAIRED):
        for task in [loop.create_task(noop(**read(TEXT))) for _ in range(PAIRED)]:
            await task


WAYS: dict[str, Way] = {
    "awaited in a loop": _awaited,
    PLAIN: _in_tasks,
    READ: _read_and_in_tasks,
}


def run(rows: int, rounds: int, slots: int) -> dict[str, Any]:
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with server.server() as cluster:
        for _ in range(rounds):
            for loop, factory in _loops().items():
                for name, way in WAYS.items():
                    with asyncio.Runner(loop_factory=factory) as runner:
                        found[f"{name}, {loop}"][FIGURE].append(runner.run(_timed(way, rows)))
                server.seed(cluster, rows)
                with asyncio.Runner(loop_factory=factory) as runner:
                    passed = runner.run(_pass(cluster, rows))
                found[f"{SQL}, {loop}"][FIGURE].append(passed)
                server.seed(cluster, rows)
                uvloop = {"DUEROW_UVLOOP": "1" if loop == "uvloop" else "0"}
                spent = drain.once(cluster, rows, slots, environment=uvloop)
                found[f"{DRAIN}, {loop}"][FIGURE].append(1e6 * spent["cpu"] / rows)
    result = {"rows": rows, "slots": slots, **{name: dict(of) for name, of in found.items()}}
    last = list(_loops())[-1]
    report.show(result, f"{DRAIN}, {last}")
    names = [f"{name}, {last}" for name in (READ, SQL, DRAIN)]
    read, sql, whole = (report.median(result, name, FIGURE) for name in names)
    print(
        f"with {last}: {read + sql:.1f} us a row would do (task, arguments, claim and settle);"
        f" a drain takes {whole:.1f}, {whole / (read + sql):.1f} times as much"
    )
    return result


def _loops() -> dict[str, LoopFactory]:
    """uvloop's where it is installed."""
    found: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
    if (quick := new_loop()) is not None:
        found["uvloop"] = quick
    return found


async def _timed(way: Way, rows: int) -> float:
    """us of CPU a row."""
    await way(min(rows, 1000))
    cpu = time.process_time()
    await way(rows)
    return 1e6 * (time.process_time() - cpu) / rows


async def _pass(cluster: Cluster, rows: int) -> float:
    passing = Passing(cluster.url)
    await passing.start()
    cpu = time.process_time()
    while passing.passed < rows:
        await passing.step(LIMIT)
    spent = time.process_time() - cpu
    await passing.close()
    assert passing.passed == rows, f"{passing.passed} of {rows} rows were settled"
    return 1e6 * spent / rows
