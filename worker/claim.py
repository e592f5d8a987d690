"""Takes due rows: which streams, above which floor, and when to look from the beginning.

Deleted rows leave dead index entries at the front of the index. While any old snapshot is open
nobody may remove them, and a claim from the beginning walks over them all. So a claim starts at
the floor, the last row taken from its stream. Rows can still turn up behind the floor: back-dated,
released, swept, or committed late. The *look* finds them: it lists the streams anew and claims
from the beginning. It costs what lies in front, so it is rationed: after a look that took d
seconds the next comes no sooner than 10 d later, and no later than a second if that allows.

A look that takes long is *dear*, and the ration is one for all workers together: whose last look
was dear asks for the fleet's turn, and claims from the floors as long as it is not given. A look
that fails, say because it takes longer than a statement may, is put off too, each time for longer;
a worker without floors that help then begins with what fell due two minutes ago.

Streams whose tenants take turns are claimed in two parts: tenant by tenant, and, a tenth of the
rows and whatever the first part leaves of the room, in the order of due times as any other stream.
While all that is due is taken at once there is nothing to share out, and only the second part runs.

Streams that a gate governs (worker.flow) are claimed one by one, inside a transaction that holds
their gates.
"""

from __future__ import annotations

import datetime as dt
import itertools
import time
from collections.abc import Sequence

import asyncpg

from worker.events import Events, RowsClaimed
from worker.fair import LIST, Fair, Turns
from worker.flow.gatekeeper import TENANTS_MOST, Gatekeeper, Passage
from worker.link import Blocked, Link
from worker.row import Row
from worker.source import BEGINNING, Source, Stream
from worker.statements import statement

LOOK_EVERY = 1.0
UNFAIR = Fair(100)  # where tenants take turns only because each has limits of its own
MORE_TENANTS = (1, 4, 16)  # times as many as should do, as long as none of them brings a row
LOOK_SHARE = 10  # a look may take one part in this many of a worker's time
LOOK_PAUSE_MOST = 5.0
LOOK_RARELY = 60.0  # the longest pause between two dear looks of a fleet, or two that fail
DEAR = 0.05  # seconds: a look that takes longer, or a listing
KNOWN_FOR = 5  # looks that take nothing from a stream, until it has to be found anew
KNOWN_MOST = 50  # streams that a listing passes by
NO_FLOOR = dt.timedelta(minutes=2)  # how far back a worker begins that has none: more than a pause


