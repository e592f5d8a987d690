"""What no scheduler can beat: slots that are never idle while something is due."""

from __future__ import annotations

import heapq
from collections.abc import Iterable


def ends(seconds: Iterable[float], slots: int) -> list[float]:
    """When each run would end, in the order given, if the next began the moment a slot is free."""
    free = [0.0] * slots
    found = []
    for one in seconds:
        end = heapq.heappop(free) + one
        heapq.heappush(free, end)
        found.append(end)
    return found


def ideal(seconds: Iterable[float], slots: int) -> float:
    """Seconds until all have ended, begun in the order given."""
    return max(ends(seconds, slots), default=0.0)


def in_batches(seconds: Iterable[float], size: int, pause: float) -> float:
    """Seconds if the next batch only begins when the last run of the one before has ended, and
    after a pause."""
    left = list(seconds)
    batches = [left[i : i + size] for i in range(0, len(left), size)]
    return sum(max(batch) for batch in batches) + pause * max(0, len(batches) - 1)
