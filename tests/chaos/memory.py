"""The peak memory of a worker that drains a long queue."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.figures import Figures
from tests.chaos.place import Place
from tests.chaos.scene import Scene

PEAK_MOST = 60.0  # MiB


@dataclass(frozen=True)
class Size:
    rows: int


FULL = Size(50_000)
SHORT = Size(3_000)


def run(place: Place, size: Size) -> Figures:
    figures = Figures(f"Peak memory of a worker that drains {size.rows:,} rows")
    # without ledger and trigger: what is measured is the worker
    with Scene.at(place, app="tests.chaos.plain:app", slots=10, lease=30.0) as scene:
        scene.db.execute("drop trigger chaos_record on worker.jobs")
        scene.load(size.rows, "plain")
        worker = scene.fleet.start()
        scene.fleet.until(lambda: scene.workload.unfinished(scene.db) < size.rows)
        begun = time.monotonic()
        at_first = _peak(worker.pid)
        scene.fleet.until(scene.drained, 300)
        seconds = time.monotonic() - begun
        peak = _peak(worker.pid)
        scene.fleet.stop(worker)
        scene.fleet.wait_exit(worker)
        done = scene.one("select count(*) from worker.jobs_finished where state = 'done'")
        figures.add("rows done", done, exactly=size.rows)
        figures.add("rows per second", int(size.rows / seconds))
        figures.add("VmHWM after the first rows, MiB", at_first)
        figures.add("VmHWM at the end, MiB", peak, most=PEAK_MOST)
    return figures


def _peak(pid: int) -> float:
    """The most memory that a process ever had resident, in MiB (Linux only)."""
    status = Path(f"/proc/{pid}/status").read_text()
    match = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert match is not None
    return int(match[1]) / 1024
