"""`worker drain`: run what is due, then stop. For cron, and for platforms that start on demand."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from worker.cli.common.command import command as verb
from worker.cli.common.output import json_option, show_record
from worker.cli.common.parameters import duration
from worker.cli.common.settings_flags import SettingsCommand

FAILURES = 7


@verb("drain", cls=SettingsCommand)
@click.option("--max-seconds", type=duration, help="Claim nothing after this time.")
@click.option("--max-rows", type=click.IntRange(1), help="Claim no more rows than this.")
@json_option
def command(max_seconds: float | None, max_rows: int | None, as_json: bool, **flags: Any) -> int:
    """Run what is due, then stop.

    Gives what was done, and exits with 7 when an attempt failed, with 9 when rows had to be given
    back while they ran.
    """
    from worker.cli.common.running import run_worker
    from worker.runtime import Budget
    from worker.settings import Settings

    report = run_worker(Settings.load(**flags), drain=Budget(max_seconds, max_rows))
    done = {k: v for k, v in dataclasses.asdict(report).items() if k not in ("code", "stuck")}
    show_record(done, as_json=as_json)
    return report.code or (FAILURES if report.failed else 0)
