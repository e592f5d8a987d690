"""`worker drain`: run what is due, then stop. For cron, and for platforms that start on demand."""

from __future__ import annotations

from typing import Any

import click

from worker.cli.common.command import command as verb
from worker.cli.common.output import json_option, show_record
from worker.cli.common.parameters import duration
from worker.cli.common.settings_flags import SettingsCommand

FAILURES = 7
COUNTS = ("settled", "failed", "released", "lost", "left")


@verb("drain", cls=SettingsCommand)
@click.option("--max-seconds", type=duration, help="Claim nothing after this time.")
@click.option("--max-rows", type=click.IntRange(1), help="Claim no more rows than this.")
@json_option
def command(max_seconds: float | None, max_rows: int | None, as_json: bool, **flags: Any) -> int:
    """Run what is due, then stop.

    Gives what was done, and how many rows are left that are due. Exits with 0 also when a budget
    has ended it before everything was done, with 7 when an attempt failed, with 9 when rows had to
    be given back while they ran.
    """
    from worker.cli.common.running import leave, run_worker
    from worker.drain import Budget
    from worker.errors import UsageError
    from worker.settings import Settings

    if flags["processes"] is not None:
        raise UsageError(
            "--processes is for `worker run`",
            why="a drain is one process, and its budget and counts are those of one",
            hint="start several drains at once: they share the rows, and each tells what it did",
        )
    ended = run_worker(Settings.load(**flags), drain=Budget(max_seconds, max_rows))
    report = ended.report
    show_record({name: getattr(report, name) for name in COUNTS}, as_json=as_json)
    return leave(ended, report.code or (FAILURES if report.failed else 0))
