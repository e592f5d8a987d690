"""One worker's view of the fleet's gates: which rows they govern, and how those are claimed.

A copy of the gates is read again when somebody notifies of a change, and every second while the
worker claims. It only tells which rows to leave to the gates: what passes is decided under the
gates' own locks, in the transaction that claims.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from worker.events import EACH_ROW, BreakerChanged, Event, Events, KeyThrottled, RowLost, RowSettled
from worker.flow.admission import ASK_AGAIN, Admission
from worker.flow.gate import Gate
from worker.flow.server_clock import ServerClock
from worker.flow.tally import Tally
from worker.link import Fetches, Link
from worker.row import Row
from worker.scope import EACH, Scope
from worker.source import Stream
from worker.statements import statement

LOOK_EVERY = 1.0
SHARE_EVERY = 0.25  # seconds between two writes of what is held of limits that nobody waits for
NOTHING = 3600.0  # seconds: no need to come back
TENANTS_MOST = 100  # whose gates one claim holds
NONE = 0  # no gate has this id


class Passage:
    """The gates of one stream, held while its rows are claimed. read_at: when they were read, by
    our monotonic clock."""

    def __init__(
        self,
        connection: Fetches,
        admission: Admission,
        stream: Stream,
        unknown: set[str],
        read_at: float,
    ) -> None:
        self.connection = connection
        self.admission = admission
        self.rows: list[Row] = []
        self._stream = stream
        self._unknown = unknown
        self._read_at = read_at

    def room(self, most: int, tenant: str | None = None) -> int:
        """How many rows may be claimed, at most `most`; of a tenant, or in all."""
        if tenant in self._unknown:  # by the next time its gate is there
            return self.admission.stopped(ASK_AGAIN)
        return self.admission.room(self._stream.queue, self._stream.kind, tenant, most)

    def admit(self, rows: Sequence[Row]) -> None:
        """They were claimed: sets when each may start."""
        admission = self.admission
        for row in rows:
            start = admission.admit(row.queue, row.kind, row.tenant)
            if start > 0:
                row.not_before = self._read_at + start
                patience = admission.patience(row.queue, row.kind, row.tenant)
                row.not_after = row.not_before + patience
        self.rows += rows


class Gatekeeper:
    """The gates of one worker's streams.

    pairs: (queue, kind) of every handler. held: every row that the worker holds.
    on_change: called when rows that wait may have become closed, or free. on_work: called when
        there is something for `publish` to write.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[str, str]],
        link: Link,
        events: Events,
    ) -> None:
        self.held: Callable[[], Iterable[Row]] = tuple
        self.on_change: Callable[[], None] = lambda: None
        self.on_work: Callable[[], None] = lambda: None
        self.stale = True
        self.next_in: float | None = None  # seconds until gates that stopped rows may let some pass
        self.flows = False  # rows are held back that come through one by one
        self._pairs = list(pairs)
        self._link = link
        self._events = events
        self._gates: list[Gate] = []
        self._stopping: list[Gate] = []  # those that were closed when they were read
        # Of a stream and tenant: the gates that count how runs end, and how many there are.
        self._concerned: dict[tuple[str, str, str | None], tuple[list[int], list[int]]] = {}
        self._read_at = 0.0
        self._clock = ServerClock()
        self._tenant_gates: dict[tuple[Scope, str], int] = {}
        self._fresh: list[Row] = []  # claimed, and not yet among those held
        self._to_share: set[int] = set()
        self._full: set[int] = set()  # gates that others may wait for
        self._shared_at = 0.0
        self._tally = Tally()
        self._to_throttle: dict[Scope, tuple[float, str]] = {}  # until when, and why
        self._observes = False

    # --- what they govern ------------------------------------------------------------------

    def governs(self, stream: Stream) -> bool:
        return bool(self._covering(stream))

    def _covering(self, stream: Stream) -> list[Gate]:
        """The gates that may stop rows of a stream."""
        return [gate for gate in self._gates if gate.scope.covers(stream.queue, stream.kind)]

    def stops(self, row: Row) -> bool:
        """Whether a row that has not started yet is to be given back."""
        return bool(self._stopping) and any(
            gate.scope.holds(row.queue, row.kind, row.tenant)
            and gate.scope.tenant != EACH
            and self._closed_for(gate) != 0
            for gate in self._stopping
        )

    def notified(self) -> None:
        """Somebody has changed a gate."""
        self.stale = True
        self.on_change()

    async def look(self) -> bool:
        """Reads the gates again if it is time; whether it did."""
        now = time.monotonic()
        if not self.stale and now - self._read_at < LOOK_EVERY:
            return False
        self.stale = False
        self._read_at = now
        queues, kinds = [queue for queue, _ in self._pairs], [kind for _, kind in self._pairs]
        try:
            records = await self._link.fetch(statement("flow/gates"), queues, kinds)
        except BaseException:
            self.stale = True
            raise
        self._gates = [Gate.of(record) for record in records]
        self._gates += map(self._closed_here, self._to_throttle)
        self._stopping = [gate for gate in self._gates if gate.closed_for != 0]
        self._concerned.clear()
        self._observe_rows()
        if any(gate.concurrency is not None for gate in self._gates):
            self._share_all()  # one may be new, and rows of ours under it already
        return True

    def _closed_for(self, gate: Gate) -> float | None:
        """Seconds for which it is closed, as of now, by the copy; None for no known end."""
        closed_for = gate.closed_for
        if closed_for is None:
            return None
        return max(0.0, closed_for - (time.monotonic() - self._read_at))

    # --- claiming --------------------------------------------------------------------------

    def begin(self) -> None:
        """A round of claims begins."""
        self._fresh.clear()
        self.next_in = None
        self.flows = False

    def accepted(self) -> None:
        """What the round took is among the held rows now, and would be counted twice."""
        self._fresh.clear()

    def by_tenant(self, stream: Stream) -> bool:
        """Whether some gate of the stream goes by tenants."""
        return any(gate.scope.tenant is not None for gate in self._covering(stream))

    def closed_tenants(self, stream: Stream, waiting: Sequence[str]) -> set[str]:
        """Which of those that have due rows need not be asked about, by the copy."""
        closed: set[str] = set()
        asked = set(waiting)
        for gate in self._covering(stream):
            tenant = gate.scope.tenant
            if tenant not in asked:
                continue
            if (closed_for := self._closed_for(gate)) != 0:
                self._wait_for(closed_for)
                closed.add(tenant)
        return closed

    def tenants_for(self, stream: Stream, rows: int, per_tenant: int) -> int:
        """How many tenants' gates a claim of so many rows needs to hold, so that it is not short of
        rows where some tenants have none, or a limit that lets few through."""
        limits = [
            gate.concurrency
            for gate in self._covering(stream)
            if gate.scope.tenant == EACH and gate.concurrency is not None
        ]
        return min(TENANTS_MOST, 2 * -(-rows // max(1, min([per_tenant, *limits]))))

    @asynccontextmanager
    async def passage(
        self, stream: Stream, tenants: Sequence[str], worker: int
    ) -> AsyncIterator[Passage | None]:
        """Holds the gates of a stream and of these tenants, for a claim; None where nothing can
        pass. What it admits is written, and the transaction committed, at the end."""
        gates = self._covering(stream)
        if self._all_closed(gates):
            yield None
            return
        ids = {gate.id for gate in gates if gate.scope.tenant is None}
        of_tenants = await self._gates_of(gates, tenants)
        asked = sorted(ids.union(*of_tenants.values()))
        async with self._link.transaction() as connection:
            asked_at = time.monotonic()
            records = await connection.fetch(statement("flow/lock"), asked, worker)
            read_at = arrived = time.monotonic()
            if records:
                read_at = self._clock.moment(records[0]["at"].timestamp(), asked_at, arrived)
            locked = [Gate.of(record) for record in records]
            found = {gate.id for gate in locked}
            if not ids <= found:  # it was taken away meanwhile
                self.stale = True
            unknown = {tenant for tenant, those in of_tenants.items() if not those <= found}
            admission = Admission(locked, self._held_of(locked, worker))
            passage = Passage(connection, admission, stream, unknown, read_at)
            yield passage
            await self._write(passage, records, worker)
        self._forget(set(asked) - found)
        self._fresh += passage.rows
        self._full |= passage.admission.full()
        self._note_trials(passage)
        self._wait_for(_from_now(admission.next_in, read_at))
        self.flows |= admission.flows

    async def _gates_of(self, gates: Sequence[Gate], tenants: Sequence[str]) -> dict[str, set[int]]:
        """The ids of these tenants' gates; made where they are not there yet."""
        ids: dict[str, set[int]] = {tenant: set() for tenant in tenants}
        for gate in gates:
            if (tenant := gate.scope.tenant) in ids:
                ids[tenant].add(gate.id)
            if tenant != EACH or not tenants:
                continue
            known = self._tenant_gates
            if missing := [t for t in tenants if (gate.scope, t) not in known]:
                for record in await self._link.fetch(
                    statement("flow/tenants"), gate.scope.queue, gate.scope.kind, missing
                ):
                    known[gate.scope, record["tenant"]] = record["id"]
                self._concerned.clear()
            for tenant in tenants:  # one that another transaction is making now has none yet
                ids[tenant].add(known.get((gate.scope, tenant), NONE))
        return ids

    def _forget(self, gone: set[int]) -> None:
        """Gates that are no more are made again when they are needed."""
        if gone:
            kept = {place: id_ for place, id_ in self._tenant_gates.items() if id_ not in gone}
            self._tenant_gates = kept
            self._concerned.clear()

    def _all_closed(self, gates: Sequence[Gate]) -> bool:
        """Whether nothing of the stream can pass, as far as is known without asking."""
        for gate in gates:
            if gate.scope.tenant is None and (closed_for := self._closed_for(gate)) != 0:
                self._wait_for(closed_for)
                return True
        return False

    async def _write(self, passage: Passage, records: Sequence[Any], worker: int) -> None:
        read_at = {record["id"]: record["at"] for record in records}
        admission = passage.admission
        changed = list(admission.changed())
        if not changed:
            return
        gates = [passed.gate for passed in changed]
        await passage.connection.fetch(
            statement("flow/write"),
            [gate.id for gate in gates],
            [read_at[gate.id] for gate in gates],
            [gate.full_in if gate.rate is not None else None for gate in gates],
            [gate.in_use + admission.taken(gate) for gate in gates],
            [admission.share(gate) for gate in gates],
            [passed.probe for passed in changed],
            worker,
        )

    def _note_trials(self, passage: Passage) -> None:
        trials = [passed.gate for passed in passage.admission.changed() if passed.probe]
        for row in passage.rows:
            tried = [g.id for g in trials if g.scope.holds(row.queue, row.kind, row.tenant)]
            if tried:
                self._tally.try_with(row, tried)

    def _wait_for(self, seconds: float | None) -> None:
        if seconds is not None:
            self.next_in = seconds if self.next_in is None else min(self.next_in, seconds)

    # --- what runs did ---------------------------------------------------------------------

    def throttle(self, row: Row, seconds: float, why: str, *, queue: bool, key: str | None) -> None:
        """A handler was told to come back later: nothing of its row's key until then.

        queue: whatever the kind, in the row's queue. key: instead of the row's tenant.
        """
        tenant = row.tenant if key is None else key
        scope = Scope(row.queue, None, tenant) if queue else Scope(None, row.kind, tenant)
        before = self._to_throttle.get(scope, (0.0, ""))
        self._to_throttle[scope] = max(before, (time.monotonic() + seconds, why))
        closed = self._closed_here(scope)
        self._gates.append(closed)
        self._stopping.append(closed)
        self.on_change()
        self.on_work()

    def _closed_here(self, scope: Scope) -> Gate:
        """A throttle that is not in the table yet."""
        until, _ = self._to_throttle[scope]
        return Gate(NONE, scope, blocked_for=until - self._read_at)

    def lost_sight(self) -> None:
        """A claim's answer never came: what it took of the gates is to be given back."""
        self._share_all()

    async def publish(self, worker: int) -> float:
        """Writes what runs did to the gates: throttles, breakers, shares of concurrency. Gives the
        seconds until there is more to write."""
        for scope in list(self._to_throttle):
            await self._publish_throttle(scope)
        if self._tally.trials:  # one may have been taken away before it began
            self._tally.keep_trials([*self.held(), *self._fresh])
        if self._tally.counts:
            await self._publish_tally(worker)
        if not self._to_share:
            return NOTHING
        wait = self._shared_at + SHARE_EVERY - time.monotonic()
        if wait > 0 and self._full.isdisjoint(self._to_share):
            return wait
        await self._publish_shares(worker)
        return NOTHING

    async def leave(self) -> None:
        """The worker has stopped: what it held of the limits is for the others."""
        if any(gate.concurrency is not None for gate in self._gates):
            await self._link.fetch(statement("flow/reclaim"))

    async def _publish_throttle(self, scope: Scope) -> None:
        until, why = self._to_throttle[scope]
        seconds = max(0.0, until - time.monotonic())
        parts = (scope.queue, scope.kind, scope.tenant)
        await self._link.fetch(statement("flow/throttle"), *parts, seconds, why)
        if self._to_throttle[scope] == (until, why):  # else it was told again meanwhile
            del self._to_throttle[scope]
        self._events.emit(KeyThrottled(*parts, seconds, why))

    async def _publish_tally(self, worker: int) -> None:
        counts = self._tally.take()
        try:
            changed = await self._link.fetch(
                statement("flow/tally"),
                list(counts),
                [count.runs for count in counts.values()],
                [count.failed for count in counts.values()],
                [count.tail for count in counts.values()],
                [count.trial for count in counts.values()],
                worker,
            )
        except BaseException:
            self._tally.put_back(counts)
            raise
        for record in changed:
            scope = str(Scope(record["queue"], record["kind"], record["tenant"]))
            self._events.emit(BreakerChanged(scope, record["state"], record["open_for"]))
            self.stale = True

    async def _publish_shares(self, worker: int) -> None:
        ids = sorted(self._to_share)
        self._to_share.clear()
        self._full.difference_update(ids)
        self._shared_at = time.monotonic()
        scopes = self._scopes_by_id()
        holding = Holding([*self.held(), *self._fresh], worker)
        shares = [holding.count(scopes[id_]) if id_ in scopes else 0 for id_ in ids]
        try:
            await self._link.fetch(statement("flow/share"), ids, shares, worker)
        except BaseException:
            self._to_share.update(ids)
            raise

    def _held_of(self, locked: Sequence[Gate], worker: int) -> dict[int, int]:
        """Of each locked gate that limits concurrency, how many rows are ours."""
        limited = [gate for gate in locked if gate.concurrency is not None]
        if not limited:
            return {}
        holding = Holding([*self.held(), *self._fresh], worker)
        self._to_share.difference_update(gate.id for gate in limited)
        return {gate.id: holding.count(gate.scope) for gate in limited}

    def _scopes_by_id(self) -> dict[int, Scope]:
        scopes = {gate.id: gate.scope for gate in self._gates}
        for (scope, tenant), id_ in self._tenant_gates.items():
            scopes[id_] = Scope(scope.queue, scope.kind, tenant)
        return scopes

    def _share_all(self) -> None:
        self._to_share |= {
            gate.id
            for gate in self._gates
            if gate.concurrency is not None and gate.scope.tenant != EACH
        }
        self._to_share |= set(self._tenant_gates.values())

    def _observe_rows(self) -> None:
        """From when there is something to count them for: a rate only asks when they begin."""
        if not self._observes and any(_counts_runs(gate) for gate in self._gates):
            self._observes = True
            self._events.subscribe(self._observe, ignores=EACH_ROW - {RowSettled})

    def _observe(self, event: Event) -> None:
        if not self._gates or not isinstance(event, RowSettled | RowLost):
            return
        row = event.row
        key = (row.queue, row.kind, row.tenant)
        trips, limited = self._concerned.get(key) or self._find_concerned(row)
        if trips or self._tally.trials:
            transition = event.transition if isinstance(event, RowSettled) else None
            self._tally.note(row, trips, transition)
        self._to_share.update(limited)
        if self._to_share or self._tally.counts:
            self.on_work()

    def _find_concerned(self, row: Row) -> tuple[list[int], list[int]]:
        """Kept until the gates are read again, or another tenant's are known."""
        gates = [
            (gate, id_)
            for gate in self._gates
            if _counts_runs(gate) and gate.scope.holds(row.queue, row.kind, row.tenant)
            if (id_ := self._id_for(gate, row)) is not None
        ]
        trips = [id_ for gate, id_ in gates if gate.trips]
        limited = [id_ for gate, id_ in gates if gate.concurrency is not None]
        found = list(dict.fromkeys(trips)), limited  # a tenant's own, and that of each: one run
        self._concerned[row.queue, row.kind, row.tenant] = found
        return found

    def _id_for(self, gate: Gate, row: Row) -> int | None:
        """The gate's own id, or that of the row's tenant where it stands for each of them."""
        if gate.scope.tenant != EACH:
            return gate.id
        return self._tenant_gates.get((gate.scope, row.tenant or ""))


def _counts_runs(gate: Gate) -> bool:
    return gate.trips or gate.concurrency is not None


def _from_now(seconds: float | None, since: float) -> float | None:
    """A wait that began then. At least half of it: a slow server is not to be asked without end."""
    if seconds is None:
        return None
    return max(seconds / 2, seconds - (time.monotonic() - since))


class Holding:
    """The rows that a worker holds, to be counted by scope."""

    def __init__(self, rows: Iterable[Row], worker: int) -> None:
        counted = Counter((r.queue, r.kind, r.tenant) for r in rows if r.owner == worker)
        self._all = list(counted.items())
        self._by_tenant: dict[str | None, list[tuple[tuple[str, str, str | None], int]]] = {}
        for key, count in self._all:
            self._by_tenant.setdefault(key[2], []).append((key, count))

    def count(self, scope: Scope) -> int:
        rows = self._all if scope.tenant is None else self._by_tenant.get(scope.tenant, [])
        return sum(count for (queue, kind, _), count in rows if scope.covers(queue, kind))
