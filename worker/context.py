"""What a handler can know about its run."""

from __future__ import annotations

import threading
import time
import uuid
from typing import Any

from worker.row import Row


class Context:
    """Passed to a handler that has a parameter annotated `Context`.

    A handler that runs long should look at `cancelled` now and then: it is set when the timeout
    has passed, the worker is stopping, an operator asked for it, or the claim was lost.
    """

    __slots__ = ("_cancelled", "_deadline", "_installation", "_stop", "row")

    def __init__(self, row: Row, installation: uuid.UUID, deadline: float | None) -> None:
        self.row = row
        self._installation = installation
        self._deadline = deadline
        self._cancelled = False
        self._stop: threading.Event | None = None  # made when a thread first waits: it costs 3 us

    @property
    def id(self) -> Any:
        return self.row.key

    @property
    def attempt(self) -> int:
        """Which run this is, from 1. Snoozes and releases do not count."""
        return self.row.attempt

    @property
    def kind(self) -> str:
        return self.row.kind

    @property
    def queue(self) -> str:
        return self.row.queue

    @property
    def tenant(self) -> str | None:
        return self.row.tenant

    @property
    def trace(self) -> str | None:
        """The producer's W3C traceparent, if it gave one."""
        return self.row.trace

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of this row on any worker, and for no other row anywhere;
        for a row of an adopted table, new with each due time.

        Hand it to the outside API, so that a second attempt cannot act twice.
        """
        name = f"{self.row.source}/{self.row.row_key}"
        if self.row.occurrence is not None:
            name += f"/{self.row.occurrence.isoformat()}"
        return str(uuid.uuid5(self._installation, name))

    @property
    def deadline(self) -> float | None:
        """When the timeout ends this run, on the clock of `time.monotonic()`; None for never."""
        return self._deadline

    @property
    def remaining(self) -> float | None:
        """Seconds until the deadline, at least 0; None for never."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def cancel(self) -> None:
        """Called by the worker: asks the handler to end."""
        self._cancelled = True
        if self._stop is not None:
            self._stop.set()

    def wait_cancelled(self, timeout: float) -> bool:
        """For handlers in threads: sleeps `timeout` seconds, or until cancelled; says which."""
        if self._stop is None:
            self._stop = threading.Event()
        return self._cancelled or self._stop.wait(timeout)

    @property
    def log(self) -> Any:
        """A structlog logger that carries the row's source, key, kind and attempt."""
        import structlog

        return structlog.get_logger("duerow.handler").bind(
            source=self.row.source, key=self.row.key, kind=self.row.kind, attempt=self.row.attempt
        )
