"""One asyncpg connection for a thread that has no event loop.

The hot path has loaded asyncpg already; a second driver would cost every worker 9 MB for one
statement every few seconds.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from typing import Any, TypeVar

from worker.url import DatabaseURL, connect

T = TypeVar("T")

LINGER = 1.0  # seconds that a goodbye to the server may take


class BlockingLink:
    """Connects on first use. Every call blocks its own thread and nobody else: the loop that
    carries it is this thread's own, and runs only as long as a call does.

    timeout: seconds for any one statement. connect_timeout: seconds for each server of the URL.
    """

    def __init__(
        self, url: DatabaseURL, *, pooled: bool, timeout: float, connect_timeout: float = 5.0
    ) -> None:
        self._url = url
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        # Before our own timeout: what we have given up must not be carried out afterwards.
        within = {"statement_timeout": f"{timeout * 800:.0f}ms"}
        self._options: dict[str, Any] = (
            {"statement_cache_size": 0} if pooled else {"server_settings": within}
        )
        self._loop: _Loop | None = None
        self._connection: Any = None

    def fetch(self, sql: str, *params: Any) -> list[Any]:
        """Raises whatever the driver does; TimeoutError when the time is over. The connection
        stays as it is: whoever will not go on with it calls `drop`."""
        return self._run(self._fetch(sql, params))

    def drop(self) -> None:
        """Ends the connection without a word; the next call makes a new one."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.terminate()
        if self._loop is not None:
            self._run(_end_of_tasks())

    def close(self) -> None:
        """Takes leave of the server, and of the loop. To be called in the thread that called."""
        if self._connection is not None:
            try:
                self._run(self._connection.close(timeout=LINGER))
            except Exception:  # the server is gone already, or does not answer
                self.drop()
        if self._loop is not None:
            self._run(_end_of_tasks())
            self._loop.close()
            self._loop = None

    async def _fetch(self, sql: str, params: tuple[Any, ...]) -> list[Any]:
        if self._connection is None:
            self._connection = await connect(
                self._url, timeout=self._connect_timeout, **self._options
            )
        rows: list[Any] = await self._connection.fetch(sql, *params, timeout=self._timeout)
        return rows

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            self._loop = _Loop()
        return self._loop.run_until_complete(call)


async def _end_of_tasks() -> None:
    """Ends what the driver has left behind: the request to cancel a call that took too long."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


class _Loop(asyncio.SelectorEventLoop):
    """Looks names up in its own thread, which has nothing else to do. A thread for it, as asyncio
    would take, is one more whose end the process would wait for."""

    async def getaddrinfo(
        self,
        host: Any,
        port: Any,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        return socket.getaddrinfo(host, port, family, type, proto, flags)
