"""All the processes together: how many are up, and what they say of themselves."""

from __future__ import annotations

from typing import Any

from worker.supervise.process import Process

SUMMED = ("slots", "running", "settled")


class Crew:
    """count: how many. name: of the worker; each process has a number behind it."""

    def __init__(self, count: int, name: str) -> None:
        self.processes = [Process(number, name) for number in range(1, count + 1)]

    def wanted(self, led: bool) -> list[Process]:
        """Those that there should be: the first alone, until that has led the way."""
        return self.processes if led else self.processes[:1]

    @property
    def restarted(self) -> int:
        """How often another was started in the place of one that had ended."""
        return sum(max(0, process.births - 1) for process in self.processes)

    @property
    def up(self) -> list[Process]:
        return [process for process in self.processes if process.up]

    @property
    def alive(self) -> list[Process]:
        return [process for process in self.processes if process.pid is not None]

    def ask(self) -> None:
        for process in self._asked:
            process.ask()

    def answered(self, since: float) -> bool:
        """Whether every process that takes rows, or drains, has said how it is since then."""
        return all(process.answered_at >= since for process in self._asked)

    @property
    def _asked(self) -> list[Process]:
        """Those that can answer: not one that is about to import the app."""
        return [process for process in self.alive if process.was_up]

    def status(self, since: float, *, draining: bool) -> dict[str, Any]:
        """What to tell over HTTP. ready: every process takes rows, and has said so since then."""
        workers = [_told(process, since) for process in self.processes]
        return {
            "ready": not draining and all(worker["ready"] for worker in workers),
            "draining": draining,
            "processes": len(workers),
            "up": len(self.up),
            "restarted": self.restarted,
            **{name: sum(worker.get(name, 0) for worker in workers) for name in SUMMED},
            "workers": workers,
        }


def _told(process: Process, since: float) -> dict[str, Any]:
    """Of one that is not there, or does not answer, no more than that."""
    who = {"process": process.number, "pid": process.pid}
    if process.pid is not None and process.answered_at >= since:
        return who | process.status
    return who | {"ready": False, "answers": False}
