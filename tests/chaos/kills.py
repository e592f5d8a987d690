"""Workers are killed (SIGKILL) under load and started again."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tests.chaos.figures import Figures
from tests.chaos.place import Place
from tests.chaos.scene import Scene


@dataclass(frozen=True)
class Size:
    """ms: shortest and longest run time of a row. every: seconds between two kills."""

    rows: int
    workers: int
    slots: int
    kills: int
    every: float
    lease: float
    ms: tuple[float, float]


FULL = Size(rows=20_000, workers=4, slots=8, kills=20, every=3.0, lease=3.0, ms=(20, 170))
SHORT = Size(rows=400, workers=3, slots=4, kills=3, every=0.5, lease=1.5, ms=(5, 60))


def run(place: Place, size: Size) -> Figures:
    figures = Figures(f"SIGKILL of a random worker every {size.every:g} s, {size.kills} times")
    with Scene.at(place, slots=size.slots, lease=size.lease) as scene:
        scene.load_mixed(size.rows, size.ms)
        began = time.monotonic()
        scene.fleet.start_many(size.workers)
        for number in range(size.kills):
            due = began + (number + 1) * size.every
            time.sleep(max(0.0, due - time.monotonic()))
            scene.keep_busy(size.rows // 4, size.ms)
            scene.fleet.kill_one()
            scene.fleet.start()
        last_kill = time.monotonic()
        scene.fleet.until(scene.drained, 300)
        ended = time.monotonic()
        codes = scene.fleet.stop_all()
        figures.add("worker processes x slots", f"{size.workers} x {size.slots}")
        figures.add("kills", size.kills)
        hit = [run for run in scene.runs() if run.ended is None and run.pid in scene.fleet.killed]
        figures.add("  of workers that ran rows", len({run.pid for run in hit}))
        figures.add("  rows that they ran", len(hit))
        figures.add("seconds until all rows were final", ended - began)
        figures.add("  of those after the last kill", ended - last_kill)
        figures.add("workers that stopped in order", codes.count(0), exactly=size.workers)
        scene.judge(figures)
    return figures
