"""Fair claims: tenants take turns, so that one with a long backlog cannot starve the others.

A claim serves tenants in the order of their names, at most so many rows of each, and the next claim
goes on behind the last that was served. Pure: what is listed and claimed is told by who asks.
"""

from __future__ import annotations

import itertools
import random
import string
import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from worker.errors import RegistrationError

PER_TENANT_MOST = 1000
LIST = 100  # tenants in one listing
VISIT = 200  # tenants that one listing may visit to find them
PLAIN_SHARE = 10  # one row in so many is taken in the order of due times, whoever's it is;
PLAIN_LEAST = (
    4  # but not less than one part in so many of a claim at a time: it is a statement more
)
NONE_FOR = 1.0  # seconds without turns where no tenant has a due row
SLOW = 0.05  # seconds: serving tenants in turn is slow if it takes longer than that,
SLOWER = 5  # and so many times as long as a claim in the order of due times;
SLOW_TIMES = 3  # if it is slow so many times on end,
SLOW_SHARE = 10  # it may take one part in this many of the time

Kind = Literal["text", "integer", "uuid"]


@dataclass(frozen=True, slots=True)
class Fair:
    """Rows are claimed tenant by tenant, in turn.

    per_tenant: rows of one tenant in one claim, at most, while there are others to serve.
    Raises RegistrationError for what makes no sense.
    """

    per_tenant: int = 10

    def __post_init__(self) -> None:
        given: object = self.per_tenant
        if isinstance(given, bool) or not isinstance(given, int):
            raise RegistrationError(
                f"per_tenant is a {type(given).__name__}", hint="give a number of rows: 10"
            )
        if not 1 <= given <= PER_TENANT_MOST:
            raise RegistrationError(f"per_tenant={given} is not 1 to {PER_TENANT_MOST} rows")


@dataclass(frozen=True, slots=True)
class Listing:
    """tenants: that have a due row, in order. last: where the next listing goes on; None for
    where this one began. whole: no other tenant has a due row."""

    tenants: Sequence[str]
    last: str | None
    whole: bool


def listing(found: Sequence[tuple[str, int, bool]]) -> Listing:
    """From what sql/claim/tenants.sql gives for LIST and VISIT: (tenant, place, due)."""
    last = found[-1][0] if found else None
    whole = len(found) < LIST and not (found and found[-1][1] == VISIT)
    return Listing([tenant for tenant, _, due in found if due], last, whole)


class Turns:
    """Whose turn it is, in one stream of one worker."""

    def __init__(self, fair: Fair) -> None:
        self.per_tenant = fair.per_tenant
        self._waiting: deque[str] = deque()
        self._whole = False  # those who wait are all that have due rows
        self._slow = 0  # times on end
        self._plain = 0.0  # rows owed to the order of due times
        self._rests_until = 0.0
        self.after: str | None = None  # where the next listing goes on

    @property
    def waiting(self) -> list[str]:
        """Those whose turn comes next."""
        return list(self._waiting)

    @property
    def resting(self) -> bool:
        """Whether rows go by due times alone for a while."""
        return time.monotonic() < self._rests_until

    def share(self, limit: int) -> int:
        """How many of a claim's rows go to tenants in turn."""
        self._plain += limit / PLAIN_SHARE
        if self._plain < max(1.0, limit / PLAIN_LEAST):
            return limit
        plain = min(limit, int(self._plain))
        self._plain -= plain
        return limit - plain

    def lacks(self, rows: int) -> bool:
        """Whether those who wait may be too few for a claim of so many rows."""
        return len(self._waiting) * self.per_tenant < rows

    def listed(self, found: Listing) -> None:
        waiting = set(self._waiting)
        self._waiting.extend(tenant for tenant in found.tenants if tenant not in waiting)
        self._whole = found.whole
        self.after = self.after if found.last is None else found.last
        if not self._waiting and found.whole:
            self._rests_until = time.monotonic() + NONE_FOR

    def pass_over(self, tenants: Collection[str]) -> None:
        """Nothing of theirs can be taken now."""
        if tenants:
            self._waiting = deque(t for t in self._waiting if t not in tenants)

    def next(self, rows: int) -> tuple[list[str], int]:
        """Whom to serve, and how many rows of each at most. Twice as many tenants as should do,
        for some may have less. Where those who wait are all, and few, they share what there is."""
        if not self._waiting:
            return [], 0
        most = self.per_tenant
        if self._whole:
            most = max(most, -(-rows // len(self._waiting)))
        enough = 2 * -(-rows // most)
        return [self._waiting[i] for i in range(min(enough, len(self._waiting)))], most

    def served(
        self, asked: Sequence[str], most: int, given: Sequence[str | None], *, full: bool
    ) -> None:
        """given: whose each row is that came. full: they are as many as were asked for, so that who
        stands behind the last of them has not been looked at."""
        done = len(asked)
        if full:  # one type may tell a tenant in two ways, so they are counted too
            those = set(given)
            last = max((i for i, tenant in enumerate(asked) if tenant in those), default=-1)
            done = min(done, max(last + 1, -(-len(given) // most)))
        for _ in range(done):
            self._waiting.popleft()
        self._whole = False

    def took(self, seconds: float, plain: float) -> None:
        """Dead rows that an old snapshot keeps stand in front of each tenant's; then the order of
        due times, which has a floor, goes on while this is rationed. plain: what a claim in that
        order takes."""
        self._slow = self._slow + 1 if seconds > max(SLOW, SLOWER * plain) else 0
        if self._slow >= SLOW_TIMES:
            self._rests_until = time.monotonic() + SLOW_SHARE * seconds


_ALPHANUMERIC = string.digits + string.ascii_lowercase


def between(first: str, last: str, kind: Kind) -> str:
    """A value somewhere between the two, at random, for comparing only."""
    if kind == "integer":
        return str(random.randint(*sorted((int(first), int(last)))))
    if kind == "uuid":
        return str(UUID(int=random.randint(*sorted((UUID(first).int, UUID(last).int)))))
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    prefix = "".join(letter for letter, _ in same)
    ends = sorted((first[len(prefix) :][:1] or " ", last[len(prefix) :][:1] or " "))
    if ends[1] > "~":  # the database's encoding need not have what lies between
        return prefix + random.choice(ends)
    return prefix + chr(random.randint(ord(ends[0]), ord(ends[1]))) + random.choice(_ALPHANUMERIC)
