"""`worker run`: claim, run and settle rows until stopped."""

from __future__ import annotations

from typing import Any

from worker.cli.common.command import command as verb
from worker.cli.common.settings_flags import SettingsCommand


@verb("run", cls=SettingsCommand)
def command(**flags: Any) -> int:
    """Run due rows until stopped.

    SIGTERM or Ctrl-C drains: what runs may finish within the grace, the rest is given back.
    Exit code 9 says that rows had to be given back while they ran. With --processes N this process
    only watches over N others, each a worker.
    """
    from worker.cores import usable_cores
    from worker.settings import Settings
    from worker.supervise.parent import Parent

    parent = Parent.inherited()
    settings = Settings.load(**flags)
    count = usable_cores() if settings.processes == "auto" else settings.processes
    if parent is None and count == 1:
        from worker.cli.common.running import leave, run_worker

        ended = run_worker(settings)
        return leave(ended, ended.report.code)
    from worker.cli.common.processes import run_one, run_processes

    return run_processes(settings, count) if parent is None else run_one(settings, parent)
