"""The supervisor, as one of its processes sees it: a socket, and a thread that listens to it.

When the supervisor is gone, killed even, the socket ends and the process stops as it would at
SIGTERM: nothing runs on that nobody can stop. That needs no help of the kernel's but what every
Unix gives.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from worker.events import Event, WorkerDraining, WorkerStarted
from worker.interrupts import FORCED

ABANDON, STATUS = b"abandon", b"status"
"""What the supervisor says, a line each."""
INHERITED = "DUEROW_PROCESS"
"""The variable by which a program that the supervisor has started knows its place."""


class Parent:
    """number, name: of this process. first: it is to speak for all of them."""

    def __init__(self, number: int, name: str, channel: socket.socket, *, first: bool) -> None:
        self.number = number
        self.name = name
        self.first = first
        self._channel = channel
        self._ask: Callable[[Callable[[dict[str, Any]], None]], None] = lambda answer: None
        self._abandon: Callable[[int], object] = os._exit
        self._lock = threading.Lock()

    @classmethod
    def inherited(cls) -> Parent | None:
        """That of a program that a supervisor has started; None for any other."""
        told = os.environ.pop(INHERITED, None)
        if told is None:
            return None
        number, first, fileno, name = told.split(":", 3)
        channel = socket.socket(fileno=int(fileno))
        channel.set_inheritable(False)
        return cls(int(number), name, channel, first=first == "1")

    def listen(self) -> None:
        """From here on, before the app is imported: that may take long."""
        threading.Thread(target=self._listen, name="supervisor", daemon=True).start()

    def attach(
        self,
        ask: Callable[[Callable[[dict[str, Any]], None]], None],
        abandon: Callable[[int], object],
    ) -> None:
        """ask: calls back with how the worker is. abandon: gives all rows back and leaves."""
        self._ask = ask
        self._abandon = abandon

    def __call__(self, event: Event) -> None:
        """Observes the worker."""
        if isinstance(event, WorkerStarted):
            self._tell({"up": True})
        elif isinstance(event, WorkerDraining):
            self._tell({"up": False})

    def _listen(self) -> None:
        lines = self._channel.makefile("rb")
        with suppress(OSError):
            for line in lines:
                word = line.strip()
                if word == ABANDON:
                    self._abandon(FORCED)
                elif word == STATUS:
                    self._ask(lambda status: self._tell({"status": status}))
        os.kill(os.getpid(), signal.SIGTERM)

    def _tell(self, what: dict[str, Any]) -> None:
        with self._lock, suppress(OSError):
            self._channel.sendall(json.dumps(what).encode() + b"\n")
