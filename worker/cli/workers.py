"""`worker workers`: the processes that run rows."""

from __future__ import annotations

import click

from worker.cli.common.command import group
from worker.cli.common.database import ask, session, url_option
from worker.cli.common.output import json_option, show_rows

COLUMNS = (
    "id", "name", "state", "host", "pid", "queues", "slots", "running", "settled", "lost", "beat",
    "started_at",
)  # fmt: skip


@group("workers")
def command() -> None:
    """List workers."""


@command.command("list")
@click.option("--all", "ended", is_flag=True, help="Also those that have ended.")
@url_option
@json_option
def list_(ended: bool, database_url: str | None, as_json: bool) -> None:
    """List workers, the latest start first. `beat` is the age of the last heartbeat in seconds."""
    with session(database_url) as connection:
        show_rows(ask(connection, "operate/workers", ended), COLUMNS, as_json=as_json)
