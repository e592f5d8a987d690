"""One thing that is wrong with a table, or might go wrong, in words."""

from __future__ import annotations

from dataclasses import dataclass

from worker.errors import in_words


@dataclass(frozen=True, slots=True)
class Problem:
    """about: what was looked at (key, due, index, ...); the rest is as in DuerowError.

    fatal: rows cannot be claimed, or not rightly; otherwise it is advice.
    """

    about: str
    what: str
    why: str = ""
    hint: str = ""
    fatal: bool = True

    def __str__(self) -> str:
        return in_words(self.what, self.why, self.hint)
