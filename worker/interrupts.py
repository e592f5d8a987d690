"""What a Ctrl-C means, the first, the second and the third."""

from __future__ import annotations

from typing import Literal

FORCED = 130
"""The exit code of who was not given the time to drain."""

FORCE_AFTER = 1.0  # seconds between the two Ctrl-C that force: a nervous double press does not

STOPPING = "\nstopping; Ctrl-C again to give the rows back and leave at once\n"
LEAVING = "\nleaving\n"

Meaning = Literal["stop", "abandon", "leave"]


class Interrupts:
    """Counts the Ctrl-C of a terminal."""

    def __init__(self) -> None:
        self._first: float | None = None
        self._forced = False

    def press(self, now: float) -> Meaning | None:
        """stop: drain. abandon: give everything back and leave. leave: at once, with nothing given
        back. None: too soon after the first. now: by a clock that does not jump."""
        if self._first is None:
            self._first = now
            return "stop"
        if self._forced:
            return "leave"
        if now - self._first < FORCE_AFTER:
            return None
        self._forced = True
        return "abandon"
