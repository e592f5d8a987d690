"""Handlers that end their process: os._exit, a segfault. A supervisor starts the worker again."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from tests.chaos.figures import Figures
from tests.chaos.history import History
from tests.chaos.place import Place
from tests.chaos.scene import Scene

KILLERS = ("exit", "segfault")


@dataclass(frozen=True)
class Size:
    """killers: rows of each kind of killer. rows: neighbours that want only to finish."""

    rows: int
    killers: int
    workers: int
    slots: int
    lease: float
    ms: float


FULL = Size(rows=2_000, killers=3, workers=4, slots=8, lease=2.0, ms=50)
SHORT = Size(rows=50, killers=1, workers=2, slots=4, lease=2.5, ms=20)
CRASHES = 3


def run(place: Place, size: Size) -> Figures:
    count = size.killers * len(KILLERS)
    figures = Figures(f"{count} rows whose handler ends its process, among {size.rows} others")
    with Scene.at(place, slots=size.slots, lease=size.lease) as scene:
        fleet = scene.fleet
        killers = [
            key
            for kind in KILLERS
            for _ in range(size.killers)
            for key in (
                *scene.load(1, kind),
                *(scene.load(size.rows // count, ms=size.ms) and ()),
            )
        ]
        polite = scene.load(1, "sys_exit")

        def drained() -> bool:
            for _ in range(size.workers - len(fleet.running)):
                fleet.start()
            return scene.drained()

        fleet.until(drained, 300)
        fleet.until(lambda: len(fleet.running) == size.workers)
        fleet.stop_all()
        history = scene.judge(figures)
        finals = history.final_of
        runs = Counter(run.key for run in history.runs)
        dead = [key for key in killers if finals[key].state == "dead"]
        figures.add("killers dead", len(dead), exactly=count)
        crashes = {str(finals[key].crashes) for key in killers}
        figures.add("  after crashes", ", ".join(sorted(crashes)), exactly=str(CRASHES))
        most = max(runs[key] for key in killers)
        figures.add("  after runs, at most", most, most=CRASHES)
        figures.add("  after runs, at least", min(runs[key] for key in killers))
        others = [final for final in history.finals if final.key not in {*killers, *polite}]
        unlucky = _counted_for_nothing(history)
        done = sum(final.state == "done" or final.key in unlucky for final in others)
        figures.add("neighbours done", done, exactly=len(others))
        figures.add("  that crashed beside a killer", sum(final.crashes > 0 for final in others))
        figures.add("sys.exit() in a handler: state", finals[polite[0]].state, exactly="dead")
        lives_on = finals[polite[0]].ran or polite[0] in unlucky
        figures.add("  settled by a worker that lives on", int(lives_on), exactly=1)
        exits = Counter(process.popen.returncode for process in fleet.processes)
        ended = ", ".join(f"{n} x {code}" for code, n in sorted(exits.items()) if code != 0)
        figures.add("processes ended by their handlers", ended)
    return figures


def _counted_for_nothing(history: History) -> set[str]:
    """Rows with a crash to their name of a worker that lived: where the machine stands still for as
    long as a lease, workers are declared dead, and beside two killers that is a crash too many."""
    living = {
        life.id
        for life in history.workers.values()
        if life.gone is not None and life.gone < history.deaths.get(life.pid, float("inf"))
    }
    swept = {
        change.key
        for change in history.changes
        if change.old_owner in living and (change.new_crashes or 0) > (change.old_crashes or 0)
    }
    ended = {final.key for final in history.finals if final.worker in living and not final.ran}
    return swept | ended
