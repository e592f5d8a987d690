"""One named asyncpg connection that comes back after whatever the database does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

import asyncpg

from worker.errors import DuerowError
from worker.events import DatabaseBack, DatabaseLost, Events
from worker.url import DatabaseURL, connect

Record = Any  # asyncpg.Record is untyped
OnConnect = Callable[[Any], Awaitable[None]]

# The claim and the settle must stay index walks whatever the statistics say: a generic plan made
# while the table was empty takes 300 ms on 300,000 rows without these, 1.6 ms with them.
HOT_PATH_PLANNER = {
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}


class LinkDown(DuerowError):
    """A call failed for a reason that may pass. It may have been carried out all the same."""

    exit_code = 3


class Blocked(LinkDown):
    """Somebody holds a lock on the table; other tables may do. Nothing was carried out."""


class Outage:
    """Logs what all the links of a process go through, at most one line a second."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._last = 0.0

    def report(self, link: str, why: str, retry_in: float) -> None:
        """A link is down. retry_in: seconds."""
        now = time.monotonic()
        if now - self._last >= 1:
            self._last = now
            self._events.emit(DatabaseLost(link, why, round(retry_in, 2)))

    def over(self, link: str, after: float) -> None:
        """It is back. after: seconds that it was down."""
        self._events.emit(DatabaseBack(link, round(after, 2)))


class Fetches(Protocol):
    """What carries a statement: a link, or the connection of one of its transactions."""

    async def fetch(self, sql: str, *params: Any) -> list[Record]: ...


class Link:
    """Connects on first use. A call that fails for a passing reason raises LinkDown; the caller
    waits `pause()` seconds and calls again. Calls of several tasks wait for each other.

    planner: settings for this session, left out behind a pooler that would hand them to others.
    timeout: seconds for any one call.
    """

    def __init__(
        self,
        name: str,
        url: DatabaseURL,
        outage: Outage,
        *,
        planner: Mapping[str, str] | None = None,
        pooled: bool = False,
        timeout: float = 10.0,
        connect_timeout: float = 5.0,
        on_connect: OnConnect | None = None,
    ) -> None:
        self.name = name
        self._url = url
        self._outage = outage
        self._planner = planner or {}
        self._pooled = pooled
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._on_connect = on_connect
        self._connection: Any = None
        self._turn = asyncio.Lock()
        self._failures = 0
        self._down_since: float | None = None

    async def fetch(self, sql: str, *params: Any) -> list[Record]:
        """What one statement gives, in a transaction of its own. Raises LinkDown for what may pass,
        Blocked for a lock in the way, and the error itself where our own data is at fault."""
        async with self._turn:
            connection = self._connection or await self._connect()
            try:
                rows: list[Record] = await connection.fetch(sql, *params, timeout=self._timeout)
            except Exception as error:
                raise self._judge(error) from error
            self._failures = 0
            return rows

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        """A transaction on this connection; other calls wait for its end."""
        async with self._turn:
            connection = self._connection or await self._connect()
            try:
                async with connection.transaction():
                    yield connection
            except Exception as error:
                raise self._judge(error) from error
            self._failures = 0

    async def connect(self) -> None:
        """Connects, if it is not connected."""
        async with self._turn:
            if not self.connected:
                await self._connect()

    async def _connect(self) -> Any:
        settings = {"application_name": f"duerow {self.name}"}
        if not self._pooled:
            settings |= {
                "idle_in_transaction_session_timeout": "30s",
                "lock_timeout": "2s",
                # Before our own timeout: what we have given up must not be carried out afterwards.
                "statement_timeout": f"{self._timeout * 800:.0f}ms",
                **self._planner,
            }
        options: dict[str, Any] = {"command_timeout": self._timeout}
        if self._pooled:
            options["statement_cache_size"] = 0
        connection = None
        try:
            connection = await connect(
                self._url, timeout=self._connect_timeout, server_settings=settings, **options
            )
            if self._on_connect is not None:
                await self._on_connect(connection)
        except Exception as error:
            if connection is not None:
                connection.terminate()
            raise self._judge(error) from error
        if self._down_since is not None:
            self._outage.over(self.name, time.monotonic() - self._down_since)
            self._down_since = None
        self._connection = connection
        return connection

    def pause(self) -> float:
        """Seconds to wait after a LinkDown: 0.1 doubling to 2, so that a server that is back is
        found within two seconds."""
        return float(min(2.0, 0.1 * 2 ** min(self._failures, 6)))

    @property
    def connected(self) -> bool:
        return self._connection is not None and not self._connection.is_closed()

    async def close(self) -> None:
        """Within two seconds, politely or not."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.close(timeout=2)
            except (Exception, asyncio.CancelledError):
                connection.terminate()

    def _judge(self, error: Exception) -> Exception:
        """LinkDown for whatever may pass; the error itself where our own data is at fault."""
        if isinstance(error, LinkDown) or _is_ours(error):
            return error
        if not isinstance(error, _TROUBLE):
            return error
        self._failures += 1
        if not isinstance(error, asyncpg.PostgresError) or _ends_session(error):
            self._drop()
        if self._down_since is None and self._connection is None:
            self._down_since = time.monotonic()
        why = f"{type(error).__name__}: {self._url.redact(str(error))}"
        if isinstance(error, asyncpg.LockNotAvailableError):
            return Blocked(f"a lock is in the way on {self.name!r}", why=why)
        self._outage.report(self.name, why, self.pause())
        return LinkDown(f"the database did not answer on {self.name!r}", why=why)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


# asyncpg's InternalClientError is what it may say on a connection whose backend was terminated:
# "cannot switch to state 12". TimeoutError is an OSError.
_TROUBLE = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


def _ends_session(error: asyncpg.PostgresError) -> bool:
    """Connection trouble (08), shutdown (57P), too many connections, or a server that turned
    read-only: a multi-host URL may lead elsewhere."""
    state = str(error.sqlstate or "")
    return state.startswith(("08", "57P", "28", "3D")) or state in ("25006", "53300")


# The classes of what may pass: connection trouble, authorisation, no such database (a server that
# is being restored), transaction state, deadlock, resources, locks, operator, system, internal.
_PASSING = frozenset({"08", "28", "3D", "25", "40", "53", "55", "57", "58", "XX"})


def _is_ours(error: Exception) -> bool:
    """What Postgres or the driver refuses for its own sake: a value, a constraint, a trigger that
    raises, too deep a nesting. Waiting would not help, and must not hold up the other rows."""
    if isinstance(error, asyncpg.PostgresError):
        return str(error.sqlstate or "XX")[:2] not in _PASSING
    return isinstance(error, asyncpg.DataError)
