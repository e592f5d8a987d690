"""How long to wait before a process that died is started again."""

from __future__ import annotations

import random

FIRST = 0.5  # seconds
MOST = 30.0
LASTING = 60.0  # seconds after which a process that dies had been well
JITTER = 0.25  # up to this share is left out, so that those that died together do not return so


class Backoff:
    """Of one process: half a second, doubled with each death in a row, up to 30 seconds."""

    def __init__(self) -> None:
        self._deaths = 0

    def after(self, lived: float) -> float:
        """The seconds to wait, now that it has died after it `lived` so many."""
        if lived >= LASTING:
            self._deaths = 0
        pause = min(MOST, FIRST * 2.0 ** min(self._deaths, 10))
        self._deaths += 1
        return pause * (1 - JITTER * random.random())
