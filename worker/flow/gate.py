"""A gate: limits, throttle, breaker and pause of one scope, as a row of worker.gates holds them.

Times are seconds from the moment of reading, by the database's clock: below zero is past.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worker.scope import Scope


@dataclass(slots=True)
class Gate:
    """One row of worker.gates.

    rate: rows a second; burst: how many of them at once after a rest; full_in: seconds until the
        bucket is full.
    concurrency: rows at once in the fleet; in_use: how many are; share: how many of them are ours.
    blocked_for: seconds that a throttle still lasts.
    trips: it has a breaker. open_for: seconds until a row may try, None while it is closed.
    probing: some worker tries.
    """

    id: int
    scope: Scope
    paused: bool = False
    blocked_for: float | None = None
    rate: float | None = None
    burst: int = 1
    full_in: float = 0.0
    concurrency: int | None = None
    in_use: int = 0
    share: int = 0
    trips: bool = False
    open_for: float | None = None
    probing: bool = False

    @property
    def throttled(self) -> bool:
        return self.blocked_for is not None and self.blocked_for > 0

    @property
    def closed_for(self) -> float | None:
        """Seconds for which certainly nothing passes; 0 if something may; None for no known end."""
        if self.paused:
            return None
        return max(0.0, self.blocked_for or 0.0, self.open_for or 0.0)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Gate:
        """From a record of sql/flow/gates.sql or lock.sql."""
        scope = Scope(record["queue"], record["kind"], record["tenant"])
        names = (
            "id", "paused", "blocked_for", "rate", "full_in", "concurrency", "in_use", "share",
            "trips", "open_for", "probing",
        )  # fmt: skip
        return cls(
            scope=scope, burst=record["burst"] or 1, **{name: record[name] for name in names}
        )
