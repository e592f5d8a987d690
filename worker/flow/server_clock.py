"""The server's clock as this process sees it: what a start is reckoned from. Pure.

An answer tells when the server read its clock, and comes later than that: by next to nothing as a
rule, by a tenth of a second now and then on a busy machine. Starts reckoned from its arrival would
be late by that, each claim's by another time, and fall among those that others were given. So the
least that arrivals were behind is taken for what the two clocks differ by.
"""

from __future__ import annotations

from dataclasses import dataclass

DRIFT = 0.001  # seconds a second by which two clocks may part, with a margin for their being set


@dataclass(slots=True)
class ServerClock:
    """Times in seconds: `at` by the server's clock, the others by our monotonic one."""

    _ahead: float | None = None  # our clock less the server's, at most
    _known_at: float = 0.0

    def moment(self, at: float, asked: float, arrived: float) -> float:
        """When, by our clock, the server read `at`, in answer to what was asked and arrived then.
        Never outside of these two: if it seems so, a clock was set, or this is another server."""
        ahead = arrived - at
        if self._ahead is not None:
            drifted = DRIFT * (arrived - self._known_at)
            if asked <= at + self._ahead + drifted:
                ahead = min(ahead, self._ahead + drifted)
        self._ahead, self._known_at = ahead, arrived
        return min(arrived, at + ahead)
