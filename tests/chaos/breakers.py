"""A circuit breaker that all workers share: the provider fails, all are silent, one tries."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tests.chaos.figures import Figures
from tests.chaos.place import Place
from tests.chaos.provider import PORT, Call, Provider
from tests.chaos.scene import Scene

PAUSE = 5.0
QUIET = PAUSE / 2  # after so long nobody but who tries may call; a process may stand still


@dataclass(frozen=True)
class Size:
    workers: int
    rows: int
    trials: int


FULL = Size(workers=4, rows=3_000, trials=3)
SHORT = Size(workers=2, rows=600, trials=1)


def run(place: Place, size: Size) -> Figures:
    figures = Figures(f"A breaker for 10 failures in a row, {size.workers} workers")
    with (
        Provider() as provider,
        Scene.at(place, app="tests.chaos.limited:app", slots=4, lease=30.0) as scene,
    ):
        scene.fleet.environment[PORT] = str(provider.port)
        scene.db.execute(
            "insert into worker.gates (kind, trip_after, trip_pause, set_by)"
            " values ('call', 10, make_interval(secs => %s), 'me')",
            [PAUSE],
        )
        scene.fleet.start_many(size.workers)
        scene.load(size.rows, "call")
        scene.db.execute("notify duerow, 'default'")
        scene.fleet.until(lambda: len(provider.calls()) > 50)
        provider.answer(500)
        failed = time.time()
        scene.load(size.rows, "call")  # it may have served all of them by now
        opened = "select opened_at is not null from worker.gates"
        scene.fleet.until(lambda: scene.one(opened))
        at = float(scene.one("select extract(epoch from opened_at)::float8 from worker.gates"))
        tried = "select extract(epoch from open_until - opened_at) > %s from worker.gates"
        scene.fleet.until(lambda: scene.one(tried, PAUSE * (size.trials + 0.5)))
        mended = time.time()
        provider.answer(200)
        scene.fleet.until(lambda: not scene.one(opened), 30)
        scene.fleet.until(lambda: _served(provider.calls(), mended) >= 100)
        calls = provider.calls()
        scene.fleet.stop_all()
        bad = [call for call in calls if call.status == 500]
        late = [call for call in bad if call.began > at]
        trials = _trials(late, at)
        figures.add("failures before it opened", len(bad) - len(late))
        figures.add(
            "silent after, s",
            max((c.began - at for c in late if c.began < at + 0.9 * PAUSE), default=0.0),
            most=QUIET,
        )
        figures.add("trials that failed", len(trials), least=size.trials)
        figures.add("  calls in each, at most", max(map(len, trials), default=0), exactly=1)
        figures.add("seconds from first failure until it opened", at - failed)
        figures.add("calls after it closed", _served(calls, mended), least=100)
        scene.fleet.start_many(1)
        scene.fleet.until(scene.drained, 120)
        lost = "select count(*) from worker.jobs_finished where state <> 'done'"
        figures.add("rows that were not done in the end", scene.one(lost), exactly=0)
    return figures


def _served(calls: list[Call], since: float) -> int:
    return sum(call.status == 200 and call.began > since for call in calls)


def _trials(late: list[Call], opened: float) -> list[list[Call]]:
    """The calls that came once those under way had ended, by the pause between them."""
    groups: list[list[Call]] = []
    for call in sorted(late, key=lambda call: call.began):
        if groups and call.began - groups[-1][-1].began < QUIET:
            groups[-1].append(call)
        else:
            groups.append([call])
    return [group for group in groups if group[0].began - opened > QUIET]
