"""A rate that the whole fleet keeps, counted at the provider."""

from __future__ import annotations

import bisect
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tests.chaos.figures import Figures
from tests.chaos.place import Place
from tests.chaos.provider import PORT, Call, Provider
from tests.chaos.scene import Scene


@dataclass(frozen=True)
class Size:
    """rate: calls a second; burst: how many more; seconds: for how long. share: of the rate that
    must be used at least. held_up: whether calls may be late on their way, as on a machine that
    stands still for a moment; what they are late by is then allowed for."""

    workers: int
    rate: int
    burst: int
    seconds: float
    share: float = 0.95
    held_up: bool = False


FULL = Size(workers=6, rate=50, burst=10, seconds=60)
SHORT = Size(workers=3, rate=50, burst=10, seconds=5, share=0.5, held_up=True)


def run(place: Place, size: Size) -> Figures:
    figures = Figures(f"{size.rate} calls a second, {size.workers} workers, {size.seconds:g} s")
    with (
        Provider() as provider,
        Scene.at(place, app="tests.chaos.limited:app", slots=10, lease=30.0) as scene,
    ):
        scene.fleet.environment[PORT] = str(provider.port)
        scene.db.execute(
            "insert into worker.gates (kind, rate, burst, set_by) values ('call', %s, %s, 'me')",
            [size.rate, size.burst],
        )
        scene.fleet.start_many(size.workers)
        scene.load(int(size.rate * size.seconds * 1.5), "call")
        scene.db.execute("notify duerow, 'default'")
        scene.fleet.until(provider.calls)
        time.sleep(size.seconds)
        calls = provider.calls()
        scene.fleet.stop_all()
        at = sorted(call.began for call in calls)
        first = at[0]
        counted = [moment for moment in at if moment < first + size.seconds]
        most, slow = busiest(at), _spread(scene, calls)
        share = len(counted) / (size.rate * size.seconds)
        figures.add("worker processes x slots", f"{size.workers} x 10")
        figures.add("calls in all", len(calls))
        figures.add("s from claim to call: the slowest beyond the quickest", slow)
        allowed = size.rate * (1 + slow * size.held_up) + size.burst
        figures.add("most in any second", most, most=allowed)
        figures.add("most in any second after the first", busiest([t for t in at if t > first + 1]))
        figures.add("share of the rate that was used", share, least=size.share)
        figures.add("calls for one row, at most", _most_of_one([c.key for c in calls]), most=1)
    return figures


def busiest(at: Sequence[float], window: float = 1.0) -> int:
    """The most moments in any window, sliding; `at` in order."""
    return max(
        (i + 1 - bisect.bisect_left(at, moment - window) for i, moment in enumerate(at)), default=0
    )


def _spread(scene: Scene, calls: Sequence[Call]) -> float:
    """By how much the way from a claim to the provider differs. Calls that the fleet was allowed
    to make in more than a second arrive within one when the first of them were held up so long."""
    claims = "select id::text, extract(epoch from claimed_at)::float8 from worker.jobs_finished"
    claimed = dict(scene.db.execute(claims).fetchall())
    ways = [call.began - claimed[call.key] for call in calls if call.key in claimed]
    return max(ways) - min(ways)


def _most_of_one(keys: Sequence[str]) -> int:
    return max(Counter(keys).values(), default=0)
