"""Peak memory of this process. Imports nothing of the project."""

from __future__ import annotations

import re
import resource
from pathlib import Path


def peak_rss_mb() -> float:
    """MB. Not `ru_maxrss` where that can be helped: Linux carries it over an exec, so a child of a
    large process would be told its parent's peak."""
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)
        if found:
            return int(found[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
