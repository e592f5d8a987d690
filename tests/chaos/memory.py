"""The peak memory of a worker that drains a long queue.

Nearly all of it is what was imported, and of that a third is pages of shared libraries, which
differ from machine to machine. So it is the growth that the short form holds to tightly.

A first worker leaves the modules' bytecode, as pip does when it installs them: one that must
compile what it imports takes twice the CPU until its first row, and a megabyte more.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.figures import Figures
from tests.chaos.place import Place
from tests.chaos.scene import Scene


@dataclass(frozen=True)
class Size:
    """peak, growth: MiB at most; growth is what the rows after the first ones add to the peak."""

    rows: int
    peak: float
    growth: float


FULL = Size(50_000, peak=57.0, growth=3.0)
SHORT = Size(3_000, peak=57.0, growth=1.5)


def run(place: Place, size: Size) -> Figures:
    figures = Figures(f"Peak memory of a worker that drains {size.rows:,} rows")
    # without ledger and trigger: what is measured is the worker
    with Scene.at(
        place,
        app="tests.chaos.plain:app",
        slots=10,
        lease=3.0,  # it beats within the run
        environment={
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": str(place.directory / "bytecode"),
        },
    ) as scene:
        scene.db.execute("drop trigger chaos_record on worker.jobs")
        first = scene.fleet.start()
        scene.fleet.until(lambda: scene.one("select count(*) from worker.workers"))
        scene.fleet.stop(first)
        scene.fleet.wait_exit(first)
        scene.load(size.rows, "plain")
        worker = scene.fleet.start()
        scene.fleet.until(lambda: scene.workload.unfinished(scene.db) < size.rows)
        begun = time.monotonic()
        at_first = _peak(worker.pid)
        busy = _cpu(worker.pid)
        scene.fleet.until(scene.drained, 300)
        seconds = time.monotonic() - begun
        peak = _peak(worker.pid)
        scene.fleet.stop(worker)
        scene.fleet.wait_exit(worker)
        done = scene.one("select count(*) from worker.jobs_finished where state = 'done'")
        figures.add("rows done", done, exactly=size.rows)
        figures.add("rows per second", int(size.rows / seconds))
        figures.add("CPU seconds until the first rows", busy)
        figures.add("VmHWM after the first rows, MiB", at_first)
        figures.add("VmHWM at the end, MiB", peak, most=size.peak)
        figures.add("growth, MiB", peak - at_first, most=size.growth)
    return figures


def _peak(pid: int) -> float:
    """The most memory that a process ever had resident, in MiB (Linux only)."""
    status = Path(f"/proc/{pid}/status").read_text()
    match = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert match is not None
    return int(match[1]) / 1024


def _cpu(pid: int) -> float:
    """Seconds of CPU that a process has taken since it was started (Linux only)."""
    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, times)) / os.sysconf("SC_CLK_TCK")
