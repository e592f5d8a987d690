"""What the worker's log tells besides its own lines: how much a claim took, and the totals."""

from __future__ import annotations

import threading
from collections import Counter

import structlog

from worker.events import Event, RowsClaimed, RowSettled, WorkerStopped


class Totals:
    """An observer: any callable that takes an event."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._videos = 0
        self._outcomes: Counter[str] = Counter()

    def add(self, videos: int) -> None:
        """From the handlers' threads."""
        with self._lock:
            self._videos += videos

    def __call__(self, event: Event) -> None:
        match event:
            case RowsClaimed(count=count) if count:
                structlog.get_logger().info(f"claimed {count} account{'s' * (count > 1)}")
            case RowSettled(transition=transition):
                self._outcomes[transition.verb] += 1
            case WorkerStopped():
                structlog.get_logger().info(str(self))

    def __str__(self) -> str:
        told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(self._outcomes.items()))
        return f"total: {told or 'nothing'}; {self._videos} videos updated"
