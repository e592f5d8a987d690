"""Signals as platforms send them: twice, to the whole group, before the worker has started."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.figures import Figures
from tests.chaos.fleet import Process
from tests.chaos.place import Place
from tests.chaos.scene import Scene


@dataclass(frozen=True)
class Size:
    times: int


FULL = Size(times=5)
SHORT = Size(times=1)


def run(place: Place, size: Size) -> Figures:
    figures = Figures(f"Signals off a terminal, {size.times} times each")
    with Scene.at(place, slots=4, lease=5.0, grace=10.0) as scene:
        cases = {
            "SIGTERM twice": _twice,
            "SIGTERM to the whole group": _to_the_group,
            "SIGINT off a terminal": _interrupt,
            "SIGTERM and SIGINT together": _both,
            "SIGTERM while it starts": _while_it_starts,
        }
        for name, case in cases.items():
            codes = [case(scene) for _ in range(size.times)]
            told = ", ".join(sorted({str(code) for code in codes}))
            figures.add(f"{name}: exit code", told, exactly="0")
        live = scene.workload.live(scene.db)
        figures.add("rows left claimed", sum(row.owner is not None for row in live), exactly=0)
        scene.judge(figures, finished=False)
    return figures


def _busy(scene: Scene, **popen: object) -> Process:
    """A worker in the middle of its work."""
    scene.load(200, ms=300)  # long enough for the second signal to find it
    worker = scene.fleet.start(**popen)
    scene.fleet.wait_ready(worker)
    scene.fleet.until(lambda: any(run.pid == worker.pid for run in scene.runs()))
    return worker


def _twice(scene: Scene) -> int:
    worker = _busy(scene)
    scene.fleet.stop(worker)
    scene.fleet.until(lambda: scene.fleet.events("worker.draining", worker) or not worker.alive)
    scene.fleet.stop(worker)
    return scene.fleet.wait_exit(worker, 20)


def _to_the_group(scene: Scene) -> int:
    worker = _busy(scene, start_new_session=True)
    for _ in range(3):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGTERM)
    return scene.fleet.wait_exit(worker, 20)


def _interrupt(scene: Scene) -> int:
    worker = _busy(scene)
    scene.fleet.stop(worker, signal.SIGINT)
    return scene.fleet.wait_exit(worker, 20)


def _both(scene: Scene) -> int:
    worker = _busy(scene)
    scene.fleet.stop(worker, signal.SIGINT)
    scene.fleet.stop(worker, signal.SIGTERM)
    return scene.fleet.wait_exit(worker, 20)


def _while_it_starts(scene: Scene) -> int:
    """As soon as its signal handlers stand."""
    worker = scene.fleet.start()
    scene.fleet.until(lambda: _catches(worker.pid, signal.SIGTERM))
    scene.fleet.stop(worker)
    return scene.fleet.wait_exit(worker, 20)


def _catches(pid: int, number: int) -> bool:
    """Whether a process has a handler of its own for a signal (Linux only)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [mask] = [line.split()[1] for line in lines if line.startswith("SigCgt:")]
    return bool(int(mask, 16) & 1 << (number - 1))
