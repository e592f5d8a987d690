"""Single connections are ended (pg_terminate_backend) under load, whichever they are."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

from tests.chaos.figures import Figures
from tests.chaos.place import Place
from tests.chaos.scene import Scene


@dataclass(frozen=True)
class Size:
    """every: seconds between two terminations."""

    rows: int
    workers: int
    slots: int
    terminations: int
    every: float
    lease: float
    ms: tuple[float, float]


FULL = Size(10_000, 4, 8, terminations=200, every=0.2, lease=6.0, ms=(20, 170))
SHORT = Size(300, 2, 4, terminations=20, every=0.1, lease=6.0, ms=(10, 80))

TERMINATE = """
select application_name, pg_terminate_backend(pid)
  from (select pid, application_name from pg_stat_activity
         where datname = current_database() and application_name like 'duerow %%'
         order by random() limit 1) one"""


def run(place: Place, size: Size) -> Figures:
    figures = Figures(f"{size.terminations} random connections terminated under load")
    with Scene.at(place, slots=size.slots, lease=size.lease) as scene:
        scene.load_mixed(size.rows, size.ms)
        workers = scene.fleet.start_many(size.workers)
        ended: Counter[str] = Counter()
        for _ in range(size.terminations):
            time.sleep(size.every)
            for name, _sent in scene.db.execute(TERMINATE):
                ended[name] += 1
        scene.fleet.until(scene.drained, 300)
        same = sum(worker.alive for worker in workers)
        codes = scene.fleet.stop_all()
        for name, count in sorted(ended.items()):
            figures.add(f"terminated: {name}", count)
        figures.add("worker processes that never exited", same, exactly=size.workers)
        figures.add("workers that stopped in order", codes.count(0), exactly=size.workers)
        dead = scene.one("select count(*) from worker.workers where gone_at is not null")
        figures.add("workers declared dead", dead, exactly=0)
        scene.judge(figures)
    return figures
