"""A limit on how many rows of one key run at once, kept by the fleet while workers are killed;
counted by the handlers themselves, outside the database."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from tests.chaos.figures import Figures
from tests.chaos.fleet import Process
from tests.chaos.history import History
from tests.chaos.ledger import Run
from tests.chaos.place import Place
from tests.chaos.scene import Scene


@dataclass(frozen=True)
class Size:
    """most: rows of a key at once. every: seconds between two kills."""

    workers: int
    rows: int
    most: int
    kills: int
    every: float
    ms: float


FULL = Size(workers=6, rows=2_000, most=3, kills=10, every=3.0, ms=30)
SHORT = Size(workers=3, rows=300, most=3, kills=2, every=0.7, ms=20)


def run(place: Place, size: Size) -> Figures:
    figures = Figures(f"At most {size.most} rows of a key at once, {size.kills} workers killed")
    with Scene.at(place, app="tests.chaos.limited:app", slots=8, lease=1.5) as scene:
        scene.db.execute(
            "insert into worker.gates (kind, tenant, concurrency, set_by)"
            " values ('hold', '*', %s, 'me')",
            [size.most],
        )
        scene.load(size.rows, "hold", columns={"tenant": "one"}, ms=size.ms)
        scene.load(size.rows // 10, "hold", columns={"tenant": "other"}, ms=size.ms)
        began = time.monotonic()
        scene.fleet.start_many(size.workers)
        for number in range(size.kills):
            due = began + (number + 1) * size.every
            time.sleep(max(0.0, due - time.monotonic()))
            at_work = scene.fleet.until(lambda: _at_work(scene))
            scene.fleet.kill(random.choice(at_work))
            scene.fleet.start()
        scene.fleet.until(scene.drained, 300)
        seconds = time.monotonic() - began
        scene.fleet.stop_all()
        tenants = dict(scene.db.execute("select id::text, tenant from worker.jobs_finished"))
        history = scene.history()
        figures.add("worker processes x slots", f"{size.workers} x 8")
        figures.add("kills of workers that held rows", size.kills)
        figures.add("seconds", seconds)
        for tenant in ("one", "other"):
            runs = [run for run in history.runs if tenants[run.key] == tenant]
            most = most_at_once(runs, history)
            figures.add(f"runs of tenant {tenant} at once, at most", most, most=size.most)
        held = "select coalesce(sum(in_use), 0) from worker.gates"
        figures.add("slots in use when all is over", scene.one(held), exactly=0)
        scene.judge(figures)
    return figures


def _at_work(scene: Scene) -> list[Process]:
    """The processes that hold rows."""
    query = "select w.pid from worker.workers w join worker.jobs j on j.owner = w.id"
    pids = {pid for (pid,) in scene.db.execute(query)}
    return [process for process in scene.fleet.running if process.pid in pids]


def most_at_once(runs: list[Run], history: History) -> int:
    """A run that never ended lasted until its process was gone. One whose worker was declared dead,
    as a machine that stands still brings about, has had its slot no more from then on."""
    changes: list[tuple[float, int]] = []
    for run in runs:
        life = history.workers.get(run.worker)
        gone = life.gone if life is not None else None
        ended = min(history.end_of(run), float("inf") if gone is None else gone)
        if run.started < ended:
            changes += [(run.started, 1), (ended, -1)]
    now = most = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most
