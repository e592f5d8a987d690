"""The scenario's clock: its seconds may be shorter than real ones.

What a scenario says in minutes can then be seen in moments: the API's latencies, the intervals and
the timeouts are all shortened alike. What Duerow needs for itself is not: a claim still takes its
millisecond, so that a short clock makes it look slower than it is.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

VARIABLE = "EXAMPLE_SCALE"


@dataclass(frozen=True, slots=True)
class Clock:
    """scale: how long a second of the scenario takes, in real seconds."""

    scale: float = 1.0

    @classmethod
    def from_environment(cls) -> Clock:
        return cls(float(os.environ.get(VARIABLE, "1")))

    def real(self, seconds: float) -> float:
        """Real seconds, from the scenario's."""
        return seconds * self.scale

    def patience(self, seconds: float) -> float:
        """The same for a timeout: the machine's own time is not shortened, so that one of less
        than ten real seconds would end calls that nothing is wrong with."""
        return max(10.0, self.real(seconds))

    def told(self, seconds: float) -> float:
        """The scenario's seconds, from real ones."""
        return seconds / self.scale

    def __str__(self) -> str:
        if self.scale == 1:
            return "1 s is 1 s"
        return f"1 s -> {self.scale * 1000:g} ms"
