"""What a source of rows is: a table that can be claimed from, and how it is spoken to.

The built-in table is one (`sources/jobs.py`); a table that a user already has is another. Claim,
settle, sweep and release treat them alike.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from worker.fair import Fair, Listing
from worker.link import Fetches, Link
from worker.row import Row
from worker.transition import Transition

BEGINNING = (dt.datetime(1, 1, 1, tzinfo=dt.UTC), 0)

Statement = tuple[str, list[Any]]  # SQL with $1, $2, ... and its parameters


@dataclass(slots=True, eq=False)
class Stream:
    """The rows of one queue, kind and priority, which are taken in the order of (due_at, id).

    floor: (due_at, id) of the last row taken from it.
    front: the floor that was due last, of all so far.
    next_due: when its next row falls due, as far as is known, on time.monotonic()'s clock.
    quiet: how many looks in a row have taken nothing from it, nor any claim between them.
    fair: how its tenants take turns, if they do.
    """

    queue: str
    kind: str
    priority: int
    floor: tuple[dt.datetime, int] = BEGINNING
    next_due: float | None = None
    fair: Fair | None = None
    quiet: int = 0
    front: tuple[dt.datetime, int] = BEGINNING


@dataclass(slots=True, eq=False)
class Settlement:
    """One claim's result on its way into the table. seconds: the handler's run time."""

    row: Row
    transition: Transition
    seconds: float

    @property
    def run_ms(self) -> int | None:
        return round(self.seconds * 1000) if self.transition.recorded else None


class Source(Protocol):
    """A table of rows that fall due. Every write matches (owner, token).

    Methods that give statements leave it to the caller which connection carries them: a link, or
    the handler's own session.
    """

    @property
    def name(self) -> str: ...

    @property
    def orphans_every(self) -> float:
        """Seconds between two searches for rows whose owner is no live worker."""

    @property
    def has_tenants(self) -> bool:
        """Whether its rows can be asked for by tenant."""

    @property
    def claims_one_each(self) -> bool:
        """Whether tenants can be listed and served by one statement."""

    async def claim(
        self,
        link: Fetches,
        streams: Sequence[Stream],
        floors: bool,
        limit: int,
        worker: int,
        *,
        gated: bool = False,
    ) -> list[Row]:
        """At most `limit` due rows, from the streams in their order; above the floors, or from
        the beginning. They come in the order in which they are to run. Nothing of a stream that a
        gate governs, unless the caller holds its gates (gated); of one that a tenants' gate
        governs only rows without a tenant."""

    async def streams(self, link: Link, known: Sequence[Stream] = ()) -> list[Stream]:
        """The streams that have live rows, and those that are known, highest priority first. Does
        not go into those that are known."""

    async def tenants(self, link: Link, stream: Stream, after: str | None) -> Listing:
        """The next tenants of a fair stream that have a due row, in their order; behind the last
        comes the first. after: where the last listing ended; None to begin anywhere. Visits a
        bounded number of tenants."""

    async def claim_tenants(
        self,
        link: Fetches,
        stream: Stream,
        tenants: Sequence[str],
        most: Sequence[int],
        limit: int,
        worker: int,
        *,
        gated: bool = False,
    ) -> list[Row]:
        """At most `limit` due rows of a fair stream, at most so many of each of these tenants,
        who are served in this order."""

    async def claim_one_each(
        self, link: Link, stream: Stream, after: str, limit: int, worker: int
    ) -> tuple[list[Row], str | None]:
        """At most `limit` due rows of a fair stream, one of each of the next tenants. after: who
        was served last; given anew beside the rows, None without any. Visits a bounded number of
        tenants."""

    def key(self, record: Any) -> Any:
        """The row's key in a record that settle or confirm gave."""

    def disown(self, worker: int, held: Collection[Row]) -> Statement:
        """Gives back rows claimed under `worker` that are not among those it holds."""

    def settle(
        self, worker: int, batch: Sequence[Settlement], *, wait: bool = False
    ) -> list[Statement]:
        """Writes transitions; each statement gives the keys of the rows whose claim was ours.
        Waits for rows that somebody else has locked only if told so."""

    def busy(self, record: Any) -> bool:
        """Whether a record that settle gave tells of a row that is still ours but could not be
        written just now. It is to be sent again."""

    def confirm(self, worker: int, batch: Sequence[Settlement]) -> Statement:
        """Gives key and outcome of those that were settled under that very claim before."""

    def sweep(self, absent: Sequence[int], max_crashes: int) -> Statement:
        """Returns or ends the rows of absent workers: (key, kind, queue, outcome, crashes)."""

    def cut(self, absent: Sequence[int]) -> Statement:
        """Ends the sessions in which handlers of absent workers keep rows locked."""

    def orphans(self) -> Statement:
        """Gives the owners of claimed rows who are no live workers."""

    def abandon(self, worker: int) -> Statement:
        """Gives back every row that `worker` holds, but for those that somebody has locked; gives
        the numbers of both."""

    def left(self, most: int) -> Statement:
        """Gives how many rows are due and in nobody's hands; counts up to `most`."""

    def redrive(self, kind: str, after: float, times: int, limit: int) -> Statement:
        """Runs dead rows of a kind again, `after` seconds after they died, each `times` times at
        most, and at most `limit` of them now; gives their number."""
