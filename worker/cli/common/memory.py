"""`--max-rss-mb`: a worker that has grown past it drains and exits with 0, to be started afresh."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from worker.observers.lean import structlog
from worker.runtime import Worker

EVERY = 2.0  # seconds
MIB = 2**20


def watch_memory(worker: Worker, most_mb: int) -> None:
    """Looks from a thread of its own, so that it sees what a blocking handler takes too."""
    threading.Thread(target=_watch, args=(worker, most_mb), name="memory", daemon=True).start()


def _watch(worker: Worker, most_mb: int) -> None:
    never = threading.Event()
    while not never.wait(EVERY):
        if (now := resident_mb()) >= most_mb:
            log = structlog.get_logger("duerow")
            log.warning("worker.too_large", rss_mb=now, max_rss_mb=most_mb, next="drains and exits")
            worker.stop()
            return


def resident_mb() -> int:
    """Memory of this process in MiB; where /proc does not tell, the most that it ever had."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") // MIB
    except OSError:
        import resource
        import sys

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak // (MIB if sys.platform == "darwin" else 1024)
