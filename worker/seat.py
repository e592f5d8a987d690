"""One run's place among the sessions, and how it is taken away from a handler that hangs.

A handler that does not end when its time is up is abandoned, but its session is in the middle of a
transaction: it would keep row locks that the next attempt waits for, hold back vacuum, and count
against the pool for as long as the handler hangs. So its connection is cut. Nothing is lost: the
row is settled without it, and whatever it had written could not have been committed any more.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from typing import Any


class Seat:
    """Used by the run and, when it is abandoned, by the event loop beside it."""

    __slots__ = ("_connection", "_cut", "_lock", "_release", "waited")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._release: Callable[[], None] | None = None
        self._connection: Any = None
        self._cut = False
        self.waited = 0.0  # seconds until there was a place

    def take(self, release: Callable[[], None]) -> None:
        """The place is this run's; `release` gives it to the next."""
        with self._lock:
            self._release = release
        if self._cut:
            self.leave()

    def hold(self, connection: Any) -> None:
        """The driver's connection that the session uses."""
        with self._lock:
            self._connection = connection
        if self._cut:
            self.cut()

    def let_go(self) -> None:
        """The connection goes back to its pool: from here on it is somebody else's."""
        with self._lock:
            self._connection = None

    def leave(self) -> None:
        with self._lock:
            release, self._release = self._release, None
        if release is not None:
            release()

    def cut(self) -> None:
        """Takes connection and place away. The handler meets an error if it ever uses them."""
        with self._lock:
            self._cut = True
            if self._connection is not None:
                with contextlib.suppress(Exception):  # it may be closed already
                    _disconnect(self._connection)
                self._connection = None
        self.leave()


def _disconnect(connection: Any) -> None:
    """Ends a connection beside whoever may be using it just now. A driver's own close() is no
    help: it waits, or is not safe while another thread is inside the driver."""
    terminate = getattr(connection, "terminate", None)  # asyncpg; on the loop's thread, as we are
    if terminate is not None:
        terminate()
        return
    with socket.socket(fileno=os.dup(connection.fileno())) as beside:
        beside.shutdown(socket.SHUT_RDWR)
