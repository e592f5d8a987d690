"""One of the processes, as the supervisor sees it."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from contextlib import suppress
from typing import Any

from worker.supervise.backoff import Backoff
from worker.supervise.parent import STATUS


class Process:
    """One place, and the process that has it at the moment, if any.

    up: it takes rows. was_up: it has done so at some time of its life. stillborn: how many in a row
    have ended before that. births: how many there have been. start_at: when another is
    to be started here; None for not at all.
    """

    def __init__(self, number: int, name: str) -> None:
        self.number = number
        self.name = f"{name}.{number}"
        self.backoff = Backoff()
        self.pid: int | None = None
        self.up = False
        self.was_up = False
        self.stillborn = 0
        self.births = 0
        self.started = 0.0
        self.start_at: float | None = None
        self.status: dict[str, Any] = {}
        self.answered_at = 0.0
        self.channel: socket.socket | None = None
        self._heard = b""
        self._asked = False

    @property
    def lived(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self.started

    def attempt(self) -> None:
        """It is about to be started, which may fail."""
        self.started, self.start_at = time.monotonic(), None
        self.up = self.was_up = self._asked = False
        self._heard = b""

    def begin(self, pid: int, channel: socket.socket) -> None:
        channel.setblocking(False)
        self.pid, self.channel = pid, channel
        self.births += 1

    def end(self) -> None:
        """It has ended, and was waited for: its pid may be another's now."""
        self.stillborn = 0 if self.was_up else self.stillborn + 1
        self.pid = None
        self.up = False
        self.close()

    def close(self) -> None:
        if self.channel is not None:
            self.channel.close()
            self.channel = None

    def signal(self, number: signal.Signals) -> None:
        if self.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def say(self, word: bytes) -> None:
        if self.channel is not None:
            with suppress(OSError):  # it is gone, or so stuck that it listens no more
                self.channel.send(word + b"\n")

    def ask(self) -> None:
        """For its status; once, until it answers."""
        if not self._asked:
            self._asked = True
            self.say(STATUS)

    def hear(self) -> None:
        """Takes in what it has said. Without a channel afterwards, it says no more."""
        assert self.channel is not None
        try:
            data = self.channel.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        *lines, self._heard = (self._heard + data).split(b"\n")
        for line in lines:
            self._note(json.loads(line))

    def _note(self, said: dict[str, Any]) -> None:
        if "up" in said:
            self.up = said["up"]
            self.was_up = self.was_up or self.up
        if "status" in said:
            self.status = said["status"]
            self.answered_at = time.monotonic()
            self._asked = False
