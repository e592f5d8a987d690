"""The app whose rows the fault runs run. Every handler tells the ledger what it did."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import psycopg
from tenacity import stop_after_attempt, wait_fixed

from tests.chaos.broken import use_broken_sql
from tests.chaos.ledger import DIRECTORY, Ledger
from worker import App, Batch, Context, Item, RetryPolicy
from worker.events import Event, RowAbandoned, RowLost

_directory = Path(os.environ[DIRECTORY])
ledger = Ledger(_directory / "ledger")
_events = os.open(_directory / "events", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
_fifth = stop_after_attempt(5)
soon = RetryPolicy(wait=wait_fixed(0.2))

app = App()
use_broken_sql()


def _die_with_parent() -> None:
    """No worker outlives the run that started it, however that ends (Linux only)."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


_die_with_parent()


class Flaky(Exception):
    """What a handler raises that is to fail."""


@app.observe
def note(event: Event) -> None:
    """Writes every event but those of healthy rows to the file `events`."""
    if event.name.startswith("row.") and not isinstance(event, RowLost | RowAbandoned):
        return
    fields = {
        name: str(value)
        for name in type(event).__dataclass_fields__
        if isinstance(value := getattr(event, name), str | int | float | BaseException)
    }
    if isinstance(event, RowLost | RowAbandoned):
        fields |= {"key": str(event.row.key), "token": str(event.row.token)}
    line = {"event": event.name, "pid": os.getpid(), "at": time.time(), **fields}
    os.write(_events, (json.dumps(line) + "\n").encode())


def maybe_fail(context: Context, fails: int) -> None:
    if context.attempt <= fails:
        raise Flaky(f"attempt {context.attempt} of {fails} that fail")


async def write_effect(context: Context, session: asyncpg.Connection) -> None:
    """What must be there exactly once for every row that is done."""
    await session.execute(
        "insert into chaos.effects (source, key, token) values ($1, $2, $3)",
        context.row.source,
        str(context.row.key),
        context.row.token,
    )


def write_effect_in_thread(context: Context, session: psycopg.Connection) -> None:
    """The same through a session of a thread."""
    session.execute(
        "insert into chaos.effects (source, key, token) values (%s, %s, %s)",
        [context.row.source, str(context.row.key), context.row.token],
    )


# -- ordinary work -----------------------------------------------------------------------------


@app.handler("work", retry=soon, timeout=0)
async def work(context: Context, ms: float = 20, fails: int = 0) -> None:
    with ledger.run(context):
        await asyncio.sleep(ms / 1000)
        maybe_fail(context, fails)


@app.handler("work_in_thread", retry=soon, timeout=0)
def work_in_thread(context: Context, ms: float = 20, fails: int = 0) -> None:
    with ledger.run(context):
        time.sleep(ms / 1000)
        maybe_fail(context, fails)


@app.handler("work_in_loop", retry=soon, timeout=0)
async def work_in_loop(context: Context, ms: float = 20) -> None:
    """Blocks the event loop meanwhile."""
    with ledger.run(context):
        time.sleep(ms / 1000)  # noqa: ASYNC251 (that is the fault)


@app.handler("work_in_session", retry=soon, timeout=0)
async def work_in_session(
    context: Context, session: asyncpg.Connection, ms: float = 20, fails: int = 0
) -> None:
    with ledger.run(context):
        await write_effect(context, session)
        await asyncio.sleep(ms / 1000)
        maybe_fail(context, fails)


@dataclass
class Piece:
    ms: float = 20
    fails: int = 0


@app.batch("work_in_batch", size=8, wait=0.1, retry=soon, timeout=0)
async def work_in_batch(batch: Batch[Piece]) -> None:
    async def one(item: Item[Piece]) -> None:
        try:
            with ledger.run(item.context):
                await asyncio.sleep(item.data.ms / 1000)
                maybe_fail(item.context, item.data.fails)
        except Flaky as error:
            item.settle(error)
        else:
            item.done()

    await asyncio.gather(*map(one, batch))


@app.batch("work_in_batch_session", size=4, retry=soon, timeout=0)
async def work_in_batch_session(batch: Batch[Piece], session: asyncpg.Connection) -> None:
    for item in batch:
        try:
            with ledger.run(item.context):
                maybe_fail(item.context, item.data.fails)
                await write_effect(item.context, session)
                await asyncio.sleep(item.data.ms / 1000)
        except Flaky as error:
            item.settle(error)
        else:
            item.done()


# -- handlers that will not end ----------------------------------------------------------------


@app.handler("wait", timeout=0)
async def wait(context: Context) -> None:
    """Waits for ever, and ends when it is cancelled."""
    with ledger.run(context):
        await asyncio.Event().wait()


@app.handler("block_thread", timeout=0)
def block_thread(context: Context) -> None:
    """One long call into C, which no exception interrupts."""
    with ledger.run(context):
        time.sleep(3600)


@app.handler("spin_thread", timeout=0)
def spin_thread(context: Context) -> None:
    """Takes the GIL whenever it can, and swallows what would end it."""
    with ledger.run(context):
        while True:
            try:
                while True:
                    pass
            except BaseException:
                continue


@app.handler("block_loop", timeout=0)
async def block_loop(context: Context) -> None:
    with ledger.run(context):
        time.sleep(3600)  # noqa: ASYNC251 (that is the fault)


@app.handler("spin_loop", timeout=0)
async def spin_loop(context: Context) -> None:
    with ledger.run(context):
        while True:
            pass


@app.handler("stubborn", timeout=0)
async def stubborn(context: Context) -> None:
    """Swallows its cancellation, however often it comes."""
    with ledger.run(context):
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                continue


@app.handler("foreign_thread", timeout=0)
async def foreign_thread(context: Context) -> None:
    """Waits for threads that the interpreter waits for at its exit."""
    with ledger.run(context):
        threading.Thread(target=time.sleep, args=(3600,), daemon=False).start()
        await asyncio.to_thread(time.sleep, 3600)


@app.handler("left_thread", timeout=0)
async def left_thread(context: Context) -> None:
    """Is done, but leaves a thread behind that the interpreter waits for at its exit."""
    with ledger.run(context):
        threading.Thread(target=time.sleep, args=(3600,), daemon=False).start()


# -- handlers that end their process -----------------------------------------------------------


@app.handler("exit", timeout=0)
async def exit_at_once(context: Context) -> None:
    with ledger.run(context):
        os._exit(70)


@app.handler("exit_in_thread", timeout=0)
def exit_in_thread(context: Context) -> None:
    with ledger.run(context):
        os._exit(71)


@app.handler("segfault", timeout=0)
async def segfault(context: Context) -> None:
    with ledger.run(context):
        ctypes.string_at(0)


@app.handler("sys_exit", timeout=0, retry=RetryPolicy(wait=wait_fixed(0.2), stop=_fifth))
async def sys_exit(context: Context) -> None:
    """Ends its row, not the worker: it is an exception like others."""
    with ledger.run(context):
        sys.exit(72)


# By kind, for handlers of tables whose rows name one: in the event loop, and in a thread.
ODD = {
    "exit": exit_at_once,
    "segfault": segfault,
    "sys_exit": sys_exit,
    "wait": wait,
    "block_loop": block_loop,
    "spin_loop": spin_loop,
    "stubborn": stubborn,
    "foreign_thread": foreign_thread,
    "left_thread": left_thread,
}
ODD_IN_THREAD = {"block_thread": block_thread, "spin_thread": spin_thread}
