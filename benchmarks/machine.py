"""What the figures were measured on: they mean nothing without it."""

from __future__ import annotations

import datetime as dt
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.server import DURABLE
from tests.postgres import local_binaries, wanted_major

Fact = str | int | float | bool | None | dict[str, str]


def facts() -> dict[str, Fact]:
    """uvloop, asyncpg: their versions; None where not installed. changed: the checkout differs from
    its commit."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _cpu(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "uvloop": _version("uvloop"),
        "asyncpg": _version("asyncpg"),
        "postgres": local_binaries(wanted_major()).version,
        "server": DURABLE,
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "changed": bool(
            _git("status", "--porcelain", "--untracked-files=no", "--", "worker", "sql")
        ),
        "when": dt.datetime.now(dt.UTC).isoformat(timespec="minutes"),
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*command: str) -> str | None:
    """None outside a checkout."""
    done = subprocess.run(
        ["git", *command],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    return done.stdout.strip() if done.returncode == 0 else None
