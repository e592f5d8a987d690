"""The peak memory of a worker that drains a long queue.

Nearly all of it is what was imported, and of that a third is pages of shared libraries, which
differ from machine to machine. So a leak is looked for in the growth: what more rows add to the
peak of a worker that has done many.

A first worker leaves the modules' bytecode, as pip does when it installs them: one that must
compile what it imports takes twice the CPU until its first row, and a megabyte more.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.figures import Figures
from tests.chaos.place import Place
from tests.chaos.scene import Scene


@dataclass(frozen=True)
class Size:
    """first: rows after which the growth is counted, which `more` rows bring about.
    peak, growth: MiB at most."""

    first: int
    more: int
    peak: float
    growth: float

    @property
    def rows(self) -> int:
        return self.first + self.more


# 4 MiB are 105 bytes for each of 40,000 rows: less than what keeping any of it costs. How deep the
# worker's buffers were filled by then differs by nearly 2.
FULL = SHORT = Size(10_000, 40_000, peak=57.0, growth=4.0)


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
        scene.load(size.first, "plain")
        worker = scene.fleet.start()
        scene.fleet.until(scene.drained)
        at_first = _peak(worker.pid)
        scene.load(size.more, "plain")
        scene.fleet.until(scene.drained, 300)
        peak = _peak(worker.pid)
        scene.fleet.stop(worker)
        scene.fleet.wait_exit(worker)
        done = scene.one("select count(*) from worker.jobs_finished where state = 'done'")
        figures.add("rows done", done, exactly=size.rows)
        figures.add(f"VmHWM after {size.first:,} rows, MiB", at_first)
        figures.add("VmHWM at the end, MiB", peak, most=size.peak)
        figures.add("growth, MiB", peak - at_first, most=size.growth)
    return figures


def _peak(pid: int) -> float:
    """The most memory that a process ever had resident, in MiB (Linux only)."""
    status = Path(f"/proc/{pid}/status").read_text()
    match = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert match is not None
    return int(match[1]) / 1024