class Claimer:
    """Claims from one source for one worker."""

    def __init__(
        self, source: Source, link: Link, events: Events, gates: Gatekeeper | None = None
    ) -> None:
        self._source = source
        self._link = link
        self._events = events
        self._gates = gates or Gatekeeper([], link, events)  # none that it knows of
        self._streams: list[Stream] = []
        self._turn = 0
        self._turns: dict[tuple[str, str, int], Turns] = {}
        self._crowded = True  # more may be due than one claim takes
        self._plain_took = 0.0  # seconds, the last time
        self._look_from = 0.0  # no look before this moment
        self._look_by = 0.0  # a look is owed from this moment on
        self._look_took = self._listing_took = 0.0  # seconds, the last time
        self._look_failures = 0
        self._late = 0  # claims from the floors in a row that took longer than they may
        self.hurries = False  # somebody waits for a look that finds nothing
        self.unsure = False  # a claim's answer never came: some row may be ours unknown to us
        self.looked = False  # the last step went over everything that was due
        self.owes_look = False  # the next step is to look: the last one had rows that could start
        self.failures = 0
        self.rests_until = 0.0

    @property
    def name(self) -> str:
        return self._source.name

    async def step(self, limit: int, worker: int) -> list[Row]:
        """At most `limit` rows. Fewer mean that nothing more is due, as far as is known."""
        started = time.monotonic()
        rows: list[Row] = []
        look = self.owes_look or started >= max(self._look_by, self._look_from)
        self.looked = self.owes_look = False
        try:
            look = look and await self._has_turn(worker)
            if not look:
                await self._take_above(rows, limit, worker)
                owes = len(rows) < limit and time.monotonic() >= self._look_from
                self.owes_look = owes and bool(rows)
                look = owes and not rows and await self._has_turn(worker)
            if look:
                await self._look(rows, limit, worker)
                self.looked = True
        except Exception:
            if not rows:
                raise
            # what was taken must not be forgotten; a trouble that lasts is met again
        self._events.emit(
            RowsClaimed(self._source.name, limit, len(rows), time.monotonic() - started)
        )
        return rows

    async def reconcile(self, worker: int, held: dict[str, list[Row]]) -> None:
        """After a claim whose answer never came: gives back what we hold without knowing.
        held: the rows that we know of, by source."""
        if self.unsure:
            sql, params = self._source.disown(worker, held.get(self._source.name, []))
            await self._link.fetch(sql, *params)
            self.unsure = False

    def next_due_in(self) -> float | None:
        """Seconds until the next row falls due, as far as the last look could tell."""
        now = time.monotonic()
        return min(
            (s.next_due - now for s in self._streams if s.next_due and s.next_due > now),
            default=None,
        )

    def next_look_in(self) -> float:
        """Seconds until the ration allows a look."""
        return max(0.0, self._look_from - time.monotonic(), self.rests_until - time.monotonic())

    async def _has_turn(self, worker: int) -> bool:
        """Whether to look now. While looks are dear one worker at a time does; the others see at
        least which streams there are."""
        if self._look_took < DEAR:
            return True
        ration = min(LOOK_RARELY, (1 + LOOK_SHARE) * self._look_took)  # it counts from its begin
        if self.hurries:  # before those whom nobody waits for
            ration /= 2
        [(wait,)] = await self._link.fetch(
            statement("chores/turn"), f"look {self._source.name}", ration, worker
        )
        if wait > 0:
            self._look_from = self._look_by = time.monotonic() + min(LOOK_PAUSE_MOST, wait)
            if self._listing_took < DEAR or not self._streams:
                await self._list()
        return not wait

    async def _look(self, rows: list[Row], limit: int, worker: int) -> None:
        started = time.monotonic()
        try:
            await self._list()
            for stream in self._streams:
                stream.quiet += 1
            await self._take(rows, self._streams, limit, worker, floors=False)
        except Blocked:
            raise  # the source rests
        except Exception as error:
            self._put_look_off(time.monotonic() - started)
            if _took_too_long(error):
                self.unsure = False  # the server says that it did not carry it out
            raise
        if len(rows) < limit:  # that was all: nothing else lies behind the floors
            self._to_the_front()
        ended = time.monotonic()
        self._look_failures = 0
        self._look_took = ended - started
        self._look_from = ended + min(LOOK_PAUSE_MOST, LOOK_SHARE * self._look_took)
        self._look_by = max(self._look_from, ended + LOOK_EVERY)

    async def _list(self) -> None:
        """The streams anew; those that are known keep their floors."""
        started = time.monotonic()
        known = [s for s in self._streams if s.quiet < KNOWN_FOR or self._look_failures]
        before = {(s.queue, s.kind, s.priority): s for s in self._streams}
        try:
            self._streams = await self._source.streams(self._link, known[:KNOWN_MOST])
        finally:
            self._listing_took = time.monotonic() - started
        for stream in self._streams:
            if was := before.get((stream.queue, stream.kind, stream.priority)):
                stream.floor, stream.front, stream.quiet = was.floor, was.front, was.quiet
        if self._look_failures:
            self._begin_late(self._without_floor())

    def _put_look_off(self, took: float) -> None:
        """It failed: claims from the floors go on meanwhile. Who knows no streams has nothing to
        go on with, and tries again soon."""
        self._look_failures += 1
        self._look_took = took
        times = 2 ** min(self._look_failures, 10) if self._streams else 2
        pause = min(LOOK_RARELY, times * max(LOOK_EVERY, took))
        self._look_from = self._look_by = time.monotonic() + pause
        self._begin_late(self._without_floor())

    def _without_floor(self) -> list[Stream]:
        return [stream for stream in self._streams if stream.front == BEGINNING]

    def _begin_late(self, streams: list[Stream]) -> None:
        """Whose floors are of no use: what has just fallen due is taken, older rows wait for a
        look that succeeds, or for another worker."""
        start = dt.datetime.now(dt.UTC) - NO_FLOOR
        for stream in streams:
            if stream.front[0] < start:
                stream.front = (start, 0)
        self._to_the_front()

    def _to_the_front(self) -> None:
        """The floors that a look has moved back."""
        for stream in self._streams:
            if stream.floor[0] < stream.front[0]:
                stream.floor = stream.front

    async def _take_above(self, rows: list[Row], limit: int, worker: int) -> None:
        """From the floors."""
        try:
            await self._take(rows, self._streams, limit, worker, floors=True)
        except Exception as error:
            if not _took_too_long(error):
                if self._look_failures:  # then it was not for the look's sake that the look failed
                    self._look_failures = 0
                    self._look_from = self._look_by = 0.0
                raise
            self.unsure = False
            self._late += 1
            if self._late > 1 and self._look_failures:  # much is dead above these floors too
                self._begin_late(self._streams)
            raise
        self._late = 0

    async def _take(
        self, rows: list[Row], streams: list[Stream], limit: int, worker: int, *, floors: bool
    ) -> None:
        """Appends to `rows` until they are `limit`."""
        if not streams:
            return
        for alone, group in itertools.groupby(self._in_turn(streams), key=self._alone):
            if len(rows) >= limit:
                break
            if alone is not None and self._gates.governs(alone):
                await self._take_governed(rows, alone, limit, worker, floors=floors)
                continue
            if alone is not None:
                await self._take_by_turns(rows, alone, limit, worker)
            if len(rows) < limit:
                await self._take_plain(rows, list(group), limit, worker, floors=floors)
        self._crowded = len(rows) >= limit

    def _alone(self, stream: Stream) -> Stream | None:
        """The stream, if it must be claimed by itself: gates govern it, or tenants take turns."""
        turns = self._turns_in(stream) if self._crowded else None
        return stream if turns is not None or self._gates.governs(stream) else None

    async def _take_plain(
        self, rows: list[Row], streams: list[Stream], limit: int, worker: int, *, floors: bool
    ) -> None:
        started = time.monotonic()
        self.unsure = True
        taken = await self._source.claim(self._link, streams, floors, limit - len(rows), worker)
        self.unsure = False
        self._plain_took = time.monotonic() - started
        self._move_floors(streams, taken, floors=floors)
        rows += taken

    def _turns_in(self, stream: Stream) -> Turns | None:
        """None where rows go by due times alone."""
        if stream.fair is None:
            return None
        turns = self._turns_of(stream)
        return None if turns.resting else turns

    async def _take_by_turns(
        self, rows: list[Row], stream: Stream, limit: int, worker: int
    ) -> None:
        """Up to the tenants' share of the room: at most LIST tenants by one statement where each is
        to have one row; else at most one listing, and those whom it gave."""
        turns = self._turns_of(stream)
        started = time.monotonic()
        most_rows = len(rows) + turns.share(limit - len(rows))
        if not await self._take_one_each(rows, stream, turns, most_rows, worker):
            await self._list_tenants(turns, stream, most_rows - len(rows))
            await self._take_listed(rows, stream, turns, most_rows, worker)
        turns.took(time.monotonic() - started, self._plain_took)

    async def _take_one_each(
        self, rows: list[Row], stream: Stream, turns: Turns, most_rows: int, worker: int
    ) -> bool:
        """Whether that was all that is to be taken by turns."""
        after, room = turns.one_each_after, min(LIST, most_rows - len(rows))
        if after is None or not room or not self._source.claims_one_each:
            return False
        self.unsure = True
        taken, last = await self._source.claim_one_each(self._link, stream, after, room, worker)
        self.unsure = False
        if taken:
            stream.quiet = 0
        rows += taken
        turns.one_each(last, full=len(taken) == room)
        return len(taken) == room

    async def _take_listed(
        self, rows: list[Row], stream: Stream, turns: Turns, most_rows: int, worker: int
    ) -> None:
        while room := most_rows - len(rows):
            asked, most = turns.next(room)
            if not asked:
                break
            self.unsure = True
            taken = await self._source.claim_tenants(self._link, stream, asked, most, room, worker)
            self.unsure = False
            if taken:
                stream.quiet = 0
            rows += taken
            turns.served(asked, most, [row.tenant for row in taken], full=len(taken) == room)

    async def _take_governed(
        self, rows: list[Row], stream: Stream, limit: int, worker: int, *, floors: bool
    ) -> None:
        """What the gates let through: tenant by tenant where that is asked for, then in the order
        of due times. Where they stop all of the tenants that were asked about, others may pass."""
        by_tenant = self._source.has_tenants and self._gates.by_tenant(stream)
        turns = self._turns_of(stream) if by_tenant else self._turns_in(stream)
        if turns is not None:
            await self._list_tenants(turns, stream, limit - len(rows))
            turns.pass_over(self._gates.closed_tenants(stream, turns.waiting))
        before = len(rows)
        for times in MORE_TENANTS:
            await self._take_passage(rows, stream, turns, times, limit, worker, floors=floors)
            if turns is None or len(rows) > before or not turns.waiting:
                break

    async def _take_passage(
        self,
        rows: list[Row],
        stream: Stream,
        turns: Turns | None,
        times: int,
        limit: int,
        worker: int,
        *,
        floors: bool,
    ) -> None:
        """In one transaction that holds the gates. times: as many tenants as should do."""
        waiting = []
        if turns is not None:
            room = limit - len(rows)
            count = times * self._gates.tenants_for(stream, room, turns.per_tenant)
            waiting = turns.waiting[: min(TENANTS_MOST, count)]
        self.unsure = True
        plain: list[Row] = []
        async with self._gates.passage(stream, waiting, worker) as passage:
            if passage is not None:
                room = passage.room(limit - len(rows))
                stops = passage.admission.take_stops()
                taken: list[Row] = []
                if turns is not None:
                    most_rows = turns.share(room)
                    taken = await self._take_turns(
                        turns, waiting, stream, passage, most_rows, worker
                    )
                if len(taken) < room:
                    plain = await self._source.claim(
                        passage.connection, [stream], floors, room - len(taken), worker, gated=True
                    )
                if len(taken) + len(plain) >= room:  # else nothing was there to be held back
                    passage.admission.put_back(stops)
                passage.admit([*taken, *plain])
        self.unsure = False
        if passage is not None and passage.rows:
            stream.quiet = 0
            rows += passage.rows
        self._move_floors([stream], plain, floors=floors)

    async def _take_turns(
        self,
        turns: Turns,
        waiting: Sequence[str],
        stream: Stream,
        passage: Passage,
        limit: int,
        worker: int,
    ) -> list[Row]:
        """Of each tenant no more than its own gates let through. waiting: whose gates are held, the
        first of those whose turn it is."""
        rows: list[Row] = []
        served = 0
        while room := limit - len(rows):
            asked, most = turns.next(room)
            asked, most = asked[: len(waiting) - served], most[: len(waiting) - served]
            if not asked:
                break
            mosts = [passage.room(n, tenant) for n, tenant in zip(most, asked, strict=True)]
            taken: list[Row] = []
            if any(mosts):
                taken = await self._source.claim_tenants(
                    passage.connection, stream, asked, mosts, room, worker, gated=True
                )
            rows += taken
            served += len(asked)
            turns.served(asked, mosts, [row.tenant for row in taken], full=len(taken) == room)
        return rows

    def _turns_of(self, stream: Stream) -> Turns:
        place = (stream.queue, stream.kind, stream.priority)
        if place not in self._turns:
            self._turns[place] = Turns(stream.fair or UNFAIR)
        return self._turns[place]

    async def _list_tenants(self, turns: Turns, stream: Stream, rows: int) -> None:
        if rows and turns.lacks(rows):
            turns.listed(await self._source.tenants(self._link, stream, turns.after))

    def _in_turn(self, streams: list[Stream]) -> list[Stream]:
        """Highest priority first; the kinds of one priority take turns at being first."""
        if len(streams) == 1:
            return streams
        self._turn += 1
        ordered: list[Stream] = []
        for _, peers in itertools.groupby(streams, key=lambda stream: stream.priority):
            group = list(peers)
            first = self._turn % len(group)
            ordered += group[first:] + group[:first]
        return ordered

    def _move_floors(self, streams: list[Stream], rows: list[Row], *, floors: bool) -> None:
        """To the last row taken. A look that has not taken all it found moves a floor back too;
        where it found nothing it stays."""
        last = {(row.queue, row.kind, row.priority): row for row in rows}  # they are in order
        for stream in streams:
            found = last.get((stream.queue, stream.kind, stream.priority))
            if found is not None:
                stream.quiet = 0
                stream.floor = (found.due_at, found.key)
                if stream.front[0] <= found.due_at:
                    stream.front = stream.floor


def _took_too_long(error: Exception) -> bool:
    """Whether the server gave up a statement, and so has not carried it out."""
    return isinstance(error.__cause__, asyncpg.QueryCanceledError)
