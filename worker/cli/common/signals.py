"""Signals of a worker process.

The first TERM or INT drains. Repeats are ignored: Heroku may send several. On a terminal a second
Ctrl-C, at least a second after the first, gives the rows back and leaves with 130; one more leaves
at once. Off a terminal INT is TERM. QUIT shows what runs and where, and changes nothing.

Plain handlers of `signal.signal`: they run between two bytecodes also while a coroutine spins or
blocks the event loop, when a loop's own signal handling would wait for it.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import time
from types import CodeType, FrameType
from typing import Any

from worker.interrupts import FORCED, LEAVING, STOPPING, Interrupts
from worker.run import Run
from worker.runtime import Worker


class Signals:
    """Connects the signals of this process to one worker."""

    def __init__(self, worker: Worker, *, interactive: bool) -> None:
        self._worker = worker
        self._interactive = interactive
        self._interrupts = Interrupts()

    def install(self) -> None:
        signal.signal(signal.SIGTERM, self._drain)
        signal.signal(signal.SIGINT, self._interrupt if self._interactive else self._drain)
        signal.signal(signal.SIGQUIT, self._show)
        # By itself, in C, so that the stacks come even while a handler is stuck inside C code.
        faulthandler.register(signal.SIGQUIT, file=sys.stderr, all_threads=True, chain=True)

    def _drain(self, _: int, __: FrameType | None) -> None:
        self._worker.stop()

    def _interrupt(self, _: int, __: FrameType | None) -> None:
        match self._interrupts.press(time.monotonic()):
            case "stop":
                self._worker.stop()
                _tell(STOPPING)
            case "abandon":
                _tell(LEAVING)
                self._worker.abandon(FORCED)
            case "leave":
                os._exit(FORCED)

    def _show(self, _: int, __: FrameType | None) -> None:
        runs = self._worker.running
        _tell(
            f"{sum(len(run.rows) for run in runs)} rows running\n" + "".join(map(_described, runs))
        )


def _tell(text: str) -> None:
    """Writes past the buffers: this may have interrupted somebody who writes to them."""
    os.write(2, text.encode("utf-8", "backslashreplace"))


def _described(run: Run) -> str:
    row = run.row
    others = f" and {len(run.rows) - 1} others" if len(run.rows) > 1 else ""
    asked = f", asked to end: {run.reason}" if run.reason else ""
    head = (
        f"  {row.source} {row.key}{others} {row.kind} attempt {row.attempt}, "
        f"{run.seconds:.1f} s{asked}\n"
    )
    return head + "".join(f"    {line}\n" for line in _stack(run))


def _stack(run: Run) -> list[str]:
    """Where the task of a run waits, from the handler inwards. A thread's stack is among those
    that faulthandler shows."""
    lines = []
    waiting: Any = run.task.get_coro() if run.task is not None else None
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None)
        if frame is not None:
            lines.append(_line(frame.f_code, frame.f_lineno))
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None)
    return lines


def _line(code: CodeType, number: int) -> str:
    return f'File "{code.co_filename}", line {number} in {code.co_qualname}'
