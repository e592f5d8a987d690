"""Procrastinate, with what its pages "Execute multiple jobs at the same time" and "Connector" name:

* concurrency=30 in drain, the documentation's own figure: each row is fetched and finished by calls
  of its own, whatever it is, and 10 and 100 took no less CPU a row;
* psycopg's pool (the only asynchronous driver), as many connections as rows at a time, up to 20;
* rows listened for (the default), finished rows kept (delete_jobs="never", the default);
* many rows by `batch_defer_async`, one statement.

There is no buffering of status writes, and no word of uvloop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from procrastinate import App, PsycopgConnector

from benchmarks.peers.contract import KINDS, Args

CONCURRENCY = 30
CONNECTIONS = 20


class _Enqueuer:
    def __init__(self, app: App) -> None:
        self._app = app

    async def one(self, kind: str, args: Args) -> None:
        await self._app.tasks[kind].defer_async(**args)

    async def many(self, kind: str, rows: list[Args]) -> None:
        await self._app.tasks[kind].batch_defer_async(*rows)


class Peer:
    tables = ("procrastinate_jobs", "procrastinate_events", "procrastinate_periodic_defers")
    unfinished = "select exists (select from procrastinate_jobs where status in ('todo', 'doing'))"
    finished = "select count(*) from procrastinate_jobs where status = 'succeeded'"
    uvloop = False

    async def install(self, url: str) -> None:
        async with _app(url, 1).open_async() as app:
            await app.schema_manager.apply_schema_async()

    @contextlib.asynccontextmanager
    async def enqueuer(self, url: str) -> AsyncIterator[_Enqueuer]:
        async with _app(url, 1).open_async() as app:
            yield _Enqueuer(app)

    async def work(self, url: str, scenario: str, slots: int, stop: asyncio.Event) -> None:
        concurrency = CONCURRENCY if scenario == "drain" else slots
        async with _app(url, min(concurrency, CONNECTIONS)).open_async() as app:
            running = asyncio.create_task(
                app.run_worker_async(concurrency=concurrency, install_signal_handlers=False)
            )
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait([running, stopped], return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            running.cancel()  # the documented way to stop it gently
            with contextlib.suppress(asyncio.CancelledError):
                await running


def _app(url: str, connections: int) -> App:
    app = App(connector=PsycopgConnector(conninfo=url, min_size=1, max_size=connections))
    for name, handler in KINDS.items():
        app.task(name=name)(handler)
    return app
