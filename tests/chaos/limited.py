"""The app of the runs on limits: handlers that call the provider, under what the variables say."""

from __future__ import annotations

import asyncio
import os

from tenacity import wait_fixed

from tests.chaos.handlers import ledger, note
from tests.chaos.provider import PORT, call
from worker import App, Context, RetryPolicy, Throttled

app = App()
app.observe(note)


@app.handler("call", retry=RetryPolicy(wait=wait_fixed(0.1)))
async def call_it(context: Context) -> None:
    status = await call(int(os.environ[PORT]), str(context.row.key))
    if status == 429:
        raise Throttled(retry_after=1)
    if status != 200:
        raise ConnectionError(f"the provider answered {status}")


@app.handler("hold")
async def hold(context: Context, ms: float = 20) -> None:
    with ledger.run(context):
        await asyncio.sleep(ms / 1000)


@app.handler("nothing")
async def nothing() -> None: ...


@app.handler("nothing_limited")
async def nothing_limited() -> None: ...
