"""What every contestant is asked to do, and how it is measured, the same for all.

This runs in the contestant's own process and environment, where nothing of this project but
`benchmarks` can be counted on: it imports the standard library and psycopg only.

    install URL                            the tables
    seed    URL KIND ROWS                  empties them, enqueues ROWS in bulk, vacuums, checkpoints
    single  URL ROWS                       empties them, enqueues ROWS singly, a commit each
    work    URL SCENARIO KIND ROWS SLOTS   a worker, until so many rows are finished in its tables
    listen  URL ROWS SLOTS                 a worker that says `ready`, then takes ROWS new rows
    produce URL ROWS RATE                  those rows, singly, RATE a second

Each prints one line of JSON: seconds, cpu (client CPU seconds), rss_mb (peak), rows; `listen`
prints the waits, in ms. Times begin when the contestant is first called, so what it does to
connect counts, and end when the last row is finished in the database: neither its stop nor its
imports count.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import psycopg

from benchmarks.memory import peak_rss_mb

Args = dict[str, Any]

SLEEP = 0.05  # seconds that a row of the kind "wait" takes
WARMING = 10  # rows that a worker has run before it counts as idle and ready
POLL = 0.01  # seconds between two looks at whether the last row is finished


class Enqueuer(Protocol):
    async def one(self, kind: str, args: Args) -> None:
        """Enqueues and commits one row."""

    async def many(self, kind: str, rows: list[Args]) -> None:
        """Enqueues and commits all of them, as its docs say that many are to be enqueued."""


class Contestant(Protocol):
    """tables: emptied before rows are seeded, vacuumed afterwards. unfinished: SQL, whether any row
    is. finished: SQL, how many rows are. uvloop: whether its own command line runs on that."""

    @property
    def tables(self) -> tuple[str, ...]: ...
    @property
    def unfinished(self) -> str: ...
    @property
    def finished(self) -> str: ...
    @property
    def uvloop(self) -> bool: ...

    async def install(self, url: str) -> None:
        """Makes its tables."""

    def enqueuer(self, url: str) -> AbstractAsyncContextManager[Enqueuer]:
        """Connected."""

    async def work(self, url: str, scenario: str, slots: int, stop: asyncio.Event) -> None:
        """Connects, runs a worker with the settings for `scenario` (drain, io or latency) until
        `stop`, and ends it in good order. slots: rows at a time, in io and latency."""


class Count:
    """How many rows are still to run, and how long rows of the kind "stamp" waited, in ms."""

    def __init__(self) -> None:
        self.left = 0
        self.all = asyncio.Event()
        self.waits: list[float] = []

    def expect(self, rows: int) -> None:
        self.left = rows
        self.all.clear()

    def one(self) -> None:
        self.left -= 1
        if self.left <= 0:
            self.all.set()


COUNT = Count()


async def noop(i: int, pad: str) -> None:
    COUNT.one()


async def wait(i: int, pad: str) -> None:
    await asyncio.sleep(SLEEP)
    COUNT.one()


async def stamp(i: int, pad: str, at: float) -> None:
    """at: of the wall clock, when the row was given to be enqueued; 0 for those that warm up."""
    if at:
        COUNT.waits.append(1000 * (time.time() - at))
    COUNT.one()


KINDS: dict[str, Callable[..., Awaitable[None]]] = {"noop": noop, "wait": wait, "stamp": stamp}


def rows_of(count: int) -> list[Args]:
    """About 120 bytes of JSON each."""
    return [{"i": i, "pad": "x" * 90} for i in range(1, count + 1)]


# -- the commands ---------------------------------------------------------------------------


async def install(contestant: Contestant, url: str) -> dict[str, Any]:
    await contestant.install(url)
    return {}


async def seed(contestant: Contestant, url: str, kind: str, rows: int) -> dict[str, Any]:
    with psycopg.connect(url, autocommit=True) as db:
        _empty(contestant, db)
        figures = await _seed(contestant, url, kind, rows)
        db.execute(f"vacuum analyze {', '.join(contestant.tables)}".encode())
        db.execute("checkpoint")
    return figures


async def _seed(contestant: Contestant, url: str, kind: str, rows: int) -> dict[str, Any]:
    made = rows_of(rows)
    if kind == "stamp":
        made = [args | {"at": 0.0} for args in made]
    async with contestant.enqueuer(url) as enqueuer:
        with _measured(rows) as figures:
            await enqueuer.many(kind, made)
    return figures


def _empty(contestant: Contestant, db: psycopg.Connection) -> None:
    db.execute(f"truncate {', '.join(contestant.tables)}".encode())


async def single(contestant: Contestant, url: str, rows: int) -> dict[str, Any]:
    with psycopg.connect(url, autocommit=True) as db:
        _empty(contestant, db)
        db.execute("checkpoint")
    async with contestant.enqueuer(url) as enqueuer:
        with _measured(rows) as figures:
            for args in rows_of(rows):
                await enqueuer.one("noop", args)
    return figures


async def work(
    contestant: Contestant, url: str, scenario: str, kind: str, rows: int, slots: int
) -> dict[str, Any]:
    COUNT.expect(rows)
    stop = asyncio.Event()
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as db:
        with _measured(rows) as figures:
            working = asyncio.create_task(contestant.work(url, scenario, slots, stop))
            await _until_all_ran(working)
            stop.set()
            while await _asked(db, contestant.unfinished):  # noqa: ASYNC110  another process's rows
                await asyncio.sleep(POLL)
        await working
        figures["rows"] = await _asked(db, contestant.finished)
    return figures


async def listen(contestant: Contestant, url: str, rows: int, slots: int) -> dict[str, Any]:
    """The rows that warm it up stand in its tables already: `seed URL stamp`."""
    COUNT.expect(WARMING)
    stop = asyncio.Event()
    working = asyncio.create_task(contestant.work(url, "latency", slots, stop))
    await _until_all_ran(working)
    COUNT.expect(rows)
    print("ready", flush=True)
    with _measured(rows) as figures:
        await _until_all_ran(working)
    stop.set()
    await working
    return figures | {"waits": COUNT.waits}


async def produce(contestant: Contestant, url: str, rows: int, rate: int) -> dict[str, Any]:
    """late: ms by which the latest row was given to be enqueued after its time."""
    late = 0.0
    async with contestant.enqueuer(url) as enqueuer:
        with _measured(rows) as figures:
            began = time.perf_counter()
            for n, args in enumerate(rows_of(rows)):
                ahead = began + n / rate - time.perf_counter()
                late = max(late, -ahead)
                await asyncio.sleep(max(0.0, ahead))
                await enqueuer.one("stamp", args | {"at": time.time()})
    return figures | {"late": 1000 * late}


@contextlib.contextmanager
def _measured(rows: int) -> Iterator[dict[str, Any]]:
    figures: dict[str, Any] = {"rows": rows}
    began, used = time.perf_counter(), time.process_time()
    yield figures
    figures["seconds"] = time.perf_counter() - began
    figures["cpu"] = time.process_time() - used
    figures["rss_mb"] = peak_rss_mb()


async def _until_all_ran(working: asyncio.Task[None]) -> None:
    """Raises what ends the worker before that."""
    ran = asyncio.create_task(COUNT.all.wait())
    await asyncio.wait([ran, working], return_when=asyncio.FIRST_COMPLETED)
    if not COUNT.all.is_set():
        ran.cancel()
        await working
        raise RuntimeError(f"the worker ended of itself, {COUNT.left} rows left")


async def _asked(db: psycopg.AsyncConnection, sql: str) -> Any:
    found = await (await db.execute(sql.encode())).fetchone()
    assert found is not None
    return found[0]


# -- the command line -----------------------------------------------------------------------

COMMANDS: dict[str, tuple[Any, dict[str, type]]] = {
    "install": (install, {}),
    "seed": (seed, {"kind": str, "rows": int}),
    "single": (single, {"rows": int}),
    "work": (work, {"scenario": str, "kind": str, "rows": int, "slots": int}),
    "listen": (listen, {"rows": int, "slots": int}),
    "produce": (produce, {"rows": int, "rate": int}),
}


def main(contestant: Contestant, argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="contestant")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (_, arguments) in COMMANDS.items():
        command = commands.add_parser(name)
        command.add_argument("url")
        for argument, kind in arguments.items():
            command.add_argument(argument, type=kind)
    given = vars(parser.parse_args(argv))
    logging.getLogger().setLevel(logging.WARNING)
    run = COMMANDS[given.pop("command")][0]
    print(json.dumps(_run(contestant, run(contestant, **given))), flush=True)


def _run(contestant: Contestant, command: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    factory = None
    if contestant.uvloop:
        with contextlib.suppress(ImportError):
            import uvloop

            factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_awaited(command))


async def _awaited(command: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    return await command
