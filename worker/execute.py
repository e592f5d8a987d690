"""Runs handlers: a claimed row goes in, a settlement comes out, whatever the handler does.

Each row runs in a task of its own, so that a handler's context variables and cancellation stay
its own. A run ends early for one of four reasons: its timeout, the worker's stop, an operator, or
a lost claim. The task is cancelled then (a thread is interrupted); if it has not ended two seconds
later it is abandoned: its row is settled without it, its slot is free, and whatever it still
writes through its session is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from worker.answers import arguments, raised, returned, unreadable
from worker.batches import Batches
from worker.carrier import Talk, converse
from worker.context import Context
from worker.errors import RowLost
from worker.events import Events, ResultRefused, RowAbandoned, RowStarted
from worker.items import Item
from worker.lazy import Lazy
from worker.outcome import DONE, Answer, Failed, Throttled
from worker.registry import Handler, Registry
from worker.retry import RetryPolicy
from worker.row import Row
from worker.run import BatchRun, Part, Reason, Run
from worker.seat import Seat
from worker.sessions import Sessions, still_open
from worker.source import Settlement, Source
from worker.threads import Abandoned, Threads
from worker.transition import decide, spent
from worker.trouble import trouble_of

PATIENCE = 2.0  # seconds that a cancelled handler has to end
WATCH_EVERY = 0.05  # seconds between two looks at the deadlines


class Executor:
    """Starts runs and reports each as a settlement.

    settle: takes what a run decided. finished: called when a slot is free; `committed` of settle
    says that a session has already carried the transition out. throttled: called when a handler
    was told to come back later, from its thread perhaps.
    """

    def __init__(
        self,
        registry: Registry,
        sources: Mapping[str, Source],
        sessions: Sessions,
        installation: uuid.UUID,
        events: Events,
        *,
        default_timeout: float | None,
        settle: Callable[[Settlement], None],
        committed: Callable[[Settlement], None],
        lost: Callable[[Row, float, str], None],
        finished: Callable[[Run], None],
        throttled: Callable[[Row, Throttled], None],
    ) -> None:
        self._registry = registry
        self._sources = sources
        self._sessions = sessions
        self._installation = installation
        self._events = events
        self._default_timeout = default_timeout
        self._settle = settle
        self._committed = committed
        self._lost = lost
        self._finished = finished
        self._throttled = throttled
        self._threads = Threads()
        self._batches = Batches(
            sources,
            sessions,
            self._threads,
            events,
            patience=PATIENCE,
            settle=settle,
            committed=committed,
            lost=lost,
            throttled=throttled,
        )
        self._watch: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()  # asked for each row it costs a system call
        self.running: dict[Run, None] = {}  # in the order in which they began

    def start(self, row: Row) -> None:
        """Begins to run a row; it holds a slot until `finished` is called."""
        handler = self._registry.get(row.kind)
        if handler.batching is not None:
            self.start_batch([row])
            return
        run = Run(row, handler, *self._times(handler))
        self._tell_started(row)
        self._begin(run, self._run(run))

    def start_batch(self, rows: Sequence[Row]) -> None:
        """Begins to run rows of one kind, at least one, in one call; they hold one slot."""
        handler = self._registry.get(rows[0].kind)
        started, deadline = self._times(handler)
        run = BatchRun(rows[0], handler, started, deadline)
        run.parts = [Part(row, Item(Context(row, self._installation, deadline))) for row in rows]
        run.unsettled = len(rows)
        for row in rows:
            self._tell_started(row)
        self._begin(run, self._run_batch(run))

    @property
    def rows_running(self) -> int:
        """A batch is one run of several rows."""
        return sum(len(run.rows) for run in self.running)

    def _times(self, handler: Handler) -> tuple[float, float | None]:
        """Now, and the deadline of a run that starts now."""
        timeout = self._default_timeout if handler.timeout is None else handler.timeout
        started = time.monotonic()
        return started, started + timeout if timeout else None

    def _tell_started(self, row: Row) -> None:
        if RowStarted not in self._events.ignored:
            self._events.emit(RowStarted(row))

    def _begin(self, run: Run, call: Coroutine[Any, Any, None]) -> None:
        self.running[run] = None
        if run.deadline is not None and self._watch is None:
            self._watch = self._loop.call_later(WATCH_EVERY, self._watch_deadlines)
        run.task = self._loop.create_task(call)

    def stop(self, run: Run, reason: Reason, patience: float = PATIENCE) -> None:
        """Asks a run to end; abandons it if it has not after `patience` seconds. Of several
        reasons the first counts, and the shortest patience."""
        if run.settled:
            return
        if run.reason is None:
            run.reason = reason
            run.cancel()
            assert run.task is not None
            run.task.cancel()
        if run.patience is not None:
            if run.patience.when() <= self._loop.time() + patience:
                return
            run.patience.cancel()
        run.patience = self._loop.call_later(patience, self._abandon, run)

    def stop_all(self, reason: Reason, patience: float = PATIENCE) -> None:
        for run in list(self.running):
            self.stop(run, reason, patience)

    async def wait_for_runs(self, until: float) -> None:
        """Until nothing runs, or that moment of the monotonic clock."""
        while self.running and time.monotonic() < until:
            tasks = [run.task for run in self.running if run.task is not None]
            await asyncio.wait(
                tasks,
                timeout=max(0.0, until - time.monotonic()),
                return_when=asyncio.FIRST_COMPLETED,
            )

    def cancel(self, claims: Iterable[tuple[str, str, int]]) -> None:
        """Ends the runs of these (source, key as text, token) claims for an operator."""
        asked = set(claims)
        for run in list(self.running):
            if isinstance(run, BatchRun):
                parts = [p for p in run.parts if _claim_of(p.row) in asked]
                if parts and self._batches.cancel(run, parts):
                    self.stop(run, "cancelled")
            elif _claim_of(run.row) in asked:
                self.stop(run, "cancelled")

    def close(self) -> None:
        self._threads.close()

    async def _run(self, run: Run) -> None:
        try:
            if (transition := spent(run.row, run.handler.retry)) is not None:
                self._report(run, Settlement(run.row, transition, run.seconds))
                return
            answer = await self._answer(run)
            if answer is not None:
                self._conclude(run, answer)
        except BaseException as error:  # of our own, or sys.exit() in a policy
            self._conclude(run, Failed(error), RetryPolicy())
        finally:
            self._end(run)

    async def _run_batch(self, run: BatchRun) -> None:
        try:
            await self._batches.run(run)
        finally:
            self._end(run)

    async def _answer(self, run: Run) -> Answer | None:
        """What the handler says; None when a session has settled the row, or the claim was lost."""
        try:
            given = arguments(run)
        except BaseException as error:
            return unreadable(error)
        if run.handler.signature.context is not None:
            run.context = Context(run.row, self._installation, run.deadline)
            given[run.handler.signature.context] = run.context
        try:
            if run.handler.signature.session is not None:
                return await self._call_with_session(run, given)
            if run.handler.is_async:
                return self._read(run, await run.handler.function(**given))
            function = run.handler.function
            value = await self._in_thread(run, lambda: function(**given))
            return self._read(run, value)
        except RowLost:
            self._report_lost(run, "a session's commit")
            return None
        except BaseException as error:  # sys.exit() and the like end the row, never the worker
            return self._read_error(run, error)

    async def _call_with_session(self, run: Run, arguments: dict[str, Any]) -> Answer | None:
        signature = run.handler.signature
        assert signature.session is not None
        assert signature.session_kind is not None
        settlement: Settlement
        run.seat = Seat()
        if run.handler.is_async:
            async with contextlib.AsyncExitStack() as stack:
                open_ = partial(self._open, stack, signature.session_kind, run.seat)
                given = Lazy(open_, is_async=True) if signature.lazy else await open_()
                arguments[signature.session] = given
                answer = self._read(run, await run.handler.function(**arguments))
                session = given.close() if signature.lazy else given
                if session is None:
                    return answer
                still_open(signature.session_kind, session)
                settlement = self._settlement(run, answer)
                await converse(session, self._settling(settlement))
        else:
            ended: Settlement | Answer = await self._in_thread(
                run, lambda: self._call_in_thread(run, arguments)
            )
            if not isinstance(ended, Settlement):
                return ended
            settlement = ended
        if not run.settled:
            run.settled = True
            self._committed(settlement)
        return None

    async def _open(self, stack: contextlib.AsyncExitStack, kind: str, seat: Seat) -> Any:
        return await stack.enter_async_context(self._sessions.open(kind, seat))

    async def _in_thread(self, run: Run, call: Callable[[], Any]) -> Any:
        """On a thread; a handler that can see that it is cancelled has a moment to do so."""
        notice = PATIENCE / 4 if run.handler.signature.context is not None else 0.0
        return await self._threads.run(call, PATIENCE / 2, notice)

    def _call_in_thread(self, run: Run, arguments: dict[str, Any]) -> Settlement | Answer:
        """The settlement that a session has carried out; the answer if none was opened."""
        signature = run.handler.signature
        assert signature.session is not None
        assert signature.session_kind is not None
        with contextlib.ExitStack() as stack:
            manager = self._sessions.open_in_thread(signature.session_kind, run.seat or Seat())
            open_ = partial(stack.enter_context, manager)
            given = Lazy(open_, is_async=False) if signature.lazy else open_()
            arguments[signature.session] = given
            answer = self._read(run, run.handler.function(**arguments))
            session = given.close() if signature.lazy else given
            if session is None:
                return answer
            still_open(signature.session_kind, session)
            settlement = self._settlement(run, answer)
            converse(session, self._settling(settlement))
        return settlement

    def _settling(self, settlement: Settlement) -> Talk[None]:
        """Settles inside the handler's own transaction. Raises RowLost."""
        row = settlement.row
        source = self._sources[row.source]
        for sql, params in source.settle(row.owner, [settlement], wait=True):
            records = yield sql, params
            if records and source.busy(records[0]):  # it changed before its lock was ours
                records = yield sql, params
            if not records or source.busy(records[0]):
                raise RowLost(f"the claim on {row.source} {row.row_key} is no longer ours")

    def _read(self, run: Run, value: Any) -> Answer:
        """A handler's return value as an answer."""
        if value is None and run.handler.table is None:  # nearly all of them
            return DONE
        return returned(
            value,
            run.row,
            run.handler,
            run.seconds,
            lambda why: self._events.emit(ResultRefused(run.row, why)),
        )

    def _read_error(self, run: Run, error: BaseException) -> Answer | None:
        """What a handler raised, in the light of why it may have been asked to end."""
        if isinstance(error, Abandoned) and not run.settled:
            if run.seat is not None:
                run.seat.cut()
            self._events.emit(RowAbandoned(run.row, run.seconds))
        answer = raised(error, run.reason, run.row.kind)
        if answer is None:
            self._report_lost(run, "a run that had not ended")
        return answer

    def _conclude(self, run: Run, answer: Answer, policy: RetryPolicy | None = None) -> None:
        self._report(run, self._settlement(run, answer, policy))

    def _settlement(
        self, run: Run, answer: Answer, policy: RetryPolicy | None = None
    ) -> Settlement:
        if answer is not DONE:
            run.trouble = trouble_of(answer)
            if isinstance(answer, Throttled):
                self._throttled(run.row, answer)
        transition = decide(run.row, answer, policy or run.handler.retry)
        return Settlement(run.row, transition, run.seconds)

    def _report(self, run: Run, settlement: Settlement) -> None:
        if not run.settled:
            run.settled = True
            self._settle(settlement)

    def _report_lost(self, run: Run, what: str) -> None:
        if not run.settled:
            run.settled = True
            self._lost(run.row, run.seconds, what)

    def _watch_deadlines(self) -> None:
        """Ends the runs whose time is up. One timer for all of them: one each would cost every
        row what hardly any needs."""
        now = time.monotonic()
        for run in list(self.running):
            if run.deadline is not None and run.deadline <= now:
                self.stop(run, "timeout")
        again = bool(self.running)
        self._watch = self._loop.call_later(WATCH_EVERY, self._watch_deadlines) if again else None

    def _abandon(self, run: Run) -> None:
        """The run was asked to end and did not."""
        if run.settled:
            return
        if isinstance(run, BatchRun):
            self._batches.abandon(run)
        elif (answer := self._read_error(run, Abandoned())) is not None:
            self._conclude(run, answer)
        self._end(run)

    def _end(self, run: Run) -> None:
        """Frees the slot, once."""
        if run not in self.running:
            return
        del self.running[run]
        if run.patience is not None:
            run.patience.cancel()
        self._finished(run)


def _claim_of(row: Row) -> tuple[str, str, int]:
    return row.source, row.row_key, row.token
