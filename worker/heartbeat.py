"""Keeps the lease, from a thread of its own.

A handler that blocks the event loop, or holds it for minutes, must not cost the worker its rows:
the heartbeat needs neither that loop nor its connections. The same thread is the last resort of a
stop: if the loop is still blocked when the grace has passed, it gives the rows back and ends the
process.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import asyncpg

from worker.blocking import BlockingLink
from worker.source import Source
from worker.statements import statement
from worker.url import DatabaseURL

GRACE_PASSED = 9  # the exit code that says so
ASK_AGAIN = 0.02  # seconds until rows are given back that somebody had locked

# A beat that is not answered for so many seconds, or a third of the lease, is sent again over
# another connection: the lease is kept though the backend of this one is frozen.
ANSWERS_WITHIN = 10.0
ANSWERS_AT_LEAST = 2.0  # a busy server is no frozen one


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
        self._url = url.with_parameters(
            application_name="duerow heartbeat", tcp_user_timeout="10000"
        )
        self._every = lease / 3
        self._link = BlockingLink(
            self._url,
            pooled=pooled,
            timeout=min(ANSWERS_WITHIN, max(ANSWERS_AT_LEAST, self._every)),
        )
        self._sources = sources
        self._status = status
        self._gone = gone
        self._cancels = cancels
        self._trouble = trouble
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
        self._link.close()

    def _until_next(self, pause: float) -> float:
        if self._exit_at is None:
            return pause
        return max(0.0, min(pause, self._exit_at - time.monotonic()))

    def _beat(self) -> float:
        """One beat; the seconds until the next."""
        running, settled = self._status()
        worker = self.worker
        try:
            rows = self._link.fetch(
                statement("workers/heartbeat"), worker, running, settled, self.draining
            )
        except Exception as error:  # whatever the driver raises: this thread must go on
            self._link.drop()
            why = self._url.redact(str(error)) or "no answer"
            self._trouble(f"{type(error).__name__}: {why}")
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
            self._link.fetch("select set_config('lock_timeout', '300ms', false)")
            self._abandon_all()
            self._link.fetch(statement("workers/stop"), self.worker, self._status()[1])
        finally:
            os._exit(self._exit_code)

    def _abandon_all(self) -> None:
        """Rows that somebody has locked are asked for again, as long as there is time."""
        until = time.monotonic() + self._within / 2
        sources = list(self._sources)
        while sources:
            locked = []
            for source in sources:
                sql, params = source.abandon(self.worker)
                with suppress(*_REFUSED):  # its table is locked, say: the others
                    [(_, left)] = self._link.fetch(sql, *params)
                    locked += [source] if left else []
            sources = locked if time.monotonic() < until else []
            if sources:
                time.sleep(ASK_AGAIN)


# What the database says instead of an answer, or the driver when there is no connection any more.
_REFUSED = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


def _claim(text: str) -> tuple[str, str, int]:
    """ "jobs 7 42" -> ("jobs", "42", 7): the source, key and token of a claim to stop."""
    source, token, key = text.split(" ", 2)
    return source, key, int(token)
