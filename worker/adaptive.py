"""How many rows run at once, and how many a claim takes, where that follows what happens.

Nothing is counted for it. A claim that brings as many rows as were asked for tells that more is
due than fits; one that brings fewer, that this was all. Runs tell by how they end whether the
outside world bears it. Pure: it is told the time.
"""

from __future__ import annotations

import math
from typing import Literal

from worker.varying import Number, Span, Steps

Why = Literal["backlog", "idle", "throttled", "timeout", "pool"]
Trouble = Literal["throttled", "timeout", "pool"]

STEPS = 10  # from the least to the most, undisturbed
ROUND_MOST = 2.0  # seconds after which a number has proved itself though no run has ended yet
IDLE_EVERY = 1.0  # seconds between two steps down while little is due


class Adaptive:
    """Slots between `least` and `most`: additive increase, multiplicative decrease.

    They rise by a step (a tenth of the way) when a claim was full and every slot is taken, once a
    run that began with the present number has ended well: so once in the time that a run takes.
    They are halved when a run ends in trouble; those that began before the last halving speak of
    the number that was halved already. While claims come back short they go down by a step a
    second, not below what runs.
    """

    def __init__(self, least: int, most: int) -> None:
        self.slots = least
        self._least = least
        self._most = most
        self._step = max(1, (most - least) // STEPS)
        self._changed_at = -math.inf
        self._halved_at = -math.inf
        self._borne = True

    def claimed(self, asked: int, count: int, running: int, now: float) -> Why | None:
        """A claim came back, and what it brought was begun. Why the slots have changed, if so."""
        if count >= asked:
            proved = self._borne or now - self._changed_at >= ROUND_MOST
            if running >= self.slots and proved:
                return self._change(min(self._most, self.slots + self._step), now, "backlog")
        elif now - self._changed_at >= IDLE_EVERY:
            lower = max(self._least, running, self.slots - self._step)
            return self._change(min(self.slots, lower), now, "idle")
        return None

    def ended(self, began: float, trouble: Trouble | None, now: float) -> Why | None:
        """A run ended that began then."""
        if trouble is None:
            self._borne = self._borne or began >= self._changed_at
            return None
        if began < self._halved_at:
            return None
        self._halved_at = now
        return self._change(max(self._least, self.slots // 2), now, trouble)

    def _change(self, slots: int, now: float, why: Why) -> Why | None:
        if slots == self.slots:
            return None
        self.slots = slots
        self._changed_at = now
        self._borne = False
        return why


class Pace:
    """What the settings `concurrency` and `claim_batch` say, moment by moment."""

    def __init__(self, concurrency: Number, batch: int | Steps) -> None:
        self._concurrency = concurrency
        self._batch = batch
        self._due = 0  # rows since a claim last came back short: so many were due at least
        self._adaptive: Adaptive | None = None
        if isinstance(concurrency, Span):
            self._adaptive = Adaptive(concurrency.least, concurrency.most)

    @property
    def adaptive(self) -> bool:
        """Whether it is to be told how runs end."""
        return self._adaptive is not None

    @property
    def slots(self) -> int:
        if self._adaptive is not None:
            return self._adaptive.slots
        assert not isinstance(self._concurrency, Span)
        return _at(self._concurrency, self._due)

    @property
    def batch(self) -> int:
        return _at(self._batch, self._due)

    def claimed(self, asked: int, count: int, running: int, now: float) -> Why | None:
        """Why the slots have changed, if they have."""
        if self._adaptive is not None:
            why = self._adaptive.claimed(asked, count, running, now)
            self._see(asked, count)
            return why
        before = self.slots
        self._see(asked, count)
        if self.slots == before:
            return None
        return "backlog" if self.slots > before else "idle"

    def ended(self, began: float, trouble: Trouble | None, now: float) -> Why | None:
        """A run has ended: why the slots have changed, if they have. began, now: seconds of the
        monotonic clock."""
        return None if self._adaptive is None else self._adaptive.ended(began, trouble, now)

    def _see(self, asked: int, count: int) -> None:
        self._due = self._due + count if count >= asked else count


def _at(number: int | Steps, due: int) -> int:
    return number.at(due) if isinstance(number, Steps) else number
