"""A schedule of one tick a second, while the replica that decided the last tick is killed, frozen
or cut off from the database, again and again.

Two witnesses: a trigger that notes each job as it is made, and the handlers' ledger.
"""

from __future__ import annotations

import itertools
import math
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from tests.chaos.figures import Figures
from tests.chaos.fleet import Process
from tests.chaos.place import Place
from tests.chaos.scene import Scene
from tests.chaos.wires import Wires
from tests.wire import Wire

FAULTS = ("killed", "frozen", "cut off")
APP = "tests.chaos.beats:app"
INTERVAL = 1.0  # seconds

WITNESS = """
create table chaos.beats (key text, tick timestamptz, at timestamptz default clock_timestamp());
create function chaos.beat() returns trigger language plpgsql as $$ begin
    insert into chaos.beats (key, tick) values (new.id, (new.args->>'tick')::timestamptz);
    return null;
end $$;
create trigger beat after insert on worker.jobs for each row
    when (new.kind = 'beat') execute function chaos.beat();
"""
LAST = """
select w.pid, t.worker from worker.schedule_ticks t join worker.workers w on w.id = t.worker
 where t.decided_at > now() - interval '2 seconds' order by t.tick_at desc limit 1"""


@dataclass(frozen=True)
class Size:
    """changes: of the leader. away: the shortest and the longest time that a frozen one, or one
    that is cut off, stays away once another has taken over, in seconds. late: how much later than
    one interval a tick may be decided, on a machine that may stand still for a moment."""

    changes: int
    workers: int
    away: tuple[float, float]
    lease: float
    late: float = 0.0


FULL = Size(changes=100, workers=4, away=(0.0, 6.0), lease=3.0)
SHORT = Size(changes=6, workers=3, away=(0.0, 3.5), lease=2.0, late=4.0)


@dataclass
class Crew:
    """The replicas, by pid; those that are away, with when and how to bring them back."""

    scene: Scene
    wires: Wires
    wire_of: dict[int, Wire] = field(default_factory=dict)
    away: dict[int, tuple[float, Callable[[], None]]] = field(default_factory=dict)

    def start(self) -> Process:
        fleet = self.scene.fleet
        wire, fleet.url = self.wires.lay(self.scene.place.url)
        process = fleet.start()
        self.wire_of[process.pid] = wire
        return process

    def strike(self, victim: Process, fault: str) -> None:
        """Whoever is not killed is away until `allow_back`."""
        fleet = self.scene.fleet
        wire = self.wire_of[victim.pid]
        if fault == "killed":
            fleet.kill(victim)
            self.start()
        elif fault == "frozen":
            fleet.freeze(victim)
            self.away[victim.pid] = math.inf, lambda: fleet.thaw(victim)
        else:
            self.wires.cut(wire)
            self.away[victim.pid] = math.inf, lambda: self.wires.mend(wire)

    def allow_back(self, victim: Process, after: float) -> None:
        if victim.pid in self.away:
            _, back = self.away[victim.pid]
            self.away[victim.pid] = time.monotonic() + after, back

    def bring_back(self, *, all: bool = False) -> None:
        for pid, (until, back) in list(self.away.items()):
            if all or time.monotonic() >= until:
                back()
                del self.away[pid]

    def leader(self) -> Process | None:
        """Who decided the last tick, if it is at work and others are."""
        self.bring_back()
        row = self.scene.db.execute(LAST).fetchone()
        present = [p for p in self.scene.fleet.running if p.pid not in self.away]
        ready = [p for p in present if self.scene.fleet.events("worker.started", p)]
        if row is None or len(ready) < 2:
            return None
        return next((process for process in ready if process.pid == row[0]), None)

    def others_lead(self, victim: Process) -> bool:
        self.bring_back()
        row = self.scene.db.execute(LAST).fetchone()
        return row is not None and row[0] != victim.pid


