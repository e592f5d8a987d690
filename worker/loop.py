"""The way itself: claim, buffer, run, settle. Only this file sees the whole of it.

Rows are claimed ahead of free slots into a small buffer, so that a slot never waits for a round
trip. The buffer is sized from the measured run time, to cover a twentieth of a second of work:
hundreds of rows for handlers that take microseconds, none for those that take seconds. Rows that
wait in it for a second all the same go back, so that a slow handler never hoards rows from idle
replicas.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Mapping

from worker.adaptive import Pace
from worker.batching import Batching
from worker.buffer import Buffer
from worker.claimers import Claimers
from worker.execute import Executor
from worker.flow.gatekeeper import Gatekeeper
from worker.row import Row
from worker.run import Run
from worker.settle import BATCH_MOST, Settler
from worker.source import Settlement
from worker.timetable import Timetable
from worker.transition import Transition
from worker.trial import Trial

AHEAD = 0.05  # seconds of work to hold in the buffer
BUFFER_AGE_MOST = 1.0
BUFFER_MOST = 1000
UNWRITTEN_MOST = 4 * BATCH_MOST


class Loop:
    """Moves rows from the claimer through the executor to the settler.

    pace: how many rows run at once, and how many a claim takes at most.
    batching: of the kinds that are handled several rows at once: how.
    poll: (first, most) seconds between two polls while nothing is due; doubles in between.
    worker: this worker's id, or None while it has none.
    """

    def __init__(
        self,
        claimer: Claimers,
        settler: Settler,
        gates: Gatekeeper,
        *,
        pace: Pace,
        batching: Mapping[str, Batching | None],
        poll: tuple[float, float],
        max_crashes: int,
        worker: Callable[[], int | None],
        hears: Callable[[], bool],
    ) -> None:
        self.executor: Executor  # given by the runtime: the two refer to each other
        self.wake = asyncio.Event()
        self.empty = asyncio.Event()
        self.idle = asyncio.Event()  # no claim is under way, nor one whose answer never came
        self.idle.set()
        self._claimer = claimer
        self._settler = settler
        self._gates = gates
        self.on_paced: Callable[[int, int, str], None] = lambda before, slots, why: None
        self._pace = pace
        self._slots = pace.slots
        self._batch = pace.batch
        self._poll_first, self._poll_most = poll
        self._poll = self._poll_first
        self._trial = Trial(max_crashes)
        self._trial_alarm: asyncio.TimerHandle | None = None
        self._worker = worker
        self._hears = hears
        self._batching = batching.get
        self._timetable = Timetable(self._pump)
        self._buffer = Buffer(batching.get)
        self._buffered_at = 0.0
        self._mean_run: float | None = None
        # Rows that one slot takes, as claims have shown; at first the fewest that it may.
        self._per_slot = float(min((b.size if b else 1 for b in batching.values()), default=1))
        self._asking = False  # a claim is on its way
        self._claim_at = 0.0  # another is worth its cost once no more slots than these are taken
        self._lot_alarm: asyncio.TimerHandle | None = None
        self.open = True
        self._dry = (
            False  # the last claim found less than it asked for, and nothing was heard since
        )
        self._alarm: asyncio.TimerHandle | None = None
        self.taken = 0
        self._given_back = 0
        self.row_budget: int | None = None
        self.until_empty = False  # somebody waits for `empty`

    async def step(self) -> float:
        """One claim, if there is room for it; the seconds to rest."""
        worker = self._worker()
        if worker is None:
            return self._poll_first
        self.idle.clear()
        try:
            return await self._step(worker)
        finally:
            if not self._claimer.unsure:
                self.idle.set()

    async def _step(self, worker: int) -> float:
        if self._claimer.unsure:
            self._gates.lost_sight()
            await self._claimer.reconcile(worker, self.held())
        if await self._gates.look():
            self._give_back_stopped()
        self._return_stale()
        pause = await self._claim(worker)
        return min(pause, await self._gates.publish(worker))

    async def _claim(self, worker: int) -> float:
        want = self._room()
        self._set_claim_at()
        if not self.open or want <= 0 or not self._worth_claiming():
            # Who waits for the end is not told when the last run has ended: nothing more was due.
            return AHEAD if self.until_empty else BUFFER_AGE_MOST
        self._dry = False
        self._gates.begin()
        found_before = self._claimer.owes_look
        self._asking = True
        try:
            rows = await self._claimer.step(want, worker)
        finally:
            self._asking = False
        self._dry = not rows or (len(rows) < want and not self._asks_again())
        self._accept(rows, worker)
        self._gates.accepted()
        running = len(self.executor.running)
        self._paced(self._pace.claimed(want, len(rows), running, time.monotonic()))
        self._set_claim_at()
        if len(rows) == want:
            return 0.0
        if self._claimer.owes_look:
            self._dry = False
            return 0.0
        return self._rest(found=bool(rows) or found_before)

    def heard(self) -> None:
        """Something fell due."""
        self._poll = self._poll_first
        self._dry = False
        self.wake.set()

    def gates_changed(self) -> None:
        """What they have closed for must not start; what they let through now may be due."""
        self._give_back_stopped()
        self.heard()

    def expect(self, seconds: float) -> None:
        """A row that we settled falls due again then: nobody else would tell, and the next poll
        may be far."""
        if seconds > self._poll_most:
            return
        loop = asyncio.get_running_loop()
        if self._alarm is not None and self._alarm.when() > loop.time():
            if self._alarm.when() <= loop.time() + seconds:
                return
            self._alarm.cancel()
        self._alarm = loop.call_later(seconds + 0.002, self.heard)

    def wait_for_empty(self) -> None:
        """Somebody waits for `empty`."""
        self.until_empty = True
        self._claimer.hurry()

    def ask_again(self) -> None:
        """Forgets that nothing was due: what was settled since may be due again."""
        self.empty.clear()
        self.heard()

    def finished(self, run: Run) -> None:
        """A slot is free."""
        if self._trial.row is not None and self._trial.end(run.row):
            self._dry = False
        if self._pace.adaptive:
            self._paced(self._pace.ended(run.started, run.hindered, time.monotonic()))
        seconds = run.seconds
        mean = self._mean_run
        self._mean_run = seconds if mean is None else mean + 0.1 * (seconds - mean)
        self._pump()
        self.look_for_room()

    def _paced(self, why: str | None) -> None:
        before, self._slots, self._batch = self._slots, self._pace.slots, self._pace.batch
        if why is not None:
            self.on_paced(before, self._slots, why)
            self._pump()

    def look_for_room(self) -> None:
        """A slot is free, or results were written: claims if that makes room and there may be
        something to claim. Asked after each row: what takes longer to find out, the claim does."""
        if self._trial.row is not None:
            if self._trial.waiting is not None:
                self._pump()
            if self._trial.alone:
                return
        if self._dry or self._asking or self.wake.is_set():
            return
        if self._worth_claiming():
            self.wake.set()

    def close(self) -> None:
        """Claims no more and gives back what has not started."""
        self.open = False
        self._release_all()
        for alarm in (self._alarm, self._trial_alarm, self._lot_alarm):
            if alarm is not None:
                alarm.cancel()
        self.wake.set()

    def forget(self) -> None:
        """The claims are lost: drops what has not started."""
        self._buffer.clear()
        self._timetable.clear()
        self._trial.end()

    @property
    def slots(self) -> int:
        """How many runs there may be at once, as it is now."""
        return self._slots

    @property
    def buffered(self) -> int:
        return len(self._buffer) + len(self._timetable) + (self._trial.waiting is not None)

    @property
    def kept(self) -> int:
        """How many rows were taken and not given back unrun."""
        return self.taken - self._given_back

    def held(self) -> dict[str, list[Row]]:
        """Every row that is ours, by source."""
        running = (row for run in self.executor.running for row in run.rows)
        waiting = () if self._trial.waiting is None else (self._trial.waiting,)
        held: dict[str, list[Row]] = {}
        for row in (*running, *waiting, *self._buffer, *self._timetable, *self._settler.held()):
            held.setdefault(row.source, []).append(row)
        return held

    def _room(self) -> int:
        """How many rows to claim."""
        if self._settler.pending >= UNWRITTEN_MOST or self._trial.alone:
            return 0
        free = self._slots + self._ahead() - self._taken_up()
        room = int(free) if self._per_slot == 1.0 else math.ceil(round(free * self._per_slot, 6))
        if self.row_budget is not None:
            room = min(room, self.row_budget - self.kept)
        return max(0, min(self._batch, room))

    def _taken_up(self) -> float:
        """How many slots' worth of rows are here and not decided."""
        return len(self.executor.running) + self._buffer.slots + len(self._timetable)

    def _ahead(self) -> int:
        """How many runs beyond the slots: what they finish in AHEAD seconds."""
        if self._mean_run is None:
            return 0
        most = BUFFER_MOST / self._per_slot
        return int(min(most, self._slots * AHEAD / max(self._mean_run, 1e-6)))

    def _worth_claiming(self) -> bool:
        """A claim of one row costs nearly as much as one of a hundred: not before half of what is
        held ahead has gone, unless a slot stands empty."""
        idle = not self._buffer.queue and len(self.executor.running) < self._slots
        return self._taken_up() <= self._claim_at or (idle and self._claim_at >= 0)

    def _set_claim_at(self) -> None:
        ahead = self._ahead()
        worth = min(self._batch / self._per_slot, ahead // 2 + 1)
        spent = self.row_budget is not None and self.kept >= self.row_budget
        self._claim_at = -1.0 if spent else self._slots + ahead - worth

    def _accept(self, rows: list[Row], worker: int) -> None:
        if not rows:
            if self._claimer.looked and not self._gates.flows:
                self.empty.set()
            if self._buffer:  # nothing more comes for what waits to fill up
                self._pump()
            return
        self.empty.clear()
        self.taken += len(rows)
        if worker != self._worker():
            return  # declared dead meanwhile; the sweep returns them
        if not self._buffer:
            self._buffered_at = time.monotonic()
        slots, count = self._buffer.slots, len(self._buffer)
        for row in rows:
            if self._gates.stops(row):  # closed while the claim was under way
                self._give_back(row)
            elif not self._trial.concerns(row):
                (self._buffer if row.not_before is None else self._timetable).append(row)
            elif not self._trial.admit(row):
                self._give_back(row, delay=random.uniform(1.0, 3.0))
        if (more := self._buffer.slots - slots) > 0:
            self._per_slot = max(1.0, (self._per_slot + (len(self._buffer) - count) / more) / 2)
        if self.open:
            self._pump()
        else:
            self._release_all()

    def _pump(self) -> None:
        """Starts buffered rows on free slots, or the row on trial."""
        if not self.open:
            return
        if self._trial.row is not None and not self._keep_trial():
            return
        if len(self._timetable):
            self._keep_time()
        running, buffer = self.executor.running, self._buffer
        started = False
        while len(running) < self._slots and (self._ready() if buffer.filling else buffer.queue):
            rows = buffer.take()
            if len(rows) == 1:
                self.executor.start(rows[0])
            else:
                self.executor.start_batch(rows)
            started = True
        if started:
            self._buffered_at = time.monotonic()
        if buffer.filling or self._lot_alarm is not None:
            self._pump_lots()

    def _keep_trial(self) -> bool:
        """Starts the row on trial if it is time; whether others may start."""
        if self._trial.waiting is not None:
            self._release_buffer()
            begins_in = self._trial.begins_in(run.seconds for run in self.executor.running)
            if begins_in > 0 or self._settler.pending:
                self._pump_in(max(begins_in, 0.05))
                return False
            self.executor.start(self._trial.begin())
            self._pump_in(self._trial.over_in())
        return not self._trial.alone

    def _ready(self) -> bool:
        """While some lot is not full."""
        more = self._asking or (not self._dry and self._room() > 0)
        return self._buffer.ready(more=more, hurry=self.until_empty)

    def _pump_lots(self) -> None:
        """Again when a lot has waited long enough for more rows."""
        if self._lot_alarm is not None:
            self._lot_alarm.cancel()
            self._lot_alarm = None
        if len(self.executor.running) >= self._slots:
            return  # when one is free it is looked at anyway
        if (seconds := self._buffer.waits_for()) is not None:
            self._lot_alarm = asyncio.get_running_loop().call_later(seconds + 0.001, self._pump)

    def _keep_time(self) -> None:
        """Starts rows whose time has come; those that missed it go back."""
        for row in self._timetable.late():
            self._give_back(row)
        for row in self._timetable.due(self._slots - len(self.executor.running)):
            if self._batching(row.kind) is None:
                self.executor.start(row)
            else:
                self._buffer.append(row)

    def _pump_in(self, seconds: float) -> None:
        if self._trial_alarm is not None:
            self._trial_alarm.cancel()
        loop = asyncio.get_running_loop()
        self._trial_alarm = loop.call_later(seconds, self._trial_goes_on)

    def _trial_goes_on(self) -> None:
        self._dry = False
        self._pump()
        self.look_for_room()

    def _rest(self, *, found: bool) -> float:
        """Seconds until the next poll. While notifications come it need not hurry."""
        self._poll = self._poll_first if found else min(self._poll_most, self._poll * 2)
        if found and self._asks_again():
            return 0.0
        if (stopped := self._gates.next_in) is not None:
            return min(self._poll_most, stopped * random.uniform(1.0, 1.2))
        if not self._claimer.looked:  # for want of a ration: what woke us may be out of sight
            return min(self._poll, self._claimer.next_look_in() + 0.001)
        next_in = self._claimer.next_due_in()
        return self._poll if next_in is None else min(self._poll, next_in + 0.002)

    def _asks_again(self) -> bool:
        """Whether a claim that found less than it asked for is followed by another at once: where
        somebody waits for the end, or nobody would tell of more."""
        return self.until_empty or not self._hears()

    def _return_stale(self) -> None:
        aged = self._buffer and time.monotonic() - self._buffered_at > BUFFER_AGE_MOST
        idle = len(self.executor.running) < self._slots and not self._trial.alone
        if aged and not (idle and not self._buffer.queue):  # but what waits to fill up may
            self._mean_run = max(self._mean_run or 0.0, BUFFER_AGE_MOST)
            self._release_buffer()

    def _release_all(self) -> None:
        """Whatever has not started."""
        self._release_buffer()
        if (row := self._trial.waiting) is not None:
            self._trial.end(row)
            self._give_back(row)

    def _release_buffer(self) -> None:
        for row in (*self._buffer.clear(), *self._timetable.clear()):
            self._give_back(row)

    def _give_back_stopped(self) -> None:
        """What a gate has closed for since it was claimed."""
        for rows in (self._buffer, self._timetable):
            for row in [row for row in rows if self._gates.stops(row)]:
                rows.remove(row)
                self._give_back(row)

    def _give_back(self, row: Row, delay: float | None = None) -> None:
        self._given_back += 1
        transition = Transition("released", delay=delay, refund=1, recorded=False)
        self._settler.add(Settlement(row, transition, 0.0))
