"""How rows are put together for a handler that takes several at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from worker.errors import RegistrationError

SIZE_MOST = 1000
WAIT_MOST = 60.0  # seconds: rows that wait here are kept from idle workers


@dataclass(frozen=True, slots=True)
class Batching:
    """size: rows of one call at most.
    wait: seconds that rows may be held back for more to come, while more keep coming; where
        nothing else is due they never wait.
    by_tenant: all rows of a call are of one tenant.
    then: "again" tries the rows of a call that failed together again as they come; "singly" gives
        a row that has failed before a call of its own, so that a bad one is found out.
    """

    size: int = 50
    wait: float = 0.0
    by_tenant: bool = False
    then: Literal["again", "singly"] = "again"

    def __post_init__(self) -> None:
        if not 1 <= self.size <= SIZE_MOST or self.size != int(self.size):
            raise RegistrationError(f"a batch of size={self.size!r} is not 1 to {SIZE_MOST:,} rows")
        if not 0 <= self.wait <= WAIT_MOST:
            raise RegistrationError(
                f"a batch cannot wait={self.wait!r}",
                why=f"it is 0 to {WAIT_MOST:g} seconds that its first row may wait for others",
            )
        if self.then not in ("again", "singly"):
            raise RegistrationError(
                f"then={self.then!r} says nothing of a batch that failed",
                hint='then="again", or then="singly"',
            )
