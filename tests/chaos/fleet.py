"""Starts real worker processes, and does to them what a bad day does. All by pid, only its own."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from tests.chaos import broken, ledger
from tests.chaos.history import events

T = TypeVar("T")

WORKER = Path(sys.executable).with_name("worker")
ORDERLY = (0, 9)  # exit codes of a worker that stopped by itself
ROOT = Path(__file__).parent.parent.parent


class Process:
    """One worker process. stop_sent_at: when it was sent its first signal to stop; killed_at: when
    it was killed; ended_at: when we knew that it was gone. Seconds of the wall clock."""

    def __init__(self, popen: subprocess.Popen[bytes], log: Path) -> None:
        self.popen = popen
        self.log = log
        self.stop_sent_at: float | None = None
        self.killed_at: float | None = None
        self.ended_at: float | None = None
        self._watch = threading.Thread(target=self._note_end, daemon=True)
        self._watch.start()

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    def wait(self, within: float) -> int:
        """Its exit code; negative for a signal."""
        code = self.popen.wait(timeout=within)
        self._watch.join()
        return code

    def _note_end(self) -> None:
        self.popen.wait()
        self.ended_at = time.time()


@dataclass
class Fleet:
    """Worker processes on one database.

    directory: where the ledger, the events and the logs are written. lease, grace: seconds.
    settings: other settings of the worker, e.g. {"max_crashes": 5}.
    """

    url: str
    directory: Path
    app: str
    slots: int = 8
    lease: float = 3.0
    grace: float = 10.0
    settings: dict[str, object] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    sql: Path | None = None  # to be read in the place of sql/
    processes: list[Process] = field(default_factory=list)
    killed: set[int] = field(default_factory=set)

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self.processes:
            if process.alive:
                self.kill(process)

    # -- starting ------------------------------------------------------------------------------

    def start(self, *arguments: str, **popen: object) -> Process:
        """A new `worker run`; `wait_ready` tells when it works."""
        log = self.directory / f"worker-{len(self.processes)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [WORKER, "run", *arguments],
                cwd=ROOT,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                **popen,  # type: ignore[call-overload]
            )
        self.processes.append(Process(process, log))
        return self.processes[-1]

    def start_many(self, count: int) -> list[Process]:
        """That many new processes, once they all work."""
        started = [self.start() for _ in range(count)]
        for process in started:
            self.wait_ready(process)
        return started

    def wait_ready(self, process: Process, within: float = 60.0) -> None:
        def ready() -> bool:
            assert process.alive, f"worker exited: {process.log.read_text()[-2000:]}"
            return bool(self.events("worker.started", process))

        self.until(ready, within)

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DUEROW_")}
        settings = {
            "database_url": self.url,
            "app": self.app,
            "concurrency": self.slots,
            "lease": self.lease,
            "grace": self.grace,
            **self.settings,
        }
        kept |= {f"DUEROW_{name.upper()}": str(value) for name, value in settings.items()}
        kept |= self.environment
        kept[ledger.DIRECTORY] = str(self.directory)
        if self.sql is not None:
            kept[broken.ENVIRONMENT] = str(self.sql)
        return kept

    # -- faults --------------------------------------------------------------------------------

    def kill(self, process: Process) -> None:
        """SIGKILL; returns when it is gone."""
        self.killed.add(process.pid)
        process.killed_at = time.time()
        process.popen.kill()
        self.wait_exit(process)

    def kill_one(self) -> Process:
        """SIGKILLs a random one of those that run."""
        victim = random.choice(self.running)
        self.kill(victim)
        return victim

    def freeze(self, process: Process) -> None:
        os.kill(process.pid, signal.SIGSTOP)

    def thaw(self, process: Process) -> None:
        os.kill(process.pid, signal.SIGCONT)

    def stop(self, process: Process, number: int = signal.SIGTERM) -> None:
        """Asks it to stop; one that has ended meanwhile needs it no more."""
        if process.stop_sent_at is None:
            process.stop_sent_at = time.time()
        process.popen.send_signal(number)

    def wait_exit(self, process: Process, within: float = 60.0) -> int:
        """Its exit code; negative for a signal."""
        return process.wait(within)

    def stop_all(self, within: float | None = None) -> list[int]:
        """SIGTERM to all that run, once they have started; their exit codes."""
        asked = self.running
        for process in asked:
            self.wait_ready(process)
        for process in asked:
            self.stop(process)
        return [self.wait_exit(process, within or self.grace + 20) for process in asked]

    # -- facts ---------------------------------------------------------------------------------

    @property
    def running(self) -> list[Process]:
        return [process for process in self.processes if process.alive]

    @property
    def crashed(self) -> set[int]:
        """Pids of those that were killed, by us or by a handler."""
        ended = {p.pid for p in self.processes if p.popen.poll() not in (None, *ORDERLY)}
        return self.killed | ended

    @property
    def deaths(self) -> dict[int, float]:
        """When each process that is no more had ended. We may be slow to hear of the end of one
        that we killed: it did nothing more from then on."""
        ended = [process for process in self.processes if not process.alive]
        for process in ended:
            process.wait(0)
        return {p.pid: p.killed_at or p.ended_at for p in ended if p.ended_at is not None}

    def events(self, name: str, process: Process | None = None) -> list[dict[str, str]]:
        return [
            event
            for event in events(self.directory)
            if event["event"] == name and (process is None or event["pid"] == process.pid)
        ]

    def until(self, fact: Callable[[], T], within: float = 60.0) -> T:
        """The first true value of a fact. AssertionError with the workers' last words when there
        is none."""
        deadline = time.monotonic() + within
        while not (value := fact()):
            assert time.monotonic() < deadline, f"not within {within} s\n{self.last_words()}"
            time.sleep(0.05)
        return value

    def last_words(self, lines: int = 15) -> str:
        def of(process: Process) -> Iterator[str]:
            with contextlib.suppress(FileNotFoundError):
                text = process.log.read_text(errors="replace").splitlines()[-lines:]
                yield from (f"  [{process.pid}] {line[:300]}" for line in text)

        return "\n".join(line for process in self.processes for line in of(process))
