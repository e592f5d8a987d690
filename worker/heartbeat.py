"""Keeps the lease, from a thread of its own.

A handler that blocks the event loop, or holds it for minutes, must not cost the worker its rows:
the heartbeat needs neither the loop nor its connections. The same thread is the last resort of a
stop: if the loop is still blocked when the grace has passed, it gives the rows back and ends the
process.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import psycopg

from worker.source import Source
from worker.statements import statement
from worker.url import DatabaseURL

GRACE_PASSED = 9  # the exit code that says so
ASK_AGAIN = 0.02  # seconds until rows are given back that somebody had locked


class Heartbeat:
    """Beats every third of the lease.

    gone: called in the beating thread when the worker was declared dead.
    cancels: called there with the (source, key, token) claims an operator asked to stop.
    status: (rows running, rows settled) for the worker's row.
    trouble: called with a reason when a beat failed; the next comes within a second.
    """

    def __init__(
        self,
        url: DatabaseURL,
        lease: float,
        sources: Sequence[Source],
        *,
        pooled: bool,
        status: Callable[[], tuple[int, int]],
        gone: Callable[[], None],
        cancels: Callable[[list[tuple[str, str, int]]], None],
        trouble: Callable[[str], None],
    ) -> None:
        self.worker = 0
        self.draining = False
        self._url = url.with_parameters(application_name="duerow heartbeat")
        self._every = lease / 3
        self._sources = sources
        self._pooled = pooled
        self._status = status
        self._gone = gone
        self._cancels = cancels
        self._trouble = trouble
        self._connection: psycopg.Connection[Any] | None = None
        self._wake = threading.Event()
        self._stopping = False
        self._exit_at: float | None = None
        self._exit_code = GRACE_PASSED
        self._within = 1.0
        self._last_resort: threading.Timer | None = None
        self._told_gone: int | None = None
        self._thread = threading.Thread(target=self._beat_on, name="heartbeat", daemon=True)

    def start(self, worker: int) -> None:
        self.worker = worker
        self._thread.start()

    def beat_now(self) -> None:
        self._wake.set()

    def exit_after(self, seconds: float, code: int = GRACE_PASSED, *, within: float = 1.0) -> None:
        """Unless stopped before, gives every row back after `seconds` and ends the process; it
        ends `within` seconds of that even if the database does not answer."""
        self._exit_code = code
        self._within = within
        self._exit_at = time.monotonic() + seconds
        if self._last_resort is not None:
            self._last_resort.cancel()
        self._last_resort = threading.Timer(seconds + within, os._exit, [code])
        self._last_resort.daemon = True
        self._last_resort.start()
        self._wake.set()

    def stop(self) -> None:
        """Ends the thread, waiting a moment for a beat that is under way."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2)
        if self._last_resort is not None:
            self._last_resort.cancel()

    def _beat_on(self) -> None:
        pause = self._every
        while not self._stopping:
            self._wake.wait(self._until_next(pause))
            self._wake.clear()
            if self._stopping:
                break
            if self._exit_at is not None and time.monotonic() >= self._exit_at:
                self._give_up()
            pause = self._beat()
        if self._connection is not None:
            self._connection.close()

    def _until_next(self, pause: float) -> float:
        if self._exit_at is None:
            return pause
        return max(0.0, min(pause, self._exit_at - time.monotonic()))

    def _beat(self) -> float:
        """One beat; the seconds until the next."""
        running, settled = self._status()
        worker = self.worker
        try:
            rows = self._send(
                statement("workers/heartbeat"), [worker, running, settled, self.draining]
            )
        except Exception as error:  # whatever the driver raises: this thread must go on
            self._drop()
            self._trouble(f"{type(error).__name__}: {self._url.redact(str(error))}")
            return min(1.0, self._every)
        if not rows:
            if self._told_gone != worker:
                self._told_gone = worker
                self._gone()
            return min(1.0, self._every)
        if rows[0][0]:
            self._cancels([_claim(text) for text in rows[0][0]])
            return min(1.0, self._every)  # again, until they have ended: one may not have started
        return self._every

    def _give_up(self) -> None:
        """The loop did not stop in time. Whatever happens here, the process ends."""
        try:
            self._send("select set_config('lock_timeout', '300ms', false)", [])
            self._abandon_all()
            self._send(statement("workers/stop"), [self.worker, self._status()[1]])
        finally:
            os._exit(self._exit_code)

    def _abandon_all(self) -> None:
        """Rows that somebody has locked are asked for again, as long as there is time."""
        until = time.monotonic() + self._within / 2
        sources = list(self._sources)
        while sources:
            locked = []
            for source in sources:
                with suppress(psycopg.errors.DatabaseError):  # its table is locked, say: the others
                    [(_, left)] = self._send(*source.abandon(self.worker))
                    locked += [source] if left else []
            sources = locked if time.monotonic() < until else []
            if sources:
                time.sleep(ASK_AGAIN)

    def _send(self, sql: str, params: list[Any]) -> list[Any]:
        if self._connection is None:
            self._connection = psycopg.connect(
                self._url.psycopg_conninfo(),
                autocommit=True,
                connect_timeout=5,
                prepare_threshold=None if self._pooled else 2,
                tcp_user_timeout=10_000,
            )
        with psycopg.RawCursor(self._connection) as cursor:
            return cursor.execute(sql, params).fetchall()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _claim(text: str) -> tuple[str, str, int]:
    """ "jobs 7 42" -> ("jobs", "42", 7): the source, key and token of a claim to stop."""
    source, token, key = text.split(" ", 2)
    return source, key, int(token)
