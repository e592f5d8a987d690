"""The handlers of the runs on adopted tables."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import asyncpg
import psycopg

from tests.chaos.handlers import (
    ODD,
    ODD_IN_THREAD,
    ledger,
    maybe_fail,
    note,
    soon,
    write_effect,
    write_effect_in_thread,
)
from worker import App, Context

# several apps: a worker does not start when the table of a handler is not there, and a table has
# one handler
plain, in_thread = App(), App()
in_session, in_thread_and_session = App(), App()
for app in (plain, in_thread, in_session, in_thread_and_session):
    app.observe(note)


async def _work(context: Context, row: dict[str, Any]) -> None:
    if row["kind"] == "work_in_thread":
        await asyncio.to_thread(time.sleep, row["ms"] / 1000)
    else:
        await asyncio.sleep(row["ms"] / 1000)
    maybe_fail(context, row["fails"])


@plain.rows("chaos_rows", due="due_at", retry=soon, timeout=0)
async def run(row: dict[str, Any], context: Context) -> None:
    if (odd := ODD.get(row["kind"])) is not None:
        await odd(context)
        return
    with ledger.run(context):
        await _work(context, row)


@in_thread.rows("chaos_rows", due="due_at", retry=soon, timeout=0)
def run_in_thread(row: dict[str, Any], context: Context) -> None:
    ODD_IN_THREAD[row["kind"]](context)


@in_session.rows("chaos_session_rows", due="due_at", retry=soon, timeout=0)
async def run_in_session(
    row: dict[str, Any], context: Context, session: asyncpg.Connection
) -> None:
    if (odd := ODD.get(row["kind"])) is not None:
        await write_effect(context, session)
        await odd(context)
        return
    with ledger.run(context):
        await write_effect(context, session)
        await _work(context, row)


@in_thread_and_session.rows("chaos_session_rows", due="due_at", retry=soon, timeout=0)
def run_in_thread_and_session(
    row: dict[str, Any], context: Context, session: psycopg.Connection
) -> None:
    write_effect_in_thread(context, session)
    ODD_IN_THREAD[row["kind"]](context)
