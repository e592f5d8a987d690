"""Calls handlers that take several rows at once, and answers for each row.

A row whose data cannot be read is settled before the call and is no part of it. Of the others each
has its own answer; one that the handler gave none has failed. What comes out of the handler as an
error is the answer of the rows that have none yet; where the batch has an open session, of all of
them, since what was written for them is rolled back together.

With a session all rows are settled in its transaction. If one of the claims was lost the whole
rolls back, as nobody can tell which writes were for that row: the others are given back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from worker.answers import data, never_ran, raised, returned, said, unreadable
from worker.carrier import Talk, converse
from worker.errors import RowLost
from worker.events import BatchRan, Events, ResultRefused, RowAbandoned
from worker.items import Batch, Said
from worker.lazy import Lazy
from worker.outcome import Answer, Cancel, Failed, Released, Throttled
from worker.retry import RetryPolicy
from worker.row import Row
from worker.run import BatchRun, Part
from worker.seat import Seat
from worker.sessions import Sessions, still_open
from worker.source import Settlement, Source
from worker.threads import Abandoned, Threads
from worker.transition import decide, spent
from worker.trouble import trouble_of

OVER = "the call of its batch is over"
CANCELLED = "an operator asked for it"

Written = tuple[Settlement, Part]
Ended = tuple[Any, list[Written]]  # what a handler returned, and what its session has written


class NoAnswer(Exception):
    """The handler ended without an answer for this row."""


class RowsLost(RowLost):
    """The claims on these rows of a batch are no longer ours."""

    def __init__(self, rows: Sequence[Row]) -> None:
        keys = ", ".join(row.row_key for row in rows[:5])
        super().__init__(f"the claims on {len(rows)} rows of a batch are no longer ours: {keys}")
        self.rows = rows


class Batches:
    """Runs batches; the callables are those of the Executor.

    patience: seconds that a row which an operator cancels is waited for.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        sessions: Sessions,
        threads: Threads,
        events: Events,
        *,
        patience: float,
        settle: Callable[[Settlement], None],
        committed: Callable[[Settlement], None],
        lost: Callable[[Row, float, str], None],
        throttled: Callable[[Row, Throttled], None],
    ) -> None:
        self._sources = sources
        self._sessions = sessions
        self._threads = threads
        self._events = events
        self._patience = patience
        self._settle = settle
        self._committed = committed
        self._lost = lost
        self._throttled = throttled

    async def run(self, run: BatchRun) -> None:
        """One call, from its rows' data to their settlements."""
        try:
            self._read_data(run)
            if run.open:
                await self._call(run)
        except BaseException as error:  # of our own, or sys.exit() in a policy
            for part in run.open:
                self._report(run, part, Failed(error), RetryPolicy())
        finally:
            self._close(run)

    def cancel(self, run: BatchRun, parts: Sequence[Part]) -> bool:
        """An operator has cancelled some of the rows. True if that leaves nothing to go on for."""
        for part in parts:
            if not part.cancelled:
                part.cancelled = True
                part.item.context.cancel()
                if run.handler.signature.session is None:
                    loop = asyncio.get_running_loop()
                    loop.call_later(self._patience, self._withdraw, run, part)
        return all(part.cancelled for part in run.open)

    def abandon(self, run: BatchRun) -> None:
        """The call was asked to end and did not: the rows are settled without it."""
        self._conclude(run, Abandoned())
        self._close(run)

    # --- before the call -------------------------------------------------------------------

    def _read_data(self, run: BatchRun) -> None:
        for part in run.parts:
            if (transition := spent(part.row, run.handler.retry)) is not None:
                run.close(part)
                self._settle(Settlement(part.row, transition, run.seconds))
                continue
            try:
                part.item.data = data(part.row, run.handler)
            except BaseException as error:  # a validator is the user's code
                self._report(run, part, unreadable(error))
        run.batch = Batch([part.item for part in run.open], run.deadline)
        if run.reason is not None:  # asked to end before it began
            run.batch.cancel()

    # --- the call --------------------------------------------------------------------------

    async def _call(self, run: BatchRun) -> None:
        signature, function = run.handler.signature, run.handler.function
        assert signature.batch is not None
        given: dict[str, Any] = {signature.batch: run.batch}
        if signature.session is not None:
            await self._call_with_session(run, given)
            return
        try:
            if run.handler.is_async:
                value = await function(**given)
            else:
                value = await self._in_thread(lambda: function(**given))
        except BaseException as error:  # sys.exit() and the like end the rows, never the worker
            self._conclude(run, error)
        else:
            self._conclude(run, _unanswered(run, value))

    async def _call_with_session(self, run: BatchRun, given: dict[str, Any]) -> None:
        run.seat = Seat()
        try:
            if run.handler.is_async:
                value, written = await self._call_async(run, given)
            else:
                value, written = await self._in_thread(lambda: self._call_in_thread(run, given))
        except RowsLost as error:
            self._conclude_lost(run, error.rows)
        except BaseException as error:
            self._conclude(run, error)
        else:
            for settlement, part in written:
                if run.close(part):
                    self._committed(settlement)
            self._conclude(run, _unanswered(run, value))  # what no session was opened for

    async def _call_async(self, run: BatchRun, given: dict[str, Any]) -> Ended:
        signature = run.handler.signature
        assert signature.session is not None
        assert signature.session_kind is not None
        async with contextlib.AsyncExitStack() as stack:
            open_ = partial(self._open, run, stack, signature.session_kind)
            session = Lazy(open_, is_async=True) if signature.lazy else await open_()
            value = await run.handler.function(**given, **{signature.session: session})
            if signature.lazy:
                session = session.close()
            if not run.session_open:
                return value, []
            written = self._to_write(run, value)
            still_open(signature.session_kind, session)
            await converse(session, self._settling(run, written))
        return value, written

    async def _open(self, run: BatchRun, stack: contextlib.AsyncExitStack, kind: str) -> Any:
        session = await stack.enter_async_context(self._sessions.open(kind, run.seat or Seat()))
        run.session_open = True
        return session

    def _call_in_thread(self, run: BatchRun, given: dict[str, Any]) -> Ended:
        signature = run.handler.signature
        assert signature.session is not None
        assert signature.session_kind is not None
        with contextlib.ExitStack() as stack:
            open_ = partial(self._open_in_thread, run, stack, signature.session_kind)
            session = Lazy(open_, is_async=False) if signature.lazy else open_()
            value = run.handler.function(**given, **{signature.session: session})
            if signature.lazy:
                session = session.close()
            if not run.session_open:
                return value, []
            written = self._to_write(run, value)
            still_open(signature.session_kind, session)
            converse(session, self._settling(run, written))
        return value, written

    def _open_in_thread(self, run: BatchRun, stack: contextlib.ExitStack, kind: str) -> Any:
        session = stack.enter_context(self._sessions.open_in_thread(kind, run.seat or Seat()))
        run.session_open = True
        return session

    async def _in_thread(self, call: Callable[[], Any]) -> Any:
        """On a thread; it can see that it is cancelled, and has a moment to do so."""
        return await self._threads.run(call, self._patience / 2, self._patience / 4)

    def _to_write(self, run: BatchRun, value: Any) -> list[Written]:
        """What to write in the session. Raises NoAnswer where an answer is missing: what was
        written for that row must not be committed without it."""
        written = []
        for part in run.open:
            answer = self._answered(run, part)
            if answer is None:
                raise _unanswered(run, value)
            written.append((self._settlement(run, part, answer), part))
        return written

    def _settling(self, run: BatchRun, written: Sequence[Written]) -> Talk[None]:
        """Settles inside the handler's own transaction, all rows or none. Raises RowsLost."""
        source = self._sources[run.row.source]
        accepted: set[Any] = set()
        settlements = [settlement for settlement, _ in written]
        for sql, params in source.settle(run.row.owner, settlements, wait=True):
            records = yield sql, params
            accepted.update(source.key(r) for r in records if not source.busy(r))
            if any(map(source.busy, records)):  # they changed before their locks were ours
                records = yield sql, params
                accepted.update(source.key(r) for r in records if not source.busy(r))
        if lost := [s.row for s in settlements if s.row.key not in accepted]:
            raise RowsLost(lost)

    # --- the answers -----------------------------------------------------------------------

    def _conclude(self, run: BatchRun, error: BaseException) -> None:
        """Settles the open rows: as each was answered, else as the error says. What was answered
        in a session that is rolled back does not count."""
        if isinstance(error, Abandoned) and run.seat is not None:
            run.seat.cut()
        for part in run.open:
            answer = None if run.session_open else self._answered(run, part)
            if answer is None:
                if isinstance(error, Abandoned):
                    self._events.emit(RowAbandoned(part.row, run.seconds))
                answer = raised(
                    error, run.reason or ("cancelled" if part.cancelled else None), run.row.kind
                )
            if answer is not None:
                self._report(run, part, answer)
            elif run.close(part):
                self._lost(part.row, run.seconds, "a run that had not ended")

    def _conclude_lost(self, run: BatchRun, lost: Sequence[Row]) -> None:
        for part in run.open:
            if part.row not in lost:
                again = Released("the claim on another row of its batch was lost", started=True)
                self._report(run, part, again)
            elif run.close(part):
                self._lost(part.row, run.seconds, "a session's commit")

    def _answered(self, run: BatchRun, part: Part) -> Answer | None:
        """What the handler said of the row, or an operator; None if neither has."""
        match part.item.answer:
            case Said(value=value):
                return returned(value, part.row, run.handler, run.seconds, self._refuse(part.row))
            case BaseException() as answer:
                return said(answer)
        if part.cancelled and run.reason is None:
            return Cancel(CANCELLED)
        return None

    def _refuse(self, row: Row) -> Callable[[str], None]:
        return lambda why: self._events.emit(ResultRefused(row, why))

    def _withdraw(self, run: BatchRun, part: Part) -> None:
        """An operator has cancelled the row, and the handler has not answered it since."""
        if part.item.answer is None and not part.settled and run.reason is None:
            part.item.close(CANCELLED)
            self._report(run, part, Cancel(CANCELLED))

    def _settlement(
        self, run: BatchRun, part: Part, answer: Answer, policy: RetryPolicy | None = None
    ) -> Settlement:
        run.trouble = run.trouble or trouble_of(answer)
        if isinstance(answer, Throttled):
            self._throttled(part.row, answer)
        transition = decide(part.row, answer, policy or run.handler.retry)
        return Settlement(part.row, transition, run.seconds)

    def _report(
        self, run: BatchRun, part: Part, answer: Answer, policy: RetryPolicy | None = None
    ) -> None:
        settlement = self._settlement(run, part, answer, policy)
        if run.close(part):
            self._settle(settlement)

    def _close(self, run: BatchRun) -> None:
        """Nothing is taken from the handler any more."""
        if run.over:
            return
        run.over = True
        for part in run.parts:
            part.item.close(OVER)
        if run.batch:
            self._events.emit(BatchRan(run.row.source, run.row.kind, len(run.batch), run.seconds))


def _unanswered(run: BatchRun, value: Any) -> Exception:
    """What is wrong with the rows that have no answer. value: what the handler returned."""
    if (nobody := never_ran(value, run.row.kind)) is not None:
        return nobody
    count = len(run.batch.unanswered) if run.batch is not None else 0
    what = "" if value is None else f"; it returned a {type(value).__name__} instead"
    return NoAnswer(
        f"the handler of {run.row.kind!r} ended without an answer for {count} of its rows{what}: "
        "item.done(result) or item.settle(Retry(...)) for each"
    )
