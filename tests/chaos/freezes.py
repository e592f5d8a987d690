"""A worker is frozen (SIGSTOP) past its lease, with results at hand, and thawed: a zombie."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass

from tests.chaos.figures import Figures
from tests.chaos.fleet import Process
from tests.chaos.place import Place
from tests.chaos.scene import Scene


@dataclass(frozen=True)
class Size:
    """frozen: the shortest and the longest freeze beyond the lease, in seconds."""

    rows: int
    workers: int
    slots: int
    zombies: int
    lease: float
    frozen: tuple[float, float]
    ms: tuple[float, float]


FULL = Size(6_000, workers=4, slots=8, zombies=12, lease=3.0, frozen=(1.0, 8.0), ms=(20, 400))
# no shorter lease: a machine that stands still for a second makes zombies of its own
SHORT = Size(100, workers=2, slots=4, zombies=1, lease=5.0, frozen=(0.0, 0.0), ms=(50, 200))


def run(place: Place, size: Size) -> Figures:
    figures = Figures(f"SIGSTOP past a lease of {size.lease:g} s, {size.zombies} times")
    with Scene.at(place, slots=size.slots, lease=size.lease) as scene:
        fleet = scene.fleet
        fleet.start_many(size.workers)
        scene.load_mixed(size.rows, size.ms)
        first, last = size.frozen
        held = 0
        for number in range(size.zombies):
            share = number / max(1, size.zombies - 1)
            held += _make_zombie(
                scene, fleet.running[number % size.workers], first + (last - first) * share
            )
        fleet.until(scene.drained, 300)
        # what was refused is written down even if nothing else is left to do
        refused = len(fleet.events("row.lost"))
        fleet.until(lambda: _counted(scene) >= refused, 30)
        fenced = len(fleet.events("worker.fenced"))
        again = _worked_again(scene)
        codes = fleet.stop_all()
        figures.add("rows running in the frozen workers", held)
        figures.add("workers declared dead", _dead(scene), exactly=size.zombies)
        figures.add("  that noticed, and came back under a new id", fenced, exactly=size.zombies)
        figures.add("processes that ran rows after their last death", again)
        refused = len(fleet.events("row.lost"))
        figures.add("late results refused: row.lost", refused)
        figures.add("  workers.lost", _counted(scene), exactly=refused)
        figures.add("  attempts 'lost'", _attempts_lost(scene), exactly=refused)
        figures.add("workers that stopped in order", codes.count(0), exactly=size.workers)
        scene.judge(figures)
    return figures


def _make_zombie(scene: Scene, victim: Process, frozen: float) -> int:
    """Freezes a worker in its work until its rows have gone to others, and `frozen` seconds more;
    thaws it, and returns how many rows it had been running once it has a new id."""
    fleet, pid = scene.fleet, victim.pid
    # Where rows can be limited to one attempt they are dead as soon as they are swept: the zombie's
    # result finds a row that is final. There they go first, too; elsewhere any row will do.
    limited = scene.workload.has_priorities
    columns = {"max_attempts": 1, "priority": -1} if limited else {}
    added: list[str] = []

    def busy() -> bool:
        if not added or scene.drained():  # the others may have been quicker
            added.extend(scene.load(2 * fleet.slots * len(fleet.running), "work", columns, ms=500))
        return _runs_now(scene, pid, added if limited else ()) > 0

    fleet.until(busy)
    fleet.freeze(victim)
    lives = _lives(scene, pid)
    held = _runs_now(scene, pid)
    fleet.until(lambda: _deaths(scene, pid) == lives and not _holds_rows(scene, pid))
    time.sleep(frozen)
    fleet.thaw(victim)
    fleet.until(lambda: _lives(scene, pid) > lives)
    return held


def _runs_now(scene: Scene, pid: int, keys: Collection[str] = ()) -> int:
    """How many rows that process is running, by the ledger; of those keys, if there are any."""
    runs = scene.runs()
    running = {run.key for run in runs if run.pid == pid and run.ended is None}
    return len(running & set(keys) if keys else running)


def _lives(scene: Scene, pid: int) -> int:
    return int(scene.one("select count(*) from worker.workers where pid = %s", pid))


def _deaths(scene: Scene, pid: int) -> int:
    """How many of its ids were declared dead."""
    return int(scene.one("select count(gone_at) from worker.workers where pid = %s", pid))


def _holds_rows(scene: Scene, pid: int) -> bool:
    owners = {live.owner for live in scene.workload.live(scene.db)} - {None}
    ids = scene.db.execute("select id from worker.workers where pid = %s", [pid]).fetchall()
    return any(worker in owners for (worker,) in ids)


def _dead(scene: Scene) -> int:
    return int(scene.one("select count(*) from worker.workers where gone_at is not null"))


def _counted(scene: Scene) -> int:
    return int(scene.one("select sum(lost) from worker.workers"))


def _attempts_lost(scene: Scene) -> int:
    return int(scene.one("select count(*) from worker.attempts where outcome = 'lost'"))


def _worked_again(scene: Scene) -> int:
    """How many of those declared dead ran rows under a later id."""
    dead = scene.db.execute(
        "select pid, max(id) from worker.workers where gone_at is not null group by pid"
    ).fetchall()
    runs = scene.runs()
    return sum(any(run.pid == pid and run.worker > last for run in runs) for pid, last in dead)
