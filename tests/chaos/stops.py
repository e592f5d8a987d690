"""SIGTERM under load, whatever the handlers do: gone in time, nothing left claimed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from tests.chaos.figures import Figures
from tests.chaos.fleet import Process
from tests.chaos.place import Place
from tests.chaos.scene import Scene

GRACE_PASSED = 9
# kind of handler -> the exit code of a worker that must stop while it runs
KINDS = {
    "work": 0,
    "left_thread": 0,
    "wait": GRACE_PASSED,
    "block_thread": GRACE_PASSED,
    "spin_thread": GRACE_PASSED,
    "block_loop": GRACE_PASSED,
    "spin_loop": GRACE_PASSED,
    "stubborn": GRACE_PASSED,
    "foreign_thread": GRACE_PASSED,
}


@dataclass(frozen=True)
class Size:
    """stops: how many workers are stopped; the kinds of handlers take turns. together: so many at
    a time. grace: seconds; late: how much later than that a stop may end. tries: how often a stop
    may have been held up until its grace was over."""

    stops: int
    together: int
    grace: float
    slots: int
    late: float = 0.0
    tries: int = 1
    kinds: tuple[str, ...] = tuple(KINDS)


FULL = Size(stops=27, together=3, grace=10.0, slots=8)
# a busy machine may hold up a process for a moment that a grace so short has no room for
SOME = ("work", "block_thread", "spin_loop", "left_thread", "stubborn", "spin_thread")
SHORT = Size(stops=6, together=3, grace=4.0, slots=2, kinds=SOME, late=3.0, tries=4)


@dataclass(frozen=True)
class Stop:
    """left: rows that the worker had claimed when it was gone."""

    kind: str
    code: int
    seconds: float
    left: int

    def held_up(self, grace: float) -> bool:
        """Until it was too late to give rows back: of that nothing is learnt but the time."""
        return self.left > 0 and self.seconds > 0.9 * grace


def run(place: Place, size: Size) -> Figures:
    figures = Figures(f"SIGTERM with a grace of {size.grace:g} s, {size.stops} times")
    with Scene.at(place, grace=size.grace, lease=6.0, slots=size.slots) as scene:
        kinds = [*itertools.islice(itertools.cycle(size.kinds), size.stops)]
        stops: list[Stop] = []
        # where rows have no queues each worker would run what the others are to run
        together = size.together if scene.workload.has_queues else 1
        for begin in range(0, size.stops, together):
            stops += _stop_in_turn(scene, size, kinds[begin : begin + together], begin)
        for kind in size.kinds:
            of_kind = [stop for stop in stops if stop.kind == kind]
            codes = ", ".join(sorted({str(stop.code) for stop in of_kind}))
            figures.add(f"{kind}: exit code", codes, exactly=str(KINDS[kind]))
            figures.add(
                "  slowest in s", max(s.seconds for s in of_kind), most=size.grace + size.late
            )
        in_time = sum(stop.seconds <= size.grace + size.late for stop in stops)
        figures.add("stopped in time", in_time, exactly=size.stops)
        live = scene.workload.live(scene.db)
        figures.add("rows left", len(live))
        figures.add("  claimed", sum(stop.left for stop in stops), exactly=0)
        figures.add("  with an attempt spent", sum(row.attempt > 0 for row in live), exactly=0)
        scene.judge(figures, finished=False)
    return figures


def _stop_in_turn(scene: Scene, size: Size, kinds: Sequence[str], number: int) -> list[Stop]:
    """Stops a worker for each of these kinds; again where the machine had it stand still just when
    it was to give its rows back, which is a moment of a tenth of the grace."""
    stops = _stop_under_load(scene, kinds, f"queue{number}")
    for again in range(1, size.tries):
        if not (held_up := [stop.kind for stop in stops if stop.held_up(size.grace)]):
            break
        stops = [stop for stop in stops if not stop.held_up(size.grace)]
        stops += _stop_under_load(scene, held_up, f"queue{number}-{again}")
    return stops


def _stop_under_load(scene: Scene, kinds: Sequence[str], queue: str) -> list[Stop]:
    """Stops a worker for each of these kinds, with every slot busy and more rows waiting."""
    fleet, workload = scene.fleet, scene.workload
    workers = []
    for kind in kinds:
        args = {"ms": 300} if kind == "work" else {}
        columns = {}
        if workload.has_queues:
            columns["queue"] = fleet.settings["queues"] = f"{queue}-{kind}"
        else:
            workload.put_off(scene.db)
        # more than it can do before all are up
        scene.load((60 if kind == "work" else 6) * fleet.slots, kind, columns, **args)
        fleet.app = workload.app_for(kind)
        workers.append(fleet.start())
    for worker, kind in zip(workers, kinds, strict=True):
        fleet.wait_ready(worker)
        # a handler that blocks the loop lets none start beside it
        busy = 1 if kind.endswith("_loop") else fleet.slots
        fleet.until(lambda: _started(scene, worker, ended=kind == "left_thread") >= busy)  # noqa: B023
    for worker in workers:
        fleet.stop(worker)
    return [_ended(scene, worker, kind) for worker, kind in zip(workers, kinds, strict=True)]


def _ended(scene: Scene, worker: Process, kind: str) -> Stop:
    code = scene.fleet.wait_exit(worker, scene.fleet.grace + 30)
    assert worker.stop_sent_at is not None
    assert worker.ended_at is not None
    left = scene.workload.give_back(scene.db, worker.pid)
    return Stop(kind, code, worker.ended_at - worker.stop_sent_at, left)


def _started(scene: Scene, worker: Process, *, ended: bool) -> int:
    """How many rows that worker has started; or those that have come to their end, if `ended`."""
    runs = [run for run in scene.runs() if run.pid == worker.pid]
    return sum(run.ended is not None for run in runs) if ended else len(runs)
