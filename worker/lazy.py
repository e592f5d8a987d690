"""A session that is opened when its handler asks for it, not when the handler starts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from worker.errors import UsageError

S = TypeVar("S")


class Lazy(Generic[S]):
    """For a handler that calls others first and writes at the end:

        async def predict(market: Market, session: Lazy[asyncpg.Connection]) -> None:
            odds = await fetch(market)  # no connection is held
            connection = await session.open()
            await connection.execute(...)

    A `def` handler calls `session.open_in_thread()`. From then on it is a session like any other:
    one transaction, in which the row is settled when the handler has answered. A row whose handler
    never opens it is settled like that of a handler without a session.
    """

    __slots__ = ("_gate", "_is_async", "_lock", "_open", "_over", "_session")

    def __init__(self, open: Callable[[], Any], *, is_async: bool) -> None:
        """open: gives the session; if `is_async`, an awaitable of it."""
        self._open = open
        self._is_async = is_async
        self._gate = asyncio.Lock()
        self._lock = threading.Lock()
        self._session: S | None = None
        self._over = False

    async def open(self) -> S:
        """The session; the first call waits until the pool has one to give. For `async def`."""
        self._check(is_async=True)
        async with self._gate:
            if self._session is None:
                opened: Awaitable[S] = self._open()
                self._session = await opened
            return self._session

    def open_in_thread(self) -> S:
        """The same for a `def` handler."""
        self._check(is_async=False)
        with self._lock:
            if self._session is None:
                opened: S = self._open()
                self._session = opened
            return self._session

    def close(self) -> S | None:
        """Called by the worker when the handler has answered: the session, if it was opened. It
        cannot be any more."""
        self._over = True
        return self._session

    def _check(self, *, is_async: bool) -> None:
        if is_async is not self._is_async:
            raise UsageError(
                "a lazy session was opened in the other way",
                why=f"its handler is {'async def' if self._is_async else 'def'}",
                hint="await session.open()" if self._is_async else "session.open_in_thread()",
            )
        if self._over:
            raise UsageError(
                "a lazy session was opened after its handler had answered",
                why="its row is settled; nothing would commit what is written",
                hint="await what the handler has started before it returns",
            )
