"""Threads for `def` handlers, made so that one that hangs costs a thread and never a slot.

The standard pool cannot let go of a stuck thread: it counts against `max_workers` for ever, and
the interpreter waits for it at exit. Ours are daemons, started when none is idle; the number of
busy ones is bounded by the worker's slots. One that passed its timeout is interrupted where Python
code allows (an exception raised inside it) and abandoned where it does not.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any


class Interrupted(BaseException):
    """Raised inside a handler's thread when its time is up. Not an Exception, so that a handler's
    `except Exception` does not swallow it."""


class Abandoned(BaseException):
    """The call was cancelled and its thread did not end: it goes on, and nobody waits for it."""


class _Call:
    """One call on one thread."""

    __slots__ = ("_ended", "_interrupted", "_lock", "function", "future", "loop", "thread_id")

    def __init__(self, function: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.function = function
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.thread_id: int | None = None
        self._lock = threading.Lock()
        self._ended = False
        self._interrupted = False

    def run(self) -> bool:
        """False when nobody is left to take the answer."""
        try:
            try:
                with self._lock:
                    self.thread_id = threading.get_ident()
                    if self._interrupted:  # before the thread came to it
                        raise Interrupted
                result, error = self.function(), None
            finally:
                with self._lock:
                    self._ended = True
        except BaseException as caught:
            result, error = None, caught
        try:
            self.loop.call_soon_threadsafe(self._resolve, result, error)
        except RuntimeError:  # the loop is closed: the worker has stopped, and released the row
            return False
        return True

    def interrupt(self) -> None:
        """Raises Interrupted in the thread, if the call has not ended; it takes effect at the next
        bytecode, so not inside a blocking call into C."""
        with self._lock:
            self._interrupted = True
            if not self._ended and self.thread_id is not None:
                _raise_in(self.thread_id)

    def _resolve(self, result: Any, error: BaseException | None) -> None:
        if self.future.done():
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(_as_exception(error))


def _raise_in(thread_id: int) -> None:
    import ctypes

    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread_id), ctypes.py_object(Interrupted)
    )


def _as_exception(error: BaseException) -> BaseException:
    """Two cannot pass through a Future: StopIteration is refused, and GeneratorExit closes each
    coroutine on its way instead of being raised in it."""
    if isinstance(error, StopIteration | GeneratorExit):
        told = RuntimeError(f"the handler raised {type(error).__name__}")
        told.__cause__ = error
        return told
    return error


class Threads:
    """Runs calls on daemon threads of our own."""

    def __init__(self) -> None:
        self._idle: list[SimpleQueue[_Call | None]] = []
        self._started = 0
        self._closed = False

    async def run(self, function: Callable[[], Any], patience: float, notice: float = 0.0) -> Any:
        """What `function()` returns or raises. When cancelled it leaves the call `notice` seconds
        to end by itself, interrupts its thread, and `patience` seconds later leaves it alone and
        raises Abandoned. What the call returns before that counts."""
        carried = partial(contextvars.copy_context().run, function)  # for loggers and tracers
        call = _Call(carried, asyncio.get_running_loop())
        inbox = self._idle.pop() if self._idle else self._start()
        call.future.add_done_callback(lambda _: self._rest(inbox))
        inbox.put(call)
        try:
            return await asyncio.shield(call.future)
        except asyncio.CancelledError:
            # Seen, whenever it comes: what comes too late is nobody's concern.
            call.future.add_done_callback(lambda future: future.exception())
            if notice:
                await asyncio.wait((call.future,), timeout=notice)
            call.interrupt()
            await asyncio.wait((call.future,), timeout=patience)
            if not call.future.done():
                raise Abandoned from None
        return call.future.result()

    def close(self) -> None:
        """Ends the idle threads, and busy ones once they are done; those that are stuck die with
        the process."""
        self._closed = True
        while self._idle:
            self._idle.pop().put(None)

    def _rest(self, inbox: SimpleQueue[_Call | None]) -> None:
        if self._closed:
            inbox.put(None)
        else:
            self._idle.append(inbox)

    def _start(self) -> SimpleQueue[_Call | None]:
        inbox: SimpleQueue[_Call | None] = SimpleQueue()
        self._started += 1
        threading.Thread(
            target=_serve, args=(inbox,), name=f"handler-{self._started}", daemon=True
        ).start()
        return inbox


def _serve(inbox: SimpleQueue[_Call | None]) -> None:
    while True:
        try:
            call = inbox.get()
            if call is None:
                return
            if not call.run():
                return
            del call
        except Interrupted:
            continue  # came a moment after the call had ended
