"""When a row of an adopted table is due again after success."""

from __future__ import annotations

import datetime as dt
import math
import random
from dataclasses import dataclass
from typing import Literal

from worker.errors import RegistrationError
from worker.outcome import Done


@dataclass(frozen=True, slots=True)
class Recurrence:
    """every: seconds from one due time to the next, or None: never again.

    from_: "due" counts from the due time, so that it never drifts, and leaves out what was missed;
        "now" counts from the end of the run.
    catch_up: with "due", runs what was missed too, one after another.
    jitter: seconds; each run is held back by a random part of it. The due time itself is not moved,
        so that the parts do not add up.
    """

    every: float | None = None
    from_: Literal["due", "now"] = "due"
    catch_up: bool = False
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if self.every is not None and self.every <= 0:
            raise RegistrationError(f"every={self.every} is not above 0 seconds")
        if self.jitter < 0 or (self.every is not None and self.jitter > self.every):
            raise RegistrationError(
                f"jitter={self.jitter} is not between 0 and every={self.every}",
                why="a longer one would hold a run back beyond the next due time",
            )

    def after(self, occurrence: dt.datetime, now: dt.datetime, result: str | None) -> Done:
        """The answer for a run that succeeded at `now` and was due at `occurrence`."""
        if self.every is None:
            return Done(result)
        put_off = random.uniform(0, self.jitter)
        if self.from_ == "now":
            return Done(result, next_in=self.every, put_off=put_off)
        steps = 1
        if not self.catch_up:
            missed = (now - occurrence).total_seconds() / self.every
            steps = max(1, math.floor(missed) + 1)
        next_at = occurrence + dt.timedelta(seconds=steps * self.every)
        return Done(result, next_at=next_at, put_off=put_off)
