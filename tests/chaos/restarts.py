"""Postgres crashes (stop -m immediate) and comes back, several times under load."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass

from tests.chaos.figures import Figures
from tests.chaos.place import Place
from tests.chaos.scene import Scene

FIRST_CLAIM_MOST = 5.0  # seconds after the server is back


@dataclass(frozen=True)
class Size:
    """away: seconds that the server stays away, the shortest and the longest. every: seconds of
    work between two restarts. late: how much later than it should the first claim may be made, on
    a machine that may stand still for a moment."""

    rows: int
    workers: int
    slots: int
    restarts: int
    every: float
    away: tuple[float, float]
    lease: float
    ms: tuple[float, float]
    late: float = 0.0


FULL = Size(10_000, 4, 8, restarts=5, every=5.0, away=(0.0, 12.0), lease=6.0, ms=(20, 170))
SHORT = Size(300, 2, 4, restarts=2, every=0.4, away=(0.0, 1.0), lease=6.0, ms=(10, 80), late=5.0)


def run(place: Place, size: Size) -> Figures:
    figures = Figures(f"Postgres restarted (immediate) {size.restarts} times under load")
    cluster = place.cluster
    assert cluster is not None
    with Scene.at(place, slots=size.slots, lease=size.lease) as scene:
        scene.load_mixed(size.rows, size.ms)
        workers = scene.fleet.start_many(size.workers)
        backs = []
        for number in range(size.restarts):
            time.sleep(size.every)
            scene.keep_busy(size.rows // 4, size.ms)
            cluster.stop("immediate")
            first, last = size.away
            time.sleep(first + (last - first) * number / max(1, size.restarts - 1))
            cluster.start()
            backs.append(time.time())
            scene.server_was_away()
            scene.fleet.until(lambda since=backs[-1]: _claimed(scene, since))
        scene.fleet.until(scene.drained, 300)
        same = sum(worker.alive for worker in workers)
        codes = scene.fleet.stop_all()
        figures.add("restarts", size.restarts)
        figures.add("  server away for at most, in s", max(size.away))
        figures.add("worker processes that never exited", same, exactly=size.workers)
        figures.add("workers that stopped in order", codes.count(0), exactly=size.workers)
        claims = [claim - back for back in backs if (claim := first_claim(scene, back))]
        most = FIRST_CLAIM_MOST + size.late
        figures.add("first claim after the server was back, s", max(claims), most=most)
        figures.add("db.reconnecting lines", len(scene.fleet.events("db.reconnecting")))
        figures.add("  of one process in half a second", _busiest_second(scene), most=1)
        dead = scene.one("select count(*) from worker.workers where gone_at is not null")
        figures.add("workers declared dead", dead, exactly=0)
        scene.judge(figures)
    return figures


def _claimed(scene: Scene, since: float) -> bool:
    """Whether there was a claim since then; where nothing was left to claim, there is now."""
    if scene.drained():
        scene.load(10, "work", ms=10)
    return first_claim(scene, since) is not None


def first_claim(scene: Scene, since: float) -> float | None:
    """When the first claim after `since` was made."""
    found = scene.one(
        """select extract(epoch from min(at))::float8 from chaos.changes
            where what = 'UPDATE' and old_owner is null and new_owner is not null
              and at >= to_timestamp(%s)""",
        since,
    )
    return None if found is None else float(found)


def _busiest_second(scene: Scene) -> int:
    """The most `db.reconnecting` events of one process within half a second: they are a second
    apart when they are decided on, and may be noted a moment later."""
    times: dict[object, list[float]] = defaultdict(list)
    for event in scene.fleet.events("db.reconnecting"):
        times[event["pid"]].append(float(event["at"]))
    return max(
        (
            sum(begin <= at < begin + 0.5 for at in of_one)
            for of_one in times.values()
            for begin in of_one
        ),
        default=0,
    )
