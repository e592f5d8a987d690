"""`worker run`: claim, run and settle rows until stopped."""

from __future__ import annotations

from typing import Any

from worker.cli.common.command import command as verb
from worker.cli.common.settings_flags import SettingsCommand


@verb("run", cls=SettingsCommand)
def command(**flags: Any) -> int:
    """Run due rows until stopped.

    SIGTERM or Ctrl-C drains: what runs may finish within the grace, the rest is given back.
    Exit code 9 says that rows had to be given back while they ran.
    """
    from worker.cli.common.running import leave, run_worker
    from worker.settings import Settings

    ended = run_worker(Settings.load(**flags))
    return leave(ended, ended.report.code)
