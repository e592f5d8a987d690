"""Runs several workers, each in a process of its own, under this one as their supervisor."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from pathlib import Path
from typing import Any

from worker.cli.common.running import leave, run_worker
from worker.cli.common.terminal import colours, is_terminal
from worker.observers.lean import structlog
from worker.observers.log import configure
from worker.runtime import unique_name
from worker.settings import Settings
from worker.supervise.parent import Parent
from worker.supervise.supervisor import Supervisor

with contextlib.suppress(ImportError):  # what each process will need, and should share
    import uvloop  # noqa: F401

OWN_CONNECTIONS = 4


def run_processes(settings: Settings, count: int) -> int:
    """The exit code; in a forked child, that of its worker. Raises DuerowError."""
    configure(settings.log_level, settings.log_format, colours=colours(sys.stderr), shared=True)
    for warning in settings.warnings:
        structlog.get_logger("duerow").warning("settings.warning", about=warning)
    supervisor = Supervisor(
        count,
        name=settings.worker_name or unique_name(),
        grace=settings.grace,
        health=settings.health,
        interactive=is_terminal(sys.stdin),
        facts=_facts(settings, count),
    )
    gc.collect()
    ended = supervisor.run()
    return run_one(settings, ended) if isinstance(ended, Parent) else ended


def run_one(settings: Settings, parent: Parent) -> int:
    """One of the processes: an ordinary worker; its exit code."""
    with Path(os.devnull).open("rb") as nothing:  # in the background, reading a terminal stops one
        os.dup2(nothing.fileno(), 0)
    own = settings.model_copy(update={"worker_name": parent.name, "health": None})
    ended = run_worker(own, parent=parent)
    return leave(ended, ended.report.code)


def _facts(settings: Settings, count: int) -> dict[str, Any]:
    """What is the sum of all processes."""
    sessions = settings.pool_size or settings.slots
    return {
        "processes": count,
        "slots": count * settings.slots,
        "connections": f"up to {count * (sessions + OWN_CONNECTIONS)}",
    }