def run(place: Place, size: Size) -> Figures:
    figures = Figures(f"one tick a second, {size.changes} changes of the leader")
    with (
        Wires() as wires,
        Scene.at(place, app=APP, slots=2, lease=size.lease, settings={"pool_size": 1}) as scene,
    ):
        scene.db.execute(WITNESS)
        crew = Crew(scene, wires)
        for process in [crew.start() for _ in range(size.workers)]:
            scene.fleet.wait_ready(process)
        taken_over = _change_leaders(crew, size)
        crew.bring_back(all=True)
        decided = int(scene.one("select count(*) from worker.schedule_ticks"))
        scene.fleet.until(lambda: _ticks(scene) > decided + 2)  # they are back, and it goes on
        codes = scene.fleet.stop_all()
        _finish(scene, place)
        for fault, seconds in taken_over.items():
            figures.add(f"leader {fault}", len(seconds))
            figures.add("  s until the next tick was decided, at most", max(seconds))
        figures.add("workers that stopped in order", codes.count(0), exactly=len(codes))
        _judge(scene, figures, INTERVAL + size.late)
        scene.judge(figures)
    return figures


def _change_leaders(crew: Crew, size: Size) -> dict[str, list[float]]:
    """Seconds until another replica decided a tick, by fault."""
    fleet = crew.scene.fleet
    taken_over: dict[str, list[float]] = {fault: [] for fault in FAULTS}
    for number, fault in zip(range(size.changes), itertools.cycle(FAULTS), strict=False):
        found: list[Process] = []

        def there_is_one(found: list[Process] = found) -> bool:
            leader = crew.leader()
            found.extend([leader] if leader else [])
            return bool(found)

        fleet.until(there_is_one)
        _wait_for_phase(number)
        crew.strike(found[0], fault)
        struck = time.monotonic()
        fleet.until(lambda: crew.others_lead(found[0]))  # noqa: B023
        taken_over[fault].append(time.monotonic() - struck)
        crew.allow_back(found[0], random.uniform(*size.away))
    return taken_over


def _wait_for_phase(number: int) -> None:
    """Half of the faults strike within milliseconds of a tick, the others anywhere between two."""
    phase = random.uniform(-0.003, 0.010) if number % 2 else random.uniform(0, 1)
    now = time.time()
    time.sleep((phase - now) % 1)


def _ticks(scene: Scene) -> int:
    return int(scene.one("select count(*) from worker.schedule_ticks"))


def _finish(scene: Scene, place: Place) -> None:
    """Runs what is left, without the schedule."""
    scene.db.execute("update worker.schedules set paused_at = now()")
    scene.acknowledged = [
        key for (key,) in scene.db.execute("select key from chaos.beats order by tick").fetchall()
    ]
    scene.fleet.url = place.url
    last = scene.fleet.start()
    scene.fleet.until(scene.drained, 120)
    scene.fleet.stop_all()
    assert not last.alive


def _judge(scene: Scene, figures: Figures, most: float) -> None:
    beats = scene.db.execute(
        "select key, extract(epoch from tick)::float8, extract(epoch from at)::float8"
        "  from chaos.beats order by tick, key"
    ).fetchall()
    leaders = [
        leader
        for (leader,) in scene.db.execute(
            "select worker from worker.schedule_ticks order by tick_at"
        ).fetchall()
    ]
    jobs = Counter(tick for _, tick, _ in beats)
    first, last = min(jobs), max(jobs)
    late = sorted(at - tick for _, tick, at in beats)
    ran = {run.key for run in scene.runs() if run.how == "done"}
    figures.add("ticks of the schedule in that time", round(last - first) + 1)
    figures.add("  with a job", len(jobs), exactly=round(last - first) + 1)
    figures.add("  with more than one", sum(n > 1 for n in jobs.values()), exactly=0)
    figures.add("  whose job never ran", len({key for key, _, _ in beats} - ran), exactly=0)
    figures.add("changes of who decided", sum(a != b for a, b in pairwise(leaders)))
    figures.add("ms that a tick was late, median", 1000 * late[len(late) // 2])
    figures.add("  of the slowest hundredth", 1000 * late[int(len(late) * 0.99)])
    figures.add("  slowest", 1000 * late[-1])
    figures.add(f"ticks later than {most:g} s", sum(s > most for s in late), exactly=0)
