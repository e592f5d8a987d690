"""A row that was there at too many crashes runs alone.

A crash is counted for every row that the dead worker held: nobody can tell which of them was the
cause. So the row whose next crash is its last is put on trial. It starts when this process holds
nothing that has not started or is not written, and beside runs only that have lasted a while; for
some seconds nothing starts beside it. If the process dies then, it was this row; and a row that
only happened to be there lives.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from worker.row import Row

SETTLED_IN = 1.0  # seconds after which a run is not expected to kill its process
ALONE = 5.0  # seconds that the row on trial runs without company


class Trial:
    """At most one row at a time. max_crashes: how many make a row dead."""

    def __init__(self, max_crashes: int) -> None:
        self._max_crashes = max_crashes
        self.row: Row | None = None  # the one that is on trial
        self._began: float | None = None

    def concerns(self, row: Row) -> bool:
        """Whether the next crash is this row's last, and not its first."""
        return row.crashes > 0 and row.crashes >= self._max_crashes - 1

    def admit(self, row: Row) -> bool:
        """Takes the row, unless another one is on trial."""
        if self.row is not None:
            return False
        self.row = row
        return True

    @property
    def waiting(self) -> Row | None:
        """The row that has not started yet."""
        return self.row if self._began is None else None

    @property
    def alone(self) -> bool:
        """Whether nothing else may start now."""
        return self.row is not None and self.over_in() > 0

    def begins_in(self, ran: Iterable[float]) -> float:
        """Seconds until it may start, beside runs that have taken so many seconds by now."""
        return max((SETTLED_IN - seconds for seconds in ran), default=0.0)

    def over_in(self) -> float:
        """Seconds until others may start again, at most."""
        return ALONE if self._began is None else self._began + ALONE - time.monotonic()

    def begin(self) -> Row:
        assert self.row is not None
        self._began = time.monotonic()
        return self.row

    def end(self, row: Row | None = None) -> bool:
        """That row has ended or is not ours any more; None: whichever it is. Whether there was
        such a trial."""
        if self.row is None or row not in (None, self.row):
            return False
        self.row = self._began = None
        return True
