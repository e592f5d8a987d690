"""How many rows the gates let through now, and when each of them may start.

Pure: it is given the gates as they stand under their locks, and is asked for what to write.

A rate is a bucket of `burst` tokens that fills at `rate` a second; a row takes one when it starts.
All that must be known is when the bucket is full again: a row may start at t once full_at - t is
at most (burst - 1) / rate, and moves full_at to max(full_at, t) + 1 / rate. Rows are given starts
up to HORIZON ahead, so that a fleet uses a rate to the full though it asks ten times a second, and
the tokens of the same moment never meet two rows, however many replicas ask.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from worker.flow.gate import Gate
from worker.scope import EACH
from worker.timetable import LATE

HORIZON = 0.5
GATHERING = 0.125  # seconds worth waiting beyond the next token, for others to come with it
LEAD = 0.02  # seconds that a claim may take to arrive: where tokens are short no row starts sooner
ASK_AGAIN = 0.1  # seconds until a concurrency limit is looked at again
EPSILON = 1e-9
LATE_LEAST = 0.02  # seconds: an event loop that has work is not always on time


@dataclass(slots=True)
class Pass:
    """What one gate has let through in this claim."""

    gate: Gate
    taken: int = 0
    probe: bool = False


@dataclass(slots=True)
class Admission:
    """Lets rows through gates that are locked. held: of each gate, how many rows this worker
    really holds: its share may have been written before some of them ended."""

    gates: Sequence[Gate]
    held: dict[int, int]
    next_in: float | None = None
    """Seconds until more may pass, if a gate has stopped some."""
    flows: bool = False
    """A rate or a limit on concurrency holds rows back: they come through one by one."""
    _passes: dict[int, Pass] = field(init=False)
    _found: dict[tuple[str, str, str | None], list[Gate]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._passes = {gate.id: Pass(gate) for gate in self.gates}
        for gate in self.gates:
            if gate.concurrency is None:  # it has none any more: what is left of it goes
                self.held[gate.id] = 0
            gate.in_use += self.held.get(gate.id, 0) - gate.share

    def room(self, queue: str, kind: str, tenant: str | None, most: int) -> int:
        """How many rows of a stream and tenant may be claimed, at most `most`."""
        for gate in self._of(queue, kind, tenant):
            most = min(most, self._room(gate, most))
        return most

    def admit(self, queue: str, kind: str, tenant: str | None) -> float:
        """A row was claimed: the seconds until it may start."""
        gates = self._of(queue, kind, tenant)
        start = 0.0
        for gate in gates:
            if gate.rate is not None:
                start = max(start, _slot(gate))
        for gate in gates:
            passed = self._passes[gate.id]
            passed.taken += 1
            if gate.rate is not None:
                gate.full_in = max(gate.full_in, start) + 1 / gate.rate
            if gate.open_for is not None:
                passed.probe = True
        return start

    def patience(self, queue: str, kind: str, tenant: str | None) -> float:
        """Seconds that a row may start late: half of what lies between as many tokens as the burst
        has. Those that come late are more in the second that begins then, but no more than that;
        the other half is for the way from here to who counts them."""
        gates = self._of(queue, kind, tenant)
        tokens = (gate.burst / gate.rate / 2 for gate in gates if gate.rate is not None)
        return max(LATE_LEAST, min([LATE, *tokens]))

    def changed(self) -> Iterable[Pass]:
        """What is to be written."""
        for passed in self._passes.values():
            gate = passed.gate
            if passed.taken or self.held.get(gate.id, 0) != gate.share:
                yield passed

    def full(self) -> set[int]:
        """The gates whose concurrency is used up."""
        return {
            gate.id
            for gate in self.gates
            if gate.concurrency is not None and gate.in_use + self.taken(gate) >= gate.concurrency
        }

    def taken(self, gate: Gate) -> int:
        return self._passes[gate.id].taken if gate.concurrency is not None else 0

    def share(self, gate: Gate) -> int:
        """What this worker now holds of a gate's concurrency."""
        return self.held.get(gate.id, 0) + self.taken(gate)

    def _of(self, queue: str, kind: str, tenant: str | None) -> list[Gate]:
        """Asked for each row, of few tenants."""
        key = (queue, kind, tenant)
        if (found := self._found.get(key)) is None:
            found = self._found[key] = [
                gate
                for gate in self.gates
                if gate.scope.tenant != EACH and gate.scope.holds(queue, kind, tenant)
            ]
        return found

    def _room(self, gate: Gate, most: int) -> int:
        passed = self._passes[gate.id]
        if gate.paused:
            return self.stopped(None)
        if gate.throttled:
            return self.stopped(gate.blocked_for)
        if gate.open_for is not None:  # the breaker is open, or one row tries
            if gate.open_for > 0:
                return self.stopped(gate.open_for)
            if gate.probing or passed.probe:
                return self.stopped(ASK_AGAIN)
            most = min(most, 1)
        if gate.concurrency is not None:
            free = gate.concurrency - gate.in_use - passed.taken
            if free < most:
                self.stopped(ASK_AGAIN, flows=True)
                most = max(0, free)
        if gate.rate is not None:
            ahead = (HORIZON - max(LEAD, gate.full_in)) * gate.rate + gate.burst - 1
            tokens = max(0, math.floor(ahead + EPSILON) + 1)
            if tokens < most:
                self.stopped((tokens - ahead) / gate.rate + _gathering(gate.rate), flows=True)
                most = tokens
        return most

    def take_stops(self) -> tuple[float | None, bool]:
        """What was said of rows held back, and forgets it; for `put_back`, should it be so."""
        stops = self.next_in, self.flows
        self.next_in, self.flows = None, False
        return stops

    def put_back(self, stops: tuple[float | None, bool]) -> None:
        seconds, flows = stops
        self.stopped(seconds, flows=flows)

    def stopped(self, seconds: float | None, *, flows: bool = False) -> int:
        """Rows are held back, for so long; None for no known end. flows: others pass meanwhile."""
        self.flows |= flows
        if seconds is not None:
            self.next_in = seconds if self.next_in is None else min(self.next_in, seconds)
        return 0


def _gathering(rate: float) -> float:
    """Seconds to wait beyond the next token. What is left of the horizon then is to outlast a claim
    that takes long: a third of a second."""
    return GATHERING if rate * GATHERING > 1 else 0.0


def _slot(gate: Gate) -> float:
    """Seconds until the gate's next token. At once, however late that is, where many have gathered
    and may be had together."""
    if gate.rate is None:
        return 0.0
    earliest = gate.full_in - (gate.burst - 1) / gate.rate
    gathered = earliest <= -LATE and gate.burst >= LATE * gate.rate
    return 0.0 if gathered else max(LEAD, earliest)
