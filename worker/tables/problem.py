"""One thing that is wrong with a table, or might go wrong, in words."""

from __future__ import annotations

from dataclasses import dataclass


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
        lines = [self.what]
        if self.why:
            lines.append(f"  why:  {self.why}")
        if self.hint:
            lines.append(f"  next: {self.hint}")
        return "\n".join(lines)
