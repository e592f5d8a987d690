"""How many cores this process may use: what `--processes auto` stands for."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def usable_cores(cgroups: Path = CGROUPS) -> int:
    """Those that it may be scheduled on, or fewer where a container's quota pays for fewer; a part
    of a core counts as one. At least 1."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        cores = os.cpu_count() or 1
    quota = _quota(cgroups)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def _quota(cgroups: Path) -> float | None:
    """Cores that the container may use up at once; None where nothing says so. Inside a container
    its own group is the root of what it sees."""
    try:  # version 2: "150000 100000", or "max 100000"
        most, period = (cgroups / "cpu.max").read_text().split()
        return int(most) / int(period)
    except (OSError, ValueError):
        pass
    try:  # version 1; -1 for no end
        most = (cgroups / "cpu/cpu.cfs_quota_us").read_text()
        period = (cgroups / "cpu/cpu.cfs_period_us").read_text()
        return int(most) / int(period) if int(most) > 0 else None
    except (OSError, ValueError):
        return None
