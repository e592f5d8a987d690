"""The handlers of the runs on adopted tables."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import asyncpg

from tests.chaos.handlers import KILLERS, ledger, maybe_fail, note, soon, write_effect
from worker import App, Context

# two apps: a worker does not start when the table of a handler is not there
plain = App()
in_session = App()
plain.observe(note)
in_session.observe(note)


async def _work(context: Context, row: dict[str, Any]) -> None:
    if row["kind"] == "work_in_thread":
        await asyncio.to_thread(time.sleep, row["ms"] / 1000)
    else:
        await asyncio.sleep(row["ms"] / 1000)
    maybe_fail(context, row["fails"])


@plain.rows("chaos_rows", due="due_at", retry=soon, timeout=0)
async def run(row: dict[str, Any], context: Context) -> None:
    if (killer := KILLERS.get(row["kind"])) is not None:
        await killer(context)
        return
    with ledger.run(context):
        await _work(context, row)


@in_session.rows("chaos_session_rows", due="due_at", retry=soon, timeout=0)
async def run_in_session(
    row: dict[str, Any], context: Context, session: asyncpg.Connection
) -> None:
    if (killer := KILLERS.get(row["kind"])) is not None:
        await killer(context)
        return
    with ledger.run(context):
        await write_effect(context, session)
        await _work(context, row)
