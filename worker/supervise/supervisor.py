"""Owns the processes: starts them, starts others for those that die, passes signals on.

The first goes ahead. What is wrong for all of them, a bad app say, is met and told by that one, and
ends the whole with its exit code, as if there were no supervisor; once it is up the others follow.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import time
from collections.abc import Mapping
from typing import Any

from worker.interrupts import FORCED, LEAVING, STOPPING, Interrupts
from worker.observers.lean import structlog
from worker.supervise import birth, endings
from worker.supervise.crew import Crew
from worker.supervise.parent import ABANDON, Parent
from worker.supervise.port import Port
from worker.supervise.process import Process
from worker.supervise.signals import Signals

LATE = 0.5  # seconds after the grace at which what is left is killed
LEAVING_WITHIN = 2.0  # seconds for giving rows back when nobody will wait


class Supervisor:
    """count: of processes. grace: seconds from SIGTERM to the end. health: where to answer over
    HTTP. interactive: whether SIGINT comes from somebody who types Ctrl-C. facts: what to say of
    all of them when the first is up.

    Raises UsageError if nothing can listen at `health`.
    """

    def __init__(
        self,
        count: int,
        *,
        name: str,
        grace: float,
        health: str | None,
        interactive: bool,
        facts: Mapping[str, Any],
    ) -> None:
        self._grace = grace
        self._interrupts = Interrupts() if interactive else None
        self._crew = Crew(count, name)
        self._signals = Signals()
        self._selector = selectors.PollSelector()  # nothing in the kernel that a fork would share
        self._port = None if health is None else Port(health, self._crew, self._selector)
        self._log = structlog.get_logger("duerow")
        self._facts = facts
        self._led = False  # the first has been up
        self._gave_up: int | None = None  # how the last that died had ended
        self._stop_by: float | None = None
        self._killed = False
        self._code = 0

    def run(self) -> int | Parent:
        """Until all have ended: the exit code. In a forked child: its way to the supervisor, and
        nothing is left of the supervisor there. Raises ProcessesDied."""
        self._signals.install()
        self._selector.register(self._signals, selectors.EVENT_READ, self._heed)
        while True:
            while (process := self._due()) is not None:
                parent = self._start(process)
                if parent is not None:
                    return parent
            if not self._crew.alive and self._stop_by is not None:
                return self._ended()
            for key, _ in self._selector.select(self._pause()):
                key.data()
            self._reap()
            self._kill_the_late()
            if self._port is not None:
                self._port.step(draining=self._stop_by is not None)

    # --- starting --------------------------------------------------------------------------

    def _due(self) -> Process | None:
        """One to be started now."""
        if self._stop_by is not None:
            return None
        now = time.monotonic()
        for process in self._crew.wanted(self._led):
            if process.pid is None and (process.start_at or 0.0) <= now:
                return process
        return None

    def _start(self, process: Process) -> Parent | None:
        """In a forked child: its way to the supervisor."""
        process.attempt()
        try:
            return self._bear(process)
        except OSError as error:  # too many processes, say, or too little memory
            process.end()
            again = self._start_later(process)
            self._log.warning(
                "process.failed", process=process.number, why=str(error), restart_in_ms=again
            )
            self._give_up_or_tell(1)
            return None

    def _bear(self, process: Process) -> Parent | None:
        ours, theirs = socket.socketpair()
        first = not self._led
        with self._signals.held() as mask:
            if birth.may_fork():
                pid = birth.fork()
                if pid == 0:
                    self._let_go(ours)
                    return Parent(process.number, process.name, theirs, first=first)
            else:
                pid = birth.spawn(process.number, process.name, theirs, mask, first=first)
        theirs.close()
        process.begin(pid, ours)
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._hear(process, ours))
        return None

    def _let_go(self, ours: socket.socket) -> None:
        """In a forked child: of everything that is the supervisor's. A socket to another process,
        kept open here, would keep that one from noticing the supervisor's end."""
        ours.close()
        for process in self._crew.processes:
            process.close()
        if self._port is not None:
            self._port.close()
        self._signals.forget()

    # --- listening -------------------------------------------------------------------------

    def _hear(self, process: Process, channel: socket.socket) -> None:
        was_up = process.up
        process.hear()
        if process.channel is None:
            self._selector.unregister(channel)
        if process.up and not was_up:
            self._is_up()

    def _is_up(self) -> None:
        if not self._led:
            self._led = True
            health = {} if self._port is None else {"health": self._port.address}
            self._log.info("supervisor.started", **self._facts, **health)
        if len(self._crew.up) == len(self._crew.processes):
            self._tell()

    def _heed(self) -> None:
        for number in self._signals.read():
            match number:
                case signal.SIGTERM:
                    self._stop()
                case signal.SIGINT:
                    self._interrupt()
                case signal.SIGQUIT:
                    self._show()

    def _interrupt(self) -> None:
        if self._interrupts is None:
            self._stop()
            return
        match self._interrupts.press(time.monotonic()):
            case "stop":
                _say(STOPPING)
                self._stop()
            case "abandon":
                _say(LEAVING)
                self._leave_within(LEAVING_WITHIN)
                for process in self._crew.alive:
                    process.say(ABANDON)
            case "leave":
                self._leave_within(0.0)

    def _show(self) -> None:
        """Each shows what it runs. One that is not up yet would die of it."""
        _say(f"{len(self._crew.up)} of {len(self._crew.processes)} processes up\n")
        for process in self._crew.alive:
            if process.was_up:
                process.signal(signal.SIGQUIT)

    # --- ends ------------------------------------------------------------------------------

    def _reap(self) -> None:
        """Also what is nobody's: as the first process of a container it inherits that."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for process in self._crew.alive:
                if process.pid == pid:
                    self._died(process, os.waitstatus_to_exitcode(status))

    def _died(self, process: Process, code: int) -> None:
        """code: its exit code, or a signal's number, negative."""
        if process.channel is not None:
            self._hear(process, process.channel)  # its last words
        if process.channel is not None:
            self._selector.unregister(process.channel)
        pid = process.pid
        process.end()
        if self._stop_by is not None:
            self._code = endings.whole(self._code, code)
            if not endings.is_expected(code) and not self._killed:
                self._warn(process, pid, code)
        elif not process.was_up and endings.is_final(code, led=self._led):
            self._code = code
            self._stop()
        else:
            self._warn(process, pid, code, restart_in_ms=self._start_later(process))
            self._give_up_or_tell(code)

    def _start_later(self, process: Process) -> int:
        """The milliseconds until then."""
        pause = process.backoff.after(process.lived)
        process.start_at = time.monotonic() + pause
        return round(pause * 1000)

    def _give_up_or_tell(self, code: int) -> None:
        if all(process.stillborn >= endings.GIVE_UP for process in self._crew.wanted(self._led)):
            self._gave_up = code
            self._stop()
        elif self._led:
            self._tell()

    def _warn(self, process: Process, pid: int | None, code: int, **more: int) -> None:
        how = endings.described(code)
        lived = round(process.lived * 1000)
        self._log.warning(
            "process.ended", process=process.number, pid=pid, **how, lived_ms=lived, **more
        )

    # --- stopping --------------------------------------------------------------------------

    def _stop(self) -> None:
        """Begins to drain; further calls do nothing."""
        if self._stop_by is not None:
            return
        self._stop_by = time.monotonic() + self._grace + LATE
        if self._led:
            self._log.info("supervisor.stopping", up=len(self._crew.up), grace=self._grace)
        for process in self._crew.alive:
            process.signal(signal.SIGTERM)

    def _leave_within(self, seconds: float) -> None:
        self._code = FORCED
        self._stop_by = time.monotonic() + seconds

    def _kill_the_late(self) -> None:
        """Those that are stopped, or stuck in C code."""
        if self._stop_by is not None and time.monotonic() >= self._stop_by and not self._killed:
            self._killed = True
            for process in self._crew.alive:
                process.signal(signal.SIGKILL)

    def _ended(self) -> int:
        self._signals.deafen()
        if self._port is not None:
            self._port.close()
        if self._gave_up is not None:
            raise endings.given_up(self._gave_up)
        if self._led:
            self._log.info("supervisor.stopped", restarted=self._crew.restarted, code=self._code)
        return self._code

    def _tell(self) -> None:
        """How many are up: when all are, and when one is not any more."""
        crew = self._crew
        self._log.info(
            "supervisor.processes",
            up=len(crew.up),
            processes=len(crew.processes),
            restarted=crew.restarted,
        )

    # --- waiting ---------------------------------------------------------------------------

    def _pause(self) -> float | None:
        """Seconds until something is to be done even if nothing happens."""
        now = time.monotonic()
        moments = [p.start_at for p in self._crew.processes if p.start_at is not None]
        if self._stop_by is not None:
            moments = [] if self._killed else [self._stop_by]
        pauses = [max(0.0, moment - now) for moment in moments]
        if self._port is not None and (pause := self._port.pause) is not None:
            pauses.append(pause)
        return min(pauses, default=None)


def _say(text: str) -> None:
    os.write(2, text.encode())
