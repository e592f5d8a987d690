"""A user's table is locked (ACCESS EXCLUSIVE) under load, and set free."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import psycopg

from tests.chaos.figures import Figures
from tests.chaos.fleet import Fleet
from tests.chaos.place import Place
from tests.chaos.restarts import first_claim
from tests.chaos.scene import Scene

FIRST_CLAIM_MOST = 31.0  # a source that fails is asked again after 30 s at most


@dataclass(frozen=True)
class Size:
    """held: seconds, at least: until a worker has told of it."""

    rows: int
    workers: int
    slots: int
    held: float
    lease: float
    ms: tuple[float, float]


FULL = Size(rows=5_000, workers=4, slots=8, held=60.0, lease=3.0, ms=(20, 170))
SHORT = Size(rows=300, workers=2, slots=4, held=2.0, lease=6.0, ms=(10, 80))


def run(place: Place, size: Size) -> Figures:
    figures = Figures(f"ACCESS EXCLUSIVE held for {size.held:g} s")
    with Scene.at(place, slots=size.slots, lease=size.lease) as scene:
        fleet = scene.fleet
        scene.load_mixed(size.rows, size.ms)
        workers = fleet.start_many(size.workers)
        fleet.until(lambda: any(run.ended for run in scene.runs()))
        with psycopg.connect(place.url) as user:
            fleet.until(lambda: _locked_with_rows_left(scene, user, size))
            time.sleep(size.held)
            # one whose handlers all wait with their sessions has nothing to claim or settle
            fleet.until(lambda: _told(fleet))
            told = fleet.events("source.failed")
        back = time.time()
        fleet.until(lambda: first_claim(scene, back) is not None)
        fleet.until(scene.drained, 300)
        same = sum(worker.alive for worker in workers)
        codes = fleet.stop_all()
        figures.add("workers that told of it", len(_told(fleet)))
        figures.add("  source.failed lines meanwhile", len(told))
        whys = {event["why"] for event in told}
        figures.add("  why", "; ".join(sorted(whys)), exactly=WHY)
        claim = first_claim(scene, back) or back
        figures.add("first claim after it was free, s", claim - back, most=FIRST_CLAIM_MOST)
        figures.add("worker processes that never exited", same, exactly=size.workers)
        figures.add("workers that stopped in order", codes.count(0), exactly=size.workers)
        dead = scene.one("select count(*) from worker.workers where gone_at is not null")
        figures.add("workers declared dead", dead, exactly=0)
        scene.judge(figures)
    return figures


def _locked_with_rows_left(scene: Scene, user: psycopg.Connection[Any], size: Size) -> bool:
    """A fleet that was quicker than we is given more to do."""
    user.execute(f"lock table {scene.workload.source} in access exclusive mode".encode())
    if scene.workload.unfinished(user) > size.rows // 4:
        return True
    user.rollback()
    scene.load_mixed(size.rows, size.ms)
    return False


def _told(fleet: Fleet) -> set[str]:
    return {event["pid"] for event in fleet.events("source.failed")}


WHY = "LockNotAvailableError: canceling statement due to lock timeout"
