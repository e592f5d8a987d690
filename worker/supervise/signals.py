"""The supervisor's signals, one after the other, as something that can be waited for."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

WATCHED = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGCHLD)


class Signals:
    """Nothing is done in a handler: a signal becomes a byte in a socket."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._before: dict[int, Any] = {}

    def install(self) -> None:
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in WATCHED:
            self._before[number] = signal.signal(number, _heard)

    def fileno(self) -> int:
        return self._reader.fileno()

    def read(self) -> list[int]:
        """Those that have come, in their order."""
        with suppress(BlockingIOError):
            return list(self._reader.recv(4096))
        return []

    @contextmanager
    def held(self) -> Iterator[set[int]]:
        """Keeps signals waiting meanwhile: around a fork none may reach the child while it has the
        supervisor's handlers. Gives the mask before."""
        before = {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)}
        try:
            yield before
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def forget(self) -> None:
        """In a forked child, with signals held: they are its own again."""
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            if handler is not None:  # one of Python's
                signal.signal(number, handler)
        self._reader.close()
        self._writer.close()

    def deafen(self) -> None:
        """At the end: what an impatient sender still sends must not change the exit code."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)


def _heard(_: int, __: FrameType | None) -> None: ...
