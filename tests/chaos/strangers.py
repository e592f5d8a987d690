"""Rows of a kind that no worker here can run lie ahead of the rows that it can run."""

from __future__ import annotations

from dataclasses import dataclass

from tests.chaos.figures import Figures
from tests.chaos.place import Place
from tests.chaos.scene import Scene

FIRST_START_MOST = 1.0  # seconds


@dataclass(frozen=True)
class Size:
    """late: how much later than it should a row may start, on a machine that may stand still for a
    moment; half of the rows may not."""

    strangers: int
    rows: int
    late: float = 0.0


FULL = Size(strangers=10_000, rows=20)
SHORT = Size(strangers=10_000, rows=5, late=9.0)


def run(place: Place, size: Size) -> Figures:
    figures = Figures(f"{size.strangers:,} rows of an unregistered kind ahead in the queue")
    with Scene.at(place, lease=10.0) as scene:
        strangers = scene.load(size.strangers, "nobody_knows", {"priority": -100, "delay": -3600})
        [waiting] = scene.load(1, ms=0)
        worker = scene.fleet.start()
        scene.fleet.wait_ready(worker)
        [ready] = scene.fleet.events("worker.started")
        figures.add(
            "row waiting: s from the worker's start",
            _start_of(scene, waiting) - float(ready["at"]),
            most=FIRST_START_MOST + size.late,
        )
        latencies = []
        for _ in range(size.rows):
            [key] = scene.load(1, ms=0)
            enqueued = scene.one(
                """select extract(epoch from at)::float8 from chaos.changes
                    where key = %s and what = 'INSERT'""",
                key,
            )
            latencies.append(_start_of(scene, key) - enqueued)
        latencies.sort()
        figures.add("rows enqueued one by one", size.rows)
        most, median = 1000 * FIRST_START_MOST, latencies[len(latencies) // 2]
        figures.add("  ms to start, median", 1000 * median, most=most)
        figures.add("  slowest", 1000 * latencies[-1], most=most + 1000 * size.late)
        scene.fleet.until(lambda: scene.workload.unfinished(scene.db) == size.strangers)
        scene.fleet.stop_all()
        history = scene.judge(figures, finished=False)
        touched = {change.key for change in history.changes if change.what != "INSERT"}
        figures.add("strangers touched", len(touched & set(strangers)), exactly=0)
    return figures


def _start_of(scene: Scene, key: str) -> float:
    """When the handler of that row started, by the ledger."""
    found: list[float] = []

    def started() -> bool:
        runs = scene.runs()
        found.extend(run.started for run in runs if run.key == key)
        return bool(found)

    scene.fleet.until(started, 30)
    return found[0]
