"""Fair claims: tenants take turns, so that one with a long backlog cannot starve the others.

A claim serves tenants in the order of their names, at most so many rows of each, and the next claim
goes on behind the last that was served. Pure: what is listed and claimed is told by who asks.
"""

from __future__ import annotations

import itertools
import random
import string
import time
from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
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
SLOW = 0.2  # seconds: serving tenants in turn is slow if it takes longer than that,
SLOWER = 5  # and so many times as long as a claim in the order of due times;
SLOW_TIMES = 5  # if it is slow so many times on end,
SLOW_SHARE = 10  # it may take one part in this many of the time

Kind = Literal["text", "integer", "uuid"]


@dataclass(frozen=True, slots=True)
class Fair:
    """Rows are claimed tenant by tenant, in turn.

    per_tenant: rows of one tenant in one claim, at most, while there are others to serve.
    weights: of tenants that get so many times as many, by their names as text; others have 1.
    Raises RegistrationError for what makes no sense.
    """

    per_tenant: int = 10
    weights: Mapping[str, int] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        given: object = self.per_tenant
        if isinstance(given, bool) or not isinstance(given, int):
            raise RegistrationError(
                f"per_tenant is a {type(given).__name__}", hint="give a number of rows: 10"
            )
        if not 1 <= given <= PER_TENANT_MOST:
            raise RegistrationError(f"per_tenant={given} is not 1 to {PER_TENANT_MOST} rows")
        weights: list[tuple[object, object]] = list(self.weights.items())
        for tenant, weight in weights:
            if not isinstance(tenant, str) or type(weight) is not int or weight < 1:
                raise RegistrationError(
                    f"the weight of tenant {tenant!r} is {weight!r}",
                    why="a weight is a whole number above 0, of a tenant's name as text",
                    hint="Fair(per_tenant=10, weights={'org 3': 4})",
                )


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
        self._weights = fair.weights
        self._waiting: deque[str] = deque()
        self._rest = 0  # rows that the first of them may still have of this turn; 0: all
        self._sharers = 0  # weights of all who have due rows, if that is known
        self._most_rows = 0  # that one claim has asked for
        self._slow = 0  # times on end
        self._plain = 0.0  # rows owed to the order of due times
        self._rests_until = 0.0
        self._last: str | None = None  # who was served last
        self._many = False  # tenants have due rows, more than one claim reaches, it seems
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
        self._most_rows = max(self._most_rows, rows)
        return sum(map(self._turn, self._waiting)) < rows

    def listed(self, found: Listing) -> None:
        """Those who wait stand in the order of the names. A listing that has come around to them
        ends there, and the next one begins there: or they would be passed over each second time."""
        waiting = set(self._waiting)
        new = list(itertools.takewhile(lambda tenant: tenant not in waiting, found.tenants))
        self._waiting.extend(new)
        self._many = len(found.tenants) >= LIST
        self._sharers = sum(map(self._weight, found.tenants)) if found.whole else 0
        around = len(new) < len(found.tenants)
        last = next(reversed(new), None) if around else found.last
        self.after = self.after if last is None else last
        if not self._waiting and found.whole:
            self._rests_until = time.monotonic() + NONE_FOR

    def pass_over(self, tenants: Collection[str]) -> None:
        """Nothing of theirs can be taken now."""
        if self._waiting and self._waiting[0] in tenants:
            self._rest = 0
        if tenants:
            self._waiting = deque(t for t in self._waiting if t not in tenants)

    def next(self, rows: int) -> tuple[list[str], list[int]]:
        """Whom to serve, and how many rows of each at most. Twice as many tenants as should do,
        for some may have less."""
        asked: list[str] = []
        most: list[int] = []
        promised = 0
        for tenant in self._waiting:
            if promised >= 2 * rows:
                break
            asked.append(tenant)
            most.append(self._turn(tenant) if asked[1:] or not self._rest else self._rest)
            promised += most[-1]
        return asked, most

    def served(
        self, asked: Sequence[str], most: Sequence[int], given: Sequence[str | None], *, full: bool
    ) -> None:
        """given: whose each row is that came. full: they are as many as were asked for, so that who
        stands behind the last of them has not been looked at, and that one may have been cut
        short: its turn goes on, or the last of each claim would get less than the others."""
        done, self._rest = len(asked), 0
        if full:  # one type may tell a tenant in two ways, so they are counted too
            had = Counter(given)
            last = max((i for i, tenant in enumerate(asked) if tenant in had), default=-1)
            least = sum(total < len(given) for total in itertools.accumulate(most))
            done = min(done, max(last, least) + 1)
            if asked[done - 1] in had:
                self._rest = max(0, most[done - 1] - had[asked[done - 1]])
        for _ in range(done - (self._rest > 0)):
            self._last = self._waiting.popleft()

    @property
    def one_each_after(self) -> str | None:
        """Behind whom the next claim takes a row of each tenant, where nobody is to have more. None
        if they have to be listed."""
        alike = self.per_tenant == 1 and not self._weights
        return self._last if alike and self._many else None

    def one_each(self, last: str | None, *, full: bool) -> None:
        """last: who was served last, if anybody was. full: all rows came that were asked for; else
        those who are left are to be listed."""
        self._waiting.clear()  # they stand behind the last one, and are found again
        self._last = self.after = self._last if last is None else last
        self._many = full

    def _turn(self, tenant: str) -> int:
        """Rows that it may have before it is another's turn. Few tenants share a whole claim."""
        share = self.per_tenant
        if self._sharers:
            share = max(share, -(-self._most_rows // self._sharers))
        return share * self._weight(tenant)

    def _weight(self, tenant: str) -> int:
        return self._weights.get(tenant, 1)

    def took(self, seconds: float, plain: float) -> None:
        """Dead rows that an old snapshot keeps stand in front of each tenant's; then the order of
        due times, which has a floor, goes on while this is rationed. plain: what a claim in that
        order takes."""
        self._slow = self._slow + 1 if seconds > max(SLOW, SLOWER * plain) else 0
        if self._slow >= SLOW_TIMES:
            self._rests_until = time.monotonic() + SLOW_SHARE * seconds


_ALPHABETS = (
    string.digits,
    string.digits + "abcdef",
    string.digits + "ABCDEF",
    string.digits + string.ascii_lowercase,
)


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
    # Of letters that the names do not use all would begin at the same name, the next one.
    used = {*first[len(prefix) :], *last[len(prefix) :]}
    letters = next((one for one in _ALPHABETS if used <= set(one)), _ALPHABETS[-1])
    return "".join([prefix, chr(random.randint(*map(ord, ends))), *random.choices(letters, k=2)])
